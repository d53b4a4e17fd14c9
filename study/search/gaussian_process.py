"""Gaussian process regression with a Matérn kernel, for the hundreds of points that a search has (pure: numpy alone).

Rasmussen and Williams 2006, chapters 2 and 5 (gaussianprocess.org/gpml).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LENGTH, LENGTH_SPREAD = 0.7, 0.8  # of features that lie in 0..1: median and spread of the prior, in logarithms
NOISE, NOISE_SPREAD = 0.02, 1.0  # variance of standardized values, likewise
SIGNAL_SPREAD = 0.7  # of the signal's variance about 1
STEPS = (0.8, 0.4, 0.2)  # of the search for the best hyperparameters, in logarithms
JITTER = 1e-9
MOST_TO_FIT = 128  # points that hyperparameters are fitted on: each trial of them takes their number's cube


@dataclass(frozen=True)
class GaussianProcess:
    """A process conditioned on `n` points of `d` features: predicts any others."""

    points: Floats  # `n x d`
    lengths: Floats  # `d`
    signal: float  # variance
    noise: float  # variance
    mean: float  # of the values, and their scale, which standardize them
    scale: float
    _factor: Floats  # Cholesky's, `n x n`
    _weights: Floats  # `n`

    @classmethod
    def fit(cls, points: Floats, values: Floats) -> GaussianProcess:
        """The process of the likeliest hyperparameters, priors counted in; deterministic. `points` `n x d`, n >= 1.

        Of many points the hyperparameters are fitted on some, evenly spread over their order.
        """
        mean, scale = float(values.mean()), float(values.std()) or 1.0
        standardized = (values - mean) / scale
        some = evenly_spread(len(points), MOST_TO_FIT)
        theta = _likeliest(_squared_differences(points[some], points[some]), standardized[some])
        return cls._conditioned(points, standardized, theta, mean, scale)

    def with_believed(self, points: Floats) -> GaussianProcess:
        """The process after it was told its own expectation at further points, `m x d`: trials that still run."""
        if not len(points):
            return self
        known = self._values()
        believed, _ = self.predict(points)
        values = np.concatenate([known, (believed - self.mean) / self.scale])
        theta = np.log([*self.lengths, self.signal, self.noise])
        return self._conditioned(np.concatenate([self.points, points]), values, theta, self.mean, self.scale)

    def predict(self, points: Floats) -> tuple[Floats, Floats]:
        """Expectation and standard deviation, without noise, at `m x d` points."""
        across = self.signal * _matern(_squared_differences(points, self.points), self.lengths)
        solved = np.linalg.solve(self._factor, across.T)
        variance = np.maximum(self.signal - (solved**2).sum(axis=0), JITTER)
        return self.mean + self.scale * (across @ self._weights), self.scale * np.sqrt(variance)

    def _values(self) -> Floats:
        """The standardized values that it was conditioned on."""
        return np.asarray(self._factor @ (self._factor.T @ self._weights))

    @classmethod
    def _conditioned(cls, points: Floats, values: Floats, theta: Floats, mean: float, scale: float) -> GaussianProcess:
        *lengths, signal, noise = np.exp(theta)
        factor = np.linalg.cholesky(_covariance(_squared_differences(points, points), theta))
        weights = np.asarray(np.linalg.solve(factor.T, np.linalg.solve(factor, values)), dtype=np.float64)
        hyper = (np.asarray(lengths, np.float64), float(signal), float(noise))
        return cls(points, *hyper, mean, scale, np.asarray(factor, np.float64), weights)


def evenly_spread(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of the numbers from 0 to `count` - 1, upward, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def log_posterior(differences: Floats, values: Floats, theta: Floats) -> float:
    """Log marginal likelihood of standardized values and log prior of `theta`: log lengths, signal and noise."""
    factor = np.linalg.cholesky(_covariance(differences, theta))
    solved = np.linalg.solve(factor, values)
    likelihood = -0.5 * float(solved @ solved) - float(np.log(np.diag(factor)).sum())
    centre = np.log([*([LENGTH] * (len(theta) - 2)), 1.0, NOISE])
    spread = np.asarray([*([LENGTH_SPREAD] * (len(theta) - 2)), SIGNAL_SPREAD, NOISE_SPREAD])
    return likelihood - 0.5 * float((((theta - centre) / spread) ** 2).sum())


def _likeliest(differences: Floats, values: Floats) -> Floats:
    """Pattern search, one hyperparameter after another, with ever smaller steps."""
    theta = np.log([*([LENGTH] * differences.shape[-1]), 1.0, NOISE])
    best = log_posterior(differences, values, theta)
    for step in STEPS:
        improved = True
        while improved:
            improved = False
            for place in range(len(theta)):
                for move in (step, -step):
                    tried = theta.copy()
                    tried[place] += move
                    found = log_posterior(differences, values, tried)
                    if found > best + 1e-6:
                        theta, best, improved = tried, found, True
    return theta


def _covariance(differences: Floats, theta: Floats) -> Floats:
    *lengths, signal, noise = np.exp(theta)
    kernel = signal * _matern(differences, np.asarray(lengths))
    return np.asarray(kernel + (noise + JITTER) * np.eye(len(kernel)))


def _squared_differences(one: Floats, other: Floats) -> Floats:
    """`n x m x d`."""
    return np.asarray((one[:, None, :] - other[None, :, :]) ** 2)


def _matern(differences: Floats, lengths: Sequence[float] | Floats) -> Floats:
    """Matérn's correlation with smoothness 5/2, of `n x m x d` squared differences."""
    distance = np.sqrt(5.0 * (differences / np.asarray(lengths) ** 2).sum(axis=-1))
    return np.asarray((1.0 + distance + distance**2 / 3.0) * np.exp(-distance))


def normal_cdf(values: Floats) -> Floats:
    """The standard normal's distribution function."""
    return np.asarray(0.5 * (1.0 + np.vectorize(math.erf, otypes=[float])(values / math.sqrt(2.0))))
