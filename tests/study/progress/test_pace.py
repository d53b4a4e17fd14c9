"""The estimated time left: closed forms, and studies played through with known durations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.progress.pace import Pace, Remaining
from trainables.protocol import ResidentStatus, Stage


def status(trial_id: str, stage: Stage, step: int = 0, total: int = 10) -> ResidentStatus:
    return ResidentStatus(trial_id, stage, step, total)


def seconds_counted(pace: Pace) -> float:
    """All time that was counted for some work, or is still open: none may be lost or counted twice."""
    return sum(pace._seconds.values()) + pace._open_seconds


def test_nothing_is_promised_before_training_was_seen() -> None:
    pace = Pace({"bf16": 2})
    pace.advance(0.0)
    assert pace.remaining() is None
    pace.advance(30.0)
    pace.note([("bf16", status("t0", "measuring"))])
    pace.advance(40.0)
    pace.note([("bf16", status("t0", "training", step=0))])
    assert pace.remaining() is None


def test_one_trial_after_another_in_closed_form() -> None:
    pace = Pace({"bf16": 2})
    pace.advance(0.0)
    pace.advance(7.0)  # loading
    pace.note([("bf16", status("t0", "measuring"))])
    pace.advance(10.0)  # 3 s of measuring
    pace.note([("bf16", status("t0", "training", step=0))])
    pace.advance(20.0)  # 10 s for half of the training
    pace.note([("bf16", status("t0", "training", step=5))])
    half = 10.0 + 20.0 + 3.0  # the other half, all of t1's training, its measuring; the finish was never seen
    assert pace.remaining() == Remaining(pytest.approx(half), complete=False)
    pace.advance(30.0)
    pace.note([("bf16", status("t0", "finishing", step=10))])
    pace.advance(34.0)  # 4 s of finishing
    pace.note_end("bf16", "t0", complete=True)
    assert pace.remaining() == Remaining(pytest.approx(3.0 + 20.0 + 4.0), complete=True)


def test_a_standstill_makes_the_rest_longer() -> None:
    pace = Pace({"bf16": 1})
    pace.advance(0.0)
    pace.note([("bf16", status("t0", "training", step=0))])
    pace.advance(10.0)
    pace.note([("bf16", status("t0", "training", step=5))])
    before = pace.remaining()
    pace.advance(50.0)
    after = pace.remaining()
    assert before is not None
    assert after is not None
    assert (before.seconds, after.seconds) == (pytest.approx(10.0), pytest.approx(50.0))


def test_work_brought_along_from_a_checkpoint_does_not_count_as_seen() -> None:
    pace = Pace({"bf16": 1})
    pace.advance(0.0)
    pace.note([("bf16", status("t0", "training", step=8))])
    pace.advance(10.0)
    pace.note([("bf16", status("t0", "training", step=9))])  # 10 s for a tenth
    remaining = pace.remaining()
    assert remaining is not None
    assert remaining.seconds == pytest.approx(10.0)


def test_a_trial_that_fell_back_must_do_its_steps_again() -> None:
    pace = Pace({"bf16": 1})
    pace.advance(0.0)
    pace.note([("bf16", status("t0", "training", step=0))])
    pace.advance(8.0)
    pace.note([("bf16", status("t0", "training", step=8))])
    pace.note([("bf16", status("t0", "training", step=4))])  # its host died
    remaining = pace.remaining()
    assert remaining is not None
    assert remaining.seconds == pytest.approx(6.0)


def test_another_precision_is_taken_for_as_dear_but_not_as_known() -> None:
    pace = Pace({"bf16": 1, "nf4": 1})
    pace.advance(0.0)
    pace.advance(5.0)
    pace.note([("bf16", status("t0", "training", step=0))])
    pace.advance(15.0)
    pace.note([("bf16", status("t0", "finishing", step=10))])
    pace.advance(17.0)
    pace.note_end("bf16", "t0", complete=True)
    assert pace.remaining() == Remaining(pytest.approx(5.0 + 10.0 + 2.0), complete=False)


def test_a_clock_that_goes_back_changes_nothing() -> None:
    pace = Pace({"bf16": 1})
    pace.advance(10.0)
    pace.advance(20.0)
    pace.advance(5.0)
    pace.advance(21.0)
    assert seconds_counted(pace) == pytest.approx(11.0)


# ----------------------------------------------------------------------------------------------------------------------
# Studies played through: a card that loads, then trains packs of `places` trials, one unit of work after the other


@dataclass(frozen=True)
class Durations:
    """Seconds that each piece of work takes."""

    loading: float
    measuring: float
    step: float  # of a whole pack
    finishing: float


Moment = tuple[float, list[ResidentStatus], list[str]]  # when, who is at work, who has just ended


def play(trials: int, places: int, steps: int, took: Durations) -> Iterator[Moment]:
    now = took.loading
    for start in range(0, trials, places):
        pack = [f"t{number}" for number in range(start, min(start + places, trials))]
        for done in range(len(pack) + 1):
            yield (
                now,
                [status(name, "training" if i < done else "measuring", 0, steps) for i, name in enumerate(pack)],
                [],
            )
            now += took.measuring if done < len(pack) else 0.0
        for step in range(1, steps + 1):
            now += took.step
            yield now, [status(name, "finishing" if step == steps else "training", step, steps) for name in pack], []
        for done, name in enumerate(pack, 1):
            now += took.finishing
            yield now, [status(other, "finishing", steps, steps) for other in pack[done:]], [name]


durations = st.builds(
    Durations,
    loading=st.floats(0.1, 60),
    measuring=st.floats(0.0, 10),
    step=st.floats(0.01, 10),
    finishing=st.floats(0.0, 20),
)


@settings(max_examples=60, deadline=None)
@given(durations, st.integers(1, 5), st.integers(1, 4), st.integers(1, 6))
def test_steady_studies_are_foreseen(took: Durations, packs: int, places: int, steps: int) -> None:
    """Full packs of equal trials: foreseen exactly from the first end on, and before that at most what is left."""
    moments = list(play(packs * places, places, steps, took))
    end = moments[-1][0]
    pace = Pace({"bf16": packs * places})
    pace.advance(0.0)
    ended = 0
    for now, at_work, over in moments:
        pace.advance(now)
        for name in over:
            pace.note_end("bf16", name, complete=True)
        pace.note([("bf16", one) for one in at_work])
        ended += len(over)
        remaining = pace.remaining()
        assert seconds_counted(pace) == pytest.approx(now)
        if remaining is None:
            assert ended == 0
            continue
        assert math.isfinite(remaining.seconds)
        assert remaining.seconds >= 0.0
        if ended:
            assert remaining.complete
            assert remaining.seconds == pytest.approx(end - now, rel=1e-6, abs=1e-6)
        else:
            assert not remaining.complete
            assert remaining.seconds <= (end - now) * (1 + 1e-6) + 1e-6
    assert pace.remaining() == Remaining(0.0, complete=True)


words = st.tuples(
    st.sampled_from(["t0", "t1", "t2"]),
    st.sampled_from(["loading", "measuring", "training", "evaluating", "finishing", "ended"]),
    st.integers(0, 12),
    st.integers(0, 10),
    st.floats(-1, 100),
    st.sampled_from([None, None, True, False]),  # ended: complete or not
)


@settings(deadline=None)
@given(st.lists(words, max_size=40))
def test_whatever_is_said_the_estimate_is_finite_and_not_negative(
    said: list[tuple[str, Stage, int, int, float, bool | None]],
) -> None:
    pace = Pace({"bf16": 2, "nf4": 1})
    now = 0.0
    over: set[str] = set()
    for name, stage, step, total, seconds, ended in said:
        now += seconds
        pace.advance(now)
        if name in over:
            continue
        precision = "nf4" if name == "t2" else "bf16"
        if ended is None:
            pace.note([(precision, status(name, stage, step, total))])
        else:
            pace.note_end(precision, name, ended)
            over.add(name)
        remaining = pace.remaining()
        assert remaining is None or (math.isfinite(remaining.seconds) and remaining.seconds >= 0.0)
    if len(over) == 3:
        assert pace.remaining() == Remaining(0.0, complete=True)
