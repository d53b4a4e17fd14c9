"""Known memory: what was measured comes before what was predicted."""

from __future__ import annotations

from study.search.known_cost import KnownCost, measured_first
from tests.support.search.known_costs import configured, ended, memory_of


def test_measured_memory_comes_before_predictions_and_moves_them() -> None:
    known = KnownCost(0, 1, (14.0, 500.0), True, lambda config: memory_of(config) - 10)
    found = measured_first([ended(configured(4))], known)
    assert found(configured(4, rate=1e-3)) == memory_of(configured(4))  # of its footprint
    assert found(configured(8)) == memory_of(configured(8))  # predicted, moved by what predictions were off
    assert found(configured(8, precision="bf16")) == memory_of(configured(8, precision="bf16")) - 10
