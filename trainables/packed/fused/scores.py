"""Attends by scores that are scaled, capped and seen through a sliding window, forward and backward.

Without a cap PyTorch's own attention kernels do, of which none caps; but in bf16 on a processor they are slow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

from trainables.packed.fused import cpu_attention
from trainables.packed.fused.capped_attention import CappedAttention
from trainables.packed.fused.cpu_attention import CpuAttention


@dataclass(frozen=True)
class Scores:
    """How a layer scores pairs of tokens: factor * (q k), then cap * tanh(. / cap) where there is a cap.

    A token sees itself and those before it; of a sliding `window` only the last so many, itself included.
    """

    factor: float
    cap: float | None = None
    window: int | None = None

    @property
    def masked_window(self) -> int | None:
        """The window that needs a mask, which PyTorch's kernels alone do."""
        return None if self.cap else self.window

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Returns the attended values; all tensors are rows x heads x tokens x head_dim.

        `mask` (tokens x tokens) is added to the scores and says which tokens are seen; None: the causal ones.
        """
        attended: torch.Tensor
        if self.cap:
            attended = CappedAttention.apply(q, k, v, self.factor, self.cap, self.window)
            return attended
        if cpu_attention.serves(q):
            attended = CpuAttention.apply(q, k, v, self.factor, self.window)
            return attended
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=self.factor)
