"""The fused decoder against transformers' own layers: values, gradients, and what is computed at all."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from transformers import OlmoConfig, OlmoForCausalLM

from tests.support.lora_cases import lora_config, new_member, random_rows
from tests.support.small_models import shared, tiny_llama
from trainables.base_model.load import compute_dtype, load_base_model
from trainables.packed import linear_group
from trainables.packed.adapter import LoraAdapter, PackedRows
from trainables.packed.member import TrainingMember
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import accumulate_gradients
from trainables.settings import BaseModelSettings

ROWS = random_rows(40)
MIXED = [
    {"rank": 2, "target_modules": "q_v", "seed": 1},
    {"rank": 8, "seed": 2},
    {"rank": 8, "seed": 3, "lora_alpha": 3.0},
    {"rank": 3, "target_modules": "down_proj+o_proj", "seed": 5},
]
STORIES = "models/stories260K"


def packed(model: torch.nn.Module, fused: bool, checkpointing: bool = False) -> PackedModel:
    model = PackedModel(model.train(), fused=fused)
    if checkpointing:
        options = {"use_reentrant": False, "preserve_rng_state": False}
        model.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    return model


def stories(precision: str) -> torch.nn.Module:
    return load_base_model(BaseModelSettings(str(shared(STORIES))), precision, "cpu", use_cache=False).model


def learned(adapter: LoraAdapter, seed: int = 0) -> LoraAdapter:
    """B is zero at the start, and A's gradient with it: a test needs both to be something."""
    generator = torch.Generator().manual_seed(seed)
    for pair in adapter.weights.values():
        pair.b.data.copy_(torch.randn(pair.b.shape, generator=generator) * 0.1)
    return adapter


def mixed_members(model: PackedModel, dropout: float) -> list[TrainingMember]:
    """Of different ranks, alphas, targets and micro-batch sizes: units of several rows, runs of one and of two."""
    members = []
    for place, changes in enumerate(MIXED):
        config = lora_config(**changes, lora_dropout=dropout)
        members.append(new_member(model, config, ROWS, micro_batch_size=1 + place % 3))
        learned(members[-1].adapter, place)
    return members


def gradients(model: PackedModel, dropout: float) -> tuple[list[float], list[torch.Tensor]]:
    """Losses, and each member's gradients as one vector."""
    members = mixed_members(model, dropout)
    losses = accumulate_gradients(model, members, ROWS)
    return losses, [torch.cat([p.grad.flatten() for p in member.adapter.parameters()]) for member in members]


