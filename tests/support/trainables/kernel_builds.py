"""Records what the launches of Triton kernels ask a compiler for, and compiles it for a card that need not be there."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.trainables.kernel_cases import cases, drawn
from trainables import kernels

POINTERS = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int64: "*i64"}
ALIGNED = ("_stride", "stride", "width", "size", "head_dim", "features", "quarter")  # multiples of 16 in real models
ALIGNMENT = [["tt.divisibility", 16]]


@dataclass(frozen=True)
class Build:
    """One kernel with its arguments' types and the constants that it is compiled for."""

    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    options: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.kernel.__name__} {self.signature} {self.constants}"

    def cubin(self, capability: int) -> bytes:
        """Compiles it for a card of compute capability `capability` (75 is 7.5)."""
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler.compiler import ASTSource

        places = enumerate(self.signature.items())
        aligned = {(n,): ALIGNMENT for n, (name, kind) in places if kind[0] == "*" or name.endswith(ALIGNED)}
        source = ASTSource(self.kernel, self.signature, self.constants, aligned)
        binary: bytes = triton.compile(source, GPUTarget("cuda", capability, 32), self.options).asm["cubin"]
        return binary


def recorded_builds(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> list[Build]:
    """Returns what is compiled when every operation is launched in each of its forms, once each."""
    from triton.runtime.jit import JITFunction

    from trainables.kernels import triton_launches

    builds: dict[str, Build] = {}

    def run(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> None:
        values = dict(zip(kernel.arg_names, arguments, strict=False)) | named
        constants = {one.name: values[one.name] for one in kernel.params if one.is_constexpr}
        kinds = {one.name: "constexpr" if one.is_constexpr else _kind(values[one.name]) for one in kernel.params}
        build = Build(kernel, kinds, constants, {"num_warps": named.get("num_warps", 4)})
        builds.setdefault(str(build), build)

    monkeypatch.setattr(JITFunction, "run", run)
    for launch in _launches(triton_launches, dtype):
        launch()
    return list(builds.values())


def jit_functions() -> dict[str, Any]:
    """Returns every function that Triton compiles in the kernels' modules, by name."""
    from triton.runtime.jit import JITFunction

    names = sorted(path.stem for path in Path(kernels.__path__[0]).glob("*.py") if path.stem != "__init__")
    modules = [importlib.import_module(f"{kernels.__name__}.{name}") for name in names]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, JITFunction) and value.__module__ == module.__name__
    }


def _launches(launches: Any, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    for case in cases():
        yield lambda case=case: getattr(launches, case.operation)(*case.arguments(dtype, "cpu"))
    x, whole = drawn(4, 8, dtype=dtype), torch.zeros(2, dtype=torch.int64)
    for total in (None, x):
        yield lambda total=total: launches.thin(x, whole, whole, torch.zeros(2), 1, 2, total)


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return POINTERS[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"
