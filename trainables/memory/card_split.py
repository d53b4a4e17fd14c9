"""Splits a base model over several cards of one node: whole layers, so that the fullest card holds least."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from trainables.base_model.shape import ModelShape
from trainables.memory.offload import RESIDENT
from trainables.memory.prediction import MemoryPrediction, predict_pack
from trainables.memory.setting import AdapterLoad, MemoryConstants, MemorySetting
from trainables.memory.weights import ModelPart, base_components
from trainables.settings import TrialSettings

USUAL_RANK = 16  # of the adapter that cards are filled with evenly


def split_layers(
    shape: ModelShape, setting: MemorySetting, rows: int, tokens: int, cards: int
) -> tuple[ModelPart, ...]:
    """Decides how many layers each of `cards` equal cards takes: embedding on the first, norm and head on the last.

    A head that is tied to the embedding stays with it. Layers go one by one to the card that is least full with it:
    optimal, since each adds the same to whichever card. Equal for all adapters of a host: each card's fill is that of
    a usual adapter with a micro-batch of `rows` rows of `tokens` tokens, all of it resident: what waits in host memory
    is spread evenly.
    """
    if not 1 <= cards <= shape.layers:
        raise ValueError(f"cards must be from 1 to the model's {shape.layers} layers; they are {cards}")
    load = AdapterLoad(USUAL_RANK, tuple(shape.linears), dropout=False, rows=rows, tokens=tokens, targets=rows * tokens)
    # So that plan and host, which each split by themselves, split alike.
    setting = replace(setting, attention="flash", offload=RESIDENT, optimizer="adamw")
    last = 0 if shape.tie_word_embeddings else cards - 1
    parts = [ModelPart(1, place == 0, place == last) for place in range(cards)]
    grown = [_with_a_layer_more(shape, setting, load, part) for part in parts]
    for _ in range(shape.layers - cards):
        place = min(range(cards), key=lambda place: grown[place][0])
        parts[place] = grown[place][1]
        grown[place] = _with_a_layer_more(shape, setting, load, parts[place])
    return tuple(replace(part, above=sum(one.layers for one in parts[place + 1 :])) for place, part in enumerate(parts))


def module_cards(parts: Sequence[ModelPart]) -> dict[str, int]:
    """Maps each module of a Llama-like model to its card's number, as accelerate's device map."""
    layers = [place for place, part in enumerate(parts) for _ in range(part.layers)]
    head = next(place for place, part in enumerate(parts) if part.has_head)
    return {
        "model.embed_tokens": 0,
        "model.rotary_emb": 0,
        **{f"model.layers.{number}": place for number, place in enumerate(layers)},
        "model.norm": len(parts) - 1,
        "lm_head": head,
    }


def cards_of_modules(
    shape: ModelShape, settings: TrialSettings, precision: str, compute_precision: str, longest: int, cards: int
) -> dict[str, int]:
    """Maps each module of a host's base model to its card's number; `longest` is the longest training row's tokens."""
    setting = MemorySetting(
        precision,
        compute_precision,
        shape.doubly_quantized(settings.base_model.double_quantization),
        settings.training.gradient_checkpointing,
    )
    return module_cards(split_layers(shape, setting, settings.training.micro_batch_size, longest, cards))


def _with_a_layer_more(
    shape: ModelShape, setting: MemorySetting, load: AdapterLoad, part: ModelPart
) -> tuple[int, ModelPart]:
    """Returns the bytes that the card would need with a layer more, and the part that it would hold."""
    grown = replace(part, layers=part.layers + 1)
    return predict_pack(shape, setting, [load], part=grown).needed_bytes, grown


def predict_split(
    shape: ModelShape, setting: MemorySetting, load: AdapterLoad, cards: int, constants: MemoryConstants | None = None
) -> tuple[MemoryPrediction, ...]:
    """Predicts one adapter training alone over several cards: one prediction a card, in the model's order."""
    parts = split_layers(shape, setting, load.rows, load.tokens, cards)
    return tuple(predict_pack(shape, setting, [load], constants, part) for part in parts)


def cards_needed(
    shape: ModelShape,
    setting: MemorySetting,
    load: AdapterLoad,
    card_bytes: int,
    most: int,
    constants: MemoryConstants | None = None,
) -> int | None:
    """Counts the cards of `card_bytes` each that base and adapter need together; None where `most` are too few.

    A decoder without a form stays on one card: where its parts belong, no form says.
    """
    most = 1 if shape.probed else most
    weights = sum(base_components(shape, setting, ModelPart(shape.layers)).values())
    fewest = max(1, math.ceil(weights / max(1, card_bytes)))  # that hold the weights alone
    for cards in range(fewest, min(most, shape.layers) + 1):
        predictions = predict_split(shape, setting, load, cards, constants)
        if max(one.device_bytes for one in predictions) <= card_bytes:
            return cards
    return None
