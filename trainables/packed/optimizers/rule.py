"""Names what an optimizer's arithmetic has to offer, whatever it keeps of a parameter and wherever that lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch's and bitsandbytes' own defaults

State = dict[str, torch.Tensor]  # what is kept of one parameter between updates, by name


@dataclass(frozen=True)
class StepValues:
    """What one adapter's update is taken with.

    Gradients are divided by `grad_scale`, of one fp32 number; where `found_inf` is 1 nothing changes. Both are on the
    device.
    """

    learning_rate: float
    weight_decay: float
    grad_scale: torch.Tensor
    found_inf: torch.Tensor

    @cached_property
    def skipped(self) -> bool:
        """Whether nothing changes; the host waits for it, once."""
        return bool(self.found_inf)

    @cached_property
    def gradient_factor(self) -> float:
        """The reciprocal of `grad_scale`; the host waits for it, once."""
        return 1.0 / float(self.grad_scale)


class Rule(Protocol):
    """The arithmetic of an update; what it keeps of a parameter is zeros at first."""

    def zeros(self, parameter: torch.Tensor) -> State:
        """Returns what is kept of a parameter at first, as zeros that take no memory and are to be read only."""
        ...

    def update(
        self,
        parameters: Sequence[torch.Tensor],
        gradients: Sequence[torch.Tensor],
        states: Sequence[State],
        values: StepValues,
    ) -> None:
        """Takes a step in place, with all tensors of a parameter on its device."""
        ...
