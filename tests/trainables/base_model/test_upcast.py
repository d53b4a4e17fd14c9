"""16-bit weights multiplied in fp32: the same as products with fp32 copies of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from tests.support.small_models import tiny_llama
from trainables.base_model import upcast
from trainables.base_model.upcast import upcast_products

IDS = torch.arange(24).reshape(2, 12)


@pytest.mark.parametrize("block_numbers", [2**21, 40], ids=["whole", "in blocks"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_and_its_gradient_are_those_of_an_fp32_copy(
    bias: bool, block_numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1e-6: the same numbers, which blocks may sum in another order."""
    monkeypatch.setattr(upcast, "BLOCK_NUMBERS", block_numbers)
    torch.manual_seed(0)
    layer = nn.Linear(12, 10, bias=bias, dtype=torch.bfloat16).requires_grad_(False)
    plain = nn.Linear(12, 10, bias=bias)
    plain.load_state_dict({name: value.float() for name, value in layer.state_dict().items()})
    upcast_products(layer)
    ours, theirs = (torch.randn(3, 12, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    y, expected = layer(ours), plain(theirs)
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)
    assert layer.weight.dtype == torch.bfloat16


def test_a_model_keeps_its_16_bit_matrices_and_computes_in_fp32() -> None:
    """Logits within 1e-5 of the same weights' in fp32."""
    model = tiny_llama(torch.bfloat16)
    expected = tiny_llama(torch.bfloat16).float()(input_ids=IDS).logits
    upcast_products(model)
    assert {parameter.dtype for parameter in model.parameters() if parameter.ndim == 2} == {torch.bfloat16}
    logits = model(input_ids=IDS).logits
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_of_a_familys_own_keeps_its_16_bits(tied: bool) -> None:
    """Logits of a Gemma 3, which scales embeddings, within 1e-5 of the same weights' in fp32."""
    config = Gemma3TextConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, vocab_size=128, tie_word_embeddings=tied,
    )  # fmt: skip
    torch.manual_seed(0)
    model, whole = (Gemma3ForCausalLM(config).eval().bfloat16() for _ in range(2))
    whole.load_state_dict(model.state_dict())
    expected = whole.float()(input_ids=IDS).logits
    upcast_products(model)
    assert {parameter.dtype for parameter in model.parameters() if parameter.ndim == 2} == {torch.bfloat16}
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    torch.testing.assert_close(model(input_ids=IDS).logits, expected, rtol=1e-5, atol=1e-5)
