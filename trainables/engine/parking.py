"""Moves adapters off the device and back, while another is measured or tried alone.

A parked adapter's tensors stay where they can be read: in host memory, or on a CPU, where the process itself is
measured, in a file that is mapped and not resident. So it may wait there for as long as the device has no room, be
checkpointed meanwhile, and lose nothing: it comes back whole, or stays as it is.

An adapter's tensors, hundreds of small ones, move as one block; those of a fresh adapter that are zeros do not move.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from trainables.engine.release import drop_frames, empty_caches, out_of_memory, release
from trainables.packed.adapter import memoryless_zeros
from trainables.packed.host_memory.tensor_block import host_block, placed
from trainables.packed.member import TrainingMember


class ParkingError(Exception):
    """An adapter could not be moved off the device: host memory, or the folder of temporary files, is full."""


class Parking:
    """The members that were on the device when they were parked, in that order."""

    def __init__(self) -> None:
        self._members: list[TrainingMember] = []

    def add(self, members: Sequence[TrainingMember]) -> None:
        """Parks those of the members that are on the device. Raises ParkingError where one cannot be moved off."""
        for member in members:
            if not member.away:
                park(member)
                self._members.append(member)

    def end(self) -> None:
        """Brings back who finds room; what else fails is raised once all have had their turn."""
        failed: Exception | None = None
        for member in self._members:
            try:
                bring_back(member)
            except Exception as error:
                if not out_of_memory(error, member.homes[0]):
                    failed = failed or error
                release(error)
        if failed:
            raise failed


@contextmanager
def parked(members: Sequence[TrainingMember]) -> Iterator[Parking]:
    """Parks those of the members that are on the device for the block; afterwards those come back that find room.

    The others stay parked: `member.away` is then true. More can be added within the block. Raises ParkingError where
    one cannot be moved off.
    """
    parking = Parking()
    try:
        parking.add(members)
        yield parking
    except BaseException as error:
        drop_frames(error)  # or the tensors of the work that failed take the place of those that come back
        empty_caches()
        raise
    finally:
        parking.end()


def park(member: TrainingMember) -> None:
    """Moves a member's tensors off the device, all or none. Raises ParkingError."""
    held = _held(member)
    data = [one.tensor.data for one in held if not one.zero]
    try:
        moved = _mapped(data) if member.homes[0].type == "cpu" else _in_host_memory(data)
    except Exception as error:
        text = f"an adapter could not be moved off the device: {type(error).__name__}: {error}"
        raise ParkingError(text) from error
    member.away = True
    there = iter(moved)
    for one in held:
        one.tensor.data = memoryless_zeros(one.tensor.shape, one.tensor.dtype) if one.zero else next(there)


def bring_back(member: TrainingMember) -> None:
    """Moves a parked member's tensors to where they were, all or none. Raises what torch raises without room."""
    if not member.away:
        return
    held = _held(member)
    member.optimizer.prepare(member.homes)
    back = [_copied(one.tensor.data, one.home, one.zero) for one in held]
    for one, data in zip(held, back, strict=True):
        one.tensor.data = data
    member.away = False


def training_bytes(member: TrainingMember) -> int:
    """Returns the bytes of a member's weights, and of moments that move with them: what it takes once it is back."""
    return sum(one.tensor.nbytes for one in _held(member))


@dataclass(frozen=True)
class _Held:
    """One tensor that a training needs, the device it is used on, and whether it is all zeros."""

    tensor: torch.Tensor
    home: torch.device
    zero: bool


def _held(member: TrainingMember) -> list[_Held]:
    """Lists weights, and moments and step counters that move too; before the first step only A is not all zeros."""
    fresh, found = member.step == 0, []
    halves = [half for pair in member.adapter.weights.values() for half in (pair.a, pair.b)]
    for number, (parameter, home) in enumerate(zip(halves, member.homes, strict=True)):
        found.append(_Held(parameter, home, zero=fresh and number % 2 == 1))
        found += [_Held(value, home, fresh) for value in member.optimizer.moving(parameter).values()]
    return found


def _copied(tensor: torch.Tensor, device: torch.device, zero: bool) -> torch.Tensor:
    if zero:  # copying them would fill host memory with zeros first
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device).copy_(tensor)


def _in_host_memory(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Copies tensors into one block of host memory."""
    places, size = placed(tensors)
    block = host_block(size)
    there = [place.view(block) for place in places]
    for target, tensor in zip(there, tensors, strict=True):
        target.copy_(tensor)
    return there


def _mapped(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Writes tensors to one file, and returns them mapped from it; the file itself goes at once, as a name."""
    places, size = placed(tensors)
    handle, path = tempfile.mkstemp(suffix=".parked")
    try:
        with os.fdopen(handle, "wb") as file:
            for place, tensor in zip(places, tensors, strict=True):
                file.seek(place.start)
                file.write(tensor.contiguous().view(-1).numpy().data)
            file.truncate(size)
        block = torch.from_file(path, shared=False, size=size, dtype=torch.uint8)
        return [place.view(block) for place in places]
    finally:
        os.unlink(path)
