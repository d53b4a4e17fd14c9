"""Decoders of families without a form: adapters' updates under transformers' own layers, against PEFT's.

Tolerances: logits 1e-5, gradients 1e-4 relative, fp32.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.small_models import tiny_llama
from tests.support.trainables.packed_cases import relative
from tests.support.trainables.small_decoders import (
    DECODERS,
    MIXTURES,
    adapter_over,
    small_decoder,
    twin_of,
    twins_gradients,
)
from trainables.base_model.upcast import upcast_products
from trainables.packed.adapter import LoraAdapter, PackedRows
from trainables.packed.linear_group import frozen_weight
from trainables.packed.packed_model import PackedModel
from trainables.packed.wrapped.linear_layers import decoder_linears

LENGTHS, COUNTS = (9, 14, 5), (2, 1, 3)
EDGES = (0, 2, 3, 6)


def ids_of(rows: int, tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(97, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def checkpointed(model: PackedModel) -> PackedModel:
    model.model.train()
    options = {"use_reentrant": False, "preserve_rng_state": False}
    model.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    return model


def gradients_of(model: PackedModel, packed: list[PackedRows], ids: torch.Tensor) -> list[list[torch.Tensor]]:
    """Each member's gradients of the sum of its own rows' mean squared logits; dropped from the adapters."""
    with model.rows_of(packed) as causal:
        logits = causal(input_ids=ids).logits
        sum(logits[one.rows, : one.tokens].square().mean() for one in packed).backward()
    found = []
    for one in packed:
        found.append([parameter.grad for parameter in one.adapter.parameters()])
        for parameter in one.adapter.parameters():
            parameter.grad = None
    return found


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("model_type", [*DECODERS, *MIXTURES])
def test_logits_and_gradients_of_every_target_are_pefts(model_type: str, checkpointing: bool) -> None:
    model = PackedModel(small_decoder(model_type))
    model.model.train()
    if checkpointing:
        checkpointed(model)
    adapter, ids = adapter_over(model), ids_of(2, 11)
    twin = twin_of(adapter, small_decoder(model_type))
    with model.rows_of([PackedRows(adapter, slice(0, 2))]) as causal:
        ours = causal(input_ids=ids).logits
        ours.square().mean().backward()
    theirs = twin(input_ids=ids).logits
    theirs.square().mean().backward()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for parameter, expected in zip(adapter.parameters(), twins_gradients(twin, adapter), strict=True):
        assert relative(parameter.grad, expected) <= 1e-4


def unlike(model: PackedModel) -> list[LoraAdapter]:
    """Adapters of unlike rank, alpha, targets and dropout."""
    names = list(model.linears)
    return [
        adapter_over(model, seed=1, rank=2, lora_dropout=0.2),
        adapter_over(model, names[:3], seed=2, rank=8, lora_alpha=4),
        adapter_over(model, names[1::2], seed=3, rank=3, lora_dropout=0.5),
    ]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("model_type", ["gpt_neox", "cohere", "phi", "opt"])
def test_rows_in_company_are_as_alone(model_type: str, padded: bool, checkpointing: bool) -> None:
    """Rows of unlike length and number, and a row of nobody's at the end."""
    model = PackedModel(small_decoder(model_type))
    model._pads = lambda members: padded
    model.model.train()
    if checkpointing:
        checkpointed(model)
    adapters = unlike(model)
    batches = [ids_of(count, length, length) for count, length in zip(COUNTS, LENGTHS, strict=True)]
    alone = [
        gradients_of(model, [PackedRows(adapter, slice(0, len(ids)), ids.shape[1], 17)], ids)[0]
        for adapter, ids in zip(adapters, batches, strict=True)
    ]
    longest = max(LENGTHS)
    rows = [torch.nn.functional.pad(ids, (0, longest - ids.shape[1])) for ids in batches]
    packed = [PackedRows(one, slice(*EDGES[i : i + 2]), LENGTHS[i], 17) for i, one in enumerate(adapters)]
    together = gradients_of(model, packed, torch.cat([*rows, ids_of(1, longest)]))
    for ours, expected in zip(together, alone, strict=True):
        for one, other in zip(ours, expected, strict=True):
            assert relative(one, other) <= 1e-5


@pytest.mark.parametrize("model_type", ["gpt_neox", "stablelm", "cohere"])
def test_checkpointing_changes_nothing(model_type: str) -> None:
    plain, saving = PackedModel(small_decoder(model_type)), checkpointed(PackedModel(small_decoder(model_type)))
    plain.model.train()
    ids = ids_of(2, 7)
    kept = gradients_of(plain, [PackedRows(adapter_over(plain, lora_dropout=0.3), slice(0, 2), 7, 5)], ids)
    again = gradients_of(saving, [PackedRows(adapter_over(saving, lora_dropout=0.3), slice(0, 2), 7, 5)], ids)
    assert all(torch.equal(one, other) for one, other in zip(kept[0], again[0], strict=True))


class CountedOperations(TorchDispatchMode):
    """Counts what reaches the device's kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.count += 1
        return function(*arguments, **(named or {}))


def operations(model: PackedModel, adapters: list[LoraAdapter], steps: int = 1) -> int:
    """Operations of a layer's share of a pass, forward and backward, of a row for each adapter."""
    packed = [PackedRows(one, slice(row, row + 1), 6, 1) for row, one in enumerate(adapters)]
    ids, counted = ids_of(len(adapters), 6), CountedOperations()
    gradients_of(model, packed, ids)
    with counted:
        for _ in range(steps):
            with model.rows_of(packed) as causal:
                causal(input_ids=ids).logits.square().mean().backward()
    return counted.count


