"""Reading one parameter's form: what each form becomes, and every way it can be wrong."""

from __future__ import annotations

from typing import Any

import pytest

from search_spaces.faults import SpaceError, SpaceFault
from search_spaces.parameter_forms import EXAMPLES, parse_parameter
from search_spaces.parameter_kinds import Choice, Fixed, Parameter, Range, RankTimes

NF4_ONLY = {"when": {"precision": "nf4"}, "otherwise": 0.0}


@pytest.mark.parametrize(
    ("name", "form", "parameter"),
    [
        ("rank", 8, Parameter("rank", Fixed(8))),
        ("precision", "nf4", Parameter("precision", Fixed("nf4"))),
        ("lora_alpha", 16, Parameter("lora_alpha", Fixed(16))),
        ("target_modules", ["v_proj", "q_proj"], Parameter("target_modules", Fixed("q_v"))),
        ("target_modules", "up_proj", Parameter("target_modules", Fixed("up_proj"))),
        ("target_modules", ["up_proj", "q_proj"], Parameter("target_modules", Fixed("q_proj+up_proj"))),
        ("rank", {"choice": [8, 64]}, Parameter("rank", Choice((8, 64)))),
        (
            "target_modules",
            {"choice": ["all_linear", ["k_proj"]]},
            Parameter("target_modules", Choice(("all_linear", "k_proj"))),
        ),
        ("rank", {"int": [2, 64]}, Parameter("rank", Range(2, 64, integer=True))),
        ("rank", {"log_int": [2, 64]}, Parameter("rank", Range(2, 64, log=True, integer=True))),
        ("lora_dropout", {"float": [0, 0.1]}, Parameter("lora_dropout", Range(0.0, 0.1))),
        ("learning_rate", {"log_float": [1e-5, 1]}, Parameter("learning_rate", Range(1e-5, 1.0, log=True))),
        ("lora_alpha", {"rank_times": 2}, Parameter("lora_alpha", RankTimes(2))),
        (
            "lora_dropout",
            {"choice": [0.1, 0.2], "when": {"precision": "nf4", "rank": [8, 64]}, "otherwise": 0.0},
            Parameter("lora_dropout", Choice((0.1, 0.2)), (("precision", ("nf4",)), ("rank", (8, 64))), 0.0),
        ),
        (
            "rank",
            {"choice": [8], "when": {"target_modules": [["v_proj", "q_proj"], "k_proj"]}, "otherwise": 4},
            Parameter("rank", Choice((8,)), (("target_modules", ("q_v", "k_proj")),), 4),
        ),
    ],
)
def test_reads(name: str, form: Any, parameter: Parameter) -> None:
    assert parse_parameter(name, form) == parameter


def test_a_range_of_floats_has_float_ends() -> None:
    kind = parse_parameter("lora_alpha", {"float": [8, 64]}).kind
    assert isinstance(kind, Range)
    assert (type(kind.low), type(kind.high)) == (float, float)


