"""Counts the bytes that adapters' updates take in one layer; n is a pass' tokens, e the bytes of an activation."""

from __future__ import annotations

from collections.abc import Collection

from trainables.base_model.shape import ModelShape
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass


def low_rank(shape: ModelShape, setting: MemorySetting, one: Pass, targets: Collection[str]) -> int:
    """Returns the bytes of A x (n rank e) of these targets in one layer, and of A and B cast to e."""
    return low_rows(setting, one, targets) + casts(shape, setting, one, targets)


def casts(shape: ModelShape, setting: MemorySetting, one: Pass, targets: Collection[str]) -> int:
    """Returns the bytes of these targets' A and B in one layer, cast to e."""
    values = sum(
        load.rank * (sum(shape.linears[name])) for load in one.loads for name in load.target_modules if name in targets
    )
    return values * setting.compute_bytes


def low_rows(setting: MemorySetting, one: Pass, targets: Collection[str]) -> int:
    """Returns the bytes of A x of these targets in one layer, n rank e for each adapter's own rows."""
    return sum(
        load.rows * one.width * load.rank * len(among(load, targets)) * setting.compute_bytes for load in one.loads
    )


def thinned(one: Pass, targets: Collection[str]) -> int:
    """Counts the tokens of rows whose adapters have dropout at one of the targets."""
    return sum(load.rows * one.width for load in one.loads if load.dropout and among(load, targets))


def masks(shape: ModelShape, setting: MemorySetting, one: Pass, targets: Collection[str]) -> int:
    """Returns the bytes of dropout masks, kept on a CPU alone: a card computes them anew from counters."""
    if setting.device != "cpu":
        return 0
    return sum(
        load.rows * one.width * shape.linears[name][0] * setting.compute_bytes
        for load in one.loads
        if load.dropout
        for name in among(load, targets)
    )


def among(load: AdapterLoad, targets: Collection[str]) -> list[str]:
    """Lists which of these targets the adapter updates."""
    return [name for name in load.target_modules if name in targets]
