"""Mean and covariance of features, gathered part by part in float64."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64

Estimator = Literal["N-1", "N"]  # what the sum of squares is divided by


@dataclasses.dataclass(frozen=True)
class Moments:
    """First and second moments of `count` feature vectors.

    Two of them are added: the moments of both sets together (Chan, Golub & LeVeque 1979), which sums squares about the
    mean and so loses no digits to features far from zero.

    Attributes:
      mean: of the features. scatter: the sum of outer products of features less their mean.
    """

    count: int
    mean: Float64[np.ndarray, "d"]
    scatter: Float64[np.ndarray, "d d"]

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        step = other.mean - self.mean
        return Moments(
            count,
            self.mean + step * (other.count / count),
            self.scatter + other.scatter + np.outer(step, step) * (self.count * other.count / count),
        )

    @functools.cached_property
    def root(self) -> Float64[np.ndarray, "d d"]:
        """The symmetric square root of the scatter; eigenvalues that rounding put below zero are zero."""
        values, vectors = np.linalg.eigh(self.scatter)
        return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T

    def divisor(self, estimator: Estimator) -> int:
        """What the scatter is divided by to be the covariance: N - 1 (unbiased), which a single vector has none of, or
        N.
        """
        divisor = {"N-1": self.count - 1, "N": self.count}[estimator]
        if divisor < 1:
            raise ValueError(f"A covariance over {estimator} needs 2 feature vectors; given {self.count}.")
        return divisor


def of(features: Float[np.ndarray, "n d"]) -> Moments:
    """The moments of one part.

    Raises:
      ValueError: it is empty or holds NaN or infinity.
    """
    if not len(features):
        raise ValueError("Moments need at least one feature vector.")
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(broken):
        raise ValueError(
            f"{len(broken)} of {len(features)} feature vectors hold NaN or infinity, the first in row {broken[0]}: an "
            "extractor gave them, from clips that it cannot read or with broken weights"
        )
    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    centred = features - mean
    return Moments(len(features), mean, centred.T @ centred)


def total(parts: Iterable[Moments]) -> Moments:
    """The moments of all parts together."""
    return functools.reduce(Moments.__add__, parts)
