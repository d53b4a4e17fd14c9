"""Reading a whole space: defaults, what is missing, and what must hold between its parameters."""

from __future__ import annotations

from typing import Any

import pytest

from search_spaces.faults import SpaceError
from search_spaces.parameter_kinds import Fixed, Parameter, RankTimes
from search_spaces.space_parsing import in_dependency_order, parse_parameters

GOOD: dict[str, Any] = {
    "precision": {"choice": ["fp16", "nf4"]},
    "rank": {"choice": [8, 64]},
    "target_modules": "q_v",
    "lora_alpha": {"rank_times": 2},
    "lora_dropout": 0.05,
    "learning_rate": 2e-4,
}


def _faults(mapping: Any) -> list[tuple[str, str]]:
    with pytest.raises(SpaceError) as caught:
        parse_parameters(mapping)
    return [(fault.key, fault.rule) for fault in caught.value.faults]


def test_keeps_the_order_of_the_file_and_adds_defaults_last() -> None:
    mapping = {name: GOOD[name] for name in ("learning_rate", "rank", "target_modules", "precision")}
    parameters = parse_parameters(mapping)
    assert [one.name for one in parameters] == [*mapping, "lora_alpha", "lora_dropout"]
    assert parameters[-2:] == (Parameter("lora_alpha", RankTimes(2)), Parameter("lora_dropout", Fixed(0.0)))


@pytest.mark.parametrize("mapping", [None, [], "rank", 3, True])
def test_a_space_is_a_mapping(mapping: Any) -> None:
    assert _faults(mapping) == [("", "must hold the parameters of a trial and their values")]


def test_all_that_is_missing_or_wrong_comes_at_once() -> None:
    mapping = {"precison": "nf4", "rank": 0, "lora_dropout": 1}
    assert [key for key, _ in _faults(mapping)] == [
        "precison",
        "rank",
        "lora_dropout",
        "precision",
        "target_modules",
        "learning_rate",
    ]


def test_conditions_must_be_possible() -> None:
    dropout = {"choice": [0.1], "when": {"rank": [8, 16], "precision": "bf16"}, "otherwise": 0.0}
    assert _faults({**GOOD, "lora_dropout": dropout}) == [
        ("lora_dropout.when.rank", "must be a value that rank can take"),
        ("lora_dropout.when.precision", "must be a value that precision can take"),
    ]


def test_a_condition_on_a_faulty_parameter_adds_no_fault() -> None:
    dropout = {"choice": [0.1], "when": {"rank": 16}, "otherwise": 0.0}
    assert [key for key, _ in _faults({**GOOD, "rank": 0, "lora_dropout": dropout})] == ["rank"]


def _conditional(other: str, value: Any, values: list[Any]) -> dict[str, Any]:
    return {"choice": values, "when": {other: value}, "otherwise": values[0]}


@pytest.mark.parametrize(
    ("changes", "key", "names"),
    [
        ({"rank": _conditional("rank", 8, [8, 16])}, "rank.when", "rank"),
        ({"rank": _conditional("lora_alpha", 16, [8, 16])}, "rank.when", "rank, lora_alpha"),
        (
            {
                "learning_rate": _conditional("lora_dropout", 0.1, [1e-3]),
                "lora_dropout": _conditional("learning_rate", 1e-3, [0.1]),
            },
            "lora_dropout.when",
            "lora_dropout, learning_rate",
        ),
    ],
)
def test_parameters_must_not_wait_for_each_other(changes: dict[str, Any], key: str, names: str) -> None:
    ((found, rule),) = _faults({**GOOD, **changes})
    assert found == key
    assert rule == f"must not depend on itself; {names} wait for each other"


def test_what_waits_for_a_cycle_is_not_blamed() -> None:
    mapping = {
        "lora_dropout": _conditional("rank", 8, [0.1]),
        **{key: value for key, value in GOOD.items() if key != "lora_dropout"},
        "rank": _conditional("lora_alpha", 16, [8, 16]),
    }
    assert _faults(mapping) == [("rank.when", "must not depend on itself; rank, lora_alpha wait for each other")]


@pytest.mark.parametrize(
    "rank", [1024, {"choice": [8, 1024]}, {"int": [2, 1024]}, {**_conditional("precision", "nf4", [1024, 8])}]
)
def test_rank_times_keeps_alpha_in_its_range(rank: Any) -> None:
    ((key, rule),) = _faults({**GOOD, "rank": rank, "lora_alpha": {"rank_times": 65}})
    assert key == "lora_alpha.rank_times"
    assert "66560" in rule
    assert parse_parameters({**GOOD, "rank": rank, "lora_alpha": {"rank_times": 64}})


def test_dependency_order_is_the_files_where_nothing_forbids_it() -> None:
    dropout = {"choice": [0.1], "when": {"learning_rate": 2e-4}, "otherwise": 0.0}
    mapping = {name: GOOD[name] for name in ("lora_alpha", "lora_dropout", *GOOD)} | {"lora_dropout": dropout}
    names = [one.name for one in in_dependency_order(parse_parameters(mapping))]
    assert names == ["precision", "rank", "lora_alpha", "target_modules", "learning_rate", "lora_dropout"]