def assert_alike(ours: list[torch.Tensor], theirs: list[torch.Tensor], relative: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert torch.linalg.norm(one - other) <= relative * torch.linalg.norm(other)


def test_hidden_states_are_transformers() -> None:
    """fp32: 1e-6 relative, for the base alone and for rows of which only some have an adapter."""
    ours, theirs = (packed(tiny_llama(layers=3), fused) for fused in (True, False))
    ids = torch.randint(97, (4, 17), generator=torch.Generator().manual_seed(1))
    adapter = learned(ours.new_adapter(lora_config()))
    for members in ([], [PackedRows(adapter, slice(1, 3))]):
        states = []
        for model in (ours, theirs):
            with model.rows_of(members) as causal, torch.no_grad():
                states.append(causal.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state)
        assert torch.linalg.norm(states[0] - states[1]) <= 1e-6 * torch.linalg.norm(states[1])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_are_autograds_through_transformers(checkpointing: bool, dropout: float) -> None:
    """fp32: 1e-5 relative, in a mixed pack whose members have several micro-batches in one pass."""
    losses, ours = gradients(packed(tiny_llama(layers=3), True, checkpointing), dropout)
    expected, theirs = gradients(packed(tiny_llama(layers=3), False), dropout)
    assert losses == pytest.approx(expected, rel=1e-6)
    assert_alike(ours, theirs, 1e-5)


@pytest.mark.parametrize("precision", ["nf4", "bf16"])
def test_other_bases_too(precision: str) -> None:
    """Without bf16 products a CPU computes these in fp32: 1e-5 and 1e-4; with them, in bf16: 5e-2 and 5e-3."""
    computes = compute_dtype(precision, torch.device("cpu"))
    of_gradients, of_losses = (1e-5, 1e-4) if computes == torch.float32 else (5e-2, 5e-3)
    losses, ours = gradients(packed(stories(precision), True, True), 0.0)
    expected, theirs = gradients(packed(stories(precision), False, True), 0.0)
    assert losses == pytest.approx(expected, rel=of_losses)
    assert_alike(ours, theirs, of_gradients)


def test_sixteen_bit_hidden_states_are_transformers_within_rounding() -> None:
    ours, theirs = (packed(tiny_llama(torch.bfloat16), fused) for fused in (True, False))
    ids = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        states = [m.model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state for m in (ours, theirs)]
    assert states[0].dtype == torch.bfloat16
    difference = torch.linalg.norm((states[0] - states[1]).float()) / torch.linalg.norm(states[1].float())
    assert difference < 0.01  # bf16 keeps 8 bits


def count_products(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each frozen weight is taken for a product, by the weight's identity."""
    taken: Counter[int] = Counter()
    original = linear_group.frozen_weight

    def counting(linear: torch.nn.Module, dtype: torch.dtype) -> torch.Tensor:
        taken[id(linear)] += 1
        return original(linear, dtype)

    monkeypatch.setattr(linear_group, "frozen_weight", counting)
    return taken


@pytest.mark.parametrize(("checkpointing", "forward"), [(False, 1), (True, 2)])
def test_each_weight_is_multiplied_no_more_than_needed(
    checkpointing: bool, forward: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recomputation leaves a layer's last product out; below the first layer's inputs there is nothing to train."""
    model = packed(tiny_llama(layers=2), True, checkpointing)
    taken = count_products(monkeypatch)
    accumulate_gradients(model, mixed_members(model, 0.0), ROWS)
    for name, layer in model.linears.items():
        leaf = name.rsplit(".", 1)[-1]
        passes = 1 if leaf == "down_proj" else forward
        lowest = "layers.0" in name and leaf in ("q_proj", "k_proj", "v_proj")
        assert taken[id(layer.base)] == passes + (0 if lowest else 1), name


def test_nothing_is_kept_or_computed_below_the_lowest_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = packed(tiny_llama(layers=3), True)
    adapter = learned(model.new_adapter(lora_config(target_modules="q_v")))
    top = LoraAdapter(adapter.config, {name: pair for name, pair in adapter.weights.items() if "layers.2" in name})
    taken = count_products(monkeypatch)
    ids = torch.arange(12).reshape(2, 6)
    with model.rows_of([PackedRows(top, slice(0, 2))]) as causal:
        hidden = causal.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        hidden.square().mean().backward()
    assert all(taken[id(layer.base)] == 1 for name, layer in model.linears.items() if "layers.2" not in name)
    reference = packed(tiny_llama(layers=3), False)
    twin = LoraAdapter(top.config, reference.new_adapter(top.config).weights)
    twin.weights = {name: twin.weights[name] for name in top.weights}
    for name, pair in top.weights.items():
        twin.weights[name].b.data.copy_(pair.b.data)
    with reference.rows_of([PackedRows(twin, slice(0, 2))]) as causal:
        causal.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state.square().mean().backward()
    assert_alike([p.grad for p in top.parameters()], [p.grad for p in twin.parameters()], 1e-5)


def test_generation_and_masks_go_through_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = packed(tiny_llama(), True)
    taken = count_products(monkeypatch)
    ids = torch.arange(5)[None]
    with torch.no_grad():
        model.model.eval().generate(input_ids=ids, max_new_tokens=3, do_sample=False, use_cache=True, pad_token_id=0)
        model.model.get_decoder()(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        assert not taken
        model.model.get_decoder()(input_ids=ids, use_cache=False)
    assert taken


def test_another_architecture_trains_through_transformers() -> None:
    config = OlmoConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=97, max_position_embeddings=64,
    )  # fmt: skip
    model = packed(OlmoForCausalLM(config).requires_grad_(False), True)
    assert not model.fused  # its norms have no weights
    member = new_member(model, lora_config(), ROWS)
    accumulate_gradients(model, [member], ROWS)
    assert all(parameter.grad is not None for parameter in member.adapter.parameters())
