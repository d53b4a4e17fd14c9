"""Packed linear layers, forward and backward by hand, against autograd through the written-out formula."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from search_spaces.trial_config import TrialConfig
from trainables.packed.adapter import LoraAdapter, LoraWeights, PackedRows
from trainables.packed.dropout import dropout_mask
from trainables.packed.linear_group import LinearGroup
from trainables.packed.pack import Pack

WIDTHS = {"q_proj": 10, "k_proj": 4, "v_proj": 4}
IN_FEATURES, TOKENS = 6, 5


def linears(biased: bool = False) -> dict[str, nn.Linear]:
    torch.manual_seed(0)
    return {name: nn.Linear(IN_FEATURES, width, biased).requires_grad_(False) for name, width in WIDTHS.items()}


def random_adapter(draw: random.Random, dropout: bool) -> LoraAdapter:
    targets = tuple(draw.sample(sorted(WIDTHS), draw.randint(1, 3)))
    config = TrialConfig(
        "fp32",
        draw.choice([2, 2, 3]),
        draw.choice([1.0, 4.0]),
        0.4 if dropout else 0.0,
        targets,
        1e-3,
        draw.randint(0, 99),
    )
    weights = {
        name: LoraWeights(
            nn.Parameter(torch.randn(config.rank, IN_FEATURES)), nn.Parameter(torch.randn(WIDTHS[name], config.rank))
        )
        for name in targets
    }
    return LoraAdapter(config, weights)


def random_pack(draw: random.Random) -> list[PackedRows]:
    """Up to five parts of up to three rows, some of the same adapter, with gaps, other lengths, dropout on for some."""
    adapters = [random_adapter(draw, draw.random() < 0.3) for _ in range(3)]
    packed, first = [], 0
    for key in range(draw.randint(0, 5)):
        first += draw.choice([0, 0, 1])
        count = draw.randint(1, 3)
        rows, thins = slice(first, first + count), draw.random() < 0.8
        packed.append(PackedRows(draw.choice(adapters), rows, draw.choice([None, 3, 5]), key if thins else None))
        first += count
    return packed


def by_formula(layers: dict[str, nn.Linear], members: list[PackedRows], x: torch.Tensor) -> list[torch.Tensor]:
    """W x + (alpha / r) B A dropout(x), masks cover a member's own tokens; under dropout others get no update."""
    outputs = []
    for name, layer in layers.items():
        y = layer(x)
        for member in members:
            if name not in member.adapter.weights:
                continue
            pair, config, own = member.adapter.weights[name], member.adapter.config, x[member.rows]
            if member.dropout:
                tokens = member.tokens or TOKENS
                mask = torch.zeros_like(own)
                mask[:, :tokens] = dropout_mask(config, name, member.dropout_key, own[:, :tokens])
                own = own * mask
            update = own @ pair.a.T @ pair.b.T * (config.lora_alpha / config.rank)
            y = y.index_add(0, torch.arange(member.rows.start, member.rows.stop), update)
        outputs.append(y)
    return outputs


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("seed", range(25))
def test_values_and_gradients_are_those_of_the_formula(seed: int, padded: bool, biased: bool) -> None:
    """fp32: 1e-5 of each tensor's norm, for values and gradients; weights' are added to what is there."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    layers, members = linears(biased), random_pack(draw)
    rows = max((member.rows.stop for member in members), default=0) + draw.randint(0, 2) or 1
    x = torch.randn(rows, TOKENS, IN_FEATURES).requires_grad_()
    adapters = list(dict.fromkeys(member.adapter for member in members))
    parameters = [parameter for adapter in adapters for parameter in adapter.parameters()]
    expected = by_formula(layers, members, x)
    gradients = [torch.randn_like(y) for y in expected]
    torch.autograd.backward(expected, gradients)
    theirs = [x.grad, *(torch.ones_like(p) + (p.grad if p.grad is not None else 0) for p in parameters)]

    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    group, flat = LinearGroup(layers), x.detach().flatten(0, 1)
    flat_gradients = [gradient.flatten(0, 1) for gradient in gradients]
    with torch.no_grad():
        updates = group.updates(Pack(members, padded), TOKENS, x.dtype)
        values = group.outputs(flat, updates)
        group.receive(flat_gradients, updates)
        for update in updates:
            update.accumulate(flat)
        ours = [group.input_gradient(flat_gradients, updates).view_as(x), *(p.grad for p in parameters)]
    for one, other in zip(
        [*(y.view_as(e) for y, e in zip(values, expected, strict=True)), *ours], [*expected, *theirs], strict=True
    ):
        assert torch.linalg.norm(one - other) <= 1e-5 * torch.linalg.norm(other)


def test_gradients_of_a_padded_pack_hold_no_memory_of_its_highest_rank() -> None:
    layers = linears()
    members = [
        PackedRows(LoraAdapter(TrialConfig("fp32", rank, 1.0, 0.0, ("q_proj",), 1e-3, 0), {"q_proj": weights}),
                   slice(place, place + 1))
        for place, (rank, weights) in enumerate(
            (rank, LoraWeights(nn.Parameter(torch.randn(rank, IN_FEATURES)), nn.Parameter(torch.randn(10, rank))))
            for rank in (2, 5, 5)
        )
    ]  # fmt: skip
    x = torch.randn(3 * TOKENS, IN_FEATURES)
    group = LinearGroup({"q_proj": layers["q_proj"]})
    with torch.no_grad():
        updates = group.updates(Pack(members, padded=True), TOKENS, x.dtype)
        group.outputs(x, updates)
        group.receive([torch.randn(3 * TOKENS, 10)], updates)
        for update in updates:
            update.accumulate(x)
    assert len(updates) == 1
    gradients = [p.grad for member in members for p in member.adapter.parameters()]
    storages = {grad.untyped_storage().data_ptr(): grad.untyped_storage().nbytes() for grad in gradients}
    assert sum(storages.values()) == 4 * (2 + 5 + 5) * (IN_FEATURES + 10)
    assert all(grad.is_contiguous() for grad in gradients)


@pytest.mark.parametrize("biased", [False, True])
def test_a_residual_is_added_in_place(biased: bool) -> None:
    layer = {"k_proj": linears(biased)["k_proj"]}
    x, residual = torch.randn(7, IN_FEATURES), torch.randn(7, 4)
    expected = residual + layer["k_proj"](x)
    (y,) = LinearGroup(layer).outputs(x, [], residual=residual)
    assert y is residual
    torch.testing.assert_close(y, expected)
