"""Chooses configurations whose prediction lies near a card's memory, and makes rows of mixed length for them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from search_spaces.trial_config import TARGET_SETS, TrialConfig
from study.hardware.calibration import Calibration
from study.hardware.gpu_catalogue import find_gpu
from study.hardware.targets import Target
from study.plan.fitting import Fit, fit_with, load_of, memory_setting
from study.plan.workload import Workload
from tests.benchmarks.support.offloaded import words
from trainables.base_model.shape import ModelShape
from trainables.dataset.rows import Row
from trainables.memory.offload import RESIDENT, Offload
from trainables.memory.prediction import DEFAULT_CONSTANTS, predict
from trainables.settings import TrainingSettings

GIB = 2**30
T4_BYTES = find_gpu("t4").memory_bytes
ROWS_PER_BATCH = 6  # rows of the data over rows of a micro-batch
_ROWS, _TOKENS = (1, 2, 3, 4, 6, 8, 12, 16), (251, 381, 509, 763, 1021, 1531, 2039, 3067, 4093)
_RANKS = (8, 16, 32, 64, 128, 192, 256)


@dataclass(frozen=True)
class EdgeCase:
    """One configuration and its data: micro-batches of `rows` rows, of `tokens` / 4 to `tokens` tokens."""

    rows: int
    tokens: int
    targets: str  # q_v or all_linear
    rank: int
    dropout: bool
    checkpointing: bool
    offload: Offload = RESIDENT

    @property
    def config(self) -> TrialConfig:
        """What a trial of it samples."""
        dropout = 0.05 if self.dropout else 0.0
        return TrialConfig("nf4", self.rank, 16, dropout, TARGET_SETS[self.targets], 1e-4)

    @property
    def training(self) -> TrainingSettings:
        """How it trains."""
        return TrainingSettings(micro_batch_size=self.rows, gradient_checkpointing=self.checkpointing)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row, mixed; one has all `tokens`."""
        drawn = random.Random(f"{self.rows} {self.tokens}")
        shorter = [drawn.randint(self.tokens // 4, self.tokens) for _ in range(ROWS_PER_BATCH * self.rows - 1)]
        return [self.tokens, *shorter]

    @property
    def data(self) -> list[Row]:
        """The rows; half of each are targets."""
        return [Row((5,) * length, length // 2, None, str(number)) for number, length in enumerate(self.lengths)]

    @property
    def words(self) -> str:
        """It in a few words."""
        extras = (" dropout" if self.dropout else "") + ("" if self.checkpointing else " no checkpointing")
        away = "" if self.offload.is_none else f" ({words(self.offload)} away)"
        return f"{self.rows} x {self.tokens} {self.targets} r{self.rank}{extras}{away}"


SEEN_TO_RUN_OUT = (  # of what was admitted, under a reserve of 2 % for the allocator's fragments
    EdgeCase(8, 2048, "q_v", 256, False, True),
    EdgeCase(8, 1024, "all_linear", 128, False, True),
    EdgeCase(12, 1536, "all_linear", 16, False, True),
    EdgeCase(4, 512, "all_linear", 16, False, False),
    EdgeCase(8, 1536, "all_linear", 32, False, True),
)


def workload_of(case: EdgeCase, shape: ModelShape) -> Workload:
    """What the plan knows of its data."""
    lengths = case.lengths
    targets = sum(length - length // 2 for length in lengths)
    return Workload(shape, case.training, max(lengths), len(lengths), sum(lengths), 0, targets / sum(lengths))


def planned(case: EdgeCase, shape: ModelShape, target: Target) -> Fit:
    """What the plan says of a case with everything on the card."""
    return fit_with(case.config, workload_of(case, shape), target, RESIDENT)


def small_card(memory_bytes: int = T4_BYTES, kind: str = "h100") -> Target:
    """One card of so much memory, by default a T4's, that computes as `kind` does; not calibrated."""
    return Target(find_gpu(kind), memory_bytes, 1, 1, Calibration(DEFAULT_CONSTANTS["cuda"]))


def between(shape: ModelShape, target: Target, lowest_bytes: float, highest_bytes: float) -> list[tuple[EdgeCase, Fit]]:
    """All cases whose predicted need on the card, context included, lies between the two."""
    found = []
    for case in _all_cases():
        workload = workload_of(case, shape)
        setting, load = memory_setting("nf4", workload, target), load_of(case.config, workload)
        alone = predict(shape, setting, load, target.calibration.constants)
        if lowest_bytes <= alone.device_bytes <= highest_bytes:
            found.append((case, planned(case, shape, target)))
    return found


def spread(cases: Sequence[tuple[EdgeCase, Fit]], count: int) -> list[tuple[EdgeCase, Fit]]:
    """Draws `count` of them, in turn from each kind (checkpointing, targets, low or high rank), the same every time."""
    drawn = random.Random(0)
    kinds: dict[Any, list[tuple[EdgeCase, Fit]]] = defaultdict(list)
    for case, one in cases:
        kinds[case.checkpointing, case.targets, case.rank >= 128].append((case, one))
    for some in kinds.values():
        drawn.shuffle(some)
    taken: list[tuple[EdgeCase, Fit]] = []
    while len(taken) < min(count, len(cases)):
        taken += [some.pop() for some in kinds.values() if some]
    return taken[:count]


def _all_cases() -> Iterator[EdgeCase]:
    for rows, tokens, targets, rank, dropout, checkpointing in product(
        _ROWS, _TOKENS, ("q_v", "all_linear"), _RANKS, (False, True), (True, False)
    ):
        yield EdgeCase(rows, tokens, targets, rank, dropout, checkpointing)