@pytest.mark.parametrize(
    ("name", "form", "key", "rule", "remedy"),
    [
        ("rnk", 8, "rnk", "no parameter", "Did you mean `rank`?"),
        ("zzz", 8, "zzz", "no parameter", "Known are precision, rank"),
        ("seed", 0, "seed", "no parameter", "`seeds: [0, 1]`"),
        ("rank", None, "rank", "integer from 1 to 1024", EXAMPLES["rank"]),
        ("rank", True, "rank", "integer from 1 to 1024", EXAMPLES["rank"]),
        ("rank", "8", "rank", "integer from 1 to 1024", EXAMPLES["rank"]),
        ("rank", [8, 64], "rank", "integer from 1 to 1024", EXAMPLES["rank"]),
        ("rank", {}, "rank", "one of the forms choice, int", EXAMPLES["rank"]),
        ("rank", {"choice": [8], "int": [2, 64]}, "rank", "one of the forms", EXAMPLES["rank"]),
        ("rank", {"choise": [8]}, "rank.choise", "no form", "Did you mean `choice`?"),
        ("rank", {"choice": []}, "rank.choice", "list of values", EXAMPLES["rank"]),
        ("rank", {"choice": 8}, "rank.choice", "list of values", EXAMPLES["rank"]),
        ("rank", {"choice": [8, 8]}, "rank.choice.1", "must differ", "Leave it out"),
        ("rank", {"choice": [8, 0]}, "rank.choice.1", "integer from 1", EXAMPLES["rank"]),
        ("lora_alpha", {"choice": [16, 16.0]}, "lora_alpha.choice.1", "must differ", "Leave it out"),
        ("target_modules", {"choice": ["q_v", ["v_proj", "q_proj"]]}, "target_modules.choice.1", "must differ", "out"),
        ("target_modules", "q v", "target_modules", "may hold", "Did you mean `q_v`?"),
        ("target_modules", ["q prj"], "target_modules", "may hold", "Did you mean `q_proj`?"),
        ("target_modules", ["q_proj", "q_proj"], "target_modules", "distinct", EXAMPLES["target_modules"]),
        ("target_modules", [], "target_modules", "at least one", EXAMPLES["target_modules"]),
        ("target_modules", 3, "target_modules", "q_v, all_linear, or a list", "q_proj, k_proj"),
        ("target_modules", [3], "target_modules", "q_v, all_linear, or a list", "q_proj, k_proj"),
        ("target_modules", {"int": [1, 2]}, "target_modules.int", "has no range", EXAMPLES["target_modules"]),
        ("precision", "fp8", "precision", "one of fp32", EXAMPLES["precision"]),
        ("precision", "nf5", "precision", "one of fp32", "Did you mean `nf4`?"),
        ("precision", {"float": [1, 2]}, "precision.float", "has no range", EXAMPLES["precision"]),
        ("rank", {"float": [1, 2]}, "rank.float", "whole number", "`int` or `log_int`"),
        ("rank", {"int": [2]}, "rank.int", "list of two numbers", "[2, 64]"),
        ("rank", {"int": [2, 64, 128]}, "rank.int", "list of two numbers", "[2, 64]"),
        ("rank", {"int": [2, True]}, "rank.int", "list of two numbers", "[2, 64]"),
        ("rank", {"int": [2, 64.0]}, "rank.int", "whole numbers at its ends", "[2, 64]"),
        ("rank", {"int": [64, 2]}, "rank.int", "lowest number first", "[2, 64]"),
        ("rank", {"int": [8, 8]}, "rank.int", "lowest number first", "[2, 64]"),
        ("rank", {"int": [0, 8]}, "rank.int.0", "integer from 1", EXAMPLES["rank"]),
        ("lora_dropout", {"log_float": [0, 0.5]}, "lora_dropout.log_float", "above 0", "log_float"),
        ("lora_dropout", {"float": [0, 1]}, "lora_dropout.float.1", "under 1", EXAMPLES["lora_dropout"]),
        ("learning_rate", {"float": [0.1, float("inf")]}, "learning_rate.float", "two numbers", "1.0e-5"),
        ("learning_rate", {"float": [0.1, float("nan")]}, "learning_rate.float", "two numbers", "1.0e-5"),
        ("rank", {"rank_times": 2}, "rank.rank_times", "lora_alpha alone", EXAMPLES["rank"]),
        ("lora_alpha", {"rank_times": 0}, "lora_alpha.rank_times", "above 0", EXAMPLES["lora_alpha"]),
        ("lora_alpha", {"rank_times": True}, "lora_alpha.rank_times", "above 0", EXAMPLES["lora_alpha"]),
        ("lora_alpha", {"rank_times": [2]}, "lora_alpha.rank_times", "above 0", EXAMPLES["lora_alpha"]),
        ("lora_dropout", {"choice": [0.1], **NF4_ONLY, "when": {}}, "lora_dropout.when", "must name", "when:"),
        ("lora_dropout", {"choice": [0.1], **NF4_ONLY, "when": 3}, "lora_dropout.when", "must name", "when:"),
        (
            "lora_dropout",
            {"choice": [0.1], **NF4_ONLY, "when": {"presicion": "nf4"}},
            "lora_dropout.when.presicion",
            "no parameter",
            "Did you mean `precision`?",
        ),
        (
            "lora_dropout",
            {"choice": [0.1], **NF4_ONLY, "when": {"rank": []}},
            "lora_dropout.when.rank",
            "a value or a list",
            "when:",
        ),
        (
            "lora_dropout",
            {"choice": [0.1], **NF4_ONLY, "when": {"rank": [8, 0]}},
            "lora_dropout.when.rank.1",
            "integer from 1",
            EXAMPLES["rank"],
        ),
        ("lora_dropout", {"choice": [0.1], "otherwise": 0}, "lora_dropout.when", "must name", "when:"),
        ("lora_dropout", {"choice": [0.1], **NF4_ONLY, "otherwise": 2}, "lora_dropout.otherwise", "under 1", "0.05"),
        (
            "precision",
            {"choice": ["nf4"], "when": {"rank": 8}, "otherwise": "fp16"},
            "precision.when",
            "not depend",
            "on",
        ),
    ],
)
def test_refuses(name: str, form: Any, key: str, rule: str, remedy: str) -> None:
    with pytest.raises(SpaceError) as caught:
        parse_parameter(name, form)
    (fault,) = caught.value.faults
    assert fault.key == key
    assert rule in fault.rule
    assert remedy in fault.remedy
    assert str(caught.value) == str(fault)
    assert str(fault).startswith(f"{key} = ")


def test_a_condition_needs_its_otherwise() -> None:
    with pytest.raises(SpaceError) as caught:
        parse_parameter("lora_dropout", {"choice": [0.1], "when": {"precision": "nf4"}})
    (fault,) = caught.value.faults
    assert (fault.key, fault.missing) == ("lora_dropout.otherwise", True)
    assert str(fault).startswith("lora_dropout.otherwise is missing: must say what")


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(SpaceError) as caught:
        parse_parameter("rank", {"choice": [0, 8, "x"], "when": {"precision": "x", "rnk": 3}, "otherwise": 0})
    assert [fault.key for fault in caught.value.faults] == [
        "rank.choice.0",
        "rank.choice.2",
        "rank.when.precision",
        "rank.when.rnk",
        "rank.otherwise",
    ]


def test_messages_say_key_value_rule_and_remedy() -> None:
    fault = SpaceFault("rank", 0, "must be above 0", "Write 8.")
    assert str(fault) == "rank = 0: must be above 0. Write 8."
