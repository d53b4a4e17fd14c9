"""Reads the tensors of safetensors files onto a device: mapped on a CPU; onto a card by several threads at once.

A thread reads pieces of the files into memory that the card can read by itself (pinned), and starts their copies on a
stream of its own. A piece's memory is taken again once its copy has ended. Beside the tensors a card holds nothing;
where a type changes, one piece a thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trainables.base_model.checks.safetensors_header import Tensor

DTYPES = {
    "U8": torch.uint8, "I8": torch.int8, "I32": torch.int32, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip
MOST_THREADS = 8
PIECE_BYTES = 8 * 2**20
PIECES = 2  # in a thread's hands: one is read while the other is copied
ALIGNMENT = 256  # bytes, of a tensor's place in a piece

Headers = Mapping[Path, Mapping[str, Tensor]]


@dataclass(frozen=True)
class _Part:
    """Bytes of a file that go to numbers `begin` to `end` of a flat tensor; in the file they are of type `dtype`."""

    path: Path
    offset: int
    destination: torch.Tensor
    begin: int
    end: int
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return (self.end - self.begin) * self.dtype.itemsize


def map_tensors(headers: Headers, dtypes: Mapping[str, torch.dtype]) -> dict[str, torch.Tensor]:
    """Returns the files' tensors on the CPU, of which pages are read as they are used; cast where `dtypes` says so."""
    from safetensors import safe_open

    tensors: dict[str, torch.Tensor] = {}
    for path, header in headers.items():
        with safe_open(path, framework="pt", device="cpu") as file:
            for name in header:
                tensors[name] = file.get_slice(name)[...].to(dtypes.get(name))
    return tensors


def read_tensors(headers: Headers, dtypes: Mapping[str, torch.dtype], device: torch.device) -> dict[str, torch.Tensor]:
    """Returns the files' tensors on the device, cast where `dtypes` has another type for a name than its file.

    Raises OSError where a file ends early.
    """
    tensors = {
        name: torch.empty(entry.shape, dtype=dtypes.get(name, DTYPES[entry.dtype]), device=device)
        for header in headers.values()
        for name, entry in header.items()
    }
    read_into(tensors, headers, device)
    return tensors


def read_into(tensors: Mapping[str, torch.Tensor], headers: Headers, device: torch.device) -> None:
    """Reads the files' tensors into those of the same names, all on `device`, cast to their types; raises OSError."""
    parts: list[_Part] = []
    for path, header in headers.items():
        data = 8 + int.from_bytes(_first_bytes(path), "little")
        for name, entry in header.items():
            parts += _parts(path, data + entry.begin, tensors[name].view(-1), DTYPES[entry.dtype])
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # what was freed for these tensors may be in use until here
    threads = max(1, min(MOST_THREADS, os.cpu_count() or 1, len(parts)))
    with ThreadPoolExecutor(threads, thread_name_prefix="weights") as pool:
        for done in [pool.submit(_read, parts[number::threads], device) for number in range(threads)]:
            done.result()


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _parts(path: Path, offset: int, flat: torch.Tensor, stored: torch.dtype) -> Iterator[_Part]:
    numbers = PIECE_BYTES // stored.itemsize
    for begin in range(0, flat.numel(), numbers):
        end = min(begin + numbers, flat.numel())
        yield _Part(path, offset + begin * stored.itemsize, flat, begin, end, stored)


def _read(parts: list[_Part], device: torch.device) -> None:
    """Reads the parts one after another, on this thread and a stream of its own."""
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    staging = _Staging(stream)
    files = {path: os.open(path, os.O_RDONLY) for path in {part.path for part in parts}}
    try:
        with torch.cuda.stream(stream) if stream else nullcontext():
            for part in parts:
                if (there := _same_bytes(part)) is not None:
                    _read_fully(files[part.path], there.numpy(), part)
                    continue
                place = staging.room(part.nbytes)
                _read_fully(files[part.path], place.numpy(), part)
                numbers = place.view(part.dtype)
                if part.dtype != part.destination.dtype:
                    numbers = numbers.to(device, non_blocking=True)  # a card casts faster than a processor
                part.destination[part.begin : part.end].copy_(numbers, non_blocking=True)
        if stream:
            stream.synchronize()
    finally:
        for file in files.values():
            os.close(file)


def _same_bytes(part: _Part) -> torch.Tensor | None:
    """Returns the bytes in host memory that are the file's own; None on a card, or of another type."""
    if part.destination.device.type != "cpu" or part.dtype != part.destination.dtype:
        return None
    return part.destination[part.begin : part.end].view(torch.uint8)


def _read_fully(file: int, place: Any, part: _Part) -> None:
    view, done = memoryview(place), 0
    while done < part.nbytes:
        count = os.preadv(file, [view[done:]], part.offset + done)
        if not count:
            raise OSError(f"{part.path} ends before its last tensor")
        done += count


@dataclass
class _Staging:
    """Memory of the host that copies to a card start from, `PIECES` times `PIECE_BYTES` of it, taken in turns."""

    stream: Any  # None where the device is the CPU
    pieces: list[torch.Tensor] = field(default_factory=list)
    events: dict[int, Any] = field(default_factory=dict)
    current: int = 0
    used: int = 0

    def room(self, nbytes: int) -> torch.Tensor:
        """Returns room for so many bytes, once nothing is copied from there any more."""
        if not self.pieces:
            self.pieces = [self._piece() for _ in range(PIECES)]
        if self.used + nbytes > PIECE_BYTES:
            self._turn()
        place = self.pieces[self.current][self.used : self.used + nbytes]
        self.used += -(-nbytes // ALIGNMENT) * ALIGNMENT
        return place

    def _piece(self) -> torch.Tensor:
        return torch.empty(PIECE_BYTES, dtype=torch.uint8, pin_memory=self.stream is not None)

    def _turn(self) -> None:
        if self.stream is not None:
            self.events[self.current] = self.stream.record_event()
        self.current, self.used = (self.current + 1) % PIECES, 0
        if self.current in self.events:
            self.events.pop(self.current).synchronize()
