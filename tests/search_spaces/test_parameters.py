"""A space's configurations: sampled, as a grid against brute force, by precision, and through YAML and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.parameter_kinds import Choice, Fixed, Parameter, Range, RankTimes, join_modules, split_modules
from search_spaces.parameters import SearchSpace, SpaceError, Value, parse_space
from search_spaces.trial_config import TrialConfig
from study.strict_yaml import parse_yaml, read_yaml, strict_text
from tests.support.places import ROOT
from tests.support.random_spaces import picker, space_mappings

SPACES = ROOT / "search_spaces"
GOOD: dict[str, Any] = {
    "precision": {"choice": ["fp16", "nf4"]},
    "rank": {"choice": [8, 64]},
    "target_modules": "q_v",
    "lora_alpha": {"rank_times": 2},
    "lora_dropout": 0.05,
    "learning_rate": 2e-4,
}
MANY = settings(max_examples=60, deadline=None)
FEW = settings(max_examples=25, deadline=None)  # PyYAML is slow


def _asked(space: SearchSpace, seed: int) -> tuple[TrialConfig, dict[str, Value]]:
    asked: dict[str, Value] = {}
    pick = picker(seed)

    def suggest(parameter: Parameter) -> Value:
        asked[parameter.name] = pick(parameter)
        return asked[parameter.name]

    return space.sample(suggest, seed=7), asked


# Shipped spaces


@pytest.mark.parametrize("file", sorted(SPACES.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_spaces_load(file: Path) -> None:
    space = parse_space(read_yaml(file))
    assert parse_space(space.to_mapping()) == space
    assert _asked(space, 0)[0].seed == 7


def test_the_papers_grid() -> None:
    grid = parse_space(read_yaml(SPACES / "paper_grid.yaml")).grid([0])
    found = [(one.precision, one.rank, one.target_set, one.lora_alpha) for one in grid]
    assert found == [
        (precision, rank, modules, 2 * rank)
        for precision in ("fp16", "nf4")
        for rank in (8, 64)
        for modules in ("q_v", "all_linear")
    ]


def test_the_quick_space_has_eight_configurations_that_train_on_a_cpu() -> None:
    grid = parse_space(read_yaml(SPACES / "quick.yaml")).grid([0])
    assert len(grid) == 8
    assert {one.precision for one in grid} == {"bf16", "nf4"}


def test_the_wide_spaces_ranks_repeat() -> None:
    space = parse_space(read_yaml(SPACES / "wide.yaml"))
    assert space["rank"].kind == Choice((2, 4, 8, 16, 32, 64, 128, 256))
    assert space.precisions() == ("fp16", "nf4")


# Sampling


def test_sample_asks_for_what_is_open_in_a_fixed_order() -> None:
    dropout = {"float": [0.0, 0.1], "when": {"precision": "nf4"}, "otherwise": 0.0}
    space = parse_space({**GOOD, "lora_dropout": dropout})
    for precision, names in (("nf4", ["precision", "rank", "lora_dropout"]), ("fp16", ["precision", "rank"])):
        asked: list[str] = []
        values: dict[str, Value] = {"precision": precision, "rank": 64, "lora_dropout": 0.1}

        def suggest(parameter: Parameter, asked: list[str] = asked, values: Any = values) -> Value:
            asked.append(parameter.name)
            return values[parameter.name]

        config = space.sample(suggest, seed=3)
        assert asked == names
        assert config == TrialConfig(
            precision, 64, 128, 0.1 if precision == "nf4" else 0.0, ("q_proj", "v_proj"), 2e-4, 3  # type: ignore[arg-type]
        )  # fmt: skip


@MANY
@given(space_mappings(), st.integers(0, 1000))
def test_grid_parameters_lead_back_to_the_configuration(mapping: dict[str, Any], seed: int) -> None:
    space = parse_space(mapping)
    config, asked = _asked(space, seed)
    found = space.grid_parameters(config)
    assert found == asked
    assert {name: type(value) for name, value in found.items()} == {name: type(value) for name, value in asked.items()}
    assert space.sample(lambda parameter: found[parameter.name], seed=7) == config


@MANY
@given(space_mappings(), st.integers(0, 1000))
def test_every_value_of_a_sample_is_one_the_parameter_may_be(mapping: dict[str, Any], seed: int) -> None:
    space = parse_space(mapping)
    config, _ = _asked(space, seed)
    modules, layers = join_modules(config.target_modules), config.layer_range
    values = {**config.to_dict(), "target_modules": modules, "layers": layers}
    for parameter in space.parameters:
        assert parameter.may_be(values[parameter.name])
    assert config.precision in space.precisions()
    assert set(config.target_modules) in [set(modules) for modules in space.target_modules()]
    assert config.layers in space.layers()
    assert (split_modules(modules), config.layers) in space.targets()


# Grids


def _brute_force(space: SearchSpace, known: Mapping[str, Value]) -> Iterator[TrialConfig]:
    """Every configuration, by deciding one parameter at a time, those first whose conditions are decided."""
    left = [parameter for parameter in space.parameters if parameter.name not in known]
    if not left:
        yield TrialConfig.from_dict({**known, "seed": 0})
        return
    parameter = next(one for one in left if all(name in known for name in one.depends_on()))
    kind = parameter.kind
    values: tuple[Value | None, ...]
    if any(known[name] not in wanted for name, wanted in parameter.when):
        values = (parameter.otherwise,)
    elif isinstance(kind, Fixed):
        values = (kind.value,)
    elif isinstance(kind, Choice):
        values = kind.values
    elif isinstance(kind, RankTimes):
        values = (kind.factor * known["rank"],)  # type: ignore[operator]
    else:
        values = (kind.midpoint(),)
    for value in values:
        assert value is not None
        yield from _brute_force(space, {**known, parameter.name: value})


@MANY
@given(space_mappings())
def test_a_grid_is_every_configuration_once(mapping: dict[str, Any]) -> None:
    space = parse_space(mapping)
    grid = space.grid([0])
    assert len(grid) == len(set(grid)) <= space.combinations()
    assert set(grid) == set(_brute_force(space, {}))


@MANY
@given(space_mappings())
def test_a_grid_splits_by_precision(mapping: dict[str, Any]) -> None:
    space = parse_space(mapping)
    grid = space.grid([0])
    for precision in space.precisions():
        fixed = space.with_precision(precision)
        assert fixed.grid([0]) == [config for config in grid if config.precision == precision]
        assert fixed.precisions() == (precision,)
        assert all(name != "precision" for parameter in fixed.parameters for name, _ in parameter.when)


def test_a_grids_last_parameter_varies_fastest_and_its_seed_faster_still() -> None:
    grid = parse_space({**GOOD, "learning_rate": {"choice": [1e-4, 1e-3]}}).grid([5, 3])
    assert [(one.precision, one.rank, one.learning_rate, one.seed) for one in grid] == [
        (precision, rank, rate, seed)
        for precision in ("fp16", "nf4")
        for rank in (8, 64)
        for rate in (1e-4, 1e-3)
        for seed in (5, 3)
    ]


def test_a_grid_takes_a_ranges_midpoint() -> None:
    space = parse_space({**GOOD, "learning_rate": {"log_float": [1e-5, 1e-3]}, "rank": {"int": [8, 16]}})
    assert {(one.rank, round(one.learning_rate, 12)) for one in space.grid([0])} == {(12, 1e-4)}


def test_combinations_are_known_without_the_grid() -> None:
    dropouts = [round(0.001 * k, 3) for k in range(900)]
    alphas = list(range(1, 60_001))
    space = parse_space({**GOOD, "lora_dropout": {"choice": dropouts}, "lora_alpha": {"choice": alphas[:900]}})
    assert space.combinations() == 2 * 2 * 900 * 900


# Precisions and YAML


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of the space's fp16, nf4; it is 'bf16'"):
        parse_space(GOOD).with_precision("bf16")


def test_a_precision_decides_what_depends_on_it() -> None:
    dropout = {"choice": [0.1, 0.2], "when": {"precision": "nf4", "rank": 64}, "otherwise": 0.0}
    space = parse_space({**GOOD, "lora_dropout": dropout})
    assert space.with_precision("fp16")["lora_dropout"] == Parameter("lora_dropout", Fixed(0.0))
    open_one = Parameter("lora_dropout", Choice((0.1, 0.2)), (("rank", (64,)),), 0.0)
    assert space.with_precision("nf4")["lora_dropout"] == open_one
    always = parse_space({**GOOD, "lora_dropout": {**dropout, "when": {"precision": "nf4"}}}).with_precision("nf4")
    assert always["lora_dropout"] == Parameter("lora_dropout", Choice((0.1, 0.2)))


def test_a_precision_leaves_only_what_can_hold() -> None:
    rank = {"choice": [8, 64], "when": {"precision": "nf4"}, "otherwise": 16}
    dropout = {"choice": [0.1], "when": {"rank": [16, 64]}, "otherwise": 0.0}
    space = parse_space({**GOOD, "rank": rank, "lora_dropout": dropout})
    assert space.with_precision("nf4")["lora_dropout"].when == (("rank", (64,)),)
    assert space.with_precision("fp16")["lora_dropout"] == Parameter("lora_dropout", Choice((0.1,)))


def test_grid_parameters_are_the_spaces_own_values() -> None:
    """A record's 16.0 is the space's 16, which Optuna tells apart."""
    space = parse_space({**GOOD, "lora_alpha": {"choice": [16, 32]}})
    config = TrialConfig("nf4", 8, 16.0, 0.05, ("q_proj", "v_proj"), 2e-4)
    assert repr(space.grid_parameters(config)) == repr({"precision": "nf4", "rank": 8, "lora_alpha": 16})


@FEW
@given(space_mappings())
def test_a_space_survives_yaml(mapping: dict[str, Any]) -> None:
    space = parse_space(mapping)
    assert parse_space(space.to_mapping()) == space
    again = parse_space(parse_yaml(strict_text(space.to_mapping()), "space.yaml"))
    assert again == space
    assert [parameter.name for parameter in again.parameters] == [parameter.name for parameter in space.parameters]


def test_target_modules_are_listed_in_order() -> None:
    modules = {"choice": ["all_linear", ["up_proj", "q_proj"], "q_v"]}
    listed = parse_space({**GOOD, "target_modules": modules}).target_modules()
    assert [len(names) for names in listed] == [7, 2, 2]
    assert listed[1] == ("q_proj", "up_proj")


def test_a_broken_space_says_so() -> None:
    with pytest.raises(SpaceError, match="rank is missing"):
        parse_space({name: form for name, form in GOOD.items() if name != "rank"})


def test_a_range_is_no_choice() -> None:
    space = parse_space({**GOOD, "rank": {"log_int": [2, 256]}})
    assert space["rank"].kind == Range(2, 256, log=True, integer=True)
    assert space.combinations() == 2
