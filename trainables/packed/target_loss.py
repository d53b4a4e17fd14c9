"""Computes the cross-entropy of target tokens alone, without a gradient for the frozen head.

How many positions' logits exist at once is `trainables.limits.LOGITS_CHUNK_BYTES`.
"""

from __future__ import annotations

from typing import Any

import torch

from trainables.kernels.elementwise import softmax_nats
from trainables.limits import logits_chunk_rows
from trainables.packed.logits_form import PLAIN, LogitsForm

HALF_FACTOR = 1024.0  # what fp16 shares are multiplied by: 1 / 128,256 would be a subnormal number


def target_nats(
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    form: LogitsForm = PLAIN,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Returns minus the log-likelihood of each target, in nats.

    `hidden` is n x d (the positions before the targets), `head` is vocabulary x d and frozen, as its `bias` is;
    `targets` is n token ids, `form` what the model makes of the products; the result is n fp32 numbers. Logits exist
    for one chunk of positions at a time; where `hidden` needs a gradient, it is computed in the same pass, as
    softmax(logits) - onehot(target), through the form, times the head, and only scaled in the backward. Products are
    taken in the type of `hidden`.
    """
    bias = None if bias is None else bias.to(hidden.dtype)
    return _TargetNats.apply(hidden, head.to(hidden.dtype), targets.to(hidden.device), form, bias)


class _TargetNats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        head: torch.Tensor,
        targets: torch.Tensor,
        form: LogitsForm,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        needs_gradient = ctx.needs_input_grad[0]
        nats = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if needs_gradient else None
        factor = HALF_FACTOR if hidden.dtype == torch.float16 else 1.0
        size = min(len(targets), logits_chunk_rows(head.shape[0], head.element_size()))
        buffer = hidden.new_empty(size, head.shape[0])
        for start in range(0, len(targets), max(1, size)):
            part = slice(start, start + size)
            logits = torch.mm(hidden[part], head.T, out=buffer[: len(targets) - start])
            if bias is not None:
                logits += bias
            nats[part] = softmax_nats(logits, targets[part], factor, needs_gradient, form.divisor, form.cap)
            if gradient is not None:
                torch.mm(logits, head, out=gradient[part])
        if gradient is not None:
            ctx.save_for_backward(gradient)
            ctx.factor = factor
        return nats

    @staticmethod
    def backward(ctx: Any, grad_nats: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        # The product is taken in fp32: a loss scaler's factor may not fit 16 bits.
        return (gradient.float() * (grad_nats / ctx.factor)[:, None]).to(gradient.dtype), None, None, None, None
