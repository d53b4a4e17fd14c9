"""A header is read as the safetensors library reads it, and refused at least where the library refuses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.support.trainables.base_folders import write_safetensors
from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.checks.safetensors_header import DTYPE_BITS, read_header

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


def library_reads(file: Path) -> dict[str, tuple[str, tuple[int, ...]]] | None:
    """The tensors' types and shapes as the library has them; None where it refuses the file."""
    try:
        with safetensors.safe_open(file, framework="pt") as weights:
            found = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118 (it is no mapping)
            return {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in found.items()}
    except (safetensors.SafetensorError, OSError, ValueError):
        return None


def we_read(file: Path) -> dict[str, tuple[str, tuple[int, ...]]] | None:
    try:
        return {name: (tensor.dtype, tensor.shape) for name, tensor in read_header(file).items()}
    except BaseModelError:
        return None


def test_every_type_and_shape_is_read(tmp_path: Path) -> None:
    shapes = [(2, 3), (), (0, 4), (5,), (1, 1, 2)]
    tensors = {
        f"{name}.{index}": torch.zeros(shape).to(dtype)
        for name, dtype in DTYPES.items()
        for index, shape in enumerate(shapes)
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = we_read(tmp_path / "x.safetensors")
    assert found == library_reads(tmp_path / "x.safetensors")
    assert found == {name: (name.split(".")[0], tuple(tensor.shape)) for name, tensor in tensors.items()}


@pytest.mark.parametrize("name", DTYPE_BITS)
def test_a_type_has_the_librarys_size(name: str, tmp_path: Path) -> None:
    """The library refuses a tensor whose bytes are not of its type's size; eight values are whole bytes of any."""
    size = DTYPE_BITS[name]
    for count, fine in ((size, True), (size + 8, False)):
        entry = {"x": {"dtype": name, "shape": [8], "data_offsets": [0, count]}}
        write_safetensors(tmp_path / "x.safetensors", entry, bytes(count))
        ours = we_read(tmp_path / "x.safetensors")
        assert (ours is not None) == fine
        if fine:
            text = (tmp_path / "x.safetensors").read_bytes()
            assert safetensors.deserialize(text)[0][0] == "x"


ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "U8", "F4", "X", None, 7]),
        "shape": st.lists(st.one_of(st.integers(-1, 4), st.just(2**62)), max_size=3),
        "data_offsets": st.lists(st.one_of(st.integers(-1, 32), st.just(2**63)), min_size=1, max_size=3),
    }
)
NAMED = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.one_of(ENTRY, st.none(), st.integers()), max_size=3)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=NAMED, count=st.integers(0, 40))
def test_what_the_library_refuses_is_refused(tmp_path: Path, header: dict[str, Any], count: int) -> None:
    file = tmp_path / "x.safetensors"
    write_safetensors(file, header, bytes(count))
    ours = we_read(file)
    if ours is not None:
        assert ours == library_reads(file)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=5), reverse=st.booleans())
def test_good_headers_are_read_in_any_order(tmp_path: Path, sizes: list[list[int]], reverse: bool) -> None:
    header, end = {}, 0
    for index, shape in enumerate(sizes):
        count = 2
        for size in shape:
            count *= size
        header[f"t{index}"] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + count]}
        end += count
    items = reversed(header.items()) if reverse else header.items()
    write_safetensors(tmp_path / "x.safetensors", json.dumps(dict(items)).encode(), bytes(end))
    found = we_read(tmp_path / "x.safetensors")
    assert found == {f"t{index}": ("F16", tuple(shape)) for index, shape in enumerate(sizes)}


def test_a_header_of_any_length_is_no_other_kind_of_file(tmp_path: Path) -> None:
    """A header's length must not be taken for the magic of a pickle (0x80 0x02) or of gzip (0x1f 0x8b 0x08)."""
    for length in (0x280, 0x480, 0x88B1F):
        text = b"{}".ljust(length)
        (tmp_path / "x.safetensors").write_bytes(length.to_bytes(8, "little") + text)
        assert read_header(tmp_path / "x.safetensors") == {}
