"""One configuration: what it refuses, all of it at once, and its way to JSON and back."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.trial_config import MAX_RANK, MODULE_NAMES, PRECISIONS, TARGET_SETS, TrialConfig

GOOD: dict[str, Any] = {
    "precision": "nf4",
    "rank": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "target_modules": ("q_proj", "v_proj"),
    "learning_rate": 2e-4,
    "seed": 0,
}


def test_scaling_is_alpha_over_rank() -> None:
    assert TrialConfig(**GOOD).scaling == 2.0
    assert TrialConfig(**{**GOOD, "rank": 64}).scaling == 0.25


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"precision": "int8"}, "precision must be one of fp32, bf16, fp16, nf4; it is 'int8'"),
        ({"precision": None}, "precision must be one of fp32, bf16, fp16, nf4; it is None"),
        ({"precision": ["nf4"]}, "precision must be one of"),
        ({"rank": 0}, "rank must be an integer from 1 to 1024; it is 0"),
        ({"rank": MAX_RANK + 1}, "it is 1025"),
        ({"rank": 8.0}, "rank must be an integer"),
        ({"rank": True}, "rank must be an integer"),
        ({"lora_alpha": 0}, "lora_alpha must be a number above 0"),
        ({"lora_alpha": 65537}, "at most 65536"),
        ({"lora_alpha": math.nan}, "lora_alpha must be a number"),
        ({"lora_alpha": True}, "lora_alpha must be a number"),
        ({"lora_dropout": 1.0}, "lora_dropout must be at least 0 and under 1"),
        ({"lora_dropout": -0.1}, "lora_dropout must be at least 0"),
        ({"lora_dropout": math.nan}, "lora_dropout must be"),
        ({"lora_dropout": False}, "lora_dropout must be"),
        ({"learning_rate": 0}, "learning_rate must be above 0"),
        ({"learning_rate": 1.5}, "at most 1; it is 1.5"),
        ({"learning_rate": math.inf}, "learning_rate must be"),
        ({"learning_rate": "2e-4"}, "learning_rate must be"),
        ({"seed": -1}, "seed must be an integer from 0"),
        ({"seed": 2**31}, "seed must be an integer from 0"),
        ({"seed": 1.0}, "seed must be an integer"),
        ({"target_modules": ()}, "target_modules must name at least one module"),
        ({"target_modules": ("q_proj", "w proj")}, "not w proj"),
        ({"target_modules": ("q_proj", "")}, "target_modules may hold"),
        ({"target_modules": ("q_proj+v_proj",)}, "not q_proj+v_proj"),
        ({"target_modules": (".q_proj",)}, "not .q_proj"),
        ({"target_modules": ("x" * 201,)}, "of at most 200 characters"),
        ({"target_modules": ("re:",)}, "not re:"),
        ({"target_modules": ("re:(",)}, "not re:("),
        ({"target_modules": (r"re:q proj",)}, "no spaces"),
        ({"target_modules": ("re:" + "a" * 198,)}, "of at most 200 characters"),
        ({"target_modules": (3,)}, "not 3"),
        ({"layers": (3, 2)}, "layers must be all, first_half, last_half, or the first and the last layer"),
        ({"layers": (-1, 2)}, "it is [-1, 2]"),
        ({"layers": (0, 10_000)}, "it is [0, 10000]"),
        ({"layers": (0, True)}, "layers must be"),
        ({"layers": (0, 1.0)}, "layers must be"),
        ({"layers": (1, 2, 3)}, "it is [1, 2, 3]"),
        ({"layers": "half"}, "it is 'half'"),
        ({"layers": 3}, "it is 3"),
        ({"target_modules": ("q_proj", "q_proj")}, "target_modules must be distinct"),
    ],
)
def test_refuses(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))) as caught:
        TrialConfig(**{**GOOD, **changes})
    assert rule in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_refuses_everything_at_once() -> None:
    bad = {"precision": "x", "rank": 0, "lora_alpha": 0, "lora_dropout": 2, "learning_rate": 0, "seed": -1}
    with pytest.raises(ValueError, match="precision") as caught:
        TrialConfig(**{**GOOD, **bad, "target_modules": ("x y", "x y"), "layers": "x"})
    first_words = [line.split()[0] for line in str(caught.value).splitlines()]
    assert first_words == [*bad, "target_modules", "target_modules", "layers"]


def test_is_frozen_and_hashable() -> None:
    config = TrialConfig(**GOOD)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.rank = 4  # type: ignore[misc]
    assert {config, TrialConfig(**GOOD)} == {config}


@pytest.mark.parametrize(
    ("modules", "name"),
    [
        (("v_proj", "q_proj"), "q_v"),
        (tuple(reversed(MODULE_NAMES)), "all_linear"),
        (("q_proj", "up_proj"), "q+up"),
    ],
)
def test_target_set_names_known_sets_in_any_order(modules: tuple[str, ...], name: str) -> None:
    assert TrialConfig(**{**GOOD, "target_modules": modules}).target_set == name


@pytest.mark.parametrize("written", ["q_v", "q_proj+v_proj", ["q_proj", "v_proj"], ("q_proj", "v_proj")])
def test_from_dict_reads_every_form_of_target_modules(written: Any) -> None:
    assert TrialConfig.from_dict({**GOOD, "target_modules": written}) == TrialConfig(**GOOD)


def test_from_dict_reads_set_names() -> None:
    for name, modules in TARGET_SETS.items():
        assert TrialConfig.from_dict({**GOOD, "target_modules": name}).target_modules == modules


@settings(max_examples=40, deadline=None)
@given(
    precision=st.sampled_from(PRECISIONS),
    rank=st.integers(1, MAX_RANK),
    alpha=st.floats(min_value=0, max_value=65536, exclude_min=True) | st.integers(1, 65536),
    dropout=st.floats(min_value=0, max_value=1, exclude_max=True),
    modules=st.lists(st.sampled_from(MODULE_NAMES), min_size=1, unique=True),
    rate=st.floats(min_value=0, max_value=1, exclude_min=True),
    seed=st.integers(0, 2**31 - 1),
)
def test_json_round_trip(
    precision: Any, rank: int, alpha: float, dropout: float, modules: list[str], rate: float, seed: int
) -> None:
    config = TrialConfig(precision, rank, alpha, dropout, tuple(modules), rate, seed)
    assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
