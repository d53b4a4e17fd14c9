"""The time line of a process: what is recorded, what is merged, and that it stays small."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables import timeline as module
from trainables.timeline import (
    LONGEST_START_SECONDS,
    MOST_NAMES,
    MOST_WHOLE,
    OTHER,
    Stage,
    Timeline,
    interpreter_began,
    merged,
    process_began,
)

TIMES = st.floats(0, 1e6)
NAMES = st.sampled_from(["imports", "training", "evaluating"])


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    began, lasted = draw(TIMES), draw(TIMES)
    return Stage.whole("p", draw(NAMES), began, began + lasted)


@given(stages(), stages(), stages())
def test_merging_is_independent_of_order_and_keeps_span_seconds_and_count(one: Stage, two: Stage, three: Stage) -> None:
    left = merged(merged(one, two), three)
    right = merged(one, merged(two, three))
    assert (left.began, left.ended, left.times) == (right.began, right.ended, right.times)
    assert left.times == 3
    assert (left.began, left.ended) == (
        min(s.began for s in (one, two, three)),
        max(s.ended for s in (one, two, three)),
    )
    total = one.seconds + two.seconds + three.seconds
    assert left.seconds <= left.ended - left.began
    assert left.seconds <= total or left.seconds == pytest.approx(total)


@given(st.lists(st.tuples(st.integers(0, 2 * MOST_NAMES), st.floats(0, 5), st.floats(0, 5)), max_size=400))
def test_a_time_line_stays_small_and_loses_no_second(steps: list[tuple[int, float, float]]) -> None:
    """One stretch after another: their sum is kept however many there are."""
    line, now = Timeline(), 0.0
    for number, pause, lasts in steps:
        line.note(f"work {number}", now + pause, now + pause + lasts)
        now += pause + lasts
    found = line.stages()
    assert len(found) <= MOST_WHOLE + MOST_NAMES + 1
    assert sum(one.times for one in found) == len(steps)
    assert sum(one.seconds for one in found) == pytest.approx(sum(lasts for _, _, lasts in steps), abs=1e-6)
    assert [one.began for one in found] == sorted(one.began for one in found)


def test_names_beyond_the_most_are_summed_as_other() -> None:
    line = Timeline()
    for number in range(MOST_WHOLE + MOST_NAMES + 7):
        line.note(f"work {number}", number, number + 1)
    other = line.stages()[-1]
    assert (other.name, other.times, other.seconds) == (OTHER, 7, 7.0)


def test_a_stage_takes_what_is_done_inside_also_where_that_fails() -> None:
    line = Timeline()
    line.begin("host 1")
    before = time.time()
    with suppress(ValueError), line.stage("imports"):
        time.sleep(0.02)
        raise ValueError("broken")
    (one,) = line.stages()
    assert (one.process, one.name, one.times) == ("host 1", "imports", 1)
    assert one.seconds >= 0.02
    assert before - 0.1 <= one.began <= one.ended <= time.time() + 0.1


def test_what_is_inside_another_stage_of_the_thread_is_a_part_of_it() -> None:
    line = Timeline()
    with line.stage("base model"):
        with line.stage("reading"):
            pass
        beside = threading.Thread(target=lambda: line.note("messages", 1.0, 2.0))
        beside.start()
        beside.join()
    assert {one.name: one.is_part for one in line.stages()} == {
        "base model": False,
        "base model / reading": True,
        "messages": False,
    }


def test_work_in_many_short_stretches_is_one_stage_until_other_work_comes_between() -> None:
    line = Timeline()
    for work in ("training", "training", "evaluating", "training", "training", "training"):
        with line.stage(work, joins=True), line.stage("part"):
            pass
    found = [(one.name, one.times) for one in line.stages() if not one.is_part]
    assert sorted(found) == [("evaluating", 1), ("training", 2), ("training", 3)]


def test_a_moment_is_marked_once() -> None:
    line = Timeline()
    line.mark("first line")
    line.mark("first line")
    (one,) = line.stages()
    assert one.seconds == 0.0


def test_other_processes_stages_replace_what_was_taken_of_them_before() -> None:
    line = Timeline()
    line.note("imports", 5.0, 6.0)
    line.take([Stage.whole("host", "imports", 1.0, 2.0), Stage.whole("trial", "joining", 3.0, 4.0)])
    line.take([Stage.whole("host", "imports", 1.0, 2.0), Stage.whole("host", "training", 2.0, 3.0)])
    assert [(one.process, one.name) for one in line.stages()] == [
        ("host", "imports"),
        ("host", "training"),
        ("trial", "joining"),
        ("driver", "imports"),
    ]
    line.begin("driver")
    assert line.stages() == ()


def test_several_threads_lose_nothing() -> None:
    line = Timeline()

    def work() -> None:
        for _ in range(200):
            with line.stage("work"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.times for one in line.stages()) == 800
    assert line.changes == 800


def test_a_process_began_before_now_and_not_long_before_its_first_code() -> None:
    assert 0 <= time.time() - process_began() < 24 * 3600
    line = Timeline()
    line.begin("driver", from_start=True)
    (one,) = line.stages()
    assert one.name == "interpreter"
    assert one.began == pytest.approx(interpreter_began(), abs=0.5)


def test_what_a_shell_did_before_it_became_python_is_no_start_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.time()
    monkeypatch.setattr(module, "process_began", lambda: now - LONGEST_START_SECONDS / 2)
    assert interpreter_began() == now - LONGEST_START_SECONDS / 2
    monkeypatch.setattr(module, "process_began", lambda: now - 2 * LONGEST_START_SECONDS - time.process_time())
    assert time.time() - time.process_time() == pytest.approx(interpreter_began(), abs=0.5)
