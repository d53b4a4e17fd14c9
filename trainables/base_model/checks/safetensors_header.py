"""Reads and checks a safetensors file's header: its tensors' names, types and shapes, and that all are there.

The format: eight bytes with the header's length, the header as JSON, then the tensors' bytes without holes
(https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.base_model.checks.contents import file_fault
from trainables.base_model.checks.faults import BaseModelError, ModelFault, raise_any, whole_file
from trainables.guarded_files import open_regular, parse_json
from trainables.shown_values import shortened

MIB = 2**20
MOST_HEADER_BYTES = 16 * MIB  # a thousand layers need two
WHOLE = "must be a whole safetensors file"
AGAIN = "Download it again."
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip
WEIGHT_DTYPES = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True)
class Tensor:
    """One tensor of a header: its type as the format names it, its shape, and its first and last byte's places."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> dict[str, Tensor]:
    """Reads the tensors that a file names.

    Raises BaseModelError with every fault where the file is not whole: another kind of file, a length, a type, a shape
    or an offset that does not hold, tensors that overlap, leave holes or end beyond the file.
    """
    fault = file_fault(path, WHOLE, lambda head: head[4:9] == b"\0\0\0\0{")
    raise_any([fault] if fault else [])
    values, data_bytes = _header(path)
    values.pop("__metadata__", None)
    faults = [fault for name, value in values.items() if (fault := _entry_fault(path, name, value))]
    raise_any(_grouped(faults))
    tensors = {
        name: Tensor(value["dtype"], tuple(value["shape"]), *value["data_offsets"]) for name, value in values.items()
    }
    raise_any(_place_faults(path, tensors, data_bytes))
    return tensors


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Returns the header's values, and how many bytes follow it."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            cut = (
                f"truncated: {size:,} bytes, and its header has {length:,}" if length < 2**32 else "no safetensors file"
            )
            raise _broken(path, cut)
        if length > MOST_HEADER_BYTES:
            raise _broken(path, f"a header of {length / MIB:,.0f} MiB, and {MOST_HEADER_BYTES // MIB} are the most")
        text = file.read(length)
    try:
        values = parse_json(text)
    except ValueError as error:
        raise _broken(path, f"a header that is no JSON ({shortened(str(error))})") from None
    if not isinstance(values, dict):
        raise _broken(path, "a header that is no mapping of names to tensors")
    return values, size - 8 - length


def _broken(path: Path, found: str) -> BaseModelError:
    return BaseModelError.of([whole_file(path, found, WHOLE, AGAIN)])


def _entry_fault(path: Path, name: str, value: Any) -> ModelFault | None:
    """What is wrong with one tensor's entry, by itself."""
    key = shortened(name)
    if not isinstance(value, Mapping):
        return ModelFault(str(path), key, value, "must say a tensor's dtype, shape and data_offsets", AGAIN)
    dtype: Any = value.get("dtype")
    shape: Any = value.get("shape")
    offsets: Any = value.get("data_offsets")
    if dtype not in list(DTYPE_BITS):
        return ModelFault(str(path), f"{key}.dtype", dtype, "must be a type that safetensors know", AGAIN)
    if not _sizes(shape):
        return ModelFault(str(path), f"{key}.shape", shape, "must be a list of sizes", AGAIN)
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return ModelFault(str(path), f"{key}.data_offsets", offsets, "must be two places, the end last", AGAIN)
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if bits != 8 * (offsets[1] - offsets[0]):
        rule = f"must span the {bits // 8:,} bytes of {dtype} x {list(shape)}"
        return ModelFault(str(path), f"{key}.data_offsets", offsets, rule, AGAIN)
    return None


def _sizes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 8
        and all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 2**63 for one in value)
    )


def _place_faults(path: Path, tensors: Mapping[str, Tensor], data_bytes: int) -> Iterator[ModelFault]:
    """Yields at most one fault: the first place where tensors overlap, leave a hole, or end beyond the file."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != end:
            rule = f"must begin where the tensor before it ends, at {end:,}"
            yield ModelFault(str(path), f"{shortened(name)}.data_offsets", [tensor.begin, tensor.end], rule, AGAIN)
            return
        end = tensor.end
    if end > data_bytes:
        found = f"truncated: {data_bytes:,} bytes of weights where its header says {end:,}"
        yield whole_file(path, found, WHOLE, "Download it again, to its end.")
    elif end < data_bytes:
        yield whole_file(path, f"{data_bytes - end:,} bytes after its last tensor", WHOLE, AGAIN)


def _grouped(faults: list[ModelFault]) -> list[ModelFault]:
    """Returns the first faults, and how many more there are in the last one's rule."""
    if len(faults) <= 3:
        return faults
    first = faults[0]
    return [ModelFault(first.file, first.key, first.value, f"{first.rule} ({len(faults) - 1} more like it)", AGAIN)]
