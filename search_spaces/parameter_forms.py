"""Reads one parameter of a space in the forms that its YAML has, and finds every fault of it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from search_spaces.faults import SpaceError, SpaceFault, TrialConfigError
from search_spaces.layer_ranges import ALL, HALVES, layers_text, parse_layers
from search_spaces.parameter_kinds import (
    Choice,
    Fixed,
    Kind,
    Parameter,
    Range,
    RankTimes,
    Value,
    join_modules,
    split_modules,
)
from search_spaces.trial_config import MAX_ALPHA, MODULE_NAMES, PRECISIONS, TARGET_SETS, TrialConfig

EXAMPLES = {
    "precision": "{choice: [fp16, nf4]}",
    "rank": "{choice: [8, 64]}",
    "target_modules": "{choice: [q_v, all_linear]}",
    "lora_alpha": "{rank_times: 2}",
    "lora_dropout": "0.05",
    "learning_rate": "2.0e-4",
    "layers": "{choice: [all, last_half, [16, 31]]}",
}  # also the names of all parameters
FORMS = ("choice", "int", "float", "log_int", "log_float", "rank_times")
CONDITIONAL = "Write for example `{choice: [0.0, 0.1], when: {precision: nf4}, otherwise: 0.05}`."
# The smallest configuration that is valid; one of its values at a time is replaced by one to be checked.
VALID = TrialConfig("fp32", rank=1, lora_alpha=1, lora_dropout=0, target_modules=("q_proj",), learning_rate=1)

T = TypeVar("T")


def parse_parameter(name: Any, form: Any) -> Parameter:
    """The parameter of that name and form. Raises SpaceError with every fault of it."""
    if name not in EXAMPLES:
        remedy = "Write seeds into the study file: `seeds: [0, 1]`." if name == "seed" else known(name, EXAMPLES)
        raise _fault(str(name), form, "is no parameter of a trial", remedy)
    if not isinstance(form, Mapping):
        return Parameter(name, Fixed(_value(name, name, form)))
    unknown = [key for key in form if key not in (*FORMS, "when", "otherwise")]
    if unknown:
        faults = (
            SpaceFault(f"{name}.{key}", form[key], "is no form of a parameter", known(key, FORMS)) for key in unknown
        )
        raise SpaceError(faults)
    kinds = [key for key in form if key in FORMS]
    if len(kinds) != 1:
        raise _fault(name, form, f"must have one of the forms {', '.join(FORMS)}", example(name))
    attempts: list[Callable[[], Any]] = [lambda: _kind(name, kinds[0], form[kinds[0]])]
    if "when" in form or "otherwise" in form:
        attempts += [lambda: _conditions(name, form.get("when")), lambda: _otherwise(name, form)]
    return Parameter(name, *_all(attempts))


def _kind(name: str, form: str, value: Any) -> Kind:
    key = f"{name}.{form}"
    if form == "choice":
        return _choice(name, key, value)
    if form != "rank_times":
        return _range(name, key, form, value)
    if name != "lora_alpha":
        raise _fault(key, value, "is a form of lora_alpha alone", example(name))
    if not _is_number(value) or not 0 < value <= MAX_ALPHA:
        raise _fault(key, value, f"must be a number above 0, at most {MAX_ALPHA}", example(name))
    return RankTimes(value)


def _choice(name: str, key: str, value: Any) -> Choice:
    if not isinstance(value, list) or not value:
        raise _fault(key, value, "must be a list of values", example(name))
    values = _values(name, key, value)
    first = {one: place for place, one in reversed(list(enumerate(values)))}
    places = [place for place, one in enumerate(values) if first[one] != place]
    if places:
        rule, remedy = "must differ from the values before it", "Leave it out."
        raise SpaceError(SpaceFault(f"{key}.{place}", value[place], rule, remedy) for place in places)
    return Choice(values)


def _range(name: str, key: str, form: str, value: Any) -> Range:
    integer, log = form.endswith("int"), form.startswith("log_")
    if name in ("precision", "target_modules", "layers"):
        raise _fault(key, value, f"{name} is no number and has no range", example(name))
    if name == "rank" and not integer:
        raise _fault(key, value, "rank is a whole number", "Write `int` or `log_int`.")
    remedy = f"Write for example `{form}: {'[2, 64]' if integer else '[1.0e-5, 1.0e-3]'}`."
    if not isinstance(value, list) or len(value) != 2 or not all(map(_is_number, value)):
        raise _fault(key, value, "must be a list of two numbers, the lowest and the highest", remedy)
    if integer and not all(isinstance(one, int) for one in value):
        raise _fault(key, value, "must have whole numbers at its ends", remedy)
    low, high = (one if integer else float(one) for one in _values(name, key, value))
    if not low < high:  # type: ignore[operator]
        raise _fault(key, value, "must have its lowest number first, and a higher one after it", remedy)
    if log and not low > 0:  # type: ignore[operator]
        raise _fault(key, value, "must start above 0, since its scale is logarithmic", remedy)
    return Range(low, high, log, integer)  # type: ignore[arg-type]


def _conditions(name: str, when: Any) -> tuple[tuple[str, tuple[Value, ...]], ...]:
    if name == "precision":  # a study runs one precision after another, so it is decided first
        rule, remedy = "precision must not depend on other parameters", "Let them depend on precision."
        raise _fault(f"{name}.when", when, rule, remedy)
    if not isinstance(when, Mapping) or not when:
        raise _fault(f"{name}.when", when, "must name the parameters it depends on, with their values", CONDITIONAL)
    return tuple(_all([lambda item=item: _condition(name, *item) for item in when.items()]))  # type: ignore[misc]


def _condition(name: str, other: Any, wanted: Any) -> tuple[str, tuple[Value, ...]]:
    key = f"{name}.when.{other}"
    if other not in EXAMPLES:
        raise _fault(key, wanted, "is no parameter of a trial", known(other, EXAMPLES))
    if wanted == []:
        raise _fault(key, wanted, "must be a value or a list of values", CONDITIONAL)
    values = _values(other, key, wanted) if isinstance(wanted, list) else (_value(other, key, wanted),)
    return other, tuple(dict.fromkeys(values))


def _otherwise(name: str, form: Mapping[str, Any]) -> Value:
    key = f"{name}.otherwise"
    if "otherwise" not in form:
        rule = "must say what the parameter is where its condition does not hold"
        raise SpaceError([SpaceFault(key, None, rule, CONDITIONAL, missing=True)])
    return _value(name, key, form["otherwise"])


def _values(name: str, key: str, values: list[Any]) -> tuple[Value, ...]:
    places = enumerate(values)
    return tuple(_all([lambda place=place: _value(name, f"{key}.{place[0]}", place[1]) for place in places]))  # type: ignore[misc]


def _value(name: str, key: str, value: Any) -> Value:
    """The value as `Value`, checked by TrialConfig's rules."""
    if name == "target_modules":
        return _modules(key, value)
    if name == "layers":
        _try(name, key, value, parse_layers(value))
        return layers_text(parse_layers(value))
    _try(name, key, value, value)
    return value  # type: ignore[no-any-return]


