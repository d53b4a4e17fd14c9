"""PEFT updates the very layers that an exported adapter's patterns, names and layers mean, in any decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GPTNeoXConfig, OPTConfig, Phi3Config

from search_spaces.resolution import TargetError, linear_name, resolve
from tests.support.lora_cases import files_of, lora_config, new_member, peft_model, random_rows
from tests.support.small_models import tiny_llama
from trainables.base_model.families import FAMILIES
from trainables.base_model.shape import ModelShape
from trainables.packed.adapter import LoraAdapter, LoraWeights, PackedRows
from trainables.packed.adapter_files import peft_config
from trainables.packed.merged_weights import write_merged
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import train_step

IDS = torch.randint(97, (2, 15), generator=torch.Generator().manual_seed(0))
ROWS = random_rows(13)
SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 97, "pad_token_id": 0}
CONFIGS = {
    "phi3": Phi3Config(**SIZES, intermediate_size=48, num_key_value_heads=2, max_position_embeddings=64),
    "gpt_neox": GPTNeoXConfig(**SIZES, intermediate_size=48, max_position_embeddings=64),
    "opt": OPTConfig(**SIZES, ffn_dim=48, max_position_embeddings=64, word_embed_proj_dim=32),
}


def small(kind: str) -> nn.Module:
    """A model of four layers with random weights, equal at every call."""
    if kind == "llama":
        return tiny_llama(layers=4).eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(CONFIGS[kind]).float().eval().requires_grad_(False)


def linears_of(model: nn.Module) -> dict[str, nn.Linear]:
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {name: module for name, module in found.items() if linear_name(name)}


def random_adapter(model: nn.Module, **changes: Any) -> LoraAdapter:
    """An adapter that updates something: B is random too."""
    fresh = LoraAdapter.fresh(lora_config(**changes), linears_of(model))
    draw = torch.Generator().manual_seed(1)
    weights = {
        name: LoraWeights(pair.a, nn.Parameter(torch.randn(pair.b.shape, generator=draw) * 0.1))
        for name, pair in fresh.weights.items()
    }
    return LoraAdapter(fresh.config, weights)


def merged(model: nn.Module, adapter: LoraAdapter) -> nn.Module:
    """The model with W0 + (alpha / r) B A in place of W0."""
    for name, pair in adapter.weights.items():
        linears_of(model)[name].weight.data += adapter.config.scaling * pair.b.detach() @ pair.a.detach()
    return model


PATTERN = r"re:layers\.[13]\.(mlp|self_attn|attention)\..*"
TARGETS = [
    ("llama", "q_v", None, 8, ["q_proj", "v_proj"]),
    ("llama", "all_linear", "last_half", 14, None),
    ("llama", ["o_proj", "q_v"], [1, 1], 3, ["o_proj", "q_proj", "v_proj"]),
    ("llama", [PATTERN], None, 14, "full"),
    ("llama", [PATTERN, "k_proj"], [2, 3], 8, "full"),
    ("llama", ["self_attn.o_proj", "layers.2.mlp.up_proj"], None, 5, "full"),
    ("phi3", "q_v", None, 4, ["qkv_proj"]),
    ("phi3", "all_linear", "first_half", 8, ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]),
    ("phi3", ["re:.*\\.qkv_proj", "gate_up_proj"], [0, 2], 6, "full"),
    ("gpt_neox", "q_v", [3, 3], 1, ["query_key_value"]),
    ("gpt_neox", [PATTERN], None, 8, "full"),
    ("gpt_neox", "all_linear", None, 16, None),
    ("opt", "q_v", "last_half", 4, "full"),
    ("opt", ["fc1"], None, 4, "full"),
]


@pytest.mark.parametrize(("kind", "modules", "layers", "count", "words"), TARGETS)
def test_peft_updates_the_layers_that_were_meant(
    kind: str, modules: Any, layers: Any, count: int, words: Any, tmp_path: Path
) -> None:
    """Equal names of updated layers, and logits equal to 1e-5 to those of the weights merged in fp32."""
    adapter = random_adapter(small(kind), target_modules=modules, layers=layers)
    assert len(adapter.weights) == count
    theirs = peft_model(small(kind), adapter, tmp_path)
    updated = [name for name, one in theirs.named_modules() if isinstance(one, LoraLayer)]
    assert {name.removeprefix("base_model.model.") for name in updated} == set(adapter.weights)
    with torch.no_grad():
        ours = merged(small(kind), adapter)(input_ids=IDS).logits
        found, plain = theirs(input_ids=IDS).logits, small(kind)(input_ids=IDS).logits
    torch.testing.assert_close(found, ours, rtol=1e-5, atol=1e-5)
    assert (found - plain).abs().max() > 1e-3
    written = peft_config(adapter.config, list(adapter.weights), "a", "b")
    if words is not None:
        assert written["target_modules"] == (list(adapter.weights) if words == "full" else words)
    assert ("layers_to_transform" in written) == (layers is not None and words != "full")


@pytest.mark.parametrize(("kind", "modules", "layers"), [one[:3] for one in TARGETS])
def test_a_base_with_the_adapter_merged_in_answers_as_peft_does(
    kind: str, modules: Any, layers: Any, tmp_path: Path
) -> None:
    """Weights equal PEFT's own merge, rounded once to bf16, but for one unit in the last place."""
    adapter = random_adapter(small(kind), target_modules=modules, layers=layers)
    base, ours, target = (tmp_path / name for name in ("base", "adapter", "merged"))
    small(kind).save_pretrained(base)
    for folder in (ours, target):
        folder.mkdir()
    for name, content in files_of(adapter, str(base)).items():
        (ours / name).write_bytes(content)
    write_merged(base, ours, target)
    found = AutoModelForCausalLM.from_pretrained(target, dtype=torch.bfloat16).state_dict()
    expected = PeftModel.from_pretrained(small(kind), str(ours)).merge_and_unload().state_dict()
    for name, weight in found.items():
        torch.testing.assert_close(weight.float(), expected[name], rtol=2**-7, atol=1e-6, msg=name)
    changed = {
        name.removesuffix(".weight")
        for name, weight in small(kind).state_dict().items()
        if not torch.allclose(expected[name], weight, rtol=0, atol=0)
    }
    assert changed == set(adapter.weights)


