"""Plain torch's elementwise parts: against autograd of their formulas, in closed form, and in each type.

Gradients are those of fp64, to 1e-5 of a number; the kernels are compared with these in `test_triton_launches`.
"""

import importlib.util
import math
import sys
import types
from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import cross_entropy, gelu, silu

from tests.support.trainables.kernel_cases import (
    HEAD_DIM,
    HEADS,
    KEY_HEADS,
    ROWS,
    TOKENS,
    TURNING,
    KernelCase,
    angles,
    cases,
    drawn,
    halves,
    heads,
)  # fmt: skip
from trainables import kernels
from trainables.kernels import elementwise

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": silu,
    "gelu_tanh": lambda x: gelu(x, approximate="tanh"),
}
FORMS = [(1.0, None), (8.0, None), (1.0, 5.0), (4.0, 3.0)]  # of logits: a divisor and a cap
ROUNDED_ONCE = [case for case in cases() if case.operation != "rotate_backward"]  # sums of heads are rounded first


def _close(ours, expected) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6, check_dtype=False)


def _exact(x: torch.Tensor) -> torch.Tensor:
    return x.double().requires_grad_()


def test_rms_norm_and_its_gradient_are_transformers() -> None:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    norm = LlamaRMSNorm(24, eps=1e-5).requires_grad_(False)
    norm.weight.copy_(drawn(24, seed=1))
    x, grad, residual = drawn(7, 24).requires_grad_(), drawn(7, 24, seed=2), drawn(7, 24, seed=3)
    expected = norm(x)
    expected.backward(grad)
    torch.testing.assert_close(elementwise.rms_norm(x.detach(), norm.weight, 1e-5), expected, rtol=1e-6, atol=1e-6)
    _close(elementwise.rms_norm_backward(grad, x.detach(), norm.weight, 1e-5, residual), x.grad + residual)
    _close(elementwise.rms_norm_backward(grad, x.detach(), norm.weight, 1e-5, None), x.grad)


def test_a_norm_of_one_plus_its_weight_is_gemmas() -> None:
    from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm

    norm = Gemma2RMSNorm(24, eps=1e-6).requires_grad_(False)
    norm.weight.copy_(drawn(24, seed=1))
    x, grad = drawn(7, 24).requires_grad_(), drawn(7, 24, seed=2)
    expected = norm(x)
    expected.backward(grad)
    _close(elementwise.rms_norm(x.detach(), norm.weight, 1e-6, 1.0), expected)
    _close(elementwise.rms_norm_backward(grad, x.detach(), norm.weight, 1e-6, None, 1.0), x.grad)


def test_a_norm_takes_rows_that_lie_apart() -> None:
    wide, weight, grad = drawn(7, 60), drawn(24, seed=1), drawn(7, 48, seed=2)[:, :24]
    x = wide[:, 12:36]
    ours, expected = (elementwise.rms_norm(y, weight, 1e-5) for y in (x, x.contiguous()))
    assert ours.is_contiguous()
    assert torch.equal(ours, expected)
    ours = elementwise.rms_norm_backward(grad, x, weight, 1e-5, x)
    assert torch.equal(ours, elementwise.rms_norm_backward(grad.clone(), x.clone(), weight, 1e-5, x.clone()))
    assert torch.equal(wide, drawn(7, 60))


