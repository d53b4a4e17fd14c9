"""Every Triton kernel compiles for the cards that the README names, on a machine without one.

Needs triton alone: its wheel brings the assembler, and a C compiler is needed for launching only.
"""

import importlib.util
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from tests.support.trainables.kernel_builds import Build, jit_functions, recorded_builds

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
CAPABILITIES = [75, 80, 90]  # a T4, an A100, an H100
SIZES = ("BLOCK", "GROUP", "ROWS")  # constants that are numbers, not branches


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def test_each_kernel_is_launched_and_each_of_its_branches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what follows would compile less than there is."""
    values: dict[tuple[str, str], set[object]] = defaultdict(set)
    for build in recorded_builds(monkeypatch, torch.float32):
        for name, value in build.constants.items():
            values[build.kernel.__name__, name].add(value)
    assert {kernel for kernel, _ in values} == {name for name in jit_functions() if not name.startswith("_")}
    branches = {place: found for place, found in values.items() if not place[1].startswith(SIZES)}
    assert {place: found for place, found in branches.items() if len(found) < 2} == {}


def test_each_helper_is_called_by_a_kernel() -> None:
    sources = {name: function.src for name, function in jit_functions().items()}
    for helper in (name for name in sources if name.startswith("_")):
        assert any(f"{helper}(" in source for name, source in sources.items() if name != helper), helper


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_each_branch_compiles_for_bf16(capability: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a T4 too, which has no bf16 arithmetic: kernels store it, and compute in fp32."""
    _compile(recorded_builds(monkeypatch, torch.bfloat16), capability)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_each_kernel_compiles_for_the_other_types(dtype: torch.dtype, capability: int, monkeypatch) -> None:
    """Storage does not change what a branch computes: the last launch of each kernel stands for all."""
    last = {build.kernel.__name__: build for build in recorded_builds(monkeypatch, dtype)}
    _compile(list(last.values()), capability)


def _compile(builds: list[Build], capability: int) -> None:
    for build in builds:
        try:
            binary = build.cubin(capability)
        except Exception as error:
            pytest.fail(f"{build} does not compile for compute capability {capability / 10}: {error}")
        assert binary.startswith(b"\x7fELF"), build
