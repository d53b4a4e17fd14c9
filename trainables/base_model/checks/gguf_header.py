"""Reads the header of a GGUF file, bounded and without its arrays' items: metadata, and where its tensors lie.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.base_model.checks.contents import GGUF_MAGIC, file_fault
from trainables.base_model.checks.faults import BaseModelError, ModelFault, raise_any, whole_file
from trainables.guarded_files import open_regular
from trainables.shown_values import shortened

WHOLE = "must be a whole GGUF file"
VERSIONS = (2, 3)
MOST_FIELDS, MOST_TENSORS, MOST_ITEMS = 2**14, 2**16, 2**22
MOST_NAME_BYTES, MOST_TEXT_BYTES = 2**16, 2**24
MOST_DIMENSIONS = 4
STRING, ARRAY, BOOL = 8, 9, 7
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", BOOL: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip


@dataclass(frozen=True)
class Items:
    """An array of the metadata, whose items are passed over: their type by its number, and how many there are."""

    kind: int
    count: int


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: its shape as transformers writes it (out x in), its blocks' type by its number, and its place."""

    shape: tuple[int, ...]
    kind: int
    offset: int  # from where the tensors begin


@dataclass(frozen=True)
class GgufHeader:
    """What a file says of itself: metadata by key, tensors by name, and how many bytes of tensors it holds."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]
    data_bytes: int
    alignment: int


class _BrokenError(ValueError):
    """The bytes do not hold; the message says what was found."""


def read_gguf_header(path: Path, arrays: Collection[str] = ()) -> GgufHeader:
    """Reads the header, with the items of the metadata's `arrays` as lists, of all others their count.

    Raises BaseModelError where the file is no GGUF file, or its header does not hold.
    """
    fault = file_fault(path, WHOLE, lambda head: head.startswith(GGUF_MAGIC))
    raise_any([fault] if fault else [])
    try:
        with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, arrays).header()
    except _BrokenError as error:
        raise _error(path, str(error)) from None
    except (struct.error, UnicodeDecodeError) as error:
        size = os.stat(path).st_size
        raise _error(path, f"truncated or damaged, {size:,} bytes ({shortened(str(error))})") from None


def place_faults(header: GgufHeader, path: Path, blocks: Mapping[int, tuple[int, int]]) -> list[ModelFault]:
    """Returns the first fault of the tensors' places: an unknown type, a broken offset, an end beyond the file.

    `blocks` holds each type's values and bytes in one block, by its number.
    """
    end, alignment = 0, header.alignment
    for name, tensor in sorted(header.tensors.items(), key=lambda item: item[1].offset):
        key = shortened(name)
        if tensor.kind not in blocks:
            rule = "must be of a type that can be read here"
            return [
                ModelFault(str(path), f"{key}.type", tensor.kind, rule, "Choose another quantization of the model.")
            ]
        values, size = blocks[tensor.kind]
        if tensor.shape[-1] % values:
            rule = f"must have rows of whole blocks of {values} values"
            return [ModelFault(str(path), f"{key}.shape", list(tensor.shape), rule, "Download it again.")]
        if tensor.offset % alignment or tensor.offset < end:
            rule = f"must be a multiple of {alignment}, behind the tensor before it, which ends at {end:,}"
            return [ModelFault(str(path), f"{key}.offset", tensor.offset, rule, "Download it again.")]
        end = tensor.offset + math.prod(tensor.shape) // values * size
    if end <= header.data_bytes:
        return []
    found = f"truncated: {header.data_bytes:,} bytes of weights where its header says {end:,}"
    return [whole_file(path, found, WHOLE, "Download it again, to its end.")]


def _error(path: Path, found: str) -> BaseModelError:
    return BaseModelError.of([whole_file(path, found, WHOLE, "Download it again.")])


class _Reader:
    """Walks over a file's header; every number is checked before it is used."""

    def __init__(self, data: mmap.mmap, arrays: Collection[str] = ()) -> None:
        self._data, self._arrays = data, arrays
        self._at = len(GGUF_MAGIC)

    def header(self) -> GgufHeader:
        if self._data[: self._at] != GGUF_MAGIC:
            raise _BrokenError("not a GGUF file")
        version = self._number("<I")
        if version not in VERSIONS:
            swapped = int.from_bytes(struct.pack("<I", version), "big") in VERSIONS
            raise _BrokenError(f"of version {version}" if not swapped else "written for big-endian machines")
        tensor_count, field_count = self._count("tensors", MOST_TENSORS), self._count("fields", MOST_FIELDS)
        metadata = dict(self._field() for _ in range(field_count))
        tensors = dict(self._tensor() for _ in range(tensor_count))
        if len(tensors) != tensor_count or len(metadata) != field_count:
            raise _BrokenError("a header that names a field or a tensor twice")
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 2**16 or alignment & (alignment - 1):
            raise _BrokenError(f"an alignment of {shortened(str(alignment))}")
        begin = -(-self._at // alignment) * alignment
        return GgufHeader(metadata, tensors, max(0, len(self._data) - begin), alignment)

    def _field(self) -> tuple[str, Any]:
        name = self._text(MOST_NAME_BYTES)
        return name, self._value(self._number("<I"), name in self._arrays)

    def _value(self, kind: int, whole: bool = False) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == STRING:
            return self._text(MOST_TEXT_BYTES)
        if kind != ARRAY:
            raise _BrokenError(f"a field of the unknown type {kind}")
        item, count = self._number("<I"), self._count("items", MOST_ITEMS)
        if whole:
            return self._items(item, count)
        if item == STRING:
            self._skip_texts(count)
        elif item in _SCALARS:
            self._skip(count * struct.calcsize(_SCALARS[item]))
        else:
            raise _BrokenError(f"a list of the unknown type {item}")
        return Items(item, count)

    def _items(self, item: int, count: int) -> list[Any]:
        if item == STRING:
            return [self._text(MOST_TEXT_BYTES) for _ in range(count)]
        if item not in _SCALARS:
            raise _BrokenError(f"a list of the unknown type {item}")
        begin, form = self._at, f"<{count}{_SCALARS[item][1]}"
        self._skip(struct.calcsize(form))
        return list(struct.unpack_from(form, self._data, begin))

    def _tensor(self) -> tuple[str, GgufTensor]:
        name, dimensions = self._text(MOST_NAME_BYTES), self._number("<I")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise _BrokenError(f"a tensor of {dimensions} dimensions ({shortened(name)})")
        sizes = [self._number("<Q") for _ in range(dimensions)]
        if not all(1 <= size < 2**40 for size in sizes):
            raise _BrokenError(f"a tensor of the sizes {shortened(str(sizes))} ({shortened(name)})")
        return name, GgufTensor(tuple(reversed(sizes)), self._number("<I"), self._number("<Q"))

    def _number(self, form: str) -> Any:
        value = struct.unpack_from(form, self._data, self._at)[0]
        self._at += struct.calcsize(form)
        return value

    def _count(self, what: str, most: int) -> int:
        count = int(self._number("<Q"))
        if count > most:
            raise _BrokenError(f"a header of {count:,} {what}, and {most:,} are the most")
        return count

    def _text(self, most: int) -> str:
        length = self._number("<Q")
        if length > most:
            raise _BrokenError(f"a text of {length:,} bytes in its header")
        begin = self._at
        self._skip(length)
        return self._data[begin : self._at].decode("utf-8")

    def _skip_texts(self, count: int) -> None:
        data, at, size, unpack = self._data, self._at, len(self._data), struct.Struct("<Q").unpack_from
        for _ in range(count):
            at += 8 + unpack(data, at)[0]
            if at > size:
                break
        self._at = at
        self._skip(0)

    def _skip(self, length: int) -> None:
        self._at += length
        if self._at > len(self._data):
            raise _BrokenError(f"truncated: its header ends beyond the file's {len(self._data):,} bytes")
