"""How many adapters share a device: brute force over all choices of them, and rounds simulated with the time model."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.plan.fitting import Fit, fit
from study.plan.places import WHOLE, AdapterBytes, any_that_fit, equal_places, most_bytes, rounds_of
from study.plan.time_model import step_seconds
from tests.support.plan_cases import GIB, cards, config, workload

ADAPTERS = st.lists(st.builds(AdapterBytes, st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=7)


def held_bytes(adapters: tuple[AdapterBytes, ...], in_a_pass: int) -> int:
    """The most that these hold: all states, and the rows of the worst choice of micro-batches for one pass."""
    passes = combinations([one.rows_bytes for one in adapters], min(in_a_pass, len(adapters)))
    return sum(one.state_bytes for one in adapters) + max(map(sum, passes))


@given(ADAPTERS, st.integers(1, 7), st.integers(1, 7))
def test_the_bound_holds_for_any_choice_and_is_reached_where_a_pass_has_all_rows(
    adapters: list[AdapterBytes], together: int, in_a_pass: int
) -> None:
    together = min(together, len(adapters))
    worst = max(held_bytes(chosen, in_a_pass) for chosen in combinations(adapters, together))
    assert worst <= most_bytes(adapters, together, in_a_pass)
    if together <= in_a_pass:
        assert worst == most_bytes(adapters, together, in_a_pass)


@given(ADAPTERS, st.integers(0, 400), st.integers(1, 7))
def test_any_so_many_adapters_fit_the_room_together(adapters: list[AdapterBytes], room: int, in_a_pass: int) -> None:
    count = any_that_fit(adapters, room, in_a_pass)
    for fewer in range(1, count + 1):
        assert all(held_bytes(chosen, in_a_pass) <= room for chosen in combinations(adapters, fewer))
    if count < len(adapters):
        assert most_bytes(adapters, count + 1, in_a_pass) > room


@pytest.mark.parametrize(
    ("trials", "devices", "most", "places"),
    [(16, 1, 14, 8), (16, 1, 16, 16), (20, 1, 16, 10), (17, 1, 16, 9), (48, 1, 14, 12), (5, 1, 4, 3), (9, 4, 2, 2),
     (20, 4, 8, 5), (1, 4, 8, 1), (100, 2, 8, 8), (0, 1, 4, 1)],
)  # fmt: skip
def test_rounds_are_equal(trials: int, devices: int, most: int, places: int) -> None:
    assert equal_places(trials, devices, most) == places


def slowest(trials: int, devices: int, places: int) -> list[int]:
    """The fullest device of each round, where devices fill one after the other."""
    found = []
    while trials > 0:
        found.append(min(places, trials))
        trials -= min(trials, places * devices)
    return found


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 40))
def test_no_places_take_fewer_or_shorter_rounds(trials: int, devices: int, most: int) -> None:
    def cost(places: int) -> tuple[int, int]:
        rounds = slowest(trials, devices, places)
        return len(rounds), sum(rounds)

    found = equal_places(trials, devices, most)
    assert found == min(range(1, most + 1), key=lambda places: (*cost(places), places))


@given(st.lists(st.sampled_from([625, 833, 1000, 3333, 5000, 6666, WHOLE]), max_size=30), st.integers(1, 4))
def test_rounds_have_every_trial_once_and_no_place_that_a_waiting_one_could_take(
    shares: list[int], devices: int
) -> None:
    rounds = rounds_of(shares, devices, len(shares) or 1)
    assert sum(map(sum, rounds)) == len(shares)
    assert all(len(packs) <= devices and min(packs) > 0 for packs in rounds)
    assert len(rounds) >= -(-sum(shares) // (WHOLE * devices))


def test_what_finds_no_room_waits_and_a_later_one_takes_the_place() -> None:
    assert rounds_of([6666, 6666, 3333], 1, 3) == [(2,), (1,)]
    assert rounds_of([5000] * 4, 2, 4) == [(2, 2)]
    assert rounds_of([5000] * 4, 2, 3) == [(2, 1), (1,)]


def capped(longest: int = 512, micro_batch_size: int = 1) -> Fit:
    """Rank 16 on all linear layers of Llama-3-8B, on an H200 of which 14.56 GiB are used."""
    target = dataclasses.replace(cards("h200", count=1), limit_bytes=round(14.56 * GIB))
    return fit(config(rank=16, targets="all_linear"), workload(longest, micro_batch_size=micro_batch_size), target)


def seconds(rounds: list[tuple[int, ...]], name: str, one: Fit, tokens: int) -> float:
    """A step of every pack, round by round, on the slowest device."""
    load, target = dataclasses.replace(workload(), train_tokens=450 * tokens), cards(name, count=1)
    load = dataclasses.replace(load, training=dataclasses.replace(load.training, gradient_accumulation_steps=1))
    return sum(max(step_seconds(one, pack, pack * 10.0, load, target) for pack in packs) for packs in rounds)


@given(
    trials=st.integers(1, 60), devices=st.integers(1, 3), most=st.integers(1, 16),
    name=st.sampled_from(["t4", "h200"]), tokens=st.sampled_from([64, 256, 512]),
)  # fmt: skip
def test_equal_rounds_take_no_longer_than_full_ones_and_a_rest(
    trials: int, devices: int, most: int, name: str, tokens: int
) -> None:
    """Simulated with the time model: a step costs a pass' launches or dequantization and arithmetic for each adapter.

    Devices fill one after the other, so that a last round that does not fill them may be a little longer by its size.
    """
    one = capped()
    places = equal_places(trials, devices, most)
    equal, full = (rounds_of([WHOLE // n] * trials, devices, n * devices) for n in (places, most))
    assert len(equal) <= len(full)
    assert seconds(equal, name, one, tokens) <= 1.001 * seconds(full, name, one, tokens)
