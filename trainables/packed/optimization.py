"""Computes one adapter's learning-rate schedule, its loss scale, and when it is evaluated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainables.settings import TrainingSettings

INITIAL_SCALE = 2.0**12
SMALLEST_SCALE = 2.0
GROWTH_STEPS = 200


def learning_rate_at(step: int, total_steps: int, peak: float, training: TrainingSettings) -> float:
    """Returns the learning rate of optimizer step `step` (from 0): linear warm-up, then the schedule to the end."""
    warmup_steps = math.ceil(training.warmup_ratio * total_steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if training.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    return peak * (1 - done) if training.schedule == "linear" else peak


@dataclass(frozen=True)
class LossScaler:
    """The factor that keeps one adapter's fp16 gradients above underflow.

    Halved after a step whose gradients overflowed (that step is skipped), doubled after `GROWTH_STEPS` good ones
    (Micikevicius et al. 2018, arXiv 1710.03740). A scale of 1 never changes: the other types need none. An overflow at
    the smallest scale is no longer one of the scale: the training has diverged.
    """

    scale: float = 1.0
    good_steps: int = 0
    skipped_steps: int = 0  # one after the other, the last included

    @classmethod
    def for_half(cls) -> LossScaler:
        """Returns the scaler that an fp16 base model needs."""
        return cls(INITIAL_SCALE)

    @property
    def at_floor(self) -> bool:
        """Whether the scale is as small as it gets."""
        return self.scale <= SMALLEST_SCALE

    def after(self, finite: bool) -> LossScaler:
        """Returns the scaler for the next step, given whether this step's gradients were finite."""
        if self.scale == 1.0:
            return self
        if not finite:
            return LossScaler(max(SMALLEST_SCALE, self.scale / 2), skipped_steps=self.skipped_steps + 1)
        if self.good_steps + 1 < GROWTH_STEPS:
            return replace(self, good_steps=self.good_steps + 1, skipped_steps=0)
        return LossScaler(min(2.0**24, self.scale * 2))


def evaluation_steps(total_steps: int, evaluations: int, rungs: Sequence[int] = ()) -> tuple[int, ...]:
    """Returns the optimizer steps after which the evaluation split is measured, upward.

    `evaluations` evenly spaced ones, the last at the end, and `rungs`, which are optimizer steps before the end.
    """
    count = min(evaluations, total_steps)
    even = {round(total_steps * (k + 1) / count) for k in range(count)} if count else {0}
    return tuple(sorted(even.union(rungs)))
