"""Bootstrap intervals over evaluation documents, and over whatever else was drawn.

The bootstrap (Efron 1979, doi 10.1214/aos/1176344552) takes what was measured for the whole, and draws from it with
replacement. Intervals are percentile intervals. Everything is a pure function of its arguments, the seed included.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
LEVEL = 0.95
CHUNK = 2**19  # numbers that are computed with at a time

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value with the bounds that hold `level` of its resamples; NaN where there is no number."""

    low: float
    value: float
    high: float
    level: float = LEVEL


@lru_cache(maxsize=2)  # one table asks for the same draws for each of its metrics, and thousands take a while
def draws(count: int, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.int32]:
    """How often each of `count` things is drawn, `resamples x count`-dim, not to be changed; each row sums to `count`.

    Raises ValueError without things to draw from.
    """
    if count < 1 or resamples < 1:
        raise ValueError(f"there must be at least one thing and one resample to draw; there are {count}, {resamples}")
    generator = np.random.default_rng(seed)
    drawn = np.empty((resamples, count), dtype=np.int32)
    for rows in chunks(resamples, count):  # the same numbers as all at once, in less memory
        drawn[rows] = generator.multinomial(count, np.full(count, 1 / count), size=rows.stop - rows.start)
    drawn.setflags(write=False)
    return drawn


def chunks(rows: int, columns: int) -> list[slice]:
    """Parts a `rows x columns`-dim array by rows, so that computing with one part takes little memory."""
    step = max(1, CHUNK // max(1, columns))
    return [slice(start, min(rows, start + step)) for start in range(0, rows, step)]


def perplexities(nats: ArrayLike, tokens: ArrayLike, weights: ArrayLike) -> Floats:
    """exp(total nats / total target tokens) of each trial in each resample, `b x k`-dim.

    `nats` is `k x n`-dim (k trials, n documents; one trial may be `n`-dim), `tokens` `n`-dim, and `weights` `b x n`-dim
    as `draws` returns them: how often each document counts. The same documents are drawn for all trials, so that
    differences between trials are paired. A trial with a document of NaN or infinite nats has that perplexity wherever
    the document is drawn. Raises ValueError where the tokens are not positive or do not fit.
    """
    rows, counts = np.atleast_2d(np.asarray(nats, dtype=float)), np.asarray(tokens, dtype=float)
    if counts.ndim != 1 or counts.size == 0 or rows.shape[1] != counts.size or not (counts > 0).all():
        raise ValueError(f"nats must be k x n, and tokens n counts above 0; they are {rows.shape} and {counts.shape}")
    drawn = np.atleast_2d(np.asarray(weights, dtype=float))
    all_finite = bool(np.isfinite(rows).all())
    finite = rows if all_finite else np.where(np.isfinite(rows), rows, 0.0)
    with np.errstate(over="ignore"):
        found = np.exp(drawn @ finite.T / (drawn @ counts)[:, None])
    return np.asarray(found) if all_finite else _with_not_finite(found, rows, drawn)


def _with_not_finite(found: Floats, rows: Floats, drawn: Floats) -> Floats:
    """Documents without a finite number: 0 times infinity would spoil resamples that do not draw them."""
    infinite = drawn @ np.isposinf(rows).T > 0
    unknown = drawn @ (np.isnan(rows) | np.isneginf(rows)).T > 0
    return np.asarray(np.where(unknown, np.nan, np.where(infinite, np.inf, found)), dtype=np.float64)


def mean_interval(
    values: ArrayLike, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> Interval | None:
    """The mean of independent values, such as differences between pairs; None without values, no width with one."""
    numbers = np.asarray(values, dtype=float).ravel()
    if numbers.size == 0:
        return None
    if not np.isfinite(numbers).all():
        return Interval(float("nan"), float(numbers.mean()), float("nan"), level)
    drawn = draws(numbers.size, resamples, seed)
    samples = np.concatenate([drawn[rows] @ numbers for rows in chunks(resamples, numbers.size)]) / numbers.size
    return percentile_interval(samples, float(numbers.mean()), level)


def percentile_interval(samples: ArrayLike, value: float, level: float = LEVEL) -> Interval:
    """The middle `level` of the resamples, about a value. NaN bounds where a resample is NaN.

    Raises ValueError for a level that is not between 0 and 1, and without resamples.
    """
    numbers = np.sort(np.asarray(samples, dtype=float).ravel())  # NaN comes last
    if not 0 < level < 1 or numbers.size == 0:
        raise ValueError(f"level must be between 0 and 1, with resamples; it is {level!r} with {numbers.size}")
    if np.isnan(numbers[-1]):
        return Interval(float("nan"), value, float("nan"), level)
    # "inverted_cdf" takes a resample and never a mean of two, so infinite ones stay well defined.
    low, high = np.quantile(numbers, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Interval(float(low), value, float(high), level)
