"""Injects faults into studies, and counts trials that were lost, recorded twice or ended differently.

`python -m tests.benchmarks.soak [--faults 50] [--seed 0] [--json OUT]` runs a tiny study undisturbed (fp32 on a CPU,
one adapter at a time), then the same with processes killed, files torn and the disk full at random moments, and
continued after each.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.support.made_up_studies import save_tiny_model
from tests.test_whole_study import is_ours, processes_of, start, study_file, trains_now

SAME = 1e-6
ROUND_SECONDS = 1800.0
SPACE = {
    "precision": "fp32", "rank": {"choice": [2, 4, 8, 16]}, "target_modules": {"choice": ["q_v", "all_linear"]},
    "learning_rate": 1.0e-3,
}  # fmt: skip


@dataclass
class Outcome:
    """The consequences of the faults, over all rounds; everything but `faults`, `rounds` and `trials` must be 0."""

    faults: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    trials: int = 0
    lost: int = 0  # without a record at the end
    twice: int = 0  # with two
    rerun: int = 0  # whose record changed after it had been written
    unlike: int = 0  # with another perplexity than undisturbed, or none

    def plus(self, values: Mapping[str, Any]) -> Outcome:
        """This outcome and that of an earlier call, as its JSON has it."""
        numbers = {name: value + values[name] for name, value in asdict(self).items() if name != "faults"}
        return Outcome(self.faults + Counter(values["faults"]), **numbers)

    @property
    def clean(self) -> bool:
        """Whether no fault had a consequence."""
        return not (self.lost or self.twice or self.rerun or self.unlike)


class Round:
    """One disturbed study: its directory, its driver, and the records that were seen on the way."""

    def __init__(self, file: Path, directory: Path) -> None:
        self.directory = directory
        self.driver = start("run", str(file), "--out", str(directory))
        self.seen: dict[str, str] = {}
        self.said = ""

    def note_records(self) -> None:
        """Remembers what stands in the results: it must not change any more."""
        for line in whole_lines(self.directory / "results.jsonl"):
            self.seen.setdefault(json.loads(line)["trial_id"], line)

    def end_driver(self, number: signal.Signals) -> None:
        """Ends the driver by a signal, and waits until what it owned has ended as well."""
        self.await_driver(number)

    def await_driver(self, number: signal.Signals | None = None) -> None:
        """Waits until the driver has ended, by a signal or by itself, and what it owned has ended as well."""
        ours = [child for child in psutil.Process(self.driver.pid).children(recursive=True) if is_ours(child)]
        if number is not None:
            self.driver.send_signal(number)
        self.said, _ = self.driver.communicate(timeout=180)
        psutil.wait_procs(ours, timeout=60)  # Ray's own agents take their time
        self.note_records()

    def resume(self) -> bool:
        """Resumes the study; the fault before has hit."""
        self.driver = start("resume", str(self.directory))
        return True


def whole_lines(file: Path) -> list[str]:
    """The lines of a results file that are records."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            json.loads(line)
        except ValueError:
            continue
        found.append(line)
    return found


# -- the faults --------------------------------------------------------------------------------------------------------


def kill_host(one: Round) -> bool:
    """The process that holds the base model."""
    return kill_first(one, "BaseModelHost")


def kill_trial(one: Round) -> bool:
    """A trial's own process."""
    return kill_first(one, "LoraTrial")


def kill_first(one: Round, name: str) -> bool:
    """Kills a process under the driver by its title; returns whether there still was one."""
    found = processes_of(one.driver, name)[:1]
    for process in found:
        process.kill()
    return bool(found)


def kill_driver(one: Round) -> bool:
    """The driver, with -9."""
    one.end_driver(signal.SIGKILL)
    return one.resume()


def stop_driver(one: Round) -> bool:
    """The driver, asked to end: trials at work write checkpoints."""
    one.end_driver(signal.SIGTERM)
    return one.resume()


def tear_results(one: Round) -> bool:
    """The driver killed in the middle of writing a record."""
    one.end_driver(signal.SIGKILL)
    with (one.directory / "results.jsonl").open("ab") as out:
        out.write(b'{"study": "made-up", "trial_id": "t00')
    return one.resume()


def tear_checkpoint(one: Round) -> bool:
    """The driver killed, and the newest checkpoint of every trial cut short."""
    one.end_driver(signal.SIGKILL)
    for trial in {file.parents[1] for file in (one.directory / "tune").glob("*/*/checkpoint_*/*.safetensors")}:
        newest = max(trial.glob("checkpoint_*/*.safetensors"), key=lambda file: file.stat().st_mtime)
        newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    return one.resume()


