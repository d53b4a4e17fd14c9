"""Chooses single long rows whose training needs what a card has, with and without parts in host memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from study.hardware.targets import Target
from study.plan.fitting import load_of, memory_setting
from tests.benchmarks.support.edge_cases import EdgeCase, workload_of
from trainables.base_model.shape import ModelShape
from trainables.memory.offload import RESIDENT, Offload
from trainables.memory.prediction import MemoryPrediction, predict
from trainables.memory.slack import slack_bytes
from trainables.memory.weights import FROZEN

FEWEST_TOKENS, MOST_TOKENS = 8_000, 40_000
NEAR = (0.99, 1.015)  # needs as parts of the card
_KINDS = (("all_linear", 8), ("q_v", 16), ("all_linear", 64), ("all_linear", 128))


@dataclass(frozen=True)
class Judged:
    """Whether a case's training is predicted to fit a card; what is written afterwards does not count."""

    predictions: tuple[MemoryPrediction, ...]
    capacity_bytes: int

    @property
    def device_bytes(self) -> int:
        """What a card must have for the training: its peak, fragments, and CUDA's context."""
        (one,) = self.predictions
        own = one.peak_memory_bytes - sum(one.components[name] for name in FROZEN)
        return one.peak_memory_bytes + slack_bytes(one.setting, own, one.constants) + one.constants.context_bytes

    @property
    def fits(self) -> bool:
        """Whether it would be admitted."""
        return self.device_bytes <= self.capacity_bytes


def judged(case: EdgeCase, shape: ModelShape, target: Target) -> Judged:
    """What the memory model says of a case."""
    workload = workload_of(case, shape)
    setting = replace(memory_setting("nf4", workload, target), offload=case.offload)
    one = predict(shape, setting, load_of(case.config, workload), target.calibration.constants)
    return Judged((one,), target.memory_bytes)


def long_cases(shape: ModelShape, target: Target) -> list[tuple[EdgeCase, Judged]]:
    """Rows as long as bring their needs near the card, grouped by what waits, so that a base model serves many."""
    found = []
    for offload, (targets, rank), near in product(offloads(shape), _KINDS, NEAR):
        kind = EdgeCase(1, 0, targets, rank, dropout=False, checkpointing=True, offload=offload)
        tokens = _longest(kind, shape, target, round(near * target.memory_bytes))
        if FEWEST_TOKENS <= tokens <= MOST_TOKENS:
            case = replace(kind, tokens=tokens)
            found.append((case, judged(case, shape, target)))
    return found


def offloads(shape: ModelShape) -> tuple[Offload, ...]:
    """What waits in host memory: nothing, layers' inputs, layers, both, everything."""
    every = shape.layers
    return (
        RESIDENT, Offload(layer_inputs=True), Offload(every), Offload(every, layer_inputs=True),
        Offload(every, embedding=True, optimizer_state=True, layer_inputs=True),
    )  # fmt: skip


def _longest(kind: EdgeCase, shape: ModelShape, target: Target, most_bytes: int) -> int:
    """The most tokens, up to a few more than may be, whose needs are at most these; 0 where there are none."""
    least, over = 0, MOST_TOKENS + 2
    while over - least > 1:
        middle = (least + over) // 2
        fits = judged(replace(kind, tokens=middle), shape, target).device_bytes <= most_bytes
        least, over = (middle, over) if fits else (least, middle)
    return least
