"""Brings layers that wait in host memory to their card, each before it is at work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from trainables.base_model.streaming.buffer_choice import Buffers, Travel
from trainables.base_model.streaming.copy_lane import lane_to
from trainables.base_model.streaming.layer_block import LayerBlock
from trainables.memory.offload import STREAM_BUFFERS


@dataclass
class Traffic:
    """What has gone to a card: the copies and their bytes, and of the copies those begun only when asked for."""

    copies: int = 0
    copied_bytes: int = 0
    late_copies: int = 0


class LayerStream:
    """The layers of one card that are in host memory, of which a few are in buffers on the card at any moment.

    A layer is asked for before its forward pass, its recomputation and its backward pass, and stays until another is;
    the next one in the direction of travel is copied meanwhile. Buffers are allocated once: `STREAM_BUFFERS` of the
    largest block's size, or one for each layer where there are fewer.
    """

    def __init__(self, blocks: Mapping[int, LayerBlock], buffers: int = STREAM_BUFFERS) -> None:
        """`blocks` are the layers, by their number in the model; all on one device, at least one."""
        self._blocks = dict(blocks)
        self._size = max(block.nbytes for block in blocks.values())
        device = next(iter(blocks.values())).device
        count = min(buffers, len(blocks))
        self._memory = [torch.empty(self._size, dtype=torch.uint8, device=device) for _ in range(count)]
        self._lane = lane_to(self._memory)
        self._buffers = Buffers.empty(count)
        self._travel = Travel(sorted(blocks))
        self._at_work: int | None = None
        self.traffic = Traffic()

    @property
    def buffer_bytes(self) -> int:
        """What all buffers take on the card."""
        return self._size * len(self._memory)

    def use(self, layer: int) -> None:
        """Makes a layer present for what is queued from now on; that of the layer before is all queued.

        A layer that is always on the card only ends the other's turn.
        """
        if layer == self._at_work:
            return
        self._release()
        if layer in self._blocks:
            self._put_to_work(layer)

    def _release(self) -> None:
        if self._buffers.at_work is not None:
            self._lane.work_is_queued(self._buffers.at_work)
        self._buffers, self._at_work = self._buffers.released(), None

    def _put_to_work(self, layer: int) -> None:
        if self._buffers.holding(layer) is None:
            self._bring(layer)
            self.traffic.late_copies += 1
        buffer = self._buffers.holding(layer)
        assert buffer is not None
        self._lane.await_copy(buffer)
        self._blocks[layer].show_in(self._memory[buffer])
        self._buffers, self._at_work = self._buffers.working(buffer), layer
        self._bring_ahead(self._travel.to(layer))

    def _bring_ahead(self, layer: int | None) -> None:
        if layer is not None and self._buffers.holding(layer) is None and self._buffers.free is not None:
            self._bring(layer)

    def _bring(self, layer: int) -> None:
        """Copies a layer into the free buffer; whichever was there is hidden."""
        buffer = self._buffers.free
        assert buffer is not None
        before = self._buffers.layers[buffer]
        if before is not None:
            self._blocks[before].hide()
        self._lane.copy(self._blocks[layer], buffer)
        self._buffers = self._buffers.filled(buffer, layer)
        self.traffic.copies += 1
        self.traffic.copied_bytes += self._blocks[layer].nbytes


class LayerStreams:
    """The streams of all cards that have layers in host memory; none where all layers are resident."""

    def __init__(self, blocks: Mapping[int, LayerBlock]) -> None:
        """`blocks` are the layers in host memory, by their number in the model."""
        self.layers = frozenset(blocks)
        self._streams = [
            LayerStream({number: block for number, block in blocks.items() if block.device == device})
            for device in dict.fromkeys(block.device for block in blocks.values())
        ]

    def use(self, layer: int) -> None:
        """Makes a layer present on its card; the turn of whichever was at work before ends, on every card."""
        for stream in self._streams:
            stream.use(layer)

    @property
    def traffic(self) -> Traffic:
        """What has gone to all cards."""
        parts = [stream.traffic for stream in self._streams]
        return Traffic(
            sum(part.copies for part in parts),
            sum(part.copied_bytes for part in parts),
            sum(part.late_copies for part in parts),
        )

    @property
    def buffer_bytes(self) -> int:
        """What the buffers of all cards take."""
        return sum(stream.buffer_bytes for stream in self._streams)
