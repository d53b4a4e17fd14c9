"""Reads a search space as its YAML has it, and checks what must hold between its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search_spaces.faults import SpaceError, SpaceFault
from search_spaces.parameter_forms import EXAMPLES, example, parse_parameter
from search_spaces.parameter_kinds import Fixed, Kind, Parameter, RankTimes
from search_spaces.trial_config import MAX_ALPHA

OPTIONAL = ("layers",)  # not written where it is left out
DEFAULTS: dict[str, Kind] = {"lora_alpha": RankTimes(2), "lora_dropout": Fixed(0.0)}


def parse_parameters(mapping: Any) -> tuple[Parameter, ...]:
    """The parameters of a space in its order, defaults last. Raises SpaceError with every fault."""
    if not isinstance(mapping, Mapping):
        rule = "must hold the parameters of a trial and their values"
        raise SpaceError([SpaceFault("", mapping, rule, "Write for example `rank: {choice: [8, 64]}`.")])
    parsed: dict[str, Parameter] = {}
    faults: list[SpaceFault] = []
    for name, form in mapping.items():
        try:
            parsed[name] = parse_parameter(name, form)
        except SpaceError as error:
            faults += error.faults
    for name in EXAMPLES:
        if name not in mapping and name in DEFAULTS:
            parsed[name] = Parameter(name, DEFAULTS[name])
        elif name not in mapping and name not in OPTIONAL:
            faults.append(SpaceFault(name, None, "must be given", example(name), missing=True))
    faults += _cross_faults(parsed) + _absent_faults(parsed, mapping)
    if faults:
        raise SpaceError(faults)
    return tuple(parsed.values())


def in_dependency_order(parameters: Sequence[Parameter]) -> list[Parameter]:
    """The parameters, each after those it depends on, else in their order; those on a cycle are left out."""
    ordered: list[Parameter] = []
    known: set[str] = set()
    waiting = list(parameters)
    while ready := next((one for one in waiting if known.issuperset(one.depends_on())), None):
        ordered.append(ready)
        known.add(ready.name)
        waiting.remove(ready)
    return ordered


def _cross_faults(parsed: Mapping[str, Parameter]) -> list[SpaceFault]:
    """The faults between parameters that could be read; the others have faults of their own."""
    faults = [fault for parameter in parsed.values() for fault in _condition_faults(parameter, parsed)]
    faults += _cycle_faults(parsed)
    alpha, rank = parsed.get("lora_alpha"), parsed.get("rank")
    if alpha and rank and isinstance(alpha.kind, RankTimes):
        highest = max(alpha.kind.factor * one for one in rank.values() if not isinstance(one, str))
        if highest > MAX_ALPHA:
            rule = f"must keep lora_alpha at most {MAX_ALPHA}; with this space's ranks it reaches {highest}"
            faults.append(SpaceFault("lora_alpha.rank_times", alpha.kind.factor, rule, example("lora_alpha")))
    return faults


def _condition_faults(parameter: Parameter, parsed: Mapping[str, Parameter]) -> list[SpaceFault]:
    faults = []
    for other, wanted in parameter.when:
        key, rule = f"{parameter.name}.when.{other}", f"must be a value that {other} can take"
        if other not in parsed:  # it is missing, or has faults of its own
            continue
        remedy = f"It can be {', '.join(map(str, parsed[other].values()))}."
        faults += [SpaceFault(key, one, rule, remedy) for one in wanted if not parsed[other].may_be(one)]
    return faults


def _absent_faults(parsed: Mapping[str, Parameter], mapping: Mapping[str, Any]) -> list[SpaceFault]:
    """Conditions on a parameter that may be left out, and is."""
    return [
        SpaceFault(f"{parameter.name}.when.{other}", list(wanted), "must be a parameter of the space", example(other))
        for parameter in parsed.values()
        for other, wanted in parameter.when
        if other in OPTIONAL and other not in mapping
    ]


def _cycle_faults(parsed: Mapping[str, Parameter]) -> list[SpaceFault]:
    if not all(set(parameter.depends_on()) <= set(parsed) for parameter in parsed.values()):
        return []
    cycle = [parameter for parameter in parsed.values() if parameter.name in _needs(parameter, parsed)]
    if not cycle:
        return []
    first = next(parameter for parameter in cycle if parameter.when)
    rule = f"must not depend on itself; {', '.join(parameter.name for parameter in cycle)} wait for each other"
    when = {name: list(values) for name, values in first.when}
    return [SpaceFault(f"{first.name}.when", when, rule, "Leave out one of the conditions.")]


def _needs(parameter: Parameter, parsed: Mapping[str, Parameter]) -> set[str]:
    """The names of all parameters it depends on, through others too."""
    needs: set[str] = set()
    waiting = list(parameter.depends_on())
    while waiting:
        name = waiting.pop()
        if name not in needs:
            needs.add(name)
            waiting += parsed[name].depends_on()
    return needs
