"""Computes AdamW's update by torch's fused kernel, with both moments in fp32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.optim.adamw import adamw

from trainables.packed.adapter import memoryless_zeros
from trainables.packed.optimizers.rule import BETAS, EPSILON, State, StepValues


class AdamW:
    """Loshchilov and Hutter 2019, arXiv 1711.05101: 8 bytes a trainable number beside weight and gradient."""

    def zeros(self, parameter: torch.Tensor) -> State:
        """Returns step counter and both moments, which take no memory."""
        shape = parameter.shape
        return {
            "step": memoryless_zeros(()),
            "exp_avg": memoryless_zeros(shape),
            "exp_avg_sq": memoryless_zeros(shape),
        }

    def update(
        self,
        parameters: Sequence[torch.Tensor],
        gradients: Sequence[torch.Tensor],
        states: Sequence[State],
        values: StepValues,
    ) -> None:
        """Takes a step in place; the kernel divides gradients, and decides itself whether anything changes."""
        first, second, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
        beta1, beta2 = BETAS
        with torch.no_grad():
            adamw(
                list(parameters), list(gradients), first, second, [], steps, fused=True, grad_scale=values.grad_scale,
                found_inf=values.found_inf, amsgrad=False, maximize=False, beta1=beta1, beta2=beta2,
                lr=values.learning_rate, weight_decay=values.weight_decay, eps=EPSILON,
            )  # fmt: skip
