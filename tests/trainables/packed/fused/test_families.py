"""Every family's decoder against transformers' own layers, and its gradients against PEFT's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from search_spaces.trial_config import TrialConfig
from tests.support.trainables.tiny_families import CASES, FEW_TOKENS, WINDOW, tiny_family
from trainables.base_model import families
from trainables.packed.adapter import LoraAdapter, LoraWeights, PackedRows
from trainables.packed.fused.decoder import FusedDecoder
from trainables.packed.fused.serving import serves
from trainables.packed.pack import Pack

TOKENS = 11  # more than a window has, and than longrope takes its short factors for
VALUES, GRADIENTS = 1e-5, 1e-4  # of fp32, relative
READ = (  # what of a family's form the decoder reads
    "always_biased", "biases", "norms", "norm_offset", "head_norms", "qkv", "gate_up", "activation_key",
    "embedding_scale", "embedding_scale_key", "residual_scale_key", "attention_scale_key", "query_scalar_key",
    "attention_cap_key", "windowed", "partly_rotated",
)  # fmt: skip


def linears_of(model: Any) -> dict[str, nn.Linear]:
    named = model.get_decoder().named_modules(prefix="model")
    return {name: module for name, module in named if isinstance(module, nn.Linear)}


def ids_of(rows: int, tokens: int = TOKENS) -> torch.Tensor:
    return torch.randint(61, (rows, tokens), generator=torch.Generator().manual_seed(1))


def drawn_adapter(linears: dict[str, nn.Linear], rank: int, alpha: float, seed: int, every: int = 1) -> LoraAdapter:
    """Of each `every`-th linear layer, with random A and B, which its configuration says nothing of."""
    generator = torch.Generator().manual_seed(seed)

    def weights(linear: nn.Linear) -> LoraWeights:
        a = torch.randn(rank, linear.in_features, generator=generator) / linear.in_features**0.5
        b = torch.randn(linear.out_features, rank, generator=generator) / linear.in_features**0.5
        return LoraWeights(nn.Parameter(a), nn.Parameter(b))

    config = TrialConfig("fp32", rank, alpha, 0.0, ("q_proj",), 1e-3, seed)
    return LoraAdapter(config, {name: weights(linears[name]) for name in list(linears)[::every]})


def fused_hidden(model: Any, members: Sequence[PackedRows], ids: torch.Tensor) -> torch.Tensor:
    return FusedDecoder(model, linears_of(model)).hidden(ids, Pack(members))


def weighed(hidden: torch.Tensor) -> torch.Tensor:
    """A loss in which each number of the last hidden states counts, whatever rows stand beside it."""
    numbers = torch.randn(hidden.shape[1:], generator=torch.Generator().manual_seed(2))
    return (hidden.square() * 0.1 + hidden).mul(numbers).sum()


def gradients(adapter: LoraAdapter) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad.clone() for name, parameter in adapter.named_parameters().items()}
    for parameter in adapter.parameters():
        parameter.grad = None
    return found


def by_peft(case: str, adapter: LoraAdapter, ids: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The hidden states, and the gradients of A and B, of transformers' own layers under PEFT's."""
    config = adapter.config
    options = {"r": config.rank, "lora_alpha": config.lora_alpha, "target_modules": list(adapter.weights)}
    model = get_peft_model(tiny_family(case), LoraConfig(**options))
    mine = dict(model.get_base_model().named_modules())
    with torch.no_grad():
        for name, pair in adapter.weights.items():
            mine[name].lora_A["default"].weight.copy_(pair.a)
            mine[name].lora_B["default"].weight.copy_(pair.b)
    hidden = model.get_base_model().get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    weighed(hidden).backward()
    theirs = {f"{name}.{part}": getattr(mine[name], part)["default"].weight.grad
              for name in adapter.weights for part in ("lora_A", "lora_B")}  # fmt: skip
    return hidden.detach(), theirs


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.linalg.norm((one - other).float()) / torch.linalg.norm(other.float()))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("tokens", [WINDOW, FEW_TOKENS, TOKENS])
def test_hidden_states_are_transformers(case: str, tokens: int) -> None:
    """fp32: 1e-5 relative, in rows as long as a window, as long as short factors serve, and longer than both."""
    model = tiny_family(case)
    assert serves(model, linears_of(model))
    with torch.no_grad():
        theirs = model.get_decoder()(input_ids=ids_of(2, tokens), use_cache=False).last_hidden_state
        assert difference(fused_hidden(model, [], ids_of(2, tokens)), theirs) <= VALUES


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_pefts_packed_or_alone_checkpointed_or_not(case: str) -> None:
    """fp32: 1e-5 for values, 1e-4 for each gradient of A and B, relative; checkpointing changes rounding at most."""
    model = tiny_family(case).train()
    linears, ids = linears_of(model), ids_of(5)
    adapters = [drawn_adapter(linears, 3, 6.0, 1), drawn_adapter(linears, 2, 1.0, 2, every=2)]
    rows = [slice(0, 2), slice(3, 5)]  # and one of the base alone between them
    members = [PackedRows(adapter, own) for adapter, own in zip(adapters, rows, strict=True)]
    passes = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        hidden = fused_hidden(model, members, ids)
        sum(weighed(hidden[own]) for own in rows).backward()
        passes.append((hidden.detach(), [gradients(adapter) for adapter in adapters]))
    (hidden, packed), (again, checkpointed) = passes
    assert difference(again, hidden) <= 1e-6
    for adapter, own, ours, ours_again in zip(adapters, rows, packed, checkpointed, strict=True):
        expected, theirs = by_peft(case, adapter, ids[own])
        assert difference(hidden[own], expected) <= VALUES
        alone = fused_hidden(model, [PackedRows(adapter, slice(0, 2))], ids[own])
        weighed(alone).backward()
        assert difference(alone.detach(), expected) <= VALUES
        for name, gradient in gradients(adapter).items():
            for one in (ours[name], ours_again[name], gradient):
                assert difference(one, theirs[name]) <= GRADIENTS, name


