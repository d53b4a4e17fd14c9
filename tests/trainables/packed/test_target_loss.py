"""The loss against torch's own cross-entropy: values and gradients."""

import pytest
import torch

from trainables import limits
from trainables.packed import target_loss
from trainables.packed.target_loss import target_nats


def _case(n: int, d: int, vocabulary: int, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(n * 1000 + d)
    hidden = torch.randn(n, d, generator=generator).to(dtype)
    head = torch.randn(vocabulary, d, generator=generator).to(dtype)
    targets = torch.randint(vocabulary, (n,), generator=generator)
    return hidden, head, targets


@pytest.mark.parametrize("n", [1, 15, 16, 17, 40])
def test_values_and_gradients_are_those_of_cross_entropy_over_several_chunks(n, monkeypatch):
    monkeypatch.setattr(limits, "LOGITS_CHUNK_BYTES", 16 * 4 * 50)  # sixteen positions a chunk
    hidden, head, targets = _case(n, 8, 50)
    weights = torch.linspace(0.1, 2.0, n)
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    nats = target_nats(ours, head, targets)
    (nats * weights).sum().backward()
    expected = torch.nn.functional.cross_entropy(theirs @ head.T, targets, reduction="none")
    (expected * weights).sum().backward()
    torch.testing.assert_close(nats, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)


def test_sixteen_bit_gradients_agree_within_rounding():
    hidden, head, targets = _case(12, 16, 64, torch.bfloat16)
    ours, theirs = hidden.clone().requires_grad_(), hidden.float().requires_grad_()
    target_nats(ours, head, targets).sum().backward()
    torch.nn.functional.cross_entropy(theirs @ head.float().T, targets, reduction="sum").backward()
    scale = theirs.grad.abs().max()
    assert ((ours.grad.float() - theirs.grad).abs().max() / scale) < 0.02  # bf16 keeps 8 bits


def test_the_head_gets_no_gradient_and_no_graph_is_kept_without_need():
    hidden, head, targets = _case(4, 8, 10)
    assert not target_nats(hidden, head, targets).requires_grad


def test_a_number_that_is_not_finite_shows_in_its_own_row_only():
    hidden, head, targets = _case(3, 8, 10)
    hidden[1, 0] = torch.nan
    nats = target_nats(hidden, head, targets)
    assert nats.isnan().tolist() == [False, True, False]


def test_fp16_shares_of_a_large_vocabulary_keep_their_bits(monkeypatch):
    """A share of 1 / 100,000 is a subnormal fp16 number, 0.1 % off; all shares but the target's sum to nearly 1."""
    vocabulary = 100_000
    head = torch.ones(vocabulary, 4, dtype=torch.float16)
    head[7] = 0
    targets = torch.tensor([7, 7])

    def error() -> float:
        hidden = torch.zeros(2, 4, dtype=torch.float16, requires_grad=True)
        target_nats(hidden, head, targets).sum().backward()
        return float((hidden.grad.double() - (1 - 1 / vocabulary)).abs().max())

    assert error() < 5e-4
    monkeypatch.setattr(target_loss, "HALF_FACTOR", 1.0)
    assert error() > 9e-4


def test_one_chunk_of_logits_exists_at_a_time(monkeypatch):
    """However many chunks: their logits share one storage."""
    monkeypatch.setattr(limits, "LOGITS_CHUNK_BYTES", 16 * 4 * 50)
    places = []
    original = target_loss.softmax_nats

    def noting(logits, *more):
        places.append((logits.data_ptr(), len(logits)))
        return original(logits, *more)

    monkeypatch.setattr(target_loss, "softmax_nats", noting)
    target_nats(*_case(40, 8, 50))
    assert places == [(places[0][0], 16), (places[0][0], 16), (places[0][0], 8)]
