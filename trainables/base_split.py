"""A base model over several cards of one node: whole layers, in order, so that the fullest card holds least. (pure)"""

from __future__ import annotations

import math
from dataclasses import replace

from trainables.memory_model import (
    DEFAULT_CONSTANTS,
    MemoryPrediction,
    ModelPart,
    allocatable,
    base_components,
    predict_pack,
)
from trainables.memory_setting import AdapterLoad, MemoryConstants, MemorySetting
from trainables.model_shape import ModelShape


def split_layers(shape: ModelShape, setting: MemorySetting, load: AdapterLoad, cards: int) -> tuple[ModelPart, ...]:
    """How many layers each of `cards` equal cards takes; the embedding is on the first, norm and head on the last.

    Layers go one by one to the card that is least full with it: optimal, since each adds the same to whichever card.
    """
    if not 1 <= cards <= shape.layers:
        raise ValueError(f"cards must be from 1 to the model's {shape.layers} layers; they are {cards}")
    parts = [ModelPart(1, place == 0, place == cards - 1) for place in range(cards)]
    grown = [_with_a_layer_more(shape, setting, load, part) for part in parts]
    for _ in range(shape.layers - cards):
        place = min(range(cards), key=lambda place: grown[place][0])
        parts[place] = grown[place][1]
        grown[place] = _with_a_layer_more(shape, setting, load, parts[place])
    return tuple(parts)


def _with_a_layer_more(
    shape: ModelShape, setting: MemorySetting, load: AdapterLoad, part: ModelPart
) -> tuple[int, ModelPart]:
    """What the card would need, and what it would hold."""
    grown = replace(part, layers=part.layers + 1)
    return predict_pack(shape, setting, [load], part=grown).needed_bytes, grown


def predict_split(
    shape: ModelShape, setting: MemorySetting, load: AdapterLoad, cards: int, constants: MemoryConstants | None = None
) -> tuple[MemoryPrediction, ...]:
    """One adapter training alone over several cards: each card's prediction, in the model's order."""
    parts = split_layers(shape, setting, load, cards)
    return tuple(predict_pack(shape, setting, [load], constants, part) for part in parts)


def cards_needed(
    shape: ModelShape,
    setting: MemorySetting,
    load: AdapterLoad,
    card_bytes: int,
    most: int,
    constants: MemoryConstants | None = None,
) -> int | None:
    """The fewest cards of `card_bytes` each that hold base and adapter together; None where `most` are too few."""
    capacity = allocatable(card_bytes, constants or DEFAULT_CONSTANTS[setting.device])
    weights = sum(base_components(shape, setting, ModelPart(shape.layers)).values())
    fewest = max(1, math.ceil(weights / max(1, capacity)))  # that hold the weights alone
    for cards in range(fewest, min(most, shape.layers) + 1):
        predictions = predict_split(shape, setting, load, cards, constants)
        if max(one.needed_bytes for one in predictions) <= capacity:
            return cards
    return None