def fill_disk(one: Round) -> bool:
    """The driver finds no room for anything more, as on a full disk; it must end by itself."""
    psutil.Process(one.driver.pid).rlimit(psutil.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    one.await_driver()
    return one.resume()


FAULTS: dict[str, Callable[[Round], bool]] = {
    "host killed": kill_host,
    "trial killed": kill_trial,
    "driver killed": kill_driver,
    "driver stopped": stop_driver,
    "results torn": tear_results,
    "checkpoints torn": tear_checkpoint,
    "disk full": fill_disk,
}


def disturb(one: Round, chance: random.Random, left: int, outcome: Outcome, until: float) -> int:
    """Runs a round to its end with faults at random moments before `until`; returns how many were injected."""
    injected, deadline = 0, time.monotonic() + ROUND_SECONDS
    while one.driver.poll() is None:
        if time.monotonic() > deadline:
            one.end_driver(signal.SIGTERM)
            raise TimeoutError(f"a round did not end; it lies in {one.directory}")
        if injected < left and time.monotonic() < until and trains_now(one.driver):
            time.sleep(chance.uniform(0.5, 4.0))
            if one.driver.poll() is None:
                fewest = min(outcome.faults[name] for name in FAULTS)  # so that every kind comes up
                name = chance.choice([name for name in FAULTS if outcome.faults[name] == fewest])
                hit = FAULTS[name](one)
                outcome.faults[name] += hit
                injected += hit
                print(f"{sum(outcome.faults.values()):3} {name}; {len(one.seen)} trials have ended", flush=True)
                time.sleep(2.0)
        time.sleep(0.2)
    return injected


def judge(one: Round, expected: dict[str, float], outcome: Outcome) -> None:
    """Counts the trials that a round has lost, recorded twice, or ended otherwise than undisturbed."""
    lines = whole_lines(one.directory / "results.jsonl")
    counts = Counter(json.loads(line)["trial_id"] for line in lines)
    found = {json.loads(line)["trial_id"]: json.loads(line)["measurements"]["perplexity"] for line in lines}
    outcome.rounds += 1
    outcome.trials += len(expected)
    outcome.lost += len(set(expected) - set(counts))
    outcome.twice += sum(count > 1 for count in counts.values())
    outcome.rerun += sum(line not in lines for line in one.seen.values())
    outcome.unlike += sum(
        value is None or abs(value / expected[name] - 1) > SAME for name, value in found.items() if name in expected
    )


def soak(folder: Path, faults: int, seed: int, steps: int, until: float) -> Outcome:
    """Rounds until so many faults have been injected, or time is over; the last round runs to its end."""
    model = save_tiny_model(folder / "model")
    hardware = {"gpu": "cpu", "max_adapters_per_gpu": 1}
    file = study_file(folder, model, max_steps=steps, hardware=hardware, space=SPACE)
    undisturbed = start("run", str(file), "--out", str(folder / "undisturbed"))
    said, _ = undisturbed.communicate(timeout=ROUND_SECONDS)
    if undisturbed.returncode:
        raise RuntimeError(said)
    lines = map(json.loads, whole_lines(folder / "undisturbed" / "results.jsonl"))
    expected = {line["trial_id"]: line["measurements"]["perplexity"] for line in lines}
    chance, outcome = random.Random(seed), Outcome()
    while sum(outcome.faults.values()) < faults and time.monotonic() < until:
        one = Round(file, folder / f"round{outcome.rounds}")
        left = faults - sum(outcome.faults.values())
        disturb(one, chance, left, outcome, until)
        if one.driver.returncode:
            print((one.driver.stdout.read() if one.driver.stdout else "")[-2000:], file=sys.stderr)
        judge(one, expected, outcome)
    return outcome


def main() -> int:
    """Runs the soak and prints the counts; exit code 1 where a fault had a consequence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=240, help="optimizer steps a trial")
    parser.add_argument("--seconds", type=float, default=7200.0, help="no fault is injected after so many")
    parser.add_argument("--json", type=Path, help="the counts are added to those that are there")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="lora-frontier-soak-") as folder:
        until = time.monotonic() + options.seconds
        outcome = soak(Path(folder), options.faults, options.seed, options.steps, until)
    if options.json and options.json.is_file():
        outcome = outcome.plus(json.loads(options.json.read_text(encoding="utf-8")))
    values = {**asdict(outcome), "faults": dict(sorted(outcome.faults.items()))}
    print(json.dumps(values, indent=1))
    if options.json:
        options.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return 0 if outcome.clean else 1


if __name__ == "__main__":
    sys.exit(main())
