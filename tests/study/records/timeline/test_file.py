"""The file of a study's time line: what is written is read again, and what somebody has put there is not believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.errors import StoreError
from study.records.timeline.file import MOST_RUNS, read_timeline, write_timeline
from trainables.timeline import DRIVER, Stage

MOMENTS = st.integers(0, 10**9).map(lambda milliseconds: milliseconds / 1000)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    one, other = sorted((draw(MOMENTS), draw(MOMENTS)))
    names = (draw(st.sampled_from([DRIVER, "host 1"])), draw(st.sampled_from(["imports", "training"])))
    whole = Stage.whole(*names, one, other)
    return whole if draw(st.booleans()) else Stage(*names, one, other, whole.seconds / 2, draw(st.integers(2, 99)))


@given(st.lists(stages(), min_size=1, max_size=5))
def test_what_is_written_is_read_again_to_the_millisecond(tmp_path_factory: Any, run: list[Stage]) -> None:
    directory = tmp_path_factory.mktemp("study")
    write_timeline(directory, run)
    (found,) = read_timeline(directory)
    assert [(s.process, s.name, s.times) for s in found] == [(s.process, s.name, s.times) for s in run]
    for read, written in zip(found, run, strict=True):
        assert (read.began, read.ended, read.seconds) == pytest.approx(
            (written.began, written.ended, written.seconds), abs=1e-3
        )


def test_a_run_is_written_in_its_own_place_and_a_resumption_after_it(tmp_path: Path) -> None:
    first, grown = Stage.whole(DRIVER, "checks", 10.0, 11.0), Stage.whole(DRIVER, "report", 12.0, 13.0)
    again = Stage.whole(DRIVER, "checks", 50.0, 51.0)
    write_timeline(tmp_path, [first])
    write_timeline(tmp_path, [first, grown])
    write_timeline(tmp_path, [again])
    assert [[s.name for s in run] for run in read_timeline(tmp_path)] == [["checks", "report"], ["checks"]]
    for number in range(2 * MOST_RUNS):
        write_timeline(tmp_path, [Stage.whole(DRIVER, "checks", 100.0 + number, 200.0)])
    assert len(read_timeline(tmp_path)) == MOST_RUNS


def test_a_study_without_a_time_line_has_no_runs(tmp_path: Path) -> None:
    assert read_timeline(tmp_path) == ()


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"runs": [' + "[" * 200 + "]" * 200 + "]}"])
def test_what_is_no_time_line_is_refused_in_words_and_written_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "timeline.json").write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match=r"timeline\.json"):
        read_timeline(tmp_path)
    write_timeline(tmp_path, [Stage.whole(DRIVER, "checks", 1.0, 2.0)])
    assert len(read_timeline(tmp_path)) == 1


@given(ANYTHING, ANYTHING)
def test_no_value_of_a_foreign_file_breaks_the_reader(tmp_path_factory: Any, stage: Any, runs: Any) -> None:
    directory = tmp_path_factory.mktemp("study")
    good = {"process": "driver", "name": "checks", "began": 1, "ended": 2}
    for values in (
        {"runs": runs},
        {"runs": [{"stages": [stage, good]}]},
        {"runs": [{"stages": [{**good, "times": stage}]}]},
    ):
        (directory / "timeline.json").write_text(json.dumps(values), encoding="utf-8")
        for run in read_timeline(directory):
            for one in run:
                assert 0 <= one.seconds <= one.ended - one.began
                assert one.times >= 1


@pytest.mark.parametrize(
    "change",
    [
        {"began": float("nan")},
        {"ended": float("inf")},
        {"ended": 0},
        {"began": -1},
        {"began": True},
        {"name": ""},
        {"name": "x" * 10_000},
        {"process": None},
        {"seconds": "many"},
        {"times": 0},
        {"times": 10**30},
    ],
)
def test_a_stage_with_a_value_that_cannot_be_is_left_out(tmp_path: Path, change: dict[str, Any]) -> None:
    good = {"process": "driver", "name": "checks", "began": 1, "ended": 2}
    text = json.dumps({"runs": [{"stages": [good, {**good, **change}]}]})
    (tmp_path / "timeline.json").write_text(text, encoding="utf-8")
    assert read_timeline(tmp_path) == ((Stage.whole("driver", "checks", 1, 2),),)
