"""Cross-entropy on target tokens only, in chunks, without a gradient for the frozen head."""

from __future__ import annotations

import torch
from torch.autograd.function import FunctionCtx

CHUNK_BYTES = 64 * 2**20  # of fp32 logits


def target_nats(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Minus log-likelihood of each target, in nats.

    `hidden` is n x d (the positions before the targets), `head` is vocabulary x d and frozen, `targets` is n token ids;
    the answer is n fp32 numbers. Logits exist for one chunk of positions at a time; where `hidden` needs a gradient, it
    is computed in the same pass, as softmax(logits) - onehot(target) times the head, and only scaled in the backward.
    """
    return _TargetNats.apply(hidden, head, targets)


def chunk_rows(vocabulary: int) -> int:
    """How many positions' fp32 logits fit into a chunk."""
    return max(16, CHUNK_BYTES // (4 * vocabulary))


class _TargetNats(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        needs_gradient = ctx.needs_input_grad[0]
        nats = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if needs_gradient else None
        size = chunk_rows(head.shape[0])
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            probabilities, nats[part] = _chunk(hidden[part], head, targets[part])
            if gradient is not None:
                gradient[part] = probabilities.to(head.dtype) @ head
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return nats

    @staticmethod
    def backward(ctx: FunctionCtx, grad_nats: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        # The product is taken in fp32: a loss scaler's factor may not fit 16 bits.
        return (gradient.float() * grad_nats[:, None]).to(gradient.dtype), None, None


def _chunk(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax - onehot (k x vocabulary, fp32) and the nats (k) of one chunk."""
    logits = (hidden @ head.T).float()
    log_total = torch.logsumexp(logits, dim=-1)
    index = targets[:, None]
    nats = log_total - logits.gather(1, index).squeeze(1)
    probabilities = logits.sub_(log_total[:, None]).exp_()
    probabilities.scatter_add_(1, index, torch.full_like(index, -1, dtype=probabilities.dtype))
    return probabilities, nats
