"""Holds the frozen linear weights of one decoder layer in one block of host memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainables.base_model.streaming.host_memory import lock, reserve
from trainables.limits import ALIGNED_BYTES

STATISTICS = ("absmax",)  # of a 4-bit weight's quantization state, and of the state of its absmax; tables are shared


@dataclass(frozen=True)
class _Place:
    """Where a module keeps one of the tensors: `setattr(holder, name, tensor)` changes it; `key` is its files' name."""

    key: str
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
        self._lay_out(module, device)
        for place in self._places:
            place.view(self.block).copy_(getattr(place.holder, place.name))
        if pinned:
            self.pin()
        self.hide()

    @classmethod
    def unfilled(cls, module: nn.Module, device: torch.device) -> LayerBlock:
        """Returns the block of a layer whose tensors are stand-ins (`stand_in`) already; its `views` are to be read."""
        block = cls.__new__(cls)
        block._lay_out(module, device)
        return block

    def _lay_out(self, module: nn.Module, device: torch.device) -> None:
        self.device = device
        self._places, self.nbytes = _places(module)
        self._pages = reserve(self.nbytes)
        self.block = self._pages.block
        self._stand_ins = [stand_in(place.shape, place.dtype, device) for place in self._places]

    def pin(self) -> None:
        """Lets a card copy the block by itself. Raises BaseModelError where that is refused."""
        lock(self._pages, self.device)

    def views(self) -> dict[str, torch.Tensor]:
        """Returns the tensors as they lie in the block, by their names in files, below the layer's own."""
        return {place.key: place.view(self.block) for place in self._places}

    def copy_to(self, buffer: torch.Tensor) -> None:
        """Queues the copy of the block to the first bytes of a device's uint8 buffer, on the current stream."""
        buffer[: self.nbytes].copy_(self.block, non_blocking=True)

    def show_in(self, buffer: torch.Tensor) -> None:
        """Makes the module's tensors views of the buffer."""
        for place in self._places:
            setattr(place.holder, place.name, place.view(buffer))

    def hide(self) -> None:
        """Makes the module's tensors stand-ins again."""
        for place, stand in zip(self._places, self._stand_ins, strict=True):
            setattr(place.holder, place.name, stand)


def stand_in(shape: torch.Size | tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Returns a tensor that takes no memory: one number, NaN where the type has it, in all places."""
    number = math.nan if dtype.is_floating_point else torch.iinfo(dtype).max
    return torch.full((1,), number, dtype=dtype, device=device).expand(shape)


def block_bytes(module: nn.Module) -> int:
    """Returns the bytes of the module's block."""
    return _places(module)[1]


def _places(module: nn.Module) -> tuple[list[_Place], int]:
    places, end = [], 0
    for key, holder, name in _tensors(module):
        tensor = getattr(holder, name)
        places.append(_Place(key, holder, name, tensor.shape, tensor.dtype, end, tensor.nbytes))
        end += math.ceil(tensor.nbytes / ALIGNED_BYTES) * ALIGNED_BYTES
    return places, end


def _tensors(module: nn.Module) -> Iterator[tuple[str, Any, str]]:
    for path, linear in module.named_modules():
        if not isinstance(linear, nn.Linear):
            continue
        key = f"{path}.weight"
        yield key, linear.weight, "data"
        state, prefix = getattr(linear.weight, "quant_state", None), ""
        while state is not None:
            for name in STATISTICS:
                yield f"{key}.{prefix}{name}", state, name
            state, prefix = (getattr(state, "state2", None) if getattr(state, "nested", False) else None), "nested_"
