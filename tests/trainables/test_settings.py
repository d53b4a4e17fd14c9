"""Rungs as optimizer steps: closed forms, and what holds for any."""

from hypothesis import given
from hypothesis import strategies as st

from trainables.settings import RungSettings


def test_rungs_are_rounded_up_and_moved_out_of_the_grace() -> None:
    assert RungSettings((1 / 16, 3 / 16, 3 / 8)).steps(28) == (2, 6, 11)
    assert RungSettings((1 / 16, 1 / 2, 3 / 4), grace_steps=16).steps(28) == (16, 21)
    assert RungSettings((0.5, 0.75), grace_steps=28).steps(28) == ()
    assert RungSettings((0.01,)).steps(1) == ()
    assert RungSettings().steps(28) == ()


@given(st.lists(st.floats(0.001, 0.999), max_size=6).map(sorted), st.integers(0, 50), st.integers(1, 200))
def test_rungs_lie_between_the_grace_and_the_end(fractions: list[float], grace: int, total: int) -> None:
    steps = RungSettings(tuple(fractions), grace).steps(total)
    assert list(steps) == sorted(set(steps))
    assert all(max(1, grace) <= step < total for step in steps)
    assert len(steps) <= len(fractions)
