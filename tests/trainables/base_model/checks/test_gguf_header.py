"""A GGUF file's header is read as gguf's own reader reads it, and bounded."""

from __future__ import annotations

import time
from pathlib import Path

import gguf
import numpy as np
import pytest

from tests.support.trainables.gguf_files import small_llama, write_gguf
from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.checks.gguf_header import Items, read_gguf_header
from trainables.base_model.checks.gguf_model import read_gguf_config


def test_fields_and_tensors_are_those_of_gguf(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", small_llama(), q8=True)
    ours, theirs = read_gguf_header(path), gguf.GGUFReader(str(path))
    own = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count"}
    assert list(ours.metadata) == [name for name in theirs.fields if name not in own]
    for name, value in ours.metadata.items():
        field = theirs.fields[name]
        if isinstance(value, Items):
            assert (value.kind, value.count) == (int(field.types[1]), len(field.data))
        else:
            assert value == field.contents(), name
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        found = ours.tensors[tensor.name]
        assert found.shape == tuple(int(size) for size in reversed(tensor.shape))
        assert found.kind == int(tensor.tensor_type)
        assert found.offset == tensor.data_offset - theirs.data_offset
    assert ours.data_bytes == path.stat().st_size - theirs.data_offset


def test_every_type_of_field_is_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    values = {"uint8": 7, "int8": -7, "uint16": 700, "int16": -700, "uint32": 70_000, "int32": -70_000,
              "uint64": 2**40, "int64": -(2**40), "float32": 0.5, "float64": 0.1, "bool": True,
              "string": "ß"}  # fmt: skip
    for name, value in values.items():
        getattr(writer, f"add_{name}")(f"x.{name}", value)
    for name, items in {"ints": [1, 2, 3], "texts": ["a", "ßß"], "floats": [0.5], "bools": [True, False]}.items():
        writer.add_array(f"x.{name}", items)
    writer.add_custom_alignment(64)
    writer.add_tensor("a.weight", np.zeros((3, 5), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_gguf_header(tmp_path / "m.gguf")
    assert {name: header.metadata[f"x.{name}"] for name in values} == values
    counts = {name: header.metadata[f"x.{name}"].count for name in ("ints", "texts", "floats", "bools")}
    assert counts == {"ints": 3, "texts": 2, "floats": 1, "bools": 2}
    assert (header.alignment, header.tensors["a.weight"].shape) == (64, (3, 5))
    assert header.data_bytes >= 60


def test_every_cut_is_refused_at_once(tmp_path: Path) -> None:
    """A file that ends anywhere before its last weight's end, in a tenth of a second each."""
    path = write_gguf(tmp_path / "m.gguf", small_llama())
    whole = path.read_bytes()
    for length in [*range(0, 6000, 97), *range(6000, len(whole), 9973), len(whole) - 32]:
        path.write_bytes(whole[:length])
        start = time.process_time()
        with pytest.raises(BaseModelError, match="must be a whole GGUF file"):
            read_gguf_config(path)
        assert time.process_time() - start < 1
    path.write_bytes(whole)
    assert read_gguf_config(path)["num_hidden_layers"] == 2


@pytest.mark.parametrize("kind", gguf.GGML_QUANT_SIZES)
def test_a_type_is_read_where_gguf_can_dequantize_it(kind: gguf.GGMLQuantizationType, tmp_path: Path) -> None:
    """One weight, the embedding, is of the type; its rows are 256 wide, whole blocks of every type."""
    from trainables.base_model.checks.gguf_model import _blocks

    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    _, size = gguf.GGML_QUANT_SIZES[kind]
    data = np.zeros((2, 256 // gguf.GGML_QUANT_SIZES[kind][0] * size), dtype=np.uint8)
    writer.add_tensor("token_embd.weight", data, raw_shape=data.shape, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_gguf_header(tmp_path / "m.gguf")
    assert header.tensors["token_embd.weight"].shape == (2, 256)
    try:
        gguf.dequantize(data, kind)
    except NotImplementedError:
        assert _blocks(header) == {}
    else:
        assert _blocks(header) == {int(kind): gguf.GGML_QUANT_SIZES[kind]}
