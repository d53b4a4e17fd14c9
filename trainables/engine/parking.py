"""Moves adapters off the device and back, while another is measured or tried alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from trainables.packed.member import TrainingMember


@contextmanager
def parked(members: Sequence[TrainingMember]) -> Iterator[None]:
    """Moves the members' tensors off the device for the block, and puts them back bit for bit.

    From a card they go to host memory; on a CPU, where the process itself is measured, to temporary files.
    """
    with ExitStack() as kept:  # what is away comes back, also where moving the next one, or bringing it back, fails
        for member in members:
            kept.callback(_Parked(member).back)
        yield


class _Parked:
    def __init__(self, member: TrainingMember) -> None:
        weights, moments = _tensors(member)
        self._member = member
        self._kept = [*weights, *moments] if member.step else weights
        self._zeros = [] if member.step else moments  # a fresh member's moments are not worth carrying
        self._shapes = [tensor.shape for tensor in self._zeros]
        self._devices = [tensor.device for tensor in self._kept]
        self._file: Path | None = None
        if self._devices[0].type == "cpu":
            self._file = _saved([tensor.data for tensor in self._kept])
        else:
            self._moved = [tensor.data.to("cpu") for tensor in self._kept]
        member.away = True
        for tensor in (*self._kept, *self._zeros):
            tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)

    def back(self) -> None:
        if self._file:
            kept = torch.load(self._file, weights_only=True)
            self._file.unlink()
        else:
            kept = [tensor.to(device) for tensor, device in zip(self._moved, self._devices, strict=True)]
        for tensor, data in zip(self._kept, kept, strict=True):
            tensor.data = data
        for tensor, shape in zip(self._zeros, self._shapes, strict=True):
            tensor.data = torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
        self._member.away = False


def _saved(tensors: list[torch.Tensor]) -> Path:
    with tempfile.NamedTemporaryFile(suffix=".parked", delete=False) as file:
        path = Path(file.name)
    try:
        torch.save(tensors, path)
    except BaseException:  # a full disk: the tensors are still in their place
        path.unlink()
        raise
    return path


def _tensors(member: TrainingMember) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The large tensors of a member: weights, and moments (AdamW's step counters stay)."""
    weights: list[torch.Tensor] = [*member.adapter.parameters()]
    moments = [
        value
        for parameter in weights
        for name, value in member.optimizer.state.get(parameter, {}).items()
        if name != "step"
    ]
    return weights, moments
