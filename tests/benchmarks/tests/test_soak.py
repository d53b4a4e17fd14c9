"""The soak's own arithmetic: what it counts as lost, recorded twice, run again or unlike, and that parts add up."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.benchmarks.soak import Outcome, Soak, judge, perplexities
from tests.benchmarks.support.disturbed_study import whole_lines
from tests.benchmarks.support.faults import AT_WORK, EVERY, WHILE_SAVING_REPORTING_CONFIRMING_OR_RESUMING


def line(trial_id: str, rank: int, perplexity: float | None) -> str:
    values = {"trial_id": trial_id, "config": {"rank": rank}, "measurements": {"perplexity": perplexity}}
    return json.dumps(values)


GOOD = [line("t0", 2, 12.0), line("t1", 4, 11.0)]
EXPECTED = perplexities(GOOD)


@pytest.mark.parametrize(
    ("lines", "counts"),
    [
        (GOOD, {}),
        (GOOD[::-1], {}),
        (GOOD[:1], {"lost": 1}),
        ([*GOOD, GOOD[0]], {"twice": 1}),
        ([line("t0", 2, 12.1), GOOD[1]], {"unlike": 1, "rerun": 1}),
        ([line("t0", 2, 12.0 * (1 + 1e-8)), GOOD[1]], {"rerun": 1}),
        ([line("t0", 2, None), GOOD[1]], {"unlike": 1, "rerun": 1}),
        ([line("t0", 8, 12.0), GOOD[1]], {"unlike": 1, "lost": 1, "rerun": 1}),
    ],
)
def test_what_is_counted(tmp_path: Path, lines: list[str], counts: dict[str, int]) -> None:
    """The first trial's record was seen as it should be."""
    results = tmp_path / "results.jsonl"
    results.write_text("".join(f"{one}\n" for one in lines))
    one: Any = SimpleNamespace(results=results, seen={"t0": GOOD[0]})
    outcome = Outcome()
    judge(one, EXPECTED, outcome)
    assert asdict(outcome) == {**asdict(Outcome(trials=2)), **counts}
    assert outcome.clean == (not counts)


def test_parts_add_up() -> None:
    first, second = Outcome(rounds=2, trials=8, lost=1), Outcome(rounds=1, trials=4, broken=1)
    first.faults["host killed"], second.faults["host killed"], second.faults["results torn"] = 3, 1, 2
    values = json.loads(json.dumps({**asdict(first), "faults": first.faults}))
    total = second.plus(values)
    assert total.faults == {"host killed": 4, "results torn": 2}
    assert (total.injected, total.rounds, total.trials, total.lost, total.broken) == (6, 3, 12, 1, 1)
    del values["broken"]  # an earlier version did not count them
    assert second.plus(values).broken == 1


def test_every_kind_comes_up_and_a_hundred_faults_hold_twenty_of_saving_and_the_like() -> None:
    soak = Soak(100, random.Random(0), time.monotonic() + 60)
    one: Any = SimpleNamespace(note_records=lambda: None, ended=0)
    missing = "results altered"  # where there is no record yet; the others get their turn all the same
    hits = {name: lambda one, chance, name=name: name != missing for name in AT_WORK}
    for _ in range(2 * len(AT_WORK)):
        soak.inject(one, hits)
    assert soak.outcome.faults == Counter({name: 2 * (name != missing) for name in AT_WORK})
    assert set(soak.tried) == set(AT_WORK)
    among_work = [name for name in AT_WORK if name in WHILE_SAVING_REPORTING_CONFIRMING_OR_RESUMING]
    assert len(among_work) / len(AT_WORK) * 100 >= 20  # of the faults at work alone
    assert set(WHILE_SAVING_REPORTING_CONFIRMING_OR_RESUMING) <= set(EVERY)
    soak.outcome.faults["host killed"] = 100
    assert soak.next_of(AT_WORK) is None


def test_lines_that_are_no_json_objects_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    assert whole_lines(file) == []
    file.write_bytes(b'{"a": 1}\n[1]\n\n{"b"\n\xff\x00\n{"c": "\xe2\x80\xa8"}\n')
    assert whole_lines(file) == ['{"a": 1}', '{"c": "\u2028"}']
