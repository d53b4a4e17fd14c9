"""Simulates with the time model how long packs take: with shares of their own and full packs, and as they are planned.

    python -m tests.benchmarks.planning.packing

No GPU is needed. Trials take the fullest card that has room for their share; a card's pack takes one step after the
other, each as long as the time model says, and a trial that ends leaves its place to the next that fits. Evaluations,
starts and measurements are left out: they are the same either way.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search_spaces.trial_config import TARGET_SETS, TrialConfig
from study.hardware.calibration import Calibration
from study.hardware.gpu_catalogue import find_gpu
from study.hardware.targets import Target
from study.plan.fitting import Fit, fit_with
from study.plan.offloading.making import adapter_of, micro_batches_in_a_pass
from study.plan.places import WHOLE
from study.plan.shares import Demand, Node, Phase, plan_demands
from study.plan.time_model import step_seconds
from study.plan.workload import Workload
from tests.support.plan_cases import LLAMA_3_8B
from trainables.memory.offload import RESIDENT
from trainables.memory.prediction import DEFAULT_CONSTANTS
from trainables.settings import HardwareSettings, TrainingSettings

LIMIT_BYTES = round(14.56 * 2**30)
RATES = (5e-5, 1e-4, 2e-4, 4e-4)
STEPS = 30


def configuration(rank: int, targets: str, number: int) -> TrialConfig:
    """One of a grid's configurations; learning rates that come again do so with another seed."""
    rate = RATES[number % len(RATES)]
    return TrialConfig(
        precision="nf4", rank=rank, target_modules=TARGET_SETS[targets], lora_alpha=2 * rank, lora_dropout=0.0,
        learning_rate=rate, seed=number // len(RATES),
    )  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Trials on so many cards: their ranks, target modules, and the steps that each takes (all of them: `STEPS`)."""

    name: str
    ranks: tuple[int, ...]
    targets: tuple[str, ...] = ("q_v", "all_linear")
    rates: int = len(RATES)
    cards: int = 1
    stopped: bool = False  # early: three quarters after an eighth of the steps

    def configurations(self) -> list[TrialConfig]:
        """The grid, in its order."""
        return [
            configuration(rank, targets, rate)
            for rank in self.ranks
            for targets in self.targets
            for rate in range(self.rates)
        ]

    def steps(self, trials: int) -> list[int]:
        """How many steps each of the trials takes."""
        chance = random.Random(0)
        return [STEPS // 8 if self.stopped and chance.random() < 0.75 else STEPS for _ in range(trials)]


CASES = (
    Case("16 trials, ranks 8 and 16", (8, 16)),
    Case("20 trials of rank 8 on q and v", (8,), ("q_v",), rates=20),
    Case("48 of the paper's grid, ranks 2 to 64", (2, 4, 8, 16, 32, 64)),
    Case("48 of them, two cards", (2, 4, 8, 16, 32, 64), cards=2),
    Case("64 stopped early, ranks 2 to 16", (2, 4, 8, 16), rates=8, stopped=True),
    Case("36 of mixed footprints, ranks 8, 64, 128", (8, 64, 128), rates=6),
)


def simulated_seconds(
    shares: Sequence[int], steps: Sequence[int], devices: int, places: int, seconds: Callable[[Sequence[int]], float]
) -> float:
    """Returns the time until the last trial ends; `seconds` are those of one step of a pack, given by its trials.

    `shares` are parts of a device in ten-thousandths. At most `places` trials are out at a time.
    """
    waiting, packs, clock = list(range(len(shares))), [dict[int, float]() for _ in range(devices)], 0.0
    while waiting or any(packs):
        for trial in waiting[: places - sum(map(len, packs))]:
            free = {d: WHOLE - sum(shares[one] for one in packs[d]) for d in range(devices)}
            device = min((d for d in free if free[d] >= shares[trial]), key=free.__getitem__, default=None)
            if device is not None:
                packs[device][trial] = float(steps[trial])
                waiting.remove(trial)
        step = [seconds(list(pack)) if pack else 0.0 for pack in packs]
        passed = min(min(pack.values()) * each for pack, each in zip(packs, step, strict=True) if pack)
        clock += passed
        for number, (pack, each) in enumerate(zip(packs, step, strict=True)):
            left = {trial: todo - passed / each for trial, todo in pack.items()}
            packs[number] = {trial: todo for trial, todo in left.items() if todo > 1e-9}
    return clock


def phase_of(case: Case, fits: Sequence[Fit], planned: bool) -> Phase:
    """The phase of a case's trials: as it is `planned`, or with shares of their own and as many places as fit."""
    demand = Demand(
        "nf4", len(fits), tuple(map(adapter_of, fits)), fits[0].room_bytes, most=16,
        in_a_pass=micro_batches_in_a_pass(fits[0]), listed=planned, ends_together=planned and not case.stopped,
    )  # fmt: skip
    return plan_demands([demand], (Node(16.0, float(case.cards)),), HardwareSettings(), True)[0]


def run(case: Case, card: str) -> tuple[tuple[Phase, float], tuple[Phase, float]]:
    """A case's phase and seconds before and now."""
    workload = Workload(LLAMA_3_8B, TrainingSettings(gradient_accumulation_steps=1), 512, 64, 64 * 512, 0, 0.2)
    constants = Calibration(DEFAULT_CONSTANTS["cuda"])
    found = find_gpu(card)
    target = Target(found, found.memory_bytes, case.cards, case.cards, constants, LIMIT_BYTES)
    fits = [
        one for one in (fit_with(config, workload, target, RESIDENT) for config in case.configurations()) if one.fits
    ]

    def seconds(pack: Sequence[int]) -> float:
        own = [fits[trial] for trial in pack]
        slowest = max(own, key=lambda one: (len(one.load.target_modules), one.load.rank))
        return step_seconds(slowest, len(own), sum(one.state_bytes for one in own), workload, target)

    def simulated(planned: bool) -> tuple[Phase, float]:
        phase = phase_of(case, fits, planned)
        shares = [int(WHOLE * phase.resources_for(one.adapter_bytes)["GPU"] + 0.001) for one in fits]
        took = simulated_seconds(shares, case.steps(len(fits)), case.cards, phase.places, seconds)
        return dataclasses.replace(phase, trials=len(fits)), took

    return simulated(planned=False), simulated(planned=True)


def main() -> None:
    """Prints the table."""
    print("| case | card | shares of their own, s | planned, s | places, shares |\n|---|---|---|---|---|")
    for case in CASES:
        for card in ("h200", "t4"):
            (_, before), (phase, now) = run(case, card)
            kind = "equal" if phase.equal else "own"
            print(f"| {case.name} | {card} | {before:.1f} | {now:.1f} | {phase.places}, {kind} |")


if __name__ == "__main__":
    main()
