"""What holds of early stopping whatever the curves, and in whatever order results arrive."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from study.search.early_stopping import Halving, ParetoHalving, Result, replay
from study.search.front_ranking import Contender, non_dominated
from tests.support.search.contenders import VALUE, dominates

Trials = dict[str, tuple[float, list[float]]]  # memory, losses by step
SCHEDULE = (2, 4, 8, 12, 16)


@st.composite
def studies(draw: st.DrawFn) -> tuple[Trials, int]:
    """Up to ten trials with curves, and a seed for the order in which results arrive."""
    losses = st.lists(VALUE, min_size=len(SCHEDULE), max_size=len(SCHEDULE))
    entries = draw(st.lists(st.tuples(VALUE, losses), min_size=1, max_size=10))
    return {f"t{number}": entry for number, entry in enumerate(entries)}, draw(st.integers(0, 99))


def run(halving: Halving, trials: Trials, seed: int) -> tuple[list[Result], dict[str, int], dict[str, list[Result]]]:
    """Feeds results in a random order; returns all results, where each trial stopped, and the results until then."""
    generator = random.Random(seed)
    running = dict.fromkeys(trials, 0)
    told: list[Result] = []
    stopped: dict[str, int] = {}
    known: dict[str, list[Result]] = {}
    while running:
        trial = generator.choice(sorted(running))
        place = running[trial]
        memory, losses = trials[trial]
        told.append(Result(trial, SCHEDULE[place], losses[place], memory))
        verdict = halving.on_result(trial, SCHEDULE[place], losses[place], memory)
        running[trial] += 1
        if verdict == "stop":
            stopped[trial] = SCHEDULE[place]
            known[trial] = list(told)
        if verdict == "stop" or running[trial] == len(SCHEDULE):
            del running[trial]
    return told, stopped, known


def make() -> ParetoHalving:
    """Rungs at 2, 4 and 8 of 16 steps; little is kept."""
    return ParetoHalving(16, rungs=(0.125, 0.25, 0.5), keep_fraction=0.2, strata=2, stratum_fraction=0.2)


@settings(max_examples=30)
@given(studies())
def test_the_cheapest_and_the_best_so_far_at_a_rung_are_never_stopped(study: tuple[Trials, int]) -> None:
    _, stopped, known = run(make(), *study)
    for trial, step in stopped.items():
        fields = [[one for one in known[trial] if one.step == rung] for rung in (2, 4, 8) if rung <= step]
        own = [next(one for one in field if one.trial == trial) for field in fields]
        rivals = [one for one in fields[-1] if one.trial != trial]
        assert any(one.loss <= own[-1].loss for one in rivals)
        assert any(one.memory <= own[-1].memory for one in rivals)
        # and it is dominated at one of the rungs that it passed
        assert any(
            dominates(Contender(0, rival.loss, rival.memory), Contender(1, mine.loss, mine.memory))
            for field, mine in zip(fields, own, strict=True)
            for rival in field
        )


@settings(max_examples=30)
@given(studies())
def test_replaying_the_results_gives_the_same_state(study: tuple[Trials, int]) -> None:
    first = make()
    told, _, _ = run(first, *study)
    again, backwards = make(), make()
    replay(again, told)
    replay(backwards, reversed(told))  # a store's order is that of ends, not of results
    for trial, (memory, losses) in study[0].items():
        last = max(one.step for one in told if one.trial == trial)
        asked = (trial, last, losses[SCHEDULE.index(last)], memory)
        assert first.on_result(*asked) == again.on_result(*asked) == backwards.on_result(*asked)


@settings(max_examples=30)
@given(studies())
def test_whatever_the_order_front_members_throughout_are_never_stopped(study: tuple[Trials, int]) -> None:
    # Order decides how long others live, but nobody can stop a trial that is on the front at every rung.
    trials, seed = study
    always = set(trials)
    for place in range(3):
        field = [Contender(trial, losses[place], memory) for trial, (memory, losses) in trials.items()]
        always &= {one.key for one in non_dominated(field)}
    _, stopped, _ = run(make(), trials, seed)
    assert not always & set(stopped)


@settings(max_examples=30)
@given(studies())
def test_in_lockstep_the_order_within_a_rung_does_not_matter(study: tuple[Trials, int]) -> None:
    # When all have come to a rung, a second question gives each the verdict of the whole field.
    trials, seed = study
    order = sorted(trials)
    random.Random(seed).shuffle(order)
    found = []
    for arrival in (sorted(trials), order):
        halving = make()
        for _ in range(2):
            verdicts = {trial: halving.on_result(trial, 2, trials[trial][1][0], trials[trial][0]) for trial in arrival}
        found.append(verdicts)
    assert found[0] == found[1]