def wrong_forms() -> list[tuple[str, str, object]]:
    """Each family's form with each field as a plain form has it; a Llama's, and an OLMo's norms, with another's."""
    plain = families.Family({})
    before = families.LayerNorms("post_attention_layernorm", None, "post_feedforward_layernorm")
    return [("llama", "norm_offset", 1.0), ("olmo2", "norms", before)] + [
        (model_type, field, getattr(plain, field))
        for model_type, family in families.FAMILIES.items()
        for field in READ
        if getattr(family, field) != getattr(plain, field)
    ]


@pytest.mark.parametrize(("model_type", "field", "value"), wrong_forms())
def test_a_form_that_is_wrong_in_one_field_is_caught(
    model_type: str, field: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one of the family's cases at least the model is not served, or hidden states differ beyond the tolerance."""
    models = [tiny_family(case) for case, (own, _) in CASES.items() if own == model_type]
    wrong = replace(families.FAMILIES[model_type], **{field: value})
    monkeypatch.setitem(families.FAMILIES, model_type, wrong)
    assert any(map(shows, models))


@torch.no_grad()
def shows(model: Any) -> bool:
    if not serves(model, linears_of(model)):
        return True
    theirs = model.get_decoder()(input_ids=ids_of(2), use_cache=False).last_hidden_state
    return difference(fused_hidden(model, [], ids_of(2)), theirs) > 100 * VALUES


@pytest.mark.parametrize("case", ["qwen2", "gemma2", "phi3", "olmo2"])
def test_four_bit_weights_are_served_too(case: str, tmp_path: Path) -> None:
    """fp32 products of dequantized weights: 1e-5 relative; biased, capped, joined, normalized after."""
    tiny_family(case, hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)
    options = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": torch.float32}
    quantization = BitsAndBytesConfig(load_in_4bit=True, **options)
    places = {"device_map": {"": "cpu"}, "dtype": torch.float32, "attn_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=quantization, **places)
    for linear in linears_of(model).values():
        linear.support_avx512bf16_for_cpu = False
    assert serves(model, linears_of(model))
    with torch.no_grad():
        theirs = model.get_decoder()(input_ids=ids_of(2), use_cache=False).last_hidden_state
        assert difference(fused_hidden(model, [], ids_of(2)), theirs) <= VALUES


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_hidden_states_are_as_near_as_transformers(case: str, dtype: torch.dtype) -> None:
    """The fused decoder errs against the same weights in fp32 no more than transformers' layers do, by a fifth."""
    model = tiny_family(case, dtype)
    with torch.no_grad():
        states = [fused_hidden(model, [], ids_of(4)), model.get_decoder()(input_ids=ids_of(4)).last_hidden_state]
        exact = model.float().get_decoder()(input_ids=ids_of(4)).last_hidden_state
    assert states[0].dtype == dtype
    ours, theirs = (difference(state, exact) for state in states)
    assert ours <= 1.2 * theirs
