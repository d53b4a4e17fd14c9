"""Tensors read by several threads, in pieces, are those of the files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from trainables.base_model.checks.safetensors_header import read_header
from trainables.base_model.loading import tensors as reading

CPU = torch.device("cpu")
TYPES = [torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32]


def _headers(folder: Path) -> reading.Headers:
    return {path: read_header(path) for path in sorted(folder.glob("*.safetensors"))}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(
        st.lists(st.tuples(st.sampled_from(TYPES), st.lists(st.integers(0, 40), max_size=3)), max_size=6),
        min_size=1, max_size=3,
    ),
    piece=st.sampled_from([256, 1024, 8192]),
    cast=st.booleans(),
)  # fmt: skip
def test_pieces_make_up_the_files_tensors(
    files: list[list[tuple[torch.dtype, list[int]]]], piece: int, cast: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("files")
    generator, written = torch.Generator().manual_seed(0), {}
    for number, shapes in enumerate(files):
        tensors = {
            f"{number}.{index}": (100 * torch.rand(shape, generator=generator)).to(dtype)
            for index, (dtype, shape) in enumerate(shapes)
        }
        save_file(tensors, folder / f"{number}.safetensors")
        written.update(tensors)
    dtypes = {name: torch.bfloat16 for name, tensor in written.items() if cast and tensor.is_floating_point()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PIECE_BYTES", piece)
        read = reading.read_tensors(_headers(folder), dtypes, CPU)
    mapped = reading.map_tensors(_headers(folder), dtypes)
    assert read.keys() == mapped.keys() == written.keys()
    for name, tensor in written.items():
        expected = tensor.to(dtypes.get(name, tensor.dtype))
        for found in (read[name], mapped[name]):
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            assert torch.equal(found, expected)


def test_a_file_that_ends_early_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"weight": torch.ones(1000)}, file)
    headers = _headers(tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(OSError, match="ends before its last tensor"):
        reading.read_tensors(headers, {}, CPU)


def test_what_is_mapped_takes_no_memory_of_the_process_own(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"weight": torch.ones(2**22)}, file)
    before = _own_bytes()
    tensors = reading.map_tensors(_headers(tmp_path), {})
    assert tensors["weight"].sum() == 2**22
    assert _own_bytes() - before < 2**22  # of 2**24 bytes


def _own_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
