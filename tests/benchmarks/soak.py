"""Injects faults into studies, and counts trials that were lost, recorded twice or ended differently.

`python -m tests.benchmarks.soak [--faults 100] [--seed 0] [--only KIND …] [--json OUT]` runs a tiny study and its
confirmation undisturbed (fp32 on a CPU, one adapter at a time), then the same with faults at random moments, and
continued after each. Parts add up: with `--json OUT` the counts are added to those that are there.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.support.disturbed_study import DisturbedStudy, whole_lines
from tests.benchmarks.support.faults import (
    AT_WORK,
    CONFIRMING,
    ENDED,
    ENDING,
    EVERY,
    WHILE_SAVING_REPORTING_CONFIRMING_OR_RESUMING,
    Fault,
)
from tests.support.made_up_studies import save_tiny_model
from tests.test_whole_study import start, study_file

SAME = 1e-6
UNDISTURBED_SECONDS = 900.0
FAULTS_AT_WORK, FAULTS_CONFIRMING = 8, 2  # of a round, at most
LONGEST_PEACE_SECONDS = 8.0  # of training between two faults: long enough that some trials end between
SPACE = {
    "precision": "fp32", "rank": {"choice": [2, 4, 8, 16]}, "target_modules": "q_v",
    "learning_rate": {"choice": [1.0e-3, 3.0e-3]},
}  # fmt: skip
# Both are the same in every run, so that every round's front is: a CPU's memory is not.
OBJECTIVES = [
    {"metric": "perplexity", "direction": "minimize", "reference": 200.0},
    {"metric": "trainable_parameters", "direction": "minimize", "reference": 100_000},
]
Perplexities = Mapping[str, float]  # by configuration


@dataclass
class Outcome:
    """The consequences of the faults, over all rounds; everything after `trials` must be 0."""

    faults: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    trials: int = 0
    lost: int = 0  # without a record at the end
    twice: int = 0  # with two
    rerun: int = 0  # whose record changed after it had been written
    unlike: int = 0  # with another perplexity than undisturbed, or none
    broken: int = 0  # studies that did not come to their end after their last fault

    def plus(self, values: Mapping[str, Any]) -> Outcome:
        """This outcome and that of an earlier call, as its JSON has it."""
        numbers = {name: value + values.get(name, 0) for name, value in asdict(self).items() if name != "faults"}
        return Outcome(self.faults + Counter(values["faults"]), **numbers)

    @property
    def injected(self) -> int:
        """How many faults there were."""
        return self.faults.total()

    @property
    def clean(self) -> bool:
        """Whether no fault had a consequence."""
        return not (self.lost or self.twice or self.rerun or self.unlike or self.broken)


@dataclass
class Soak:
    """What is left to inject, of which kinds, until when."""

    faults: int
    chance: random.Random
    until: float
    kinds: Sequence[str] = EVERY
    outcome: Outcome = field(default_factory=Outcome)
    tried: Counter[str] = field(default_factory=Counter)  # those that missed too, or they would be tried for ever

    def is_over(self) -> bool:
        """Whether no more faults are to be injected."""
        return self.outcome.injected >= self.faults or time.monotonic() > self.until

    def next_of(self, faults: Mapping[str, Fault]) -> str | None:
        """A kind of these that was tried least; None where none is asked for, or all faults are injected."""
        known = [name for name in faults if name in self.kinds]
        if not known or self.is_over():
            return None
        fewest = min(self.tried[name] for name in known)
        return self.chance.choice([name for name in known if self.tried[name] == fewest])

    def inject(self, one: DisturbedStudy, faults: Mapping[str, Fault]) -> bool:
        """Injects one of these faults; returns whether it hit."""
        name = self.next_of(faults)
        if name is None:
            return False
        one.note_records()
        self.tried[name] += 1
        hit = faults[name](one, self.chance)
        self.outcome.faults[name] += hit
        print(
            f"{self.outcome.injected:3} {name}{'' if hit else ' (missed)'}; {one.ended} trials have ended", flush=True
        )
        return hit


def disturb(
    soak: Soak, one: DisturbedStudy, faults: Mapping[str, Fault], most: int, ending: Mapping[str, Fault], trials: int
) -> None:
    """Runs a study to its end: at most so many faults at random moments of its training, then one while it ends."""
    left, at_end = most, bool(ending)
    while one.runs:
        if at_end and one.ended >= trials:
            at_end = False
            soak.inject(one, ending)
        elif left and one.ended < trials and soak.next_of(faults) and one.trains:
            time.sleep(soak.chance.uniform(0.2, LONGEST_PEACE_SECONDS))
            if one.runs and one.ended < trials:
                left -= 1
                soak.inject(one, faults)
        time.sleep(0.1)
    if one.end_driver() != 0:
        soak.outcome.broken += 1
        print(f"it ended with exit code {one.driver.returncode}:\n{one.said[-3000:]}", file=sys.stderr, flush=True)


def judge(one: DisturbedStudy, expected: Perplexities, outcome: Outcome) -> None:
    """Counts the trials that a study has lost, recorded twice, or ended otherwise than undisturbed."""
    lines = whole_lines(one.results)
    counts = Counter(json.loads(line)["trial_id"] for line in lines)
    found = perplexities(lines)
    outcome.trials += len(expected)
    outcome.lost += len(set(expected) - set(found))
    outcome.twice += sum(count > 1 for count in counts.values())
    outcome.rerun += sum(line not in lines for line in one.seen.values())
    outcome.unlike += sum(
        value is None or key not in expected or abs(value / expected[key] - 1) > SAME for key, value in found.items()
    )


def perplexities(lines: Iterable[str]) -> dict[str, float]:
    """The perplexity of each configuration, its seed included."""
    records = [json.loads(line) for line in lines]
    return {json.dumps(one["config"], sort_keys=True): one["measurements"]["perplexity"] for one in records}


def undisturbed(file: Path, out: Path) -> tuple[Perplexities, Perplexities]:
    """What the study, and its confirmation, come to when nothing happens to them."""
    for command in (("run", str(file), "--out", str(out)), ("confirm", str(out))):
        driver = start(*command)
        said, _ = driver.communicate(timeout=UNDISTURBED_SECONDS)
        if driver.returncode:
            raise RuntimeError(said)
    return tuple(perplexities(whole_lines(folder / "results.jsonl")) for folder in (out, out / "confirm"))  # type: ignore[return-value]


def soaked(soak: Soak, folder: Path, steps: int) -> Outcome:
    """Rounds until all faults have been injected or time is over; the last study runs to its end."""
    model = save_tiny_model(folder / "model")
    changes = {"space": SPACE, "objectives": OBJECTIVES, "confirm": {"seeds": [1]}}
    hardware = {"gpu": "cpu", "max_adapters_per_gpu": 1}
    file = study_file(folder, model, max_steps=steps, hardware=hardware, **changes)
    began = time.monotonic()
    expected, confirmed = undisturbed(file, folder / "undisturbed")
    print(f"undisturbed: {len(expected)} + {len(confirmed)} trials, {time.monotonic() - began:.0f} s", flush=True)
    while not soak.is_over():
        out = folder / f"round{soak.outcome.rounds}"
        soak.outcome.rounds += 1
        one = DisturbedStudy(out, "run", str(file), "--out", str(out))
        disturb(soak, one, AT_WORK, FAULTS_AT_WORK, ENDING, len(expected))
        soak.inject(one, ENDED)
        judge(one, expected, soak.outcome)
        if soak.next_of(CONFIRMING):
            other = DisturbedStudy(one.directory / "confirm", "confirm", str(one.directory))
            disturb(soak, other, CONFIRMING, FAULTS_CONFIRMING, {}, len(confirmed))
            judge(other, confirmed, soak.outcome)
        print(f"round {soak.outcome.rounds}: {consequences(soak.outcome)}", flush=True)
    return soak.outcome


def consequences(outcome: Outcome) -> str:
    """What the faults so far have done, in words; a run that is cut off has said it of its whole rounds."""
    names = ("lost", "twice", "rerun", "unlike", "broken")
    return f"of {outcome.trials} trials " + ", ".join(f"{getattr(outcome, name)} {name}" for name in names)


def main() -> int:
    """Runs the soak and prints the counts; exit code 1 where a fault had a consequence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps a trial")
    parser.add_argument("--seconds", type=float, default=7200.0, help="no fault is injected after so many")
    parser.add_argument("--only", nargs="+", choices=EVERY, default=EVERY, metavar="KIND", help="these kinds of faults")
    parser.add_argument("--json", type=Path, help="the counts are added to those that are there")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    until = time.monotonic() + options.seconds
    soak = Soak(options.faults, random.Random(options.seed), until, options.only)
    with tempfile.TemporaryDirectory(prefix="lora-frontier-soak-") as folder:
        outcome = soaked(soak, Path(folder), options.steps)
    if options.json and options.json.is_file():
        outcome = outcome.plus(json.loads(options.json.read_text(encoding="utf-8")))
    saving = sum(outcome.faults[name] for name in WHILE_SAVING_REPORTING_CONFIRMING_OR_RESUMING)
    values = {**asdict(outcome), "faults": dict(sorted(outcome.faults.items()))}
    print(json.dumps(values, indent=1))
    print(f"{outcome.injected} faults, {saving} of them while saving, reporting, confirming or resuming")
    if options.json:
        options.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return 0 if outcome.clean else 1


if __name__ == "__main__":
    sys.exit(main())
