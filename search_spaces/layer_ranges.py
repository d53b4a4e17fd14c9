"""The decoder layers that an adapter is restricted to: a half of them, or the first and last of a range."""

from __future__ import annotations

import re
from typing import Any

from search_spaces.faults import BrokenRule

Layers = tuple[int, int] | str | None  # first and last layer, both included, from 0; a half's name; None: all

ALL = "all"  # as a text; in configurations it is None
HALVES = ("first_half", "last_half")
MOST_LAYERS = 10_000
RULE = f"must be {', '.join((ALL, *HALVES))}, or the first and the last layer, such as [16, 31], counted from 0"
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


def parse_layers(value: Any) -> Layers:
    """Reads any form: None, a text of `layers_text`, or two numbers. What is none of them is returned as it is."""
    if value is None or value == ALL:
        return None
    if isinstance(value, str) and (found := _RANGE.fullmatch(value)):
        return int(found[1]), int(found[2] or found[1])
    return tuple(value) if isinstance(value, list) else value


def layers_text(layers: Layers) -> str:
    """The layers as one text: `all`, `last_half`, `16-31`, and `16` for one alone."""
    return "-".join(map(str, dict.fromkeys(layers))) if isinstance(layers, tuple) else layers or ALL


def broken_layer_rules(layers: Any) -> list[BrokenRule]:
    """The rules of form that they break; only a model says whether it has those layers."""
    if layers is None or (isinstance(layers, str) and layers in HALVES):
        return []
    whole = isinstance(layers, tuple) and len(layers) == 2 and all(type(one) is int for one in layers)
    if whole and 0 <= layers[0] <= layers[1] < MOST_LAYERS:
        return []
    return [BrokenRule("layers", RULE, f"it is {list(layers) if isinstance(layers, tuple) else layers!r}")]


def layer_numbers(layers: Layers, count: int) -> range:
    """The numbers of the layers meant, of `count` there are; of an odd number the last half has one more."""
    if isinstance(layers, tuple):
        return range(layers[0], min(layers[1] + 1, count))
    half = count // 2
    return {ALL: range(count), "first_half": range(half), "last_half": range(half, count)}[layers or ALL]
