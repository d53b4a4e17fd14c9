"""Layers read back from every form, and halves part a model without rest."""

from __future__ import annotations

from typing import Any

import pytest

from search_spaces.layer_ranges import Layers, layer_numbers, layers_text, parse_layers
from search_spaces.parameters import parse_space
from search_spaces.trial_config import TrialConfig

SPACE = {"precision": "fp32", "rank": 8, "target_modules": "q_v", "learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("written", "layers", "text"),
    [
        (None, None, "all"),
        ("all", None, "all"),
        ("last_half", "last_half", "last_half"),
        ([16, 31], (16, 31), "16-31"),
        ((16, 31), (16, 31), "16-31"),
        ("16-31", (16, 31), "16-31"),
        ([3, 3], (3, 3), "3"),
    ],
)
def test_every_form_is_read(written: Any, layers: Layers, text: str) -> None:
    assert parse_layers(written) == layers
    assert layers_text(layers) == text
    assert parse_layers(text) == layers


@pytest.mark.parametrize("count", range(1, 9))
def test_two_halves_are_the_whole(count: int) -> None:
    halves = [*layer_numbers("first_half", count), *layer_numbers("last_half", count)]
    assert halves == list(layer_numbers(None, count)) == list(range(count))
    assert len(layer_numbers("last_half", count)) - len(layer_numbers("first_half", count)) == count % 2
    assert list(layer_numbers((count - 1, count - 1), count)) == [count - 1]


def test_a_configuration_says_layers_only_where_it_has_some() -> None:
    whole = parse_space(SPACE).grid([0])[0]
    assert "layers" not in whole.to_dict()
    assert (whole.layers, whole.layer_range, whole.target_set) == (None, "all", "q_v")
    part = parse_space({**SPACE, "layers": [16, 31]}).grid([0])[0]
    assert part.to_dict()["layers"] == [16, 31]
    assert TrialConfig.from_dict(part.to_dict()) == part
    assert (part.module_set, part.target_set) == ("q_v", "q_v[16-31]")
    half = parse_space({**SPACE, "layers": "last_half", "target_modules": "all_linear"}).grid([0])[0]
    assert half.target_set == "all_linear[last_half]"


def test_a_space_may_choose_layers() -> None:
    mapping = {**SPACE, "layers": {"choice": ["all", "first_half", [16, 31]]}}
    space = parse_space(mapping)
    assert space.layers() == (None, "first_half", (16, 31))
    assert [one.layers for one in space.grid([0])] == [None, "first_half", (16, 31)]
    assert space.to_mapping()["layers"] == mapping["layers"]


def test_a_space_without_layers_is_written_without() -> None:
    assert "layers" not in parse_space(SPACE).to_mapping()
    assert parse_space(SPACE).layers() == (None,)


def test_targets_that_occur_together() -> None:
    layers = {
        "choice": ["last_half", [0, 3]],
        "when": {"target_modules": ["all_linear"], "rank": [64]},
        "otherwise": "all",
    }
    mapping = {**SPACE, "rank": {"int": [2, 64]}, "target_modules": {"choice": ["q_v", "all_linear"]}, "layers": layers}
    q_v, every = parse_space(mapping).target_modules()
    assert set(parse_space(mapping).targets()) == {(q_v, None), (every, None), (every, "last_half"), (every, (0, 3))}
