"""Tolerant fronts against brute force; probabilities and hypervolume intervals against cases that can be counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.pareto import non_dominated
from analysis.statistics.front_uncertainty import (
    configuration_key,
    front_probabilities,
    front_uncertainty,
    hypervolume_interval,
    likeliest_members,
    tolerant_front,
)
from study.records.objectives import Objective
from study.records.record import TrialRecord

MakeRecord = Callable[..., TrialRecord]
VALUE = st.one_of(st.integers(0, 5).map(float), st.sampled_from([math.nan, math.inf, -math.inf]))
POINTS = st.lists(st.tuples(VALUE, VALUE), max_size=9)
GIB = 2**30


def brute_tolerant(points: list[tuple[float, float]], tolerances: tuple[float, float]) -> list[bool]:
    """One row at a time, by the definition."""
    finite = [all(map(math.isfinite, point)) for point in points]
    mask = []
    for point, usable in zip(points, finite, strict=True):
        goal = [value - slack for value, slack in zip(point, tolerances, strict=True)]
        rivals = [other for other, ok in zip(points, finite, strict=True) if ok]
        out = any(x <= goal[0] and y <= goal[1] and (x < goal[0] or y < goal[1]) for x, y in rivals)
        mask.append(usable and not out)
    return mask


@given(POINTS, st.tuples(st.sampled_from([0.0, 0.5, 1.0, 3.0]), st.sampled_from([0.0, 1.0])))
def test_tolerant_front_is_brute_force(points: list[tuple[float, float]], tolerances: tuple[float, float]) -> None:
    assert tolerant_front(points, tolerances).tolist() == brute_tolerant(points, tolerances)


@given(POINTS)
def test_without_tolerance_it_is_the_front_and_it_only_grows(points: list[tuple[float, float]]) -> None:
    strict = tolerant_front(points, (0.0, 0.0))
    assert strict.tolist() == non_dominated(points).tolist()
    assert not (strict & ~tolerant_front(points, (1.0, 0.0))).any()


def test_a_near_rival_is_within_one_tolerance() -> None:
    points = [(10.0, 5.0), (10.4, 5.0), (10.6, 5.0), (9.0, 7.0)]
    assert tolerant_front(points, (0.5, 0.0)).tolist() == [True, True, False, True]


@pytest.mark.parametrize("tolerances", [(1.0,), (-1.0, 0.0), (math.nan, 0.0), (math.inf, 0.0), 1.0])
def test_tolerances_must_fit(tolerances: object) -> None:
    with pytest.raises(ValueError, match="tolerances"):
        tolerant_front([(1.0, 2.0)], tolerances)  # type: ignore[arg-type]


def test_probabilities_count_resamples() -> None:
    samples = [
        [(1.0, 1.0), (2.0, 2.0), (3.0, 0.0)],
        [(2.0, 1.0), (1.0, 2.0), (3.0, 3.0)],
        [(1.0, 1.0), (1.0, 1.0), (math.nan, 0.0)],
        [(2.0, 2.0), (1.0, 1.0), (0.5, 0.5)],
    ]
    assert front_probabilities(samples) == pytest.approx([3 / 4, 2 / 4, 2 / 4])


RESAMPLED = st.integers(1, 6).flatmap(
    lambda rows: st.lists(st.lists(st.tuples(VALUE, VALUE), min_size=rows, max_size=rows), min_size=1, max_size=4)
)


@given(RESAMPLED)
def test_probabilities_are_the_shares_of_fronts_one_by_one(samples: list[list[tuple[float, float]]]) -> None:
    fronts = [non_dominated(points) for points in samples]
    assert front_probabilities(samples).tolist() == np.mean(fronts, axis=0).tolist()


def test_probabilities_of_no_and_one_row() -> None:
    assert front_probabilities(np.zeros((3, 0, 2))).tolist() == []
    assert front_probabilities(np.ones((3, 1, 2))).tolist() == [1.0]
    for nothing in (np.zeros((0, 1, 2)), np.zeros((2, 2))):
        with pytest.raises(ValueError, match="resamples"):
            front_probabilities(nothing)


def test_hypervolume_interval_of_one_uncertain_point() -> None:
    # One point in a corner of (4, 4): the volume is (4 - x)(4 - y); 1000 equally likely volumes 0.001 apart.
    xs = np.linspace(0, 0.999, 1000)
    samples = np.stack([xs, np.full(1000, 3.0)], axis=1)[:, None, :]
    found = hypervolume_interval(samples, [(0.5, 3.0)], (4.0, 4.0), level=0.9)
    assert found.value == pytest.approx(3.5)
    assert (found.low, found.high) == (pytest.approx(4 - 0.95, abs=0.002), pytest.approx(4 - 0.05, abs=0.002))


def documents(one: TrialRecord, nats: list[float], tokens: list[int], **measured: float) -> TrialRecord:
    """The record with these evaluation documents, and the perplexity that follows."""
    perplexity = math.exp(sum(nats) / sum(tokens))
    measurements = {**one.measurements, "perplexity": perplexity, **measured}
    return replace(one, measurements=measurements, eval_rows={"nats": nats, "tokens": tokens})


def test_a_rival_better_on_one_of_two_documents(record: MakeRecord, objectives: tuple[Objective, ...]) -> None:
    # Equal memory. The second is better where the first document is drawn twice (1/4), else the first is.
    tokens = [1, 1]
    memory = {"peak_memory_bytes": float(GIB)}
    first = documents(record(0, rank=8), [2.0, 2.0], tokens, **memory)
    second = documents(record(1, rank=16), [1.0, 3.2], tokens, **memory)
    sure = front_uncertainty([first, second], objectives, resamples=4000)
    by_trial = {one.trial_ids[0]: one for one in sure.members}
    assert by_trial["t000"].probability == pytest.approx(0.75, abs=0.03)  # 4 sigma of 4000 draws is 0.027
    assert by_trial["t001"].probability == pytest.approx(0.25, abs=0.03)
    assert [one.on_front for one in sure.members] == [True, False]
    interval = by_trial["t001"].intervals["perplexity"]
    assert (interval.low, interval.high) == (pytest.approx(math.exp(1.0)), pytest.approx(math.exp(3.2)))
    assert by_trial["t000"].intervals["peak_memory_bytes"].low == GIB


@pytest.mark.parametrize("most", [0, 1, 3, 9])
def test_the_likeliest_members_are_the_first_of_all(
    record: MakeRecord, objectives: tuple[Objective, ...], most: int
) -> None:
    records = [documents(record(rank, rank=rank), [2.0, 3.0 - rank / 9], [1, 1]) for rank in (1, 2, 4, 8)]
    assert likeliest_members(records, objectives, most) == front_uncertainty(records, objectives).members[:most]
    assert likeliest_members([], objectives, most) == ()


def test_documents_are_drawn_together_for_all_trials(record: MakeRecord, objectives: tuple[Objective, ...]) -> None:
    # Documents differ much, trials little but always in the same way: the better one is sure.
    nats, tokens = [1.0, 40.0, 9.0, 2.0], [1, 10, 3, 2]
    memory = {"peak_memory_bytes": float(GIB)}
    better = documents(record(0, rank=8), nats, tokens, **memory)
    worse = documents(record(1, rank=16), [n + 0.01 * t for n, t in zip(nats, tokens, strict=True)], tokens, **memory)
    probabilities = [one.probability for one in front_uncertainty([worse, better], objectives, resamples=200).members]
    assert probabilities == [1.0, 0.0]


def test_seeds_of_a_configuration_are_drawn_too(record: MakeRecord, objectives: tuple[Objective, ...]) -> None:
    memory = {"peak_memory_bytes": float(GIB)}
    seeds = [
        record(index, rank=8, measurements={"perplexity": value, **memory}) for index, value in ((0, 10.0), (1, 14.0))
    ]
    seeds[1] = replace(seeds[1], config=replace(seeds[1].config, seed=1))
    rival = record(2, rank=16, measurements={"perplexity": 11.0, **memory})
    sure = front_uncertainty([*seeds, rival], objectives, resamples=4000)
    by_trials = {one.trial_ids: one for one in sure.members}
    # The seeds' mean is 10, 12 or 14 with 1/4, 1/2, 1/4; the rival's 11 beats the last two.
    assert by_trials[("t000", "t001")].probability == pytest.approx(0.25, abs=0.03)
    assert by_trials[("t002",)].probability == pytest.approx(0.75, abs=0.03)
    assert by_trials[("t000", "t001")].intervals["perplexity"].value == 12.0
    assert "seed" not in by_trials[("t002",)].config
    assert sure.hypervolume is not None
    assert sure.hypervolume.value == pytest.approx((30 - 11) * 0.25 * GIB)


def test_maximized_objectives_keep_their_direction(record: MakeRecord) -> None:
    goals = (Objective("accuracy", "maximize", 0.0), Objective("peak_memory_bytes", "minimize", 2 * GIB))
    one = record(0, measurements={"accuracy": 0.6, "peak_memory_bytes": float(GIB)})
    sure = front_uncertainty([one], goals, resamples=20)
    assert sure.members[0].probability == 1.0
    assert sure.members[0].intervals["accuracy"].value == 0.6
    assert sure.hypervolume is not None
    assert sure.hypervolume.value == pytest.approx(0.6 * GIB)


def test_no_complete_trial_is_no_front(record: MakeRecord, objectives: tuple[Objective, ...]) -> None:
    for records in ([], [record(0, status="stopped", measurements={"perplexity": 3.0})]):
        sure = front_uncertainty(records, objectives)
        assert sure.members == ()
        assert sure.hypervolume is None


def test_different_documents_are_refused(record: MakeRecord, objectives: tuple[Objective, ...]) -> None:
    records = [documents(record(0), [1.0, 2.0], [1, 1]), documents(record(1, rank=16), [1.0, 2.0], [1, 2])]
    with pytest.raises(ValueError, match="same documents"):
        front_uncertainty(records, objectives)


def test_the_key_of_a_configuration_leaves_the_seed_out(record: MakeRecord) -> None:
    one = record(0).config.to_dict()
    other = {**dict(reversed(list(one.items()))), "seed": 5}
    assert configuration_key(one) == configuration_key(other)
    assert configuration_key(one) != configuration_key({**one, "rank": 9})
