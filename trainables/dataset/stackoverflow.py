"""Reads CoNaLa: questions from Stack Overflow, with a line of code as the answer.

Yin et al. 2018, "Learning to Mine Aligned Code and Natural Language Pairs from Stack Overflow", arXiv 1805.08949.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from trainables.dataset.files import DatasetError, RowFault, read_rows
from trainables.dataset.hub import LOCAL_REMEDY, hub_rows, local_file
from trainables.dataset.reading.row_faults import checked, text_faults
from trainables.dataset.splits import Example, Pool
from trainables.shown_values import shown


def stackoverflow_pool(source: str | None) -> Pool:
    """Reads CoNaLa's examples, and the question ids of its official test split.

    `source` is a JSON file, which has no test split, or a hub id; None: CoNaLa's own. Raises DatasetError for "sample".
    """
    source = source or "neulab/conala"
    if source == "sample":
        remedy = f"Name CoNaLa's JSON file, or its hub id. {LOCAL_REMEDY}."
        raise DatasetError(f"dataset.source may be `sample` for pubmedqa only; dataset.name is stackoverflow. {remedy}")
    path = local_file(source)
    if path is not None:
        rows = _numbered(read_rows(path, "dataset.source"))
        return checked(f"dataset.source, {path}", rows, _conala_faults, _conala_example), frozenset()
    splits = hub_rows(source, "curated")
    rows = _numbered((f"{split} {n}", row) for split, rows in splits.items() for n, row in enumerate(rows, start=1))
    test = frozenset(str(row["question_id"]) for row in splits.get("test", []) if "question_id" in row)
    return checked(f"dataset.source, {source}", rows, _conala_faults, _conala_example), test


def _numbered(rows: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The rows under the names `question_id-n`, n counting a question's rows from 1; malformed ones keep theirs."""
    seen: Counter[str] = Counter()
    named = []
    for where, row in rows:
        if isinstance(row, Mapping) and not _conala_faults(row):
            question = str(row["question_id"])
            seen[question] += 1
            where = f"{question}-{seen[question]}"
        named.append((where, row))
    return named


def _conala_faults(row: Any) -> list[RowFault]:
    rewritten = isinstance(row, Mapping) and row.get("rewritten_intent") is not None
    faults = text_faults(row, ("intent", "snippet", *(("rewritten_intent",) if rewritten else ())))
    if not isinstance(row, Mapping):
        return faults
    question = row.get("question_id")
    if isinstance(question, bool) or not isinstance(question, int | str):
        faults.append(RowFault("`question_id` must be a number or a text", "it is not", "Add it.", shown(question)))
    return faults


def _conala_example(row_id: str, row: Mapping[str, Any]) -> Example:
    intent = (row.get("rewritten_intent") or row["intent"]).strip()
    return Example(
        prompt_head=f"Question: {intent}\nCode:\n",
        context="",
        prompt_tail="",
        completion=row["snippet"],
        label=None,
        group=str(row["question_id"]),
        row_id=row_id,
    )
