"""Models with grouped heads, keys and values repeated: the same numbers, and when torch's own attention is left."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from trainables.base_model.attention import REPEATED, attend_without_scores
from trainables.precision import Processor

T4, A100 = Processor("NVIDIA T4", (7, 5)), Processor("NVIDIA A100", (8, 0))


def grouped(model_type: str, head_dim: int = 16, window: int | None = None) -> PreTrainedModel:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    more = {"sliding_window": window} if window else {}
    config = AutoConfig.for_model(
        model_type, **sizes, **more, head_dim=head_dim, num_hidden_layers=2, vocab_size=97, max_position_embeddings=256
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


@pytest.mark.parametrize("model_type", ["mistral", "qwen2", "qwen3"])
def test_logits_gradients_and_texts_are_the_same(model_type: str) -> None:
    """Tolerance 1e-5 of logits and gradients in fp32; padded rows and a sliding window (a mask) too."""
    model = grouped(model_type, window=8 if model_type == "mistral" else None)
    ids = torch.randint(3, 97, (2, 24), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    seen = []
    for implementation in ("sdpa", REPEATED):
        model.set_attn_implementation(implementation)
        model.zero_grad()
        logits = model(ids, use_cache=False).logits
        logits.square().mean().backward()
        masked = model(ids, attention_mask=mask, use_cache=False).logits[mask.bool()]
        texts = model.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False, pad_token_id=0)
        gradient = model.model.layers[0].self_attn.k_proj.weight.grad
        assert gradient is not None
        seen.append((logits.detach(), masked.detach(), gradient.clone(), texts))
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_no_kernel_is_handed_grouped_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the memory-efficient kernel refuses is not asked of it: fewer key heads, or torch's own flag."""
    model, asked = grouped("mistral"), []
    original = torch.nn.functional.scaled_dot_product_attention

    def noting(query, key, value, **more):
        asked.append((query.shape[1], key.shape[1], value.shape[1], more.get("enable_gqa", False)))
        return original(query, key, value, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noting)
    attend_without_scores(model, T4, "fp16")
    model(torch.randint(3, 97, (1, 24)), use_cache=False)
    assert asked == [(4, 4, 4, False)] * 2


@pytest.mark.parametrize(
    ("processor", "compute", "head_dim", "repeats"),
    [
        (T4, "fp16", 16, True), (T4, "fp32", 16, True), (T4, "bf16", 16, True), (A100, "fp32", 16, True),
        (A100, "bf16", 16, False), (A100, "fp16", 16, False), (A100, "bf16", 256, True),
        (Processor.of_cpu(), "fp32", 16, False),
    ],
)  # fmt: skip
def test_heads_are_repeated_where_there_is_no_flash_attention(
    processor: Processor, compute: str, head_dim: int, repeats: bool
) -> None:
    model = grouped("mistral", head_dim)
    attend_without_scores(model, processor, compute)
    assert (model.config._attn_implementation == REPEATED) == repeats


def test_plain_mathematics_serves_repeated_heads_too() -> None:
    """bf16 that an old card emulates: no kernel takes it, and the numbers stay (tolerance 1e-5)."""
    model, ids = grouped("mistral"), torch.randint(3, 97, (1, 24))
    wanted = model(ids, use_cache=False).logits
    attend_without_scores(model, T4, "bf16")
    with sdpa_kernel(SDPBackend.MATH):
        torch.testing.assert_close(model(ids, use_cache=False).logits, wanted, rtol=0, atol=1e-5)
