"""The page of published results is what its command writes, and keeps measured and predicted apart."""

from __future__ import annotations

import re

import pytest

from study.hardware.gpu_catalogue import find_gpu
from tests.benchmarks.results_page.markdown import markdown_table
from tests.benchmarks.results_page.page import PAGE, page
from tests.benchmarks.results_page.planned_study import planned_section, planned_text
from tests.benchmarks.results_page.predictions import GRID, SHAPES, predicted_fit, prediction_section
from tests.benchmarks.results_page.studies import ending
from tests.support.plan_cases import LLAMA_3_8B
from tests.support.study_directory import make_record


@pytest.fixture(scope="module")
def written() -> str:
    """The page, made once."""
    return page()


def test_the_page_is_what_the_files_say(written: str) -> None:
    remedy = "Write it anew: python -m tests.benchmarks.results_page"
    assert PAGE.read_text(encoding="utf-8") == written, remedy


def test_no_table_has_a_prediction_in_a_measured_column(written: str) -> None:
    measured, predicted = written.split("\n## Predicted", 1)
    for line in (line for line in measured.splitlines() if line.startswith("| trial |")):
        assert [name.strip() for name in line.split("|") if "predict" in name] == ["predicted peak"]
    assert "measured" not in predicted.split("\n## Not measured")[0].replace("How each number is measured", "")


def test_fp16_llama_3_8b_has_no_room_by_itself_on_a_t4_and_nf4_has() -> None:
    assert SHAPES["Llama-3-8B"] == LLAMA_3_8B
    fits = {one: predicted_fit(LLAMA_3_8B, find_gpu("t4"), *one) for one in GRID}
    resident = {one: found.fits and found.setting.offload.is_none for one, found in fits.items()}
    assert resident == {one: one[0] == "nf4" for one in GRID}
    rows = re.findall(r"^\| fp16, rank \d+, \w+ \| (.*?) \|", prediction_section().split("###")[1], flags=re.MULTILINE)
    assert len(rows) == 4
    assert all(row.startswith("**out of memory** (1") or row.endswith("in host memory") for row in rows)


def test_the_plan_of_one_t4_has_every_configuration_of_the_grid() -> None:
    words = planned_text()
    rows = re.findall(r"^ *(fp16|nf4) +(8|64) +(q_v|all_linear) ", words, flags=re.MULTILINE)
    assert sorted(rows) == sorted((precision, str(rank), targets) for precision, rank, targets in GRID)
    assert words.split("\n\n", 1)[1] in planned_section()


def test_how_a_trial_ended() -> None:
    assert ending(make_record()) == "complete"
    asked = {"moment": "training", "requested_bytes": 2, "available_bytes": 1, "source": "predicted"}
    assert ending(make_record(status="infeasible", infeasible=asked)) == "out of memory, predicted"
    assert (
        ending(make_record(status="infeasible", infeasible={**asked, "source": "observed"}))
        == "out of memory, observed"
    )


def test_a_table_of_markdown() -> None:
    assert markdown_table(("a", "b|c"), [("1", "two\nlines")]) == "| a | b\\|c |\n|---|---|\n| 1 | two lines |\n"
    with pytest.raises(ValueError, match="must have 1 cells; it has 2"):
        markdown_table(("a",), [("1", "2")])
