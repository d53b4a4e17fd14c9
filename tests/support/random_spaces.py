"""Draws valid search spaces, as their YAML has them: each parameter depends on earlier ones only."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from search_spaces.parameters import Choice, Parameter, Range, Value
from search_spaces.trial_config import MODULE_NAMES, PRECISIONS, TARGET_SETS

ENDS: dict[str, tuple[float, float]] = {
    "lora_alpha": (5e-324, 65536.0),
    "lora_dropout": (0.0, 0.9999999999999999),
    "learning_rate": (5e-324, 1.0),
}
OTHER_NAMES = ("qkv_proj", "self_attn.q_proj", "layers.3.mlp.up_proj", r"re:layers\.[23]+\..*", "re:.*_proj")


def space_mappings() -> st.SearchStrategy[dict[str, Any]]:
    """A space's YAML as data, by a seed: every form, conditions, and keys in any order."""
    return st.integers(0, 2**32 - 1).map(lambda seed: random_mapping(random.Random(seed)))


def random_mapping(chance: random.Random) -> dict[str, Any]:
    """One such space."""
    rest = ["rank", "lora_alpha", "lora_dropout", "target_modules", "learning_rate", "layers"]
    order = ["precision", *chance.sample(rest, len(rest))]
    forms: dict[str, Any] = {}
    for name in order:
        forms[name] = _with_conditions(chance, name, _form(chance, name, "rank" in forms), forms)
    needed = {other for form in forms.values() if isinstance(form, dict) for other in form.get("when", ())}
    left_out = {
        name for name in ("lora_dropout", "lora_alpha", "layers") if name not in needed and chance.random() < 0.2
    }
    return {name: forms[name] for name in chance.sample(order, len(order)) if name not in left_out}


def picker(seed: int) -> Callable[[Parameter], Value]:
    """Picks as a sampler does: a value of a choice, a number of a range."""
    chance = random.Random(seed)

    def pick(parameter: Parameter) -> Value:
        kind = parameter.kind
        if isinstance(kind, Choice):
            return chance.choice(kind.values)
        assert isinstance(kind, Range)
        if kind.integer:
            return chance.randint(int(kind.low), int(kind.high))
        return min(max(chance.uniform(kind.low, kind.high), kind.low), kind.high)

    return pick


def _form(chance: random.Random, name: str, rank_is_earlier: bool) -> Any:
    """A form without conditions."""
    kinds = ["bare", "choice", "choice"]
    kinds += ["int", "log_int"] if name in ("rank", "lora_alpha") else []
    kinds += ["float", "log_float"] if name in ENDS else []
    kinds += ["rank_times"] * 3 if name == "lora_alpha" and rank_is_earlier else []  # else rank may depend on alpha
    kind = chance.choice(kinds)
    if kind == "bare":
        return _value(chance, name)
    if kind == "choice":
        return {kind: _distinct(name, [_value(chance, name) for _ in range(chance.randint(1, 4))])}
    if kind == "rank_times":
        return {kind: chance.choice([0.5, 1, 2, 64, chance.uniform(0.1, 64)])}
    if kind.endswith("int"):
        return {kind: sorted(chance.sample(range(1, 1025), 2))}
    low, high = sorted(chance.uniform(*ENDS[name]) for _ in range(2))
    return {kind: [max(low, 5e-324) if kind == "log_float" else low, high]}


def _value(chance: random.Random, name: str) -> Any:
    if name == "precision":
        return chance.choice(PRECISIONS)
    if name == "rank":
        return chance.choice([1, 8, 1024, chance.randint(1, 1024)])
    if name == "target_modules":
        names = MODULE_NAMES if chance.random() < 0.7 else (*MODULE_NAMES, *OTHER_NAMES)
        some = chance.sample(names, chance.randint(1, len(names)))
        return chance.choice([*TARGET_SETS, some, some])
    if name == "layers":
        return chance.choice(["all", "first_half", "last_half", sorted(chance.choices(range(40), k=2))])
    return chance.choice([*ENDS[name], 0.5, chance.uniform(*ENDS[name])])


def _distinct(name: str, values: Sequence[Any]) -> list[Any]:
    def identity(value: Any) -> Any:
        modules = TARGET_SETS.get(value) if isinstance(value, str) else value
        if name == "target_modules":
            return frozenset(modules or ())
        return tuple(value) if isinstance(value, list) else value

    return list({identity(value): value for value in values}.values())


def _with_conditions(chance: random.Random, name: str, form: Any, earlier: dict[str, Any]) -> Any:
    if not isinstance(form, dict) or not earlier or chance.random() < 0.5:
        return form
    others = chance.sample(sorted(earlier), min(len(earlier), chance.randint(1, 2)))
    when = {other: _wanted(chance, other, earlier[other]) for other in others}
    return {**form, "when": when, "otherwise": _value(chance, name)}


def _wanted(chance: random.Random, name: str, form: Any) -> Any:
    """A value, or several in a list, that a parameter of that form takes."""
    if not isinstance(form, dict):
        return [form]
    found = [value for kind in ("choice", "int", "log_int", "float", "log_float") for value in form.get(kind, ())]
    found += [_value(chance, name)] if "rank_times" in form else []
    found += [form["otherwise"]] if "otherwise" in form else []
    return chance.sample(found, chance.randint(1, len(found)))
