"""Reads single configurations of a space as people write them: `{rank: 16, …}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.faults import SpaceError, SpaceFault
from search_spaces.layer_ranges import ALL
from search_spaces.parameter_forms import parse_parameter
from search_spaces.parameter_kinds import Choice, Fixed, Parameter, Range, Value, written
from search_spaces.parameters import SearchSpace
from search_spaces.trial_config import TrialConfig


def parse_point(space: SearchSpace, mapping: Any, seed: int) -> TrialConfig:
    """The configuration that these values name in a space; what the space itself decides may be left out.

    Layers that are left out are all, where the space can give that. `seed` is its seed, unless `mapping` has one.
    Raises SpaceError with every fault: values that the space cannot give, and parameters that it leaves open and that
    have no value.
    """
    if not isinstance(mapping, Mapping):
        rule = "must hold parameters and their values"
        raise SpaceError([SpaceFault("", mapping, rule, "Write for example `{rank: 16, learning_rate: 2.0e-4}`.")])
    mapping = dict(mapping)
    seed, faults = _seed(mapping.pop("seed", seed))
    values, wrong = _values(mapping)
    faults += wrong
    missing: list[Parameter] = []

    def pick(parameter: Parameter) -> Value:
        if parameter.name not in mapping:
            if parameter.name == "layers" and parameter.may_be(ALL):
                return ALL
            missing.append(parameter)
        value = values.get(parameter.name)
        return value if value is not None and parameter.may_be(value) else parameter.values()[0]

    config = space.sample(pick, seed)
    faults += [_missing(parameter) for parameter in missing]
    faults += [
        _impossible(space[name], value, config) for name, value in values.items() if not space[name].may_be(value)
    ]
    if not faults:  # else what follows from a wrong value would be called wrong too
        given = values.items()
        faults = [_impossible(space[name], value, config) for name, value in given if not _has(config, name, value)]
    if faults:
        raise SpaceError(faults)
    return config


def point_of(config: TrialConfig) -> dict[str, Any]:
    """All values of a configuration but its seed, as `parse_point` reads them."""
    values = {name: value for name, value in config.to_dict().items() if name != "seed"}
    return {**values, "layers": config.layer_range}


def _seed(seed: Any) -> tuple[int, list[SpaceFault]]:
    if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**31:
        return seed, []
    return 0, [SpaceFault("seed", seed, "must be a whole number from 0 to 2**31 - 1", "Write for example `seed: 0`.")]


def _values(mapping: Mapping[Any, Any]) -> tuple[dict[str, Value], list[SpaceFault]]:
    values: dict[str, Value] = {}
    faults: list[SpaceFault] = []
    for name, form in mapping.items():
        try:
            kind = parse_parameter(name, form).kind
        except SpaceError as error:
            faults += error.faults
            continue
        if isinstance(kind, Fixed):
            values[name] = kind.value
        else:
            faults.append(SpaceFault(name, form, "must be one value", f"Write for example `{name}: {_example(kind)}`."))
    return values, faults


def _example(kind: Any) -> Any:
    return kind.values[0] if isinstance(kind, Choice) else getattr(kind, "low", 32)


def _has(config: TrialConfig, name: str, value: Value) -> bool:
    """Whether the configuration has that value."""
    as_written = TrialConfig.from_dict({**config.to_dict(), name: value})
    return set(as_written.target_modules) == set(config.target_modules) and (
        name == "target_modules" or as_written == config
    )


def _missing(parameter: Parameter) -> SpaceFault:
    example = written(parameter.name, parameter.values()[0])
    rule = "must be given: the space leaves it open"
    return SpaceFault(parameter.name, None, rule, f"Write for example `{parameter.name}: {example}`.", missing=True)


def _impossible(parameter: Parameter, value: Value, config: TrialConfig) -> SpaceFault:
    kind = parameter.kind
    if parameter.may_be(value):  # then its conditions, or the rank, decide otherwise
        there = str({"layers": config.layer_range, **config.to_dict()}[parameter.name])
    elif isinstance(kind, Range):
        there = f"a number from {kind.low} to {kind.high}"
    else:
        there = ", ".join(str(written(parameter.name, one)) for one in parameter.values())
    rule = f"must be a value that the space can give: {there}"
    return SpaceFault(parameter.name, value, rule, "Change it, or widen the space.")