@pytest.mark.parametrize("steps", [1, 2])  # in the second, gradients are added to what is there
@pytest.mark.parametrize("model_type", ["gpt_neox", "stablelm", "phi"])
def test_operations_do_not_grow_with_the_adapters(model_type: str, steps: int) -> None:
    """Views by `unbind` are one operation; nothing is done adapter by adapter. Two a linear layer may be the pack's."""
    model = PackedModel(small_decoder(model_type, num_hidden_layers=3))
    one = operations(model, [adapter_over(model)], steps)
    eight = operations(model, [adapter_over(model, seed=seed) for seed in range(8)], steps)
    assert eight <= one + 8


def test_layers_that_read_the_same_input_share_one_product() -> None:
    """With queries, keys and values in one group a pass takes fewer operations than with each by itself."""
    model = PackedModel(small_decoder("stablelm"))
    names = {name.rsplit(".", 1)[-1] for name in (one.name for one in _named(model, "k_proj").group)}
    assert names == {"q_proj", "k_proj", "v_proj"}
    adapters = [adapter_over(model)]
    grouped = operations(model, adapters)
    for layer in model.linears.values():
        layer.group = (layer,)
    assert operations(model, adapters) > grouped


def _named(model: PackedModel, leaf: str) -> Any:
    return next(layer for name, layer in model.linears.items() if name.endswith(leaf))


def test_an_input_that_was_written_to_is_another_input() -> None:
    """Queries are computed with keys and values; who writes to the input between them gets what they then read."""
    model = PackedModel(small_decoder("stablelm"))
    adapter, x = adapter_over(model), torch.randn(1, 3, 32)
    q, k = _named(model, "q_proj"), _named(model, "k_proj")
    with torch.no_grad():
        with model.rows_of([PackedRows(adapter, slice(0, 1))]):
            model.context.batch = (1, 3)
            expected = k(2 * x)
        with model.rows_of([PackedRows(adapter, slice(0, 1))]):
            q(x)
            x.mul_(2)
            assert torch.equal(k(x), expected)
    assert model.context.ahead is None


@pytest.mark.parametrize("precision", ["bf16", "upcast"])
def test_sixteen_bits_agree_with_fp32_within_rounding(precision: str) -> None:
    """Weights in bf16: products in bf16 (8 bits), and in fp32 of the same weights (`upcast`, 1e-4)."""
    rounded = small_decoder("stablelm").bfloat16()
    exact = PackedModel(small_decoder("stablelm").bfloat16().float())
    if precision == "upcast":
        upcast_products(rounded)
    model = PackedModel(rounded)
    ids, tolerance = ids_of(2, 9), {"bf16": 0.06, "upcast": 1e-4}[precision]
    ours, expected = (gradients_of(one, [PackedRows(adapter_over(one), slice(0, 2))], ids)[0] for one in (model, exact))
    for gradient, other in zip(ours, expected, strict=True):
        assert gradient.dtype == torch.float32
        assert relative(gradient, other) <= tolerance


def quantized(model: Any, dequantized: bool) -> Any:
    """The model with its decoder's linear weights in NF4, computing in fp32; or with what they are dequantized to."""
    for name, linear in decoder_linears(model).items():
        four_bits = Linear4bit(
            linear.in_features, linear.out_features, linear.bias is not None, torch.float32, quant_type="nf4"
        )
        four_bits.load_state_dict(linear.state_dict())
        four_bits = four_bits.to("cpu").requires_grad_(False)  # which quantizes
        assert four_bits.weight.dtype == torch.uint8
        four_bits.support_avx512bf16_for_cpu = False
        if dequantized:
            linear.weight.data = frozen_weight(four_bits, torch.float32)
        else:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, four_bits)
    return model


@pytest.mark.parametrize("checkpointing", [False, True])
def test_four_bit_weights_are_what_they_are_dequantized_to(checkpointing: bool) -> None:
    """Gradients 1e-5 relative, in fp32; a layer of them without adapters passes its gradient on too."""
    found = []
    for dequantized in (False, True):
        model = PackedModel(quantized(small_decoder("stablelm", hidden_size=64, intermediate_size=128), dequantized))
        if checkpointing:
            checkpointed(model)
        adapter = adapter_over(model, [name for name in model.linears if "k_proj" not in name], lora_dropout=0.2)
        found.append(gradients_of(model, [PackedRows(adapter, slice(0, 2), 7, 3)], ids_of(2, 7))[0])
    for ours, expected in zip(*found, strict=True):
        assert relative(ours, expected) <= 1e-5


def test_nothing_is_kept_where_no_gradient_follows() -> None:
    model = PackedModel(small_decoder("gpt_neox"))
    adapter, ids = adapter_over(model), ids_of(2, 5)
    with model.rows_of([PackedRows(adapter, slice(0, 2))]) as causal:
        with torch.no_grad():
            assert not causal(input_ids=ids).logits.requires_grad
        with torch.inference_mode():
            quiet = causal(input_ids=ids).logits
        assert torch.equal(causal(input_ids=ids).logits, quiet)


def test_llamas_own_layers_agree_with_its_fused_ones() -> None:
    plain, fused = PackedModel(tiny_llama(), fused=False), PackedModel(tiny_llama())
    assert fused.fused
    assert not plain.fused
    ids, weights = ids_of(2, 9), torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(4))
    found = []
    for model in (plain, fused):
        adapter = adapter_over(model)
        with model.rows_of([PackedRows(adapter, slice(0, 2))]) as causal:
            hidden = causal.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
            (hidden * weights).sum().backward()
        found.append([parameter.grad for parameter in adapter.parameters()])
    for one, other in zip(*found, strict=True):
        assert relative(one, other) <= 1e-5
