"""Gaussian process regression with a Matérn kernel, for the hundreds of points that a search has.

Rasmussen and Williams 2006, chapters 2 and 5 (gaussianprocess.org/gpml).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

Floats = NDArray[np.float64]
LENGTH, LENGTH_SPREAD = 0.7, 0.8  # of features that lie in 0..1: median and spread of the prior, in logarithms
NOISE, NOISE_SPREAD = 0.02, 1.0  # variance of standardized values, likewise
SIGNAL_SPREAD = 0.7  # of the signal's variance about 1
REACH = 20.0  # how far from the prior's medians hyperparameters are sought, in spreads of the prior
SHORT, LONG = -3.0, 1.0  # lengths that fits start from, likewise
MOST_STARTS = 4  # that are followed to their maximum
JITTER = 1e-9  # part of the signal that is noise in any case, so that every covariance has a Cholesky factor
MOST_TO_FIT = 128  # points that hyperparameters are fitted on: each step of the fit takes their number's cube


@dataclass(frozen=True)
class GaussianProcess:
    """A process conditioned on `n` points of `d` features: predicts any others."""

    points: Floats  # `n x d`
    lengths: Floats  # `d`
    signal: float  # variance
    noise: float  # variance
    mean: float  # of the values; with `scale` it standardizes them
    scale: float
    _factor: Floats  # lower Cholesky factor of the covariance, `n x n`
    _weights: Floats  # the covariance's inverse times the standardized values, `n`

    @classmethod
    def fit(cls, points: Floats, values: Floats) -> GaussianProcess:
        """The process with the most probable hyperparameters, deterministic; `points` are `n x d` with n >= 1.

        Of more than `MOST_TO_FIT` points, hyperparameters are fitted on some that are evenly spread over their order.
        """
        mean, scale = float(values.mean()), float(values.std()) or 1.0
        standardized = (values - mean) / scale
        some = evenly_spread(len(points), MOST_TO_FIT)
        theta = most_probable(squared_differences(points[some], points[some]), standardized[some])
        return cls._conditioned(points, standardized, theta, mean, scale)

    def with_believed(self, points: Floats) -> GaussianProcess:
        """The process conditioned also on its own expectation at `m x d` points, for trials that still run."""
        if not len(points):
            return self
        known = self._factor @ (self._factor.T @ self._weights)
        believed, _ = self.predict(points)
        values = np.concatenate([known, (believed - self.mean) / self.scale])
        theta = np.log([*self.lengths, self.signal, self.noise])
        return self._conditioned(np.concatenate([self.points, points]), values, theta, self.mean, self.scale)

    def predict(self, points: Floats) -> tuple[Floats, Floats]:
        """Expectation and standard deviation, without noise, at `m x d` points."""
        across = self.signal * _matern(squared_differences(points, self.points), self.lengths)
        solved = solve_triangular(self._factor, across.T, lower=True)
        variance = np.maximum(self.signal - (solved**2).sum(axis=0), JITTER)
        return self.mean + self.scale * (across @ self._weights), self.scale * np.sqrt(variance)

    @classmethod
    def _conditioned(cls, points: Floats, values: Floats, theta: Floats, mean: float, scale: float) -> GaussianProcess:
        *lengths, signal, noise = np.exp(theta)
        factor, lower = cho_factor(_covariance(squared_differences(points, points), theta), lower=True)
        weights = np.asarray(cho_solve((factor, lower), values))
        hyper = (np.asarray(lengths), float(signal), float(noise))
        return cls(points, *hyper, mean, scale, np.tril(factor), weights)  # cho_factor leaves noise in the upper half


def evenly_spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the numbers from 0 to `count` - 1, ascending, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def most_probable(differences: Floats, values: Floats) -> Floats:
    """The `theta` of the greatest log posterior found by L-BFGS-B, with the exact gradient, from the best starts."""
    medians, spreads = _prior(differences.shape[-1])
    bounds = np.stack([medians - REACH * spreads, medians + REACH * spreads], axis=1)

    def loss(theta: Floats) -> tuple[float, Floats]:
        value, slope = log_posterior(differences, values, theta)
        return -value, -slope

    starts = sorted(medians + spreads * _starts(differences.shape[-1]), key=lambda theta: loss(theta)[0])
    fits = [minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts[:MOST_STARTS]]
    return np.asarray(min(fits, key=lambda fit: fit.fun).x)


def _starts(features: int) -> Floats:
    """Where fits start, in spreads of the prior from its medians: there, all lengths short, and one short, others long.

    The posterior has several maxima: everything is noise, everything matters, or one feature does.
    """
    lengths = np.full((features + 2, features), LONG)
    lengths[:2] = [[0.0], [SHORT]]
    np.fill_diagonal(lengths[2:], SHORT)
    return np.pad(lengths, ((0, 0), (0, 2)))


def log_posterior(differences: Floats, values: Floats, theta: Floats) -> tuple[float, Floats]:
    """Log marginal likelihood of standardized values plus log prior of `theta`, up to a constant, and its gradient.

    `differences` are squared, `n x n x d`; `theta` are the logarithms of `d` lengths, of signal and of noise
    (Rasmussen and Williams, equations 5.8 and 5.9).
    """
    factor = cho_factor(_covariance(differences, theta), lower=True)
    weights = cho_solve(factor, values)
    likelihood = -0.5 * float(values @ weights) - float(np.log(np.diag(factor[0])).sum())
    inner = np.outer(weights, weights) - cho_solve(factor, np.eye(len(values)))
    medians, spreads = _prior(differences.shape[-1])
    away = (theta - medians) / spreads
    return likelihood - 0.5 * float(away @ away), 0.5 * _slopes(differences, theta, inner) - away / spreads


def _prior(features: int) -> tuple[Floats, Floats]:
    """Medians and spreads of `theta`, whose prior is normal."""
    medians = np.log([*([LENGTH] * features), 1.0, NOISE])
    return medians, np.asarray([*([LENGTH_SPREAD] * features), SIGNAL_SPREAD, NOISE_SPREAD])


def _covariance(differences: Floats, theta: Floats) -> Floats:
    *lengths, signal, noise = np.exp(theta)
    kernel = signal * _matern(differences, np.asarray(lengths))
    return np.asarray(kernel + (noise + JITTER * signal) * np.eye(len(kernel)))


def _slopes(differences: Floats, theta: Floats, inner: Floats) -> Floats:
    """The sum of `inner`, `n x n`, times the covariance's derivative by each of `theta`."""
    *lengths, signal, noise = np.exp(theta)
    scaled = differences / np.asarray(lengths) ** 2
    distance = np.sqrt(5.0 * scaled.sum(axis=-1))
    decayed = signal * np.exp(-distance) * inner
    by_lengths = np.tensordot(5.0 / 3.0 * (1.0 + distance) * decayed, scaled, axes=2)
    by_signal = ((1.0 + distance + distance**2 / 3.0) * decayed).sum() + JITTER * signal * np.trace(inner)
    return np.asarray([*by_lengths, by_signal, noise * np.trace(inner)])


def squared_differences(one: Floats, other: Floats) -> Floats:
    """Of `n x d` and `m x d` points, feature by feature: `n x m x d`."""
    return np.asarray((one[:, None, :] - other[None, :, :]) ** 2)


def _matern(differences: Floats, lengths: Floats) -> Floats:
    """Matérn's correlation with smoothness 5/2, of `n x m x d` squared differences."""
    distance = np.sqrt(5.0 * (differences / lengths**2).sum(axis=-1))
    return np.asarray((1.0 + distance + distance**2 / 3.0) * np.exp(-distance))
