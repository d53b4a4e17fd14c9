"""Parts the outputs of joined linear layers, and joins the parts' gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def parted(outputs: Sequence[torch.Tensor], widths: Sequence[int]) -> Sequence[torch.Tensor]:
    """Returns one tensor for each width: the layers' outputs, or views of a joined layer's one; all are n x width."""
    return outputs if len(outputs) == len(widths) else outputs[0].split(list(widths), dim=-1)


def joined(parts: Sequence[torch.Tensor], layers: int) -> Sequence[torch.Tensor]:
    """Returns the gradients of so many layers' outputs, given those of the parts, n x width each.

    Parts that stand side by side in one tensor, and fill its rows, are that tensor; others are copied into one.
    """
    if layers == len(parts):
        return parts
    first, widths = parts[0], [part.shape[1] for part in parts]
    total, place = sum(widths), first.storage_offset()
    for part, width in zip(parts, widths, strict=True):
        same = part.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not (same and part.stride() == (total, 1) and part.storage_offset() == place):
            return [torch.cat(list(parts), dim=-1)]
        place += width
    return [first.as_strided((len(first), total), (total, 1))]