@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e4])
def test_a_norm_forgets_the_length_of_a_row(scale: float) -> None:
    """So a row has the same norm at each length, and its gradient is orthogonal to it (without eps)."""
    x, weight, grad = drawn(5, 32), drawn(32, seed=1), drawn(5, 32, seed=2)
    _close(elementwise.rms_norm(x * scale, weight, 0.0), elementwise.rms_norm(x, weight, 0.0))
    along = (elementwise.rms_norm_backward(grad, x * scale, weight, 0.0, None) * x * scale).sum(-1)
    assert along.abs().max() < 1e-4  # a sum of 32 terms of size 1
    ones = elementwise.rms_norm(x * scale, torch.zeros(32), 0.0, offset=1.0)
    _close(ones.pow(2).mean(-1), torch.ones(5))


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gated_and_its_gradient_are_autograds(activation: str, joined: bool) -> None:
    gate, up = halves(20, joined=joined)
    exact_gate, exact_up, grad = _exact(gate), _exact(up), drawn(7, 20, seed=2)
    expected = ACTIVATIONS[activation](exact_gate) * exact_up
    expected.backward(grad.double())
    ours = elementwise.gated(gate, up, activation)
    assert ours.is_contiguous()
    _close(ours, expected)
    for activated in (False, True):
        gate, up = halves(20, joined=joined)
        back = elementwise.gated_backward(grad.clone(), gate, up, activated, activation)
        _close(back[:2], (exact_gate.grad, exact_up.grad))
        assert (back[2] is not None) == activated
        if joined:
            _close(gate._base, torch.cat((exact_gate.grad, exact_up.grad), dim=1))
    _close(back[2], expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_far_from_zero_an_activation_is_its_input_or_nothing(activation: str) -> None:
    x = torch.tensor([[-60_000.0, -200.0, 0.0, 200.0, 60_000.0]])
    ones = torch.ones_like(x)
    assert torch.equal(elementwise.gated(x, ones, activation), x.clamp(min=0))
    slope, value, _ = elementwise.gated_backward(ones.clone(), x.clone(), ones.clone(), False, activation)
    assert slope.tolist() == [[0.0, 0.0, 0.5, 1.0, 1.0]]
    assert torch.equal(value, x.clamp(min=0))


@pytest.mark.parametrize("key_heads", KEY_HEADS)
@pytest.mark.parametrize("width", TURNING)
@pytest.mark.parametrize("joined", [False, True])
def test_rotation_and_its_gradient_are_transformers(key_heads: int, width: int | None, joined: bool) -> None:
    """Phi's: the first numbers of a head turn; where all do, it is Llama's."""
    from transformers.models.llama.modeling_llama import repeat_kv
    from transformers.models.phi3.modeling_phi3 import apply_rotary_pos_emb

    turns = (None, None) if width is None else angles(width)
    q, k, v = (y.clone().requires_grad_() for y in heads(key_heads, joined=joined))
    by_row = [y.view(ROWS, TOKENS, -1, HEAD_DIM).transpose(1, 2) for y in (q, k, v)]
    if width is not None:
        by_row[:2] = apply_rotary_pos_emb(by_row[0], by_row[1], *(turn[None] for turn in turns))
    group = HEADS // key_heads
    expected = [by_row[0], *(repeat_kv(y, group) for y in by_row[1:])]
    expected = [y.transpose(1, 2).reshape(-1, HEADS, HEAD_DIM) for y in expected]
    grads = [drawn(ROWS * TOKENS, HEADS, HEAD_DIM, seed=seed) for seed in range(3)]
    torch.autograd.backward(expected, grads)
    _close(list(elementwise.rotate(*heads(key_heads, joined=joined), *turns)), expected)
    back = elementwise.rotate_backward(*(grad.clone() for grad in grads), *turns, group)
    _close(list(back), [q.grad, k.grad, v.grad])


@pytest.mark.parametrize("width", [8, HEAD_DIM])
def test_rotation_keeps_lengths_and_its_backward_turns_back(width: int) -> None:
    q, k, v = heads(HEADS)
    turned = elementwise.rotate(q, k, v, *angles(width))
    _close(turned[0].norm(dim=-1), q.norm(dim=-1))
    assert torch.equal(turned[0][..., width:], q[..., width:])
    _close(elementwise.rotate_backward(*turned, *angles(width), 1), (q, k, v))


@pytest.mark.parametrize(("divisor", "cap"), FORMS)
def test_the_loss_and_its_gradient_are_autograds(divisor: float, cap: float | None) -> None:
    logits, targets = drawn(6, 50) * 9, torch.arange(6) * 9
    exact = _exact(logits)
    bent = exact / divisor
    bent = bent if cap is None else cap * torch.tanh(bent / cap)
    expected = cross_entropy(bent, targets, reduction="none")
    expected.sum().backward()
    untouched = logits.clone()
    _close(elementwise.softmax_nats(untouched, targets, 16.0, False, divisor, cap), expected)
    assert torch.equal(untouched, logits)
    _close(elementwise.softmax_nats(logits, targets, 16.0, True, divisor, cap), expected)
    _close(logits, 16 * exact.grad)


def test_the_loss_in_blocks_is_the_loss_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit by bit: in blocks of two rows, whose last has one, and of one row that is wider than a block."""
    whole = drawn(5, 50) * 9
    expected = elementwise.softmax_nats(whole, torch.arange(5), 16.0, True, cap=5.0)
    for numbers in (100, 1):
        monkeypatch.setattr(elementwise, "BLOCK_NUMBERS", numbers)
        logits = drawn(5, 50) * 9
        assert torch.equal(elementwise.softmax_nats(logits, torch.arange(5), 16.0, True, cap=5.0), expected)
        assert torch.equal(logits, whole)
    assert len(elementwise.softmax_nats(drawn(0, 50), torch.arange(0), 16.0, True)) == 0


def test_forms_of_logits_meet_where_they_say_the_same() -> None:
    logits, targets = drawn(6, 50) * 9, torch.arange(6)
    plain = elementwise.softmax_nats(logits, targets, 1.0, False)
    _close(elementwise.softmax_nats(logits * 8, targets, 1.0, False, divisor=8.0), plain)
    _close(elementwise.softmax_nats(logits, targets, 1.0, False, cap=1e6), plain)
    flat = elementwise.softmax_nats(logits, targets, 1.0, False, cap=1e-6)
    _close(flat, torch.full((6,), math.log(50)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", ROUNDED_ONCE, ids=map(str, ROUNDED_ONCE))
def test_sixteen_bits_round_once(case: KernelCase, dtype: torch.dtype) -> None:
    """What is computed from 16-bit numbers is what fp32 computes from them, rounded at the end."""
    short = case.arguments(dtype, "cpu")
    wide = [one.float() if _is_float(one) else one for one in case.arguments(dtype, "cpu")]
    ours, expected = getattr(elementwise, case.operation)(*short), getattr(elementwise, case.operation)(*wide)
    pairs = [(ours, expected)] if isinstance(ours, torch.Tensor) else list(zip(ours, expected, strict=True))
    for one, other in [*pairs, (short[0], wide[0])] if case.operation == "softmax_nats" else pairs:
        if one is not None:
            bits = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 1e-5}
            torch.testing.assert_close(one.float(), other, **bits)


def _is_float(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def test_where_no_kernel_can_be_built_plain_torch_serves_and_the_log_says_so(monkeypatch, caplog) -> None:
    def cannot(*arguments):
        raise RuntimeError("Failed to find C compiler")

    broken = types.ModuleType("trainables.kernels.triton_launches")
    broken.gated = cannot
    monkeypatch.setitem(sys.modules, "trainables.kernels.triton_launches", broken)
    monkeypatch.setattr(kernels, "triton_launches", broken, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch, "ones", lambda *shape, device: torch.full(shape, 1.0))
    assert elementwise._kernels.__wrapped__() is None
    assert "C compiler" in caplog.text
