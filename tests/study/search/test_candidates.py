"""The candidates of a Bayesian search, as numbers."""

from __future__ import annotations

import numpy as np

from study.search.candidates import features
from tests.support.known_cost_cases import LISTED


def test_features_lie_between_0_and_1_and_tell_configurations_apart() -> None:
    every = LISTED.grid([0])
    table = features(LISTED, every)
    assert table.shape == (len(every), 4)
    assert (table.min(), table.max()) == (0.0, 1.0)
    assert len(np.unique(table, axis=0)) == len(every)
    assert features(LISTED, []).shape == (0, 4)
