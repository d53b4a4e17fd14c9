"""Holds the frozen linear weights of one decoder layer in one block of host memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

ALIGNED_BYTES = 512  # each tensor begins at a multiple of it, as the CUDA allocator would place it
STATISTICS = ("absmax",)  # of a 4-bit weight's quantization state, and of the state of its absmax; tables are shared


@dataclass(frozen=True)
class _Place:
    """Where a module keeps one of the tensors: `setattr(holder, name, tensor)` changes it."""

    holder: Any
    name: str
    shape: torch.Size
    dtype: torch.dtype
    start: int
    nbytes: int

    def view(self, buffer: torch.Tensor) -> torch.Tensor:
        return buffer[self.start : self.start + self.nbytes].view(self.dtype).view(self.shape)


class LayerBlock:
    """The weights of a layer's `nn.Linear` modules, and their quantization's statistics, as one block of bytes.

    While the layer is hidden, its tensors are stand-ins on `device` of the right shape and type, which take no memory;
    whatever computes with them by mistake gets NaN, where the type has it. All else of the layer is left as it is.
    """

    def __init__(self, module: nn.Module, device: torch.device, pinned: bool) -> None:
        """Copies the module's tensors into host memory, page-locked where `pinned`, and hides the layer."""
        self.device = device
        self._places, self.nbytes = _places(module)
        self.block = torch.empty(self.nbytes, dtype=torch.uint8, pin_memory=pinned)
        for place in self._places:
            place.view(self.block).copy_(getattr(place.holder, place.name))
        self.hide()

    def copy_to(self, buffer: torch.Tensor) -> None:
        """Queues the copy of the block to the first bytes of a device's uint8 buffer, on the current stream."""
        buffer[: self.nbytes].copy_(self.block, non_blocking=True)

    def show_in(self, buffer: torch.Tensor) -> None:
        """Makes the module's tensors views of the buffer."""
        for place in self._places:
            setattr(place.holder, place.name, place.view(buffer))

    def hide(self) -> None:
        """Makes the module's tensors stand-ins again."""
        for place in self._places:
            setattr(place.holder, place.name, _stand_in(place, self.device))


def _stand_in(place: _Place, device: torch.device) -> torch.Tensor:
    number = math.nan if place.dtype.is_floating_point else torch.iinfo(place.dtype).max
    return torch.full((1,), number, dtype=place.dtype, device=device).expand(place.shape)


def _places(module: nn.Module) -> tuple[list[_Place], int]:
    places, end = [], 0
    for holder, name in _tensors(module):
        tensor = getattr(holder, name)
        places.append(_Place(holder, name, tensor.shape, tensor.dtype, end, tensor.nbytes))
        end += math.ceil(tensor.nbytes / ALIGNED_BYTES) * ALIGNED_BYTES
    return places, end


def _tensors(module: nn.Module) -> Iterator[tuple[Any, str]]:
    for linear in module.modules():
        if not isinstance(linear, nn.Linear):
            continue
        yield linear.weight, "data"
        state = getattr(linear.weight, "quant_state", None)
        while state is not None:
            for name in STATISTICS:
                yield state, name
            state = getattr(state, "state2", None) if getattr(state, "nested", False) else None
