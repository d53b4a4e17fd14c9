"""Computes AdamW's update by bitsandbytes' kernels, with both moments in 8 bits by blocks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch

from trainables.limits import FEWEST_8BIT_NUMBERS, MOMENT_BLOCK
from trainables.packed.adapter import memoryless_zeros
from trainables.packed.optimizers.adamw import AdamW
from trainables.packed.optimizers.rule import BETAS, EPSILON, State, StepValues


class AdamW8bit:
    """Dettmers et al. 2022, arXiv 2110.02861: 2 bytes a trainable number beside weight and gradient.

    A moment is a place in a table of 256 numbers, times its block's absmax. Parameters of less than
    `FEWEST_8BIT_NUMBERS` keep theirs in fp32.
    """

    def __init__(self) -> None:
        self._small = AdamW()

    def zeros(self, parameter: torch.Tensor) -> State:
        """Returns step counter, both moments and their blocks' absmax, which take no memory.

        A moment of 0 is any place in the table at an absmax of 0.
        """
        if parameter.numel() < FEWEST_8BIT_NUMBERS:
            return self._small.zeros(parameter)
        blocks = (-(-parameter.numel() // MOMENT_BLOCK),)
        return {
            "step": memoryless_zeros(()),
            "exp_avg": memoryless_zeros(parameter.shape, torch.uint8),
            "exp_avg_sq": memoryless_zeros(parameter.shape, torch.uint8),
            "absmax": memoryless_zeros(blocks),
            "absmax_sq": memoryless_zeros(blocks),
        }

    def update(
        self,
        parameters: Sequence[torch.Tensor],
        gradients: Sequence[torch.Tensor],
        states: Sequence[State],
        values: StepValues,
    ) -> None:
        """Takes a step in place, unless it is skipped.

        bitsandbytes' kernels take step number and gradient factor from the host and know no `found_inf`: the host waits
        for them. It would wait for the step's loss and norm next anyway.
        """
        if values.skipped:
            return
        every = list(zip(parameters, gradients, states, strict=True))
        if small := [one for one in every if "absmax" not in one[2]]:
            weights, own, kept = zip(*small, strict=True)
            self._small.update(weights, own, kept, values)
        if large := [one for one in every if "absmax" in one[2]]:
            self._update_8bit(large, values)

    def _update_8bit(self, large: Sequence[tuple[torch.Tensor, torch.Tensor, State]], values: StepValues) -> None:
        from bitsandbytes.functional import optimizer_update_8bit_blockwise

        counters = [state["step"] for _, _, state in large]
        torch._foreach_add_(counters, 1)
        numbers = torch.stack([one.to(counters[0].device) for one in counters]).tolist()  # one wait for each card
        with torch.no_grad():
            for (parameter, gradient, state), number in zip(large, numbers, strict=True):
                signed, unsigned = _tables(parameter.device)
                optimizer_update_8bit_blockwise(
                    "adam", gradient.contiguous(), parameter, state["exp_avg"], state["exp_avg_sq"],
                    beta1=BETAS[0], beta2=BETAS[1], beta3=0.0, alpha=0.0, eps=EPSILON, step=int(number),
                    lr=values.learning_rate, qmap1=signed, qmap2=unsigned, absmax1=state["absmax"],
                    absmax2=state["absmax_sq"], weight_decay=values.weight_decay, gnorm_scale=values.gradient_factor,
                )  # fmt: skip


@cache
def _tables(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the numbers that first and second moments are multiples of, 256 each."""
    from bitsandbytes.functional import create_dynamic_map

    return create_dynamic_map(signed=True).to(device), create_dynamic_map(signed=False).to(device)
