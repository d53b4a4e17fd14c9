"""Rotary angles and masks of a pass: which there are, and that each layer gets its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.trainables.tiny_families import FEW_TOKENS, WINDOW, tiny_family
from trainables.packed.fused.form import DecoderForm, LayerForm
from trainables.packed.fused.positions import Positions


def forms(model: Any) -> list[LayerForm]:
    form = DecoderForm.of(model.config)
    return [form.of_layer(layer.self_attn, model.model.rotary_emb) for layer in model.model.layers]


def positions_of(model: Any, tokens: int, dtype: torch.dtype = torch.float32) -> Positions:
    return Positions.of(model.model.rotary_emb, torch.zeros(2, tokens, 32, dtype=dtype), forms(model))


@pytest.mark.parametrize("tokens", [WINDOW + 1, 11, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_mask_shows_a_token_the_last_ones_of_its_window(tokens: int, dtype: torch.dtype) -> None:
    """Rows of the mask begin at multiples of 8 numbers, or torch's kernels would copy it for each layer."""
    model = tiny_family("mistral")
    mask = positions_of(model, tokens, dtype).mask_of(forms(model)[0])
    assert mask is not None
    assert mask.dtype == dtype
    assert mask.shape == (tokens, tokens)
    assert mask.stride(0) % 8 == 0
    seen = [[0 <= query - key < WINDOW for key in range(tokens)] for query in range(tokens)]
    assert ((mask == 0) == torch.tensor(seen)).all()
    assert (mask[mask != 0] == float("-inf")).all()


@pytest.mark.parametrize(
    ("case", "tokens", "masked"),
    [("mistral", WINDOW, [False] * 3), ("mistral", WINDOW + 1, [True] * 3), ("qwen2", 11, [False, True, True]),
     ("gemma2", 11, [False] * 3), ("gemma2 uncapped", 11, [True, False, True])],
)  # fmt: skip
def test_layers_are_masked_where_rows_are_longer_than_their_window(case: str, tokens: int, masked: list[bool]) -> None:
    """Capped scores need none: they are computed here."""
    model = tiny_family(case)
    positions = positions_of(model, tokens)
    assert [positions.mask_of(form) is not None for form in forms(model)] == masked


def test_layers_turn_by_their_own_angles_or_not_at_all() -> None:
    model = tiny_family("gemma3")
    positions = positions_of(model, 11)
    near, far, again = (positions.angles_of(form)[0] for form in forms(model))
    assert near is again
    assert not torch.equal(near, far)
    model = tiny_family("smollm3")
    turned = [positions_of(model, 11).angles_of(form)[0] is not None for form in forms(model)]
    assert turned == [True, False, True]


def test_long_rows_turn_by_long_factors_and_later_short_ones_by_short_ones_again() -> None:
    """Of six numbers of a head's eight; the first position after the first turns by 1 over the first factor."""
    model = tiny_family("phi4 mini")
    turns = []
    for tokens in (FEW_TOKENS, FEW_TOKENS + 1, FEW_TOKENS):
        cos, sin = positions_of(model, tokens).angles_of(forms(model)[0])
        assert cos.shape == (tokens, 6)
        turns.append(float(torch.atan2(sin[1, 0], cos[1, 0])))
    assert turns == pytest.approx([1.0, 0.5, 1.0])


def test_what_is_moved_to_another_device_is_the_same() -> None:
    """The meta device stands for another card."""
    moved = positions_of(tiny_family("gemma3"), 11).to(torch.device("meta"))
    assert moved.tokens == 11
    assert {tensor.device.type for pair in moved.angles.values() for tensor in pair} == {"meta"}
    assert [mask.device.type for mask in moved.masks.values()] == ["meta"]
