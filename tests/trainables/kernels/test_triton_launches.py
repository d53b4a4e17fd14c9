"""The kernels against plain torch: on a card, or on a CPU under Triton's interpreter, in a process of its own.

Triton decides at its import whether it interprets (TRITON_INTERPRET=1).
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.trainables.kernel_cases import KernelCase, cases, drawn, halves
from trainables.kernels import elementwise

HAS_TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
needs_kernels = pytest.mark.skipif(
    not HAS_TRITON or not (INTERPRETED or DEVICE == "cuda"),
    reason="needs triton, and a card or its interpreter, under which another test runs these",
)
DTYPES = [torch.float32, torch.bfloat16, *([torch.float16] if DEVICE == "cuda" else [])]  # the interpreter is slow
CASES = cases()
# Storage in 16 bits rounds each number once, to 11 or 8 bits; fp32 sums differ in order.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@needs_triton
@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="the kernels' tests run in this process")
def test_all_of_these_hold_under_tritons_interpreter() -> None:
    checkout = Path(__file__).parents[3]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", str(Path(__file__))]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "SKIPPED [1]" in done.stdout  # this very test
    assert done.stdout.count("SKIPPED") == 1, done.stdout[-5000:]


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=map(str, CASES))
def test_a_kernel_is_plain_torch_in_every_form(case: KernelCase, dtype: torch.dtype) -> None:
    from trainables.kernels import triton_launches

    plain, ours = (case.arguments(dtype, DEVICE) for _ in range(2))
    expected, found = _plain(case.operation, *plain), getattr(triton_launches, case.operation)(*ours)
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(_tensors(found), _tensors(expected), **tolerance)
    if case.operation == "softmax_nats":
        torch.testing.assert_close(ours[0], plain[0], **tolerance)
        if not ours[3]:
            assert torch.equal(ours[0], case.arguments(dtype, DEVICE)[0])


@needs_kernels
@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
def test_gradients_of_a_joined_projection_are_written_over_it(activation: str) -> None:
    from trainables.kernels import triton_launches

    gate, up = halves(70, device=DEVICE, joined=True)
    joined, grad = gate._base, drawn(7, 70, device=DEVICE)
    expected = _plain("gated_backward", grad, *(y.clone() for y in (gate, up)), False, activation)[:2]
    triton_launches.gated_backward(grad, gate, up, False, activation)
    torch.testing.assert_close(joined, torch.cat(expected, dim=1), rtol=1e-5, atol=1e-5)


@needs_kernels
@pytest.mark.parametrize("cap", [None, 5.0])
def test_a_logit_that_is_no_number_is_not_lost(cap: float | None) -> None:
    from trainables.kernels import triton_launches

    logits = drawn(3, 5000, device=DEVICE)
    logits[1, 7] = float("nan")
    nats = triton_launches.softmax_nats(logits, torch.tensor([0, 1, 2], device=DEVICE), 1.0, False, 1.0, cap)
    assert nats.isnan().tolist() == [False, True, False]


@needs_kernels
def test_caps_hold_far_out_and_close_to_zero() -> None:
    """Small logits keep their digits, though 1 - exp(-2 x) would lose them; large ones give no overflow."""
    from trainables.kernels import triton_launches

    logits = torch.tensor([[1e-4, -3e-5, 0.0, 7.4], [3e4, -3e4, 1e4, 0.0], [3.0, 7.6, 7.4, -7.4]], device=DEVICE)
    for target in range(4):
        targets, ours = torch.full((3,), target, device=DEVICE), logits.clone()
        raw = logits.double().requires_grad_()
        expected = torch.nn.functional.cross_entropy(30 * torch.tanh(raw / 30), targets, reduction="none")
        expected.sum().backward()
        nats = triton_launches.softmax_nats(ours, targets, 1.0, True, 1.0, 30.0)
        torch.testing.assert_close(nats.double(), expected, rtol=2e-6, atol=2e-6)
        torch.testing.assert_close(ours.double(), raw.grad, rtol=2e-5, atol=1e-6)


def _thinned(x: torch.Tensor, keys: list[int], numbers: list[int], layer: int, add_to: torch.Tensor | None = None):
    from trainables.kernels import triton_launches

    rates = torch.full((len(keys),), 0.25, device=DEVICE)
    as_tensors = [torch.tensor(some, device=DEVICE) for some in (keys, numbers)]
    return triton_launches.thin(x, *as_tensors, rates, layer, len(x) // len(keys), add_to)


@needs_kernels
def test_dropout_kernel_depends_on_key_row_token_and_layer_alone() -> None:
    tokens, features = 20, 100
    ones = torch.ones(2 * tokens, features, device=DEVICE)
    both = _thinned(ones, [2**40 + 1, 2**40 + 2], [0, 0], 5)
    assert both.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert float(both.mean()) == pytest.approx(1.0, abs=0.04)  # 4000 draws: four standard errors
    assert torch.equal(both[tokens:], _thinned(ones[tokens:], [2**40 + 2], [0], 5))
    shorter = _thinned(ones[: 2 * 7], [2**40 + 1, 2**40 + 2], [0, 0], 5)  # other padding, the same masks
    assert torch.equal(shorter[7:], both[tokens : tokens + 7])
    other_row, other_layer = _thinned(ones, [2**40 + 1] * 2, [0, 1], 5), _thinned(ones, [2**40 + 1] * 2, [0, 0], 6)
    assert torch.equal(other_row[:tokens], both[:tokens])
    for differs in (both[tokens:], other_row[tokens:], other_layer[:tokens]):
        assert not torch.equal(differs, both[:tokens])
    total = torch.full_like(ones, 2.0)
    assert _thinned(ones, [2**40 + 1, 2**40 + 2], [0, 0], 5, add_to=total) is total
    torch.testing.assert_close(total, both + 2)


def _tensors(results) -> list[torch.Tensor]:
    return [results] if isinstance(results, torch.Tensor) else [one for one in results if one is not None]


def _plain(operation: str, *arguments):
    """The plain torch version, on whatever device."""
    built, elementwise._kernels = elementwise._kernels, lambda: None
    try:
        return getattr(elementwise, operation)(*arguments)
    finally:
        elementwise._kernels = built
