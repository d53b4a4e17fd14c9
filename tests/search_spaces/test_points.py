"""Single configurations as people write them: right ones, and every fault of wrong ones."""

from __future__ import annotations

import random
from typing import Any

import pytest

from search_spaces.parameters import SpaceError, parse_space
from search_spaces.points import parse_point
from search_spaces.trial_config import TARGET_SETS, TrialConfig
from tests.support.random_spaces import random_mapping

SPACE = parse_space(
    {
        "precision": {"choice": ["fp16", "nf4"]},
        "rank": {"choice": [8, 16]},
        "target_modules": {"choice": ["q_v", ["q_proj", "o_proj"]]},
        "lora_alpha": {"rank_times": 2},
        "lora_dropout": {"choice": [0.0, 0.1], "when": {"rank": 16}, "otherwise": 0.0},
        "learning_rate": {"log_float": [1e-5, 1e-3]},
    }
)
SMALL = {"precision": "nf4", "rank": 8, "target_modules": "q_v", "learning_rate": 2e-4}
LARGE = {**SMALL, "rank": 16, "lora_dropout": 0.1, "target_modules": ["o_proj", "q_proj"]}


def test_what_the_space_decides_may_be_left_out() -> None:
    q_v = TARGET_SETS["q_v"]
    assert parse_point(SPACE, SMALL, 3) == TrialConfig("nf4", 8, 16, 0.0, q_v, 2e-4, 3)
    assert parse_point(SPACE, {**SMALL, "lora_alpha": 16, "lora_dropout": 0.0}, 3) == parse_point(SPACE, SMALL, 3)
    assert parse_point(SPACE, {**SMALL, "seed": 9}, 3).seed == 9
    assert parse_point(SPACE, LARGE, 0) == TrialConfig("nf4", 16, 32, 0.1, ("q_proj", "o_proj"), 2e-4, 0)


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"rank": 12}, "rank", "must be a value that the space can give: 8, 16"),
        ({"precision": "bf16"}, "precision", "can give: fp16, nf4"),
        ({"learning_rate": 1.0}, "learning_rate", "can give: a number from 1e-05 to 0.001"),
        ({"target_modules": ["q_proj"]}, "target_modules", "can give: q_v, ['q_proj', 'o_proj']"),
        ({"lora_alpha": 32}, "lora_alpha", "can give: 16"),
        ({"lora_dropout": 0.1}, "lora_dropout", "can give: 0.0"),  # its condition does not hold
        ({"rank": {"choice": [8]}}, "rank", "must be one value. Write for example `rank: 8`"),
        ({"rank": 1.5}, "rank", "must be an integer"),
        ({"seed": -1}, "seed", "must be a whole number from 0"),
        ({"seed": True}, "seed", "must be a whole number from 0"),
        ({"alpha": 16}, "alpha", "is no parameter of a trial"),
        ({"rank": None}, "rank", "rank"),
    ],
)
def test_what_the_space_cannot_give_is_refused(changes: dict[str, Any], key: str, said: str) -> None:
    with pytest.raises(SpaceError) as caught:
        parse_point(SPACE, {**SMALL, **changes}, 0)
    (fault,) = caught.value.faults
    assert fault.key == key
    assert said in str(fault)


def test_every_open_parameter_must_be_given_and_all_faults_come_at_once() -> None:
    with pytest.raises(SpaceError) as caught:
        parse_point(SPACE, {"precision": "bf16"}, 0)
    assert [fault.key for fault in caught.value.faults] == ["rank", "target_modules", "learning_rate", "precision"]
    assert [fault.missing for fault in caught.value.faults] == [True, True, True, False]
    with pytest.raises(SpaceError, match="must hold parameters and their values"):
        parse_point(SPACE, ["nf4"], 0)


@pytest.mark.parametrize("seed", range(20))
def test_every_configuration_of_a_space_is_a_point_of_it(seed: int) -> None:
    space = parse_space(random_mapping(random.Random(seed)))
    for config in space.grid([seed])[:20]:
        values = {name: value for name, value in config.to_dict().items() if name != "seed"}
        found = parse_point(space, values, seed)
        assert {**found.to_dict(), "target_modules": sorted(found.target_modules)} == {
            **config.to_dict(), "target_modules": sorted(config.target_modules),
        }  # fmt: skip