def _modules(key: str, value: Any) -> Value:
    modules = split_modules(value) if isinstance(value, str) else value
    if not isinstance(modules, list | tuple) or not all(isinstance(one, str) for one in modules):
        rule = f"must be {', '.join(TARGET_SETS)}, or a list of modules"
        raise _fault(key, value, rule, f"Modules are for example {', '.join(MODULE_NAMES)}.")
    _try("target_modules", key, value, tuple(modules))
    return join_modules(tuple(modules))


def _try(name: str, key: str, written: Any, value: Any) -> None:
    changes: dict[str, Any] = {name: value}
    try:
        replace(VALID, **changes)
    except TrialConfigError as error:
        own = [broken for broken in error.broken if broken.name == name]
        remedy = _value_remedy(name, written)
        raise SpaceError(SpaceFault(key, written, broken.rule, remedy) for broken in own) from None


def _value_remedy(name: str, value: Any) -> str:
    names = {"precision": PRECISIONS, "target_modules": (*TARGET_SETS, *MODULE_NAMES), "layers": (ALL, *HALVES)}.get(
        name, ()
    )
    texts = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    near = [match for text in texts if text not in names for match in difflib.get_close_matches(text, names, n=1)]
    return f"Did you mean `{near[0]}`?" if near else example(name)


def _all(attempts: Iterable[Callable[[], T]]) -> list[T]:
    """What the attempts return. Raises SpaceError with the faults of all that fail."""
    results: list[T] = []
    faults: list[SpaceFault] = []
    for attempt in attempts:
        try:
            results.append(attempt())
        except SpaceError as error:
            faults += error.faults
    if faults:
        raise SpaceError(faults)
    return results


def known(name: Any, names: Iterable[str]) -> str:
    """A remedy for an unknown name: the known name most like it, or all known names."""
    names = tuple(names)
    near = difflib.get_close_matches(str(name), names, n=1)
    return f"Did you mean `{near[0]}`?" if near else f"Known are {', '.join(names)}."


def example(name: str) -> str:
    """A remedy that shows the parameter as it may be."""
    return f"Write for example `{name}: {EXAMPLES[name]}`."


def _fault(key: str, value: Any, rule: str, remedy: str) -> SpaceError:
    return SpaceError([SpaceFault(key, value, rule, remedy)])


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)
