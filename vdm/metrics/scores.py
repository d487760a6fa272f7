"""Scores of a set of samples against a set of the data, with what they are worth.

A distance between two sets of clips says little by itself: beside it stand its interval (how much other samples of the
same number would change it), its floor (the same distance between clips of the data and as many others of them), and,
for a Frechet distance, what it falls to as the number grows.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from vdm.metrics import frechet, inception_score, jackknife, kernel, moments
from vdm.metrics.frechet import BiasCurve
from vdm.metrics.moments import Estimator

NORMAL_QUANTILE = 1.959964  # of a 95 % interval

Features = Float[np.ndarray, "n d"]


@dataclasses.dataclass(frozen=True)
class Score:
    """One number and what it is worth.

    Attributes:
      low, high: of the 95 % interval over samples.
      floor: the same number for clips of the data in place of samples; None where it has no meaning.
      curve: how the number falls with the number of samples; None where it does not.
    """

    value: float
    low: float
    high: float
    floor: float | None
    curve: BiasCurve | None


@runtime_checkable
class Distance(Protocol):
    """Compares features of samples with those of the data."""

    @property
    def higher_is_better(self) -> bool: ...

    def score(self, samples: list[Features], real: Features, other_real: Features, seed: int) -> Score:
        """The score, averaged over independent sets of samples.

        Args:
          samples: a set for each repeat.
          real: clips that the samples are held against; other_real: as many others, for the floor.
          seed: of random subsets.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Frechet:
    """See `metrics.frechet`."""

    estimator: Estimator
    higher_is_better: bool = False

    def score(self, samples: list[Features], real: Features, other_real: Features, seed: int) -> Score:
        values = [self._distance(features, real) for features in samples]
        errors = [frechet.standard_error(features, real, self.estimator) for features in samples]
        curve = frechet.bias_curve(samples[0], real, seed, self.estimator)
        return _score(values, errors, self._distance(other_real, real), curve)

    def _distance(self, first: Features, second: Features) -> float:
        return frechet.distance(moments.of(first), moments.of(second), self.estimator)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """See `metrics.kernel`."""

    higher_is_better: bool = False

    def score(self, samples: list[Features], real: Features, other_real: Features, seed: int) -> Score:
        found = [kernel.distance(features, real) for features in samples]
        floor = kernel.distance(other_real, real).value
        return _score([one.value for one in found], [one.standard_error for one in found], floor, None)


@dataclasses.dataclass(frozen=True)
class InceptionScore:
    """See `metrics.inception_score`. The features are logits; the floor is the data's own score, a ceiling here."""

    num_splits: int = 10
    higher_is_better: bool = True

    def score(self, samples: list[Features], real: Features, other_real: Features, seed: int) -> Score:
        found = [inception_score.inception_score(logits, self.num_splits) for logits in samples]
        errors = [std / np.sqrt(self.num_splits) for _, std in found]
        own = inception_score.inception_score(real, self.num_splits)[0]
        return _score([value for value, _ in found], errors, own, None)


def _score(values: list[float], errors: list[float], floor: float, curve: BiasCurve | None) -> Score:
    """Repeats share the clips of the data, so their errors are not independent: the interval stays that of one set."""
    value, half = float(np.mean(values)), NORMAL_QUANTILE * float(np.mean(errors))
    return Score(value, value - half, value + half, floor, curve)


MIN_CLIPS = jackknife.NUM_GROUPS  # of each set
