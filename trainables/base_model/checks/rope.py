"""Checks a configuration's rotary positions: the type of their scaling, and the numbers that each type needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainables.base_model.checks.values import (
    Rule,
    is_number,
    list_of,
    name_of,
    number,
    or_null,
    truth,
    whole,
)
from trainables.base_model.families import FAMILIES

MOST_POSITIONS = 2**27
THETA = number(1, 1e15)
PARTIAL = or_null(number(1e-3, 1))
LAYER_TYPES = ("full_attention", "sliding_attention")
_FACTOR, _POSITIONS = number(1, 1e6), whole(1, MOST_POSITIONS)


@dataclass(frozen=True)
class Needs:
    """What a type of rotary positions must state, and what it may."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


TYPES: Mapping[str, Needs] = {  # as transformers computes them
    "default": Needs(),
    "linear": Needs(("factor",)),
    "dynamic": Needs(("factor",)),
    "llama3": Needs(("factor", "low_freq_factor", "high_freq_factor")),
    "yarn": Needs(("factor",)),
    "longrope": Needs(("short_factor", "long_factor")),
}
RULES: Mapping[str, Rule] = {
    "rope_type": name_of(tuple(TYPES)),
    "type": name_of(tuple(TYPES)),
    "rope_theta": THETA,
    "partial_rotary_factor": PARTIAL,
    "factor": _FACTOR,
    "low_freq_factor": number(1e-3, 1e6),
    "high_freq_factor": number(1e-3, 1e6),
    "original_max_position_embeddings": or_null(_POSITIONS),
    "short_factor": list_of(number(1e-6, 1e6), 4096),
    "long_factor": list_of(number(1e-6, 1e6), 4096),
    "attention_factor": or_null(number(0, 1e3)),
    "beta_fast": or_null(number(1e-6, 1e6)),
    "beta_slow": or_null(number(1e-6, 1e6)),
    "mscale": or_null(number(0, 1e3)),
    "mscale_all_dim": or_null(number(0, 1e3)),
    "truncate": or_null(truth()),
}
Broken = tuple[str, Any, str]  # the key's path, the value, the rule


def rope_faults(values: Mapping[str, Any], head_dim: int | None) -> Iterator[Broken]:
    """Yields the key, value and rule of each fault in a configuration's rotary positions.

    `head_dim` is None where it is not known. A value that transformers would only warn of is a fault too.
    """
    whole_heads = not FAMILIES[values["model_type"]].partly_rotated
    rotated = values.get("partial_rotary_factor")
    if whole_heads and is_number(rotated) and rotated != 1:
        yield "partial_rotary_factor", rotated, _whole_heads(values)
    for key in ("rope_parameters", "rope_scaling"):
        given = values.get(key)
        if given is None:
            continue
        if not isinstance(given, dict):
            yield key, given, "must be a mapping of names to values, or null"
            continue
        yield from ((f"{key}.{name}", value, rule) for name, value, rule in _of_layers(key, given, values, head_dim))


def _of_layers(key: str, given: Mapping[str, Any], values: Mapping[str, Any], head_dim: int | None) -> Iterator[Broken]:
    """The faults of one mapping, or of one for each type of layer, as `rope_parameters` of some families are."""
    if key != "rope_parameters" or not FAMILIES[values["model_type"]].rope_by_layer_type:
        yield from _faults(given, values, head_dim)
        return
    for name, value in given.items():
        if name not in LAYER_TYPES:
            yield name, value, f"must stand under the type of layer that it is for ({', '.join(LAYER_TYPES)})"
        elif value is not None and not isinstance(value, dict):
            yield name, value, "must be a mapping of names to values, or null"
        elif value is not None:
            yield from ((f"{name}.{inner}", one, rule) for inner, one, rule in _faults(value, values, head_dim))


def _faults(given: Mapping[str, Any], values: Mapping[str, Any], head_dim: int | None) -> Iterator[Broken]:
    broken = [(name, given[name], rule) for name in given if name in RULES and (rule := RULES[name](given[name]))]
    yield from broken
    yield from ((name, value, "must not be nested here") for name, value in given.items() if isinstance(value, dict))
    kind = given.get("rope_type", given.get("type", "default"))
    if not isinstance(kind, str) or kind not in TYPES:
        return
    family = FAMILIES[values["model_type"]]
    if family.rope_types is not None and kind not in family.rope_types:
        yield "rope_type", kind, f"must be one of {', '.join(family.rope_types)} in a {values['model_type']} model"
        return
    for name in TYPES[kind].required:
        if given.get(name) is None:
            yield name, None, f"must be given for the rotary positions {kind!r}"
    if not broken:
        yield from _against_each_other(kind, given, values, head_dim)


def _against_each_other(
    kind: str, given: Mapping[str, Any], values: Mapping[str, Any], head_dim: int | None
) -> Iterator[Broken]:
    low, high = given.get("low_freq_factor"), given.get("high_freq_factor")
    if kind == "llama3" and is_number(low) and is_number(high) and high <= low:
        yield "high_freq_factor", high, f"must be greater than low_freq_factor, {low}"
    if kind == "yarn" and (given.get("beta_fast") or 32) <= (given.get("beta_slow") or 1):
        yield "beta_fast", given.get("beta_fast"), "must be greater than beta_slow"
    factor = given.get("partial_rotary_factor", values.get("partial_rotary_factor"))
    if not FAMILIES[values["model_type"]].partly_rotated:
        if "partial_rotary_factor" in given and factor not in (None, 1):
            yield "partial_rotary_factor", factor, _whole_heads(values)
        factor = 1
    if head_dim is None or not is_number(1 if factor is None else factor):
        return
    rotated = int(head_dim * (1 if factor is None else factor))
    if rotated < 2 or (rotated % 2 and factor not in (None, 1)):
        yield "partial_rotary_factor", factor, f"must leave an even number of a head's {head_dim} numbers to rotate"
    elif kind == "longrope":
        for name in ("short_factor", "long_factor"):
            if name in given and len(given[name]) != rotated // 2:
                part = "a head" if rotated == head_dim else "the part of a head that rotates"
                yield name, f"{len(given[name])} values", f"must have a value for each half of {part}, {rotated // 2}"


def _whole_heads(values: Mapping[str, Any]) -> str:
    return f"must be 1, or null: a {values['model_type']} model rotates whole heads"
