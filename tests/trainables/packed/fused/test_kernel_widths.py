"""What is compiled ahead of a model's weights is all that its training, and an evaluation, launches."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.support.lora_cases import lora_config, random_rows
from tests.support.trainables.packed_cases import make_member
from tests.support.trainables.tiny_families import CASES, tiny_family
from trainables.kernels import elementwise
from trainables.kernels.ahead import compile_ahead
from trainables.measure.evaluation import evaluate_together
from trainables.packed import pack as pack_module
from trainables.packed.fused.kernel_widths import kernel_widths
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import accumulate_gradients

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")

Form = tuple[str, str]  # a kernel's name, and Triton's own key of how it is compiled


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> set[Form]:
    """The forms of the kernels that are launched, as Triton tells them apart for a T4; none computes anything."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import make_backend
    from triton.runtime.jit import JITFunction, create_function_from_signature

    from trainables.kernels import triton_launches

    forms: set[Form] = set()
    backend = make_backend(GPUTarget("cuda", 75, 32))
    binders: dict[str, Callable[..., Any]] = {}

    def run(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> None:
        if kernel.__name__ not in binders:
            binders[kernel.__name__] = create_function_from_signature(kernel.signature, kernel.params, backend)
        _, specialization, options = binders[kernel.__name__](*arguments, **named)
        forms.add((kernel.__name__, str((specialization, sorted(options.items())))))

    def kernels() -> ModuleType:
        return triton_launches

    monkeypatch.setattr(JITFunction, "run", run)
    monkeypatch.setattr(elementwise, "_kernels", kernels)
    for module in (elementwise, pack_module):
        monkeypatch.setattr(module, "kernels_on", lambda device: True)
    return forms


@pytest.mark.parametrize(
    ("case", "changes"),
    [*((case, {}) for case in CASES), ("llama", {"intermediate_size": 56}), ("phi3", {"intermediate_size": 56})],
)
def test_training_launches_nothing_else(case: str, changes: dict[str, Any], launched: set[Form]) -> None:
    """Rows of several lengths, packs with and without dropout, all targets and few, with checkpointing and without.

    And of sizes that are multiples of 16 nothing is compiled in vain, but for one form where a joined projection is the
    only target of its input.
    """
    model = tiny_family(case, torch.bfloat16, **changes)
    compile_ahead(kernel_widths(model.config), torch.bfloat16, torch.device("cpu"))
    ahead = set(launched)
    launched.clear()
    packed, rows = PackedModel(model), random_rows(12, vocabulary=61, longest=18)
    for checkpointing in (False, True):
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        for numbers in ((0, 1, 2), (6,)):
            accumulate_gradients(packed, [make_member(packed, rows, number, steps=4) for number in numbers], rows)
    model.eval()
    evaluate_together(packed, [None, packed.new_adapter(lora_config())], rows, None, 64)
    assert launched - ahead == set()
    if not changes:
        assert [kernel for kernel, _ in ahead - launched] == ["thin"] * (CASES[case][0] == "phi3")
