"""Computes what a configuration of known memory is expected to add to the hypervolume.

Since memory is known, what a candidate adds depends on its quality alone: it is the sum, over the steps of the front's
staircase, of how far its quality is below each. The expectation has a closed form, step by step (expected improvement:
Jones et al. 1998, doi.org/10.1023/A:1008306431147). Quality and memory are both minimized.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Floats = NDArray[np.float64]


def staircase(points: Iterable[tuple[float, float]], reference: tuple[float, float]) -> list[tuple[float, float]]:
    """The front of (quality, memory) as steps (memory, quality), cheapest first: from this memory on, this quality."""
    steps = [(-math.inf, reference[0])]
    for memory, quality in sorted((memory, quality) for quality, memory in points):
        if memory < reference[1] and quality < steps[-1][1]:
            steps.append((memory, quality))
    return steps


def expected_hypervolume(
    mean: Floats,
    spread: Floats,
    memory: Floats,
    steps: Sequence[tuple[float, float]],
    memory_reference: float,
    logarithmic: bool,
) -> Floats:
    """What each of `m` points is expected to add to the hypervolume over the front's steps.

    Its quality is normal with that `mean` and `spread`, or with `logarithmic` the logarithm of its quality is.
    """
    ends = [*(start for start, _ in steps[1:]), memory_reference]
    total = np.zeros(len(mean))
    for (start, height), end in zip(steps, ends, strict=True):
        width = np.maximum(0.0, end - np.maximum(start, memory))
        total += width * expected_improvement(mean, spread, height, logarithmic)
    return total


def expected_improvement(mean: Floats, spread: Floats, height: float, logarithmic: bool) -> Floats:
    """E[max(0, height - y)] where y, or with `logarithmic` its logarithm, is normal."""
    if not logarithmic:
        z = (height - mean) / spread
        return np.asarray((height - mean) * ndtr(z) + spread * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi))
    z = (math.log(height) - mean) / spread
    return np.asarray(height * ndtr(z) - np.exp(mean + spread**2 / 2) * ndtr(z - spread))
