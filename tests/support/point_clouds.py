"""Points to draw and oracles by definition, for tests of fronts and hypervolumes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from hypothesis import strategies as st

Point = tuple[float, ...]

SMALL = st.integers(0, 4).map(float)  # few values: many ties and duplicates
WILD = st.one_of(SMALL, st.floats(allow_nan=True, allow_infinity=True), st.just(math.nan), st.just(math.inf))
COLUMNS = st.integers(2, 4)


@st.composite
def clouds(draw: st.DrawFn, values: st.SearchStrategy[float] = WILD, most: int = 14) -> tuple[list[Point], int]:
    """Points of 2 to 4 columns, none or many, with their number of columns."""
    columns = draw(COLUMNS)
    return draw(st.lists(st.tuples(*[values] * columns), max_size=most)), columns


def _dominates(one: Point, other: Point) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


def is_finite(point: Point) -> bool:
    """Whether no coordinate is NaN or infinite."""
    return all(map(math.isfinite, point))


def front_by_definition(points: Sequence[Point]) -> list[bool]:
    """Which points no other finite point dominates, each compared with each."""
    finite = [point for point in points if is_finite(point)]
    return [is_finite(point) and not any(_dominates(other, point) for other in finite) for point in points]


def volume_by_inclusion_exclusion(points: Sequence[Point], corner: Point) -> float:
    """The union of the boxes from each point to the corner: the sum over all subsets of their common box, signed."""
    volume = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            sides = [c - max(column) for c, column in zip(corner, zip(*chosen, strict=True), strict=True)]
            volume -= (-1) ** size * math.prod(sides)
    return volume
