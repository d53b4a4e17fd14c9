"""All configurations of a space by exhaustion, and configurations as numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from search_spaces.parameters import SearchSpace, parse_space
from search_spaces.trial_config import TrialConfig
from study.search.candidates import all_configurations, features
from tests.support.search.known_costs import LISTED
from tests.support.search.small_spaces import SMALL, WIDE


def by_exhaustion(space: SearchSpace, seed: int) -> list[TrialConfig]:
    """Oracle: every configuration that `sample` can return, by giving it every value there is."""
    found: dict[TrialConfig, None] = {}
    for values in itertools.product(*(_values(parameter) for parameter in space.parameters)):
        known = dict(zip((parameter.name for parameter in space.parameters), values, strict=True))
        found[space.sample(lambda parameter, known=known: known[parameter.name], seed)] = None
    return list(found)


def _values(parameter: Any) -> Iterator[Any]:
    kind = parameter.kind
    return iter(range(kind.low, kind.high + 1)) if hasattr(kind, "integer") else iter(getattr(kind, "values", (None,)))


@pytest.mark.parametrize("precision", [None, "bf16", "nf4"])
def test_all_configurations_are_those_that_sampling_can_reach(precision: str | None) -> None:
    space = SMALL.with_precision(precision) if precision else SMALL
    found = all_configurations(space, 5)
    assert found is not None
    assert len(found) == len(set(found)) == {None: 18, "bf16": 6, "nf4": 12}[precision]
    assert set(found) == set(by_exhaustion(space, 5))


def test_real_numbers_and_huge_spaces_are_not_listed() -> None:
    assert all_configurations(WIDE, 0) is None
    assert all_configurations(parse_space({**SMALL.to_mapping(), "lora_alpha": {"int": [1, 60_000]}}), 0) is None
    fixed = parse_space({**SMALL.to_mapping(), "lora_alpha": {"int": [1, 100]}, "lora_dropout": 0.0})
    assert len(all_configurations(fixed, 0) or ()) == 2 * 3 * 2 * 100


def test_layers_and_patterns_have_features_of_their_own() -> None:
    modules = ["q_v", ["self_attn.q_proj"], [r"re:.*\.(up|down)_proj"]]
    layers = {"choice": ["all", "last_half", [0, 3]]}
    space = parse_space({**SMALL.to_mapping(), "target_modules": {"choice": modules}, "layers": layers})
    every = all_configurations(space, 0) or []
    assert len(np.unique(features(space, every), axis=0)) == len(every)
    assert {one.layers for one in every} == {None, "last_half", (0, 3)}


def test_features_lie_between_0_and_1_and_tell_configurations_apart() -> None:
    every = LISTED.grid([0])
    table = features(LISTED, every)
    assert table.shape == (len(every), 4)
    assert (table.min(), table.max()) == (0.0, 1.0)
    assert len(np.unique(table, axis=0)) == len(every)
    assert features(LISTED, []).shape == (0, 4)
