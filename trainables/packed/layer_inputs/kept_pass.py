"""Sends one pass' layer inputs to host memory in the order of its layers, and brings them back in the reverse."""

from __future__ import annotations

from collections.abc import Callable

import torch

from trainables.packed.host_memory.side_stream import CopyMark, SideStream
from trainables.packed.host_memory.tensor_block import Place
from trainables.packed.layer_inputs.block_pool import BlockPool


class Lane:
    """One device's stream of copies, and the blocks that it alone fills and empties: copies of one block never meet."""

    def __init__(self, device: torch.device) -> None:
        self.side = SideStream(device)
        self.pool = BlockPool(device)


class KeptInput:
    """One layer's input: on the device at first, then in host memory, then on the device again, then given back."""

    def __init__(self, number: int, tensor: torch.Tensor, lane: Lane) -> None:
        """Starts its copy to host memory; `number` counts the inputs of the pass."""
        self.number = number
        self._lane = lane
        self._device = tensor.device
        self._place = Place(tensor.shape, tensor.dtype, 0)
        self._block: torch.Tensor | None = lane.pool.take(tensor.nbytes)
        self.on_device: torch.Tensor | None = tensor.detach()
        self._mark: CopyMark = lane.side.copy(self._place.view(self._block), self.on_device)

    def leave(self) -> None:
        """Gives the device's memory to whatever is queued next, which comes after the copy."""
        self._mark.hold_device()
        self.on_device = None

    def fetch(self) -> None:
        """Starts its way back, unless it is there, on its way or given back."""
        if self.on_device is None and self._block is not None:
            self.on_device = torch.empty(self._place.shape, dtype=self._place.dtype, device=self._device)
            self._mark = self._lane.side.copy(self.on_device, self._place.view(self._block))

    def give_back(self) -> torch.Tensor:
        """Returns it for whatever is queued next, and keeps nothing of it. Raises RuntimeError at a second time."""
        self.fetch()
        tensor = self.on_device
        if tensor is None:
            raise RuntimeError("a layer's input in host memory is there for one backward pass; it was read twice")
        self.drop()
        return tensor

    def drop(self) -> None:
        """Keeps nothing of it; the memory of copies under way is used only after them."""
        self._mark.hold_device()
        self.on_device = None
        if self._block is not None:
            self._lane.pool.give(self._block)
        self._block = None


class KeptPass:
    """All inputs that one pass keeps in host memory: autograd packs and unpacks them here."""

    def __init__(self, lanes: dict[torch.device, Lane], takes: Callable[[torch.Tensor], bool]) -> None:
        """`lanes` are by device, and made where one is missing; `takes` says what is a layer's input."""
        self._lanes = lanes
        self._takes = takes
        self._inputs: list[KeptInput] = []

    def pack(self, tensor: torch.Tensor) -> torch.Tensor | KeptInput:
        """Starts to send a layer's input away, and lets go of the one before; returns anything else as it is."""
        if not self._takes(tensor):
            return tensor.detach()  # autograd restores the rest; the tensor itself would hold its own node
        if self._inputs:
            self._inputs[-1].leave()
        lane = self._lanes.get(tensor.device) or self._lanes.setdefault(tensor.device, Lane(tensor.device))
        self._inputs.append(KeptInput(len(self._inputs), tensor, lane))
        return self._inputs[-1]

    def unpack(self, held: torch.Tensor | KeptInput) -> torch.Tensor:
        """Returns what was packed, and starts to fetch the input of the layer below."""
        if isinstance(held, torch.Tensor):
            return held
        tensor = held.give_back()
        if held.number:
            self._inputs[held.number - 1].fetch()
        return tensor

    def end(self) -> None:
        """Lets go of what no backward pass has read."""
        for one in self._inputs:
            one.drop()
        self._inputs = []
