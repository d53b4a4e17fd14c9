"""Elementwise parts: plain torch against autograd of the formula, and the kernels against plain torch.

Kernels run on a card, or on a CPU under Triton's interpreter (TRITON_INTERPRET=1 with triton installed).
"""

import importlib.util
import os
import sys
import types

import pytest
import torch

from trainables import kernels
from trainables.kernels import elementwise

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_kernels = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or not (INTERPRETED or DEVICE == "cuda"),
    reason="needs triton, and a card or its interpreter",
)
TOKENS, ROWS, HEADS, KEY_HEADS, HEAD_DIM = 5, 3, 6, 2, 12
DTYPES = [torch.float32, torch.float16]


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0, device: str = "cpu") -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def angles(dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    turns = torch.arange(TOKENS)[:, None] / 10 ** torch.linspace(0, 2, HEAD_DIM // 2)
    both = torch.cat((turns, turns), dim=-1)
    return both.cos().to(device, dtype), both.sin().to(device, dtype)


def heads(dtype: torch.dtype = torch.float32, device: str = "cpu", key_heads: int = KEY_HEADS) -> list[torch.Tensor]:
    n = ROWS * TOKENS
    counts = (HEADS, key_heads, key_heads)
    return [drawn(n, count, HEAD_DIM, dtype=dtype, seed=count, device=device) for count in counts]


def test_rms_norm_and_its_gradient_are_transformers() -> None:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    norm = LlamaRMSNorm(24, eps=1e-5).requires_grad_(False)
    norm.weight.copy_(drawn(24, seed=1))
    x, grad, residual = drawn(7, 24).requires_grad_(), drawn(7, 24, seed=2), drawn(7, 24, seed=3)
    expected = norm(x)
    expected.backward(grad)
    torch.testing.assert_close(elementwise.rms_norm(x.detach(), norm.weight, 1e-5), expected, rtol=1e-6, atol=1e-6)
    ours = elementwise.rms_norm_backward(grad, x.detach(), norm.weight, 1e-5, residual)
    torch.testing.assert_close(ours, x.grad + residual, rtol=1e-5, atol=1e-6)


def test_gated_and_its_gradient_are_autograds() -> None:
    gate, up, grad = drawn(9, 20).requires_grad_(), drawn(9, 20, seed=1).requires_grad_(), drawn(9, 20, seed=2)
    expected = torch.nn.functional.silu(gate) * up
    expected.backward(grad)
    torch.testing.assert_close(elementwise.gated(gate.detach(), up.detach()), expected)
    for activated in (False, True):
        ours = elementwise.gated_backward(grad.clone(), gate.detach().clone(), up.detach().clone(), activated)
        torch.testing.assert_close(ours[:2], (gate.grad, up.grad), rtol=1e-5, atol=1e-6)
        assert ours[2] is None or activated
    torch.testing.assert_close(ours[2], expected)


@pytest.mark.parametrize("key_heads", [KEY_HEADS, HEADS])
def test_rotation_and_its_gradient_are_transformers(key_heads: int) -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

    cos, sin = angles()
    q, k, v = (y.requires_grad_() for y in heads(key_heads=key_heads))
    by_row = [y.view(ROWS, TOKENS, -1, HEAD_DIM).transpose(1, 2) for y in (q, k, v)]
    q_turned, k_turned = apply_rotary_pos_emb(by_row[0], by_row[1], cos[None], sin[None])
    group = HEADS // key_heads
    expected = [q_turned, repeat_kv(k_turned, group), repeat_kv(by_row[2], group)]
    expected = [y.transpose(1, 2).reshape(-1, HEADS, HEAD_DIM) for y in expected]
    grads = [drawn(ROWS * TOKENS, HEADS, HEAD_DIM, seed=seed) for seed in range(3)]
    torch.autograd.backward(expected, grads)
    ours = elementwise.rotate(*(y.detach().clone() for y in (q, k, v)), cos, sin)
    torch.testing.assert_close(list(ours), expected, rtol=1e-6, atol=1e-6)
    back = elementwise.rotate_backward(*(grad.clone() for grad in grads), cos, sin, group)
    torch.testing.assert_close(list(back), [q.grad, k.grad, v.grad], rtol=1e-5, atol=1e-6)


def _close(ours, expected, dtype: torch.dtype) -> None:
    """Storage in 16 bits rounds each number once; fp32 sums differ in order."""
    tolerance = {"rtol": 2e-3, "atol": 2e-3} if dtype == torch.float16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(ours, expected, **tolerance)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [32, 40])
def test_norm_kernels_are_plain_torch(dtype: torch.dtype, width: int) -> None:
    from trainables.kernels import triton_launches

    x, weight, grad, residual = (
        drawn(*shape, dtype=dtype, seed=seed, device=DEVICE)
        for seed, shape in enumerate(((6, width), (width,), (6, width), (6, width)))
    )
    plain = _plain("rms_norm", x, weight, 1e-5)
    _close(triton_launches.rms_norm(x, weight, 1e-5, 0.0), plain, dtype)
    back = _plain("rms_norm_backward", grad, x, weight, 1e-5, residual)
    _close(triton_launches.rms_norm_backward(grad, x, weight, 1e-5, residual, 0.0), back, dtype)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_gated_kernels_are_plain_torch(dtype: torch.dtype) -> None:
    from trainables.kernels import triton_launches

    gate, up, grad = (drawn(3, 70, dtype=dtype, seed=seed, device=DEVICE) for seed in range(3))
    _close(triton_launches.gated(gate, up, "silu"), _plain("gated", gate, up), dtype)
    expected = _plain("gated_backward", grad, gate.clone(), up.clone(), True)
    _close(triton_launches.gated_backward(grad.clone(), gate.clone(), up.clone(), True, "silu"), expected, dtype)
    without = triton_launches.gated_backward(grad, gate.clone(), up.clone(), False, "silu")
    _close(without[:2], expected[:2], dtype)
    assert without[2] is None


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("key_heads", [KEY_HEADS, HEADS])
def test_rotation_kernels_are_plain_torch(dtype: torch.dtype, key_heads: int) -> None:
    from trainables.kernels import triton_launches

    cos, sin = angles(dtype, DEVICE)
    given = heads(dtype, DEVICE, key_heads)
    expected = _plain("rotate", *given, cos, sin)
    _close(triton_launches.rotate(*(y.clone() for y in given), cos, sin), expected, dtype)
    grads = [drawn(ROWS * TOKENS, HEADS, HEAD_DIM, dtype=dtype, seed=seed, device=DEVICE) for seed in range(3)]
    back = _plain("rotate_backward", *grads, cos, sin, HEADS // key_heads)
    _close(
        triton_launches.rotate_backward(*(grad.clone() for grad in grads), cos, sin, HEADS // key_heads), back, dtype
    )


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [50, 4096, 5000])
def test_loss_kernel_is_plain_torch(dtype: torch.dtype, width: int) -> None:
    from trainables.kernels import triton_launches

    logits = drawn(4, width, dtype=dtype, device=DEVICE) * 3
    logits[1, 7] = float("nan")
    targets = torch.tensor([0, 3, width - 1, 11], device=DEVICE)
    plain, ours = logits.clone(), logits.clone()
    expected = _plain("softmax_nats", plain, targets, 8.0, True)
    nats = triton_launches.softmax_nats(ours, targets, 8.0, True, 1.0, None)
    assert nats.isnan().tolist() == [False, True, False, False]
    finite = [0, 2, 3]
    torch.testing.assert_close(nats[finite], expected[finite], rtol=1e-5, atol=1e-5)
    _close(ours[finite], plain[finite], dtype)
    untouched = logits.clone()
    triton_launches.softmax_nats(untouched, targets, 8.0, False, 1.0, None)
    assert torch.equal(untouched[finite], logits[finite])


def _thinned(x: torch.Tensor, keys: list[int], numbers: list[int], layer: int, add_to: torch.Tensor | None = None):
    from trainables.kernels import triton_launches

    rates = torch.full((len(keys),), 0.25, device=DEVICE)
    as_tensors = [torch.tensor(some, device=DEVICE) for some in (keys, numbers)]
    return triton_launches.thin(x, *as_tensors, rates, layer, len(x) // len(keys), add_to)


@needs_kernels
def test_dropout_kernel_depends_on_key_row_token_and_layer_alone() -> None:
    tokens, features = 40, 50
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


def _plain(name: str, *arguments):
    """The plain torch version, on whatever device."""
    built, elementwise._kernels = elementwise._kernels, lambda: None
    try:
        return getattr(elementwise, name)(*arguments)
    finally:
        elementwise._kernels = built
