"""What happened to trials that did not complete: each fact once, and the end of a long error."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.report.ends import ERROR_SHOWN, REASON_SHOWN, end_cell, end_of, infeasible_words
from tests.support.html_pages import HtmlPage
from tests.support.study_directory import MakeRecord


def test_the_end_of_a_long_error_is_kept(record: MakeRecord) -> None:
    error = "start\n" + "x" * 100_000 + "\nValueError: the end"
    end = end_of(record(status="failed", error=error))
    assert end.error is not None
    assert end.error.endswith("ValueError: the end")
    assert "start" not in end.error
    assert len(end.error) == ERROR_SHOWN + 2


def test_a_long_line_is_cut_and_stands_whole_beneath(record: MakeRecord) -> None:
    end = end_of(record(status="failed", reason=None, error="y" * (REASON_SHOWN + 1)))
    assert end.text == "y" * REASON_SHOWN + " …"
    assert end.error == "y" * (REASON_SHOWN + 1)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"reason": None, "error": None}, ""),
        ({"reason": "it broke", "error": None}, "it broke"),
        ({"reason": "OSError: full", "error": "OSError: full"}, "OSError: full"),
        ({"reason": None, "error": "  \n"}, ""),
        ({"infeasible": {}}, ""),
        ({"infeasible": {"moment": None}}, "at an unknown moment it asked for –, and – were free"),
    ],
)
def test_little_known_ends(record: MakeRecord, changes: dict[str, Any], text: str) -> None:
    end = end_of(record(status="infeasible" if "infeasible" in changes else "failed", **changes))
    assert (end.text, end.error) == (text, None)


def test_the_parts_that_matter_are_told_the_largest_first() -> None:
    parts = {"norms": 1024, "libraries": 2**30, "base_linears": 3 * 2**30, "x": None}
    facts = {"moment": "loss", "requested_bytes": 4 * 2**30, "available_bytes": 2**30}
    assert infeasible_words({**facts, "source": "predicted", "components": parts}) == (
        "most is needed at loss (base linears 3.00 GiB, libraries 1.00 GiB)"
    )
    assert infeasible_words({**facts, "moment": "measuring", "source": "observed"}) == (
        "while measuring it asked for 4.00 GiB, and 1.00 GiB were free"
    )


def test_a_cell_folds_the_error_under_its_line(record: MakeRecord) -> None:
    short = end_cell(record(status="failed", reason="<b>", error=None))
    assert (short.text, short.value, short.markup) == ("<b>", "<b>", '<span class="happened">&lt;b&gt;</span>')
    long = end_cell(record(status="failed", reason="died", error="first\n<last>"))
    assert long.markup is not None
    page = HtmlPage(long.markup)
    assert page.tags == ["div", "details", "summary", "pre"]
    assert page.text == "died; <last>first\n<last>"
    assert end_cell(record(status="failed", reason=None, error=None)).value is None  # sorts last
