"""When a study came to what and where its wall time went, against counting it second by second."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.records.timeline.milestones import (
    AT_WORK,
    BESIDE,
    ELSE,
    LOADING,
    MOST_KINDS,
    Milestones,
    host_seconds,
    milestones,
    time_by_kind,
)
from trainables.timeline import DRIVER, FIRST_LINE, PART, Stage

HOST, OTHER_HOST = "host 1 nf4 on card 0 of n", "host 2 nf4 on card 1 of n"
STUDY = (
    Stage.whole(DRIVER, "interpreter", 100, 101),
    Stage.whole(DRIVER, "checks", 101, 104),
    Stage.whole(DRIVER, FIRST_LINE, 104, 104),
    Stage.whole(DRIVER, "Ray starts", 104, 108),
    Stage.whole(DRIVER, "trials in nf4", 109, 130),
    Stage.whole(HOST, "starting", 110, 112),
    Stage.whole(HOST, "base model", 112, 115),
    Stage.whole(HOST, f"base model{PART}reading", 112, 114),
    Stage.whole(HOST, "measuring", 115, 117),
    Stage.whole(HOST, "training", 117, 124),
    Stage.whole(HOST, "evaluating", 124, 125),
    Stage.whole(HOST, "testing", 125, 126),
    Stage.whole(DRIVER, "report", 130, 132),
    Stage.whole(DRIVER, "Ray ends", 130, 134),
)


def test_milestones_are_counted_from_the_command_on() -> None:
    assert milestones(STUDY) == Milestones(4.0, 17.0, 34.0, pytest.approx(8 / 34))


def test_each_moment_counts_once_as_the_most_useful_thing_then_done() -> None:
    assert time_by_kind(STUDY) == pytest.approx(
        {
            AT_WORK: 8,
            "measuring costs": 2,
            "testing, sampling and handing over": 1,
            LOADING: 5,
            "interpreter": 1,
            "checks": 3,
            "Ray starts": 4,
            "report": 2,
            "Ray ends": 2,  # the other two beside the report
            BESIDE: 5,
            ELSE: 1,
        }
    )


def test_what_a_second_host_does_beside_the_first_takes_no_time_of_its_own() -> None:
    beside = [Stage.whole(OTHER_HOST, "training", 120, 125), Stage.whole(OTHER_HOST, "imports", 116, 120)]
    assert time_by_kind([*STUDY, *beside]) == time_by_kind(STUDY)
    waits = Stage.whole(HOST, "waiting for a trial", 126, 130)
    assert time_by_kind([*STUDY, waits]) == time_by_kind(STUDY)


def test_a_sum_of_stretches_counts_as_spread_over_its_time() -> None:
    half = Stage(HOST, "training", 0, 10, 5.0, 7)
    rest = Stage(HOST, "evaluating", 0, 10, 2.0, 7)
    loading = Stage.whole(OTHER_HOST, "imports", 0, 10)
    assert time_by_kind([half, rest, loading]) == pytest.approx({AT_WORK: 7, LOADING: 3, ELSE: 0})
    assert milestones([half, half, half]).at_work_share == 1.0


def test_a_study_that_came_to_nothing_has_no_milestones() -> None:
    assert milestones(()) == Milestones(None, None, 0.0, 0.0)
    assert milestones(STUDY[:2]) == Milestones(None, None, 4.0, 0.0)
    assert time_by_kind(()) == {ELSE: 0.0}


NAMES = {
    DRIVER: ("checks", "Ray starts", "trials in nf4"),
    HOST: ("imports", "training", "measuring"),
    "trial a": ("x",),
}


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    process = draw(st.sampled_from(sorted(NAMES)))
    began, ended = sorted((draw(st.integers(0, 30)), draw(st.integers(0, 30))))
    return Stage.whole(process, draw(st.sampled_from(NAMES[process])), float(began), float(ended))


@given(st.lists(stages(), max_size=12))
def test_kinds_are_those_of_a_count_second_by_second(run: list[Stage]) -> None:
    found = time_by_kind(run)
    driver = [one.began for one in run if one.process == DRIVER]
    zero = min(driver or [one.began for one in run], default=0)
    wall = max((one.ended for one in run), default=zero) - zero
    assert sum(found.values()) == pytest.approx(wall)
    useful = [("training", AT_WORK), ("measuring", "measuring costs"), ("imports", LOADING)]
    expected = dict.fromkeys([kind for _, kind in useful], 0)
    for second in range(int(zero), int(zero + wall)):
        there = {one.name for one in run if one.began <= second < one.ended}
        first = next((kind for name, kind in useful if name in there), None)
        if first:
            expected[first] += 1
    assert {kind: found.get(kind, 0) for kind in expected} == pytest.approx(expected)


def test_a_foreign_run_of_many_names_is_counted_without_end() -> None:
    many = [Stage.whole(DRIVER, f"stage {number}", number, number + 1) for number in range(5000)]
    found = time_by_kind(many)
    assert len(found) <= MOST_KINDS + 2
    assert sum(found.values()) == pytest.approx(5000)


def test_a_hosts_seconds_are_counted_from_its_first_packed_step_on() -> None:
    assert host_seconds(STUDY) == {
        "1 nf4 on card 0 of n": {"training": 7, "evaluating": 1, "testing": 1, "waiting": 0, "all": 9}
    }
    assert host_seconds(STUDY[:9]) == {"1 nf4 on card 0 of n": {}}
