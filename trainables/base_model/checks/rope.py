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

MOST_POSITIONS = 2**27
THETA = number(1, 1e15)
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
    "partial_rotary_factor": or_null(number(1, 1)),  # these models rotate whole heads
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
    """Yields the key, value and rule of each fault in `rope_parameters` and `rope_scaling`.

    `head_dim` is None where it is not known. A value that transformers would only warn of is a fault too.
    """
    for key in ("rope_parameters", "rope_scaling"):
        given = values.get(key)
        if given is None:
            continue
        if not isinstance(given, dict):
            yield key, given, "must be a mapping of names to values, or null"
            continue
        yield from ((f"{key}.{name}", value, rule) for name, value, rule in _faults(given, values, head_dim))


def _faults(given: Mapping[str, Any], values: Mapping[str, Any], head_dim: int | None) -> Iterator[Broken]:
    broken = [(name, given[name], rule) for name in given if name in RULES and (rule := RULES[name](given[name]))]
    yield from broken
    yield from ((name, value, "must not be nested here") for name, value in given.items() if isinstance(value, dict))
    kind = given.get("rope_type", given.get("type", "default"))
    if not isinstance(kind, str) or kind not in TYPES:
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
    if kind != "longrope" or head_dim is None:
        return
    for name in ("short_factor", "long_factor"):
        if name in given and len(given[name]) != head_dim // 2:
            yield name, f"{len(given[name])} values", f"must have a value for each half of a head, {head_dim // 2}"
