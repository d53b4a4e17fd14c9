"""A model whose layers come from host memory is the resident one, bit by bit: trainings, evaluations, texts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.lora_cases import lora_config, new_member, random_rows
from tests.support.small_models import tiny_llama
from tests.support.streaming.streamed_models import four_bit, life_of, lives, same, streamed_model
from tests.support.trainables.small_decoders import small_decoder
from tests.support.trainables.tiny_families import tiny_family
from trainables.base_model.streaming.buffer_choice import Buffers
from trainables.base_model.streaming.layer_stream import LayerStream
from trainables.packed.training import train_step

LAYERS = 4  # more than a card's buffers hold


def model_of(case: str) -> Any:
    name, _, precision = case.partition(" ")
    if name == "gemma2":  # norms after its blocks, and capped scores
        model = tiny_family(name, num_hidden_layers=LAYERS, hidden_size=64, intermediate_size=64)
    elif name == "llama":
        model = tiny_llama(layers=LAYERS)
    else:
        model = small_decoder(name, num_hidden_layers=LAYERS)
    return four_bit(model) if precision == "nf4" else model


def configs_of(case: str) -> list[Any]:
    wide = {"gpt_neox": ["query_key_value", "dense_4h_to_h"]}.get(case.split()[0])
    return [
        lora_config(target_modules=wide or "q_v", rank=2, lora_dropout=0.2, seed=1),
        lora_config(target_modules=wide or "all_linear", lora_dropout=0.1, seed=2),
    ]


@pytest.mark.parametrize("case", ["llama fp32", "gemma2 nf4"])
def test_a_fused_decoder_with_any_count_of_streamed_layers_is_the_resident_one(case: str) -> None:
    """Tolerance: none."""
    resident, *streamed = lives(lambda: model_of(case), configs_of(case), fused=True)
    assert all(torch.isfinite(one).all() for one in resident)
    assert [same(one, resident) for one in streamed] == [True] * LAYERS


@pytest.mark.parametrize("case", ["llama nf4", "gpt_neox fp32"])
def test_transformers_own_layers_with_any_count_of_streamed_ones_are_the_resident_ones(case: str) -> None:
    """Tolerance: none."""
    resident, *streamed = lives(lambda: model_of(case), configs_of(case), fused=False)
    assert all(torch.isfinite(one).all() for one in resident)
    assert [same(one, resident) for one in streamed] == [True] * LAYERS


@pytest.mark.parametrize("fused", [True, False])
def test_a_buffer_that_is_taken_from_the_layer_at_work_shows(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison sees the wrong buffer choice that it is there for."""
    configs = configs_of("llama")
    resident = life_of(streamed_model(model_of("llama fp32"), 0, fused), configs, 97)
    taken = property(lambda self: self.order[-1])  # whose layer is at work
    monkeypatch.setattr(Buffers, "free", taken)
    assert not same(life_of(streamed_model(model_of("llama fp32"), LAYERS, fused), configs, 97), resident)


def test_a_layer_that_is_trained_without_checkpointing_is_refused() -> None:
    model = streamed_model(tiny_llama(), 1, fused=False)
    model.model.gradient_checkpointing_disable()
    with pytest.raises(RuntimeError, match="must be trained with gradient checkpointing; layer 1 would keep weights"):
        model.model(input_ids=torch.zeros(1, 3, dtype=torch.long), use_cache=False)


def test_only_resident_weights_are_kept_as_they_are_multiplied() -> None:
    """In passes that keep weights: a streamed layer's would be views of another's bytes, or the whole base again."""
    model = streamed_model(tiny_llama(layers=3), 2)
    with model.rows_of([], keeps=True) as causal, torch.no_grad():
        causal.eval()(input_ids=torch.zeros(1, 3, dtype=torch.long), use_cache=True)
        assert {name.split(".")[2] for name in model.context.dense or ()} == {"0"}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("turn", [2, LAYERS + 2])
def test_a_pass_that_fails_at_any_layer_leaves_the_next_one_its_weights(
    fused: bool, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for lack of memory, forward and backward: the step that is taken again is the resident one, bit by bit."""
    rows, ends = random_rows(6, longest=10), []
    for streamed in (0, LAYERS):
        model = streamed_model(model_of("llama fp32"), streamed, fused)
        member = new_member(model, configs_of("llama")[1], rows)
        train_step(model, [member], rows)
        if streamed:
            with monkeypatch.context() as patch:
                patch.setattr(LayerStream, "_bring_ahead", failing_after(turn))
                with pytest.raises(torch.OutOfMemoryError):
                    train_step(model, [member], rows)
        results = train_step(model, [member], rows)
        ends.append([torch.tensor(results[0].loss), *(one.detach() for one in member.adapter.parameters())])
    assert same(*ends)


def failing_after(turns: int) -> Any:
    bring_ahead, left = LayerStream._bring_ahead, [turns]

    def bring_or_fail(stream: LayerStream, layer: int | None) -> None:
        bring_ahead(stream, layer)
        left[0] -= 1
        if left[0] == 0:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return bring_or_fail