MEMBERS: list[dict[str, Any]] = [
    {"target_modules": "all_linear", "layers": [0, 0]},
    {"target_modules": "q_v", "layers": "last_half", "seed": 4},
    {"target_modules": [PATTERN, "down_proj"], "seed": 5},
    {"target_modules": "all_linear", "seed": 6},
]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("fused", [True, False])
def test_a_pack_of_adapters_of_unlike_layers_trains_as_each_alone(fused: bool, dropout: float) -> None:
    """Weights after three steps are equal to 1e-4, and losses to 1e-5: sums come in another order."""
    model = PackedModel(small("llama").train(), fused=fused)
    configs = [lora_config(lora_dropout=dropout, learning_rate=1e-3, **changes) for changes in MEMBERS]
    together = [new_member(model, config, ROWS) for config in configs]
    losses = [[one.loss for one in train_step(model, together, ROWS)] for _ in range(3)]
    for place, config in enumerate(configs):
        member = new_member(model, config, ROWS)
        alone = [train_step(model, [member], ROWS)[0].loss for _ in range(3)]
        assert alone == pytest.approx([step[place] for step in losses], rel=1e-5)
        for name, weight in member.adapter.named_tensors().items():
            other = together[place].adapter.named_tensors()[name]
            torch.testing.assert_close(other, weight, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("changes", MEMBERS)
def test_gradients_are_pefts(changes: dict[str, Any], fused: bool, tmp_path: Path) -> None:
    """Every target's gradient equals PEFT's to 1e-4 of its own largest number, in fp32."""
    adapter = random_adapter(small("llama"), **changes)
    theirs = peft_model(small("llama"), adapter, tmp_path)
    named = {name: one for name, one in theirs.named_parameters() if "lora_" in name}
    for parameter in named.values():
        parameter.requires_grad_(True)
    theirs(input_ids=IDS, labels=IDS).loss.backward()
    model = PackedModel(small("llama"), fused=fused)
    with model.rows_of([PackedRows(adapter, slice(0, 2))]) as causal:
        logits = causal(input_ids=IDS, use_cache=False).logits[:, :-1]  # as training runs it
        nn.functional.cross_entropy(logits.reshape(-1, 97), IDS[:, 1:].reshape(-1)).backward()
    for name, parameter in adapter.named_parameters().items():
        layer, _, part = name.rpartition(".")
        expected = named[f"base_model.model.{layer}.{part}.default.weight"].grad
        assert (parameter.grad - expected).abs().max() <= 1e-4 * expected.abs().max(), name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_described_family_s_names_are_those_of_transformers(family: str) -> None:
    """What the border and a plan look targets up in is what training looks them up in; sets mean the same in both."""
    sizes = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 1}
    config = AutoConfig.for_model(family, **sizes, eos_token_id=2)
    with torch.device("meta"):
        there = tuple(linears_of(AutoModelForCausalLM.from_config(config)))
    shape = ModelShape.from_config(config.to_dict())
    assert sorted(shape.linear_names) == sorted(there)
    for modules in (["q_v"], ["all_linear"], [r"re:layers\.[13]\..*\.(o|down)_proj"]):
        for layers in (None, "last_half", (1, 2)):
            assert set(shape.targets(modules, layers)) == set(resolve(modules, layers, there))


def test_an_adapter_of_layers_that_a_model_lacks_is_refused() -> None:
    with pytest.raises(TargetError, match="must be among the base model's 4 layers, 0 to 3"):
        random_adapter(small("phi3"), target_modules="q_v", layers=[2, 4])
    with pytest.raises(TargetError, match="linear layers, o_proj, qkv_proj, gate_up_proj, down_proj"):
        random_adapter(small("phi3"), target_modules=["q_proj"])
