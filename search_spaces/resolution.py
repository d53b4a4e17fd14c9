"""Says which linear layers of a model a configuration's target modules and layers mean.

A model's linear layers are known by their full names, such as `model.layers.3.mlp.up_proj`. The first number in a name
is its decoder layer's; a name without one, such as the output head's, is no target.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from search_spaces.layer_ranges import Layers, layer_numbers, layers_text
from search_spaces.target_modules import PATTERN, TARGET_SETS, is_pattern, set_of

SHOWN_NAMES = 24  # in a message
QUERIES_AND_VALUES = (
    ("q_proj", "v_proj"), ("qkv_proj",), ("query_key_value",), ("Wqkv",), ("c_attn",), ("query", "value"),
)  # fmt: skip


@dataclass(frozen=True)
class TargetFault:
    """One entry that means no linear layer: `name` is the configuration's field, `value` the entry."""

    name: str
    value: object
    rule: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name} {self.rule}; it is {self.value!r}. {self.remedy}"


class TargetError(ValueError):
    """Target modules or layers that a model does not have; `faults` has all of them."""

    def __init__(self, faults: Iterable[TargetFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


class LinearName(NamedTuple):
    """A decoder layer's linear layer, by its name in parts."""

    full: str
    layer: int
    below: str  # from the list of layers on, without what is before it: `layers.3.mlp.up_proj`
    short: str


def linear_name(full: str) -> LinearName | None:
    """Takes a full name apart; None where it is in no decoder layer."""
    parts = full.split(".")
    place = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
    if not place or place + 1 == len(parts):
        return None
    return LinearName(full, int(parts[place]), ".".join(parts[place - 1 :]), parts[-1])


def usual_sets(short_names: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """The sets in a model whose family nobody described: `all_linear` is all of its names, `q_v` the usual ones."""
    there = tuple(dict.fromkeys(short_names))
    q_v = next((names for names in QUERIES_AND_VALUES if set(names) <= set(there)), None)
    return {"all_linear": there, **({"q_v": q_v} if q_v else {})}


def resolve(
    target_modules: Sequence[str],
    layers: Layers,
    linears: Iterable[str],
    sets: Mapping[str, Sequence[str]] | None = None,
) -> tuple[str, ...]:
    """Returns the full names of the linear layers that are meant, in the model's order.

    `linears` are the names of the model's linear layers, `sets` the short names that each set means in its family
    (None: `usual_sets`). An entry is a set's name; a name, short or with any of what is before it; or `re:` and a
    pattern, which must match a whole name from its list of layers on: `layers.3.mlp.up_proj`. The list of all names
    that a set has in a Llama is that set, in any model. Raises TargetError with every entry that means nothing.
    """
    known = None if sets is None else tuple((name, tuple(members)) for name, members in sets.items())
    return _resolved(tuple(target_modules), layers, tuple(linears), known)


@lru_cache(maxsize=512)  # a study resolves few footprints, each for many trials
def _resolved(
    target_modules: tuple[str, ...],
    layers: Layers,
    linears: tuple[str, ...],
    sets: tuple[tuple[str, tuple[str, ...]], ...] | None,
) -> tuple[str, ...]:
    there = [found for name in linears if (found := linear_name(name))]
    known = usual_sets(one.short for one in there) if sets is None else dict(sets)
    asked = (name,) if (name := set_of(target_modules)) else target_modules
    faults = [fault for entry in asked for fault in _entry_faults(entry, there, known)]
    within, layer_faults = _within(layers, there)
    if not layer_faults:  # else every entry would be wrong with them
        faults += _outside(asked, layers, there, within, known, faults)
    if faults or layer_faults:
        raise TargetError([*faults, *layer_faults])
    meant = {one.full for entry in asked for one in _meant(entry, within, known)}
    return tuple(one.full for one in within if one.full in meant)


def _meant(entry: str, names: Iterable[LinearName], sets: Mapping[str, Sequence[str]]) -> list[LinearName]:
    if entry in TARGET_SETS:
        return [one for one in names if one.short in sets.get(entry, ())]
    if is_pattern(entry):
        pattern = re.compile(entry.removeprefix(PATTERN))
        return [one for one in names if pattern.fullmatch(one.below)]
    return [one for one in names if f".{one.full}".endswith(f".{entry}")]


def _entry_faults(entry: str, there: Sequence[LinearName], sets: Mapping[str, Sequence[str]]) -> Iterable[TargetFault]:
    shorts = list(dict.fromkeys(one.short for one in there))
    missing = [name for name in sets.get(entry, ()) if name not in shorts] if entry in TARGET_SETS else []
    rule = f"must be among the base model's linear layers, {_listed(shorts)}"
    for name in missing:
        yield TargetFault("target_modules", name, rule, f"Name those of {entry} that are there.")
    if missing or _meant(entry, there, sets):
        return
    if entry in TARGET_SETS:
        rule = f"must be a set that is known of the base model; name its linear layers, {_listed(shorts)}"
        yield TargetFault("target_modules", entry, rule, "Or write all_linear.")
    elif is_pattern(entry):
        example = there[0].below if there else "layers.0.mlp.up_proj"
        rule = f"must match whole names of the base model's linear layers, such as {example}; short names: "
        example = rf"re:.*\.{shorts[0] if shorts else 'q_proj'}"
        yield TargetFault("target_modules", entry, rule + _listed(shorts), f"Write for example `{example}`.")
    else:
        yield TargetFault("target_modules", entry, rule, _remedy(entry, there, shorts))


def _within(layers: Layers, there: Sequence[LinearName]) -> tuple[list[LinearName], list[TargetFault]]:
    """The names in those layers, and what is wrong with the layers."""
    count = 1 + max((one.layer for one in there), default=-1)
    numbers = layer_numbers(layers, count)
    last = layers[1] if isinstance(layers, tuple) else 0
    if last >= count > 0 or (count and not numbers):
        rule = f"must be among the base model's {count} layers, 0 to {count - 1}"
        value = list(layers) if isinstance(layers, tuple) else layers
        return [], [TargetFault("layers", value, rule, f"Write for example `layers: [{count // 2}, {count - 1}]`.")]
    return [one for one in there if one.layer in numbers], []


def _outside(
    asked: Sequence[str],
    layers: Layers,
    there: Sequence[LinearName],
    within: Sequence[LinearName],
    sets: Mapping[str, Sequence[str]],
    before: Sequence[TargetFault],
) -> list[TargetFault]:
    """Faults of entries that the model has, but none of them in the layers asked for."""
    told = {fault.value for fault in before}
    faults = []
    for entry in asked:
        found = _meant(entry, there, sets)
        if entry not in told and found and not _meant(entry, within, sets):
            rule = f"must mean linear layers within layers {layers_text(layers)}; {found[0].below} is outside"
            faults.append(TargetFault("target_modules", entry, rule, "Leave out `layers`, or the entry."))
    return faults


def _remedy(entry: str, there: Sequence[LinearName], shorts: Sequence[str]) -> str:
    near = difflib.get_close_matches(entry, [*TARGET_SETS, *shorts, *(one.below for one in there)], n=1)
    return f"Did you mean `{near[0]}`?" if near else "Leave it out."


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def short_names(resolved: Iterable[str]) -> tuple[str, ...]:
    """The distinct short names, in the model's order."""
    return tuple(dict.fromkeys(name.rsplit(".", 1)[-1] for name in resolved))


def by_layer(resolved: Iterable[str], layers: int) -> tuple[tuple[str, ...], ...]:
    """Each of a model's decoder layers' short names of what is updated in it; empty where nothing is."""
    found: list[list[str]] = [[] for _ in range(layers)]
    for one in map(linear_name, resolved):
        if one:
            found[one.layer].append(one.short)
    return tuple(map(tuple, found))
