"""Moves adapters off the device and back, while another is measured or tried alone.

A parked adapter's tensors stay where they can be read: in host memory, or on a CPU, where the process itself is
measured, in a file that is mapped and not resident. So it may wait there for as long as the device has no room, be
checkpointed meanwhile, and lose nothing: it comes back whole, or stays as it is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from trainables.engine.release import drop_frames, empty_caches, out_of_memory, release
from trainables.packed.member import TrainingMember


class ParkingError(Exception):
    """An adapter could not be moved off the device: host memory, or the folder of temporary files, is full."""


@contextmanager
def parked(members: Sequence[TrainingMember]) -> Iterator[None]:
    """Parks those of the members that are on the device for the block; afterwards those come back that find room.

    The others stay parked: `member.away` is then true. Raises ParkingError where one cannot be moved off.
    """
    here = [member for member in members if not member.away]
    try:
        for member in here:
            park(member)
        yield
    except BaseException as error:
        drop_frames(error)  # or the tensors of the work that failed take the place of those that come back
        empty_caches()
        raise
    finally:
        _back(here)


def park(member: TrainingMember) -> None:
    """Moves a member's tensors off the device, all or none. Raises ParkingError."""
    held = _held(member)
    kept = [one for one in held if not one.zero]
    try:
        data = [one.tensor.data for one in kept]
        moved = _mapped(data) if data[0].device.type == "cpu" else [tensor.to("cpu") for tensor in data]
    except Exception as error:
        text = f"an adapter could not be moved off the device: {type(error).__name__}: {error}"
        raise ParkingError(text) from error
    member.away = True
    for one, there in zip(kept, moved, strict=True):
        one.tensor.data = there
    for one in held:
        if one.zero:  # a fresh member's moments are not worth carrying
            one.tensor.data = torch.zeros((), dtype=one.tensor.dtype).expand(one.tensor.shape)


def bring_back(member: TrainingMember) -> None:
    """Moves a parked member's tensors to where they were, all or none. Raises what torch raises without room."""
    if not member.away:
        return
    held = _held(member)
    back = [_copied(one.tensor.data, one.home) for one in held]
    for one, data in zip(held, back, strict=True):
        one.tensor.data = data
    member.away = False


def training_bytes(member: TrainingMember) -> int:
    """Returns the bytes of a member's weights and moments: what it takes on the device once it is back."""
    return sum(one.tensor.nbytes for one in _held(member))


def _back(members: Sequence[TrainingMember]) -> None:
    """Brings back who finds room; what else fails is raised once all have had their turn."""
    failed: Exception | None = None
    for member in members:
        try:
            bring_back(member)
        except Exception as error:
            if not out_of_memory(error, member.homes[0]):
                failed = failed or error
            release(error)
    if failed:
        raise failed


@dataclass(frozen=True)
class _Held:
    """One tensor that a training needs, the device it is used on, and whether it is all zeros."""

    tensor: torch.Tensor
    home: torch.device
    zero: bool


def _held(member: TrainingMember) -> list[_Held]:
    """Lists weights, moments and AdamW's step counters."""
    found: list[_Held] = []
    for parameter, home in zip(member.adapter.parameters(), member.homes, strict=True):
        found.append(_Held(parameter, home, zero=False))
        for name, value in member.optimizer.state[parameter].items():
            found.append(_Held(value, home, zero=member.step == 0 and name != "step"))
    return found


def _copied(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device).copy_(tensor)


def _mapped(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Writes tensors to a file, and returns them mapped from it; the file itself goes at once, as a name."""
    with tempfile.NamedTemporaryFile(suffix=".parked", delete=False) as file:
        path = Path(file.name)
    try:
        torch.save(tensors, path)
        mapped: list[torch.Tensor] = torch.load(path, weights_only=True, mmap=True)
        return mapped
    finally:
        path.unlink()
