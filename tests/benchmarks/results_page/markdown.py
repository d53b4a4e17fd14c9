"""Tables as GitHub's Markdown writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as GitHub reads it. Raises ValueError where a row has another length than the headings."""
    return "\n".join(_lines(headings, rows)) + "\n"


def _lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(map(cell, headings))} |"
    yield "|" + "---|" * len(headings)
    for row in rows:
        if len(row) != len(headings):
            raise ValueError(f"a row must have {len(headings)} cells; it has {len(row)}: {row}")
        yield f"| {' | '.join(map(cell, row))} |"


def cell(text: str) -> str:
    """A text that may stand in a cell: on one line, its bars escaped once."""
    return " ".join(text.replace("\\|", "|").replace("|", "\\|").split())
