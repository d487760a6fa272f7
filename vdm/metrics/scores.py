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
from scipy.special import stdtrit

from vdm.metrics import frechet, inception_score, jackknife, kernel
from vdm.metrics.frechet import BiasCurve
from vdm.metrics.moments import Estimator

Features = Float[np.ndarray, "_ _ d"]  # clips, and of each one vector or one of each of its frames


@dataclasses.dataclass(frozen=True)
class Score:
    """One number and what it is worth.

    Attributes:
      low, high: of the 95 % interval over samples.
      floor: the same number for as many clips of the data in place of samples; None where there are not so many.
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

    def score(self, samples: list[Features], real: Features, others: Features | None, seed: int) -> Score:
        """The score, averaged over independent sets of samples.

        Args:
          samples: a set for each repeat.
          real: clips that the samples are held against; others: as many more as there are samples, for the floor.
          seed: of random subsets.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Frechet:
    """See `metrics.frechet`."""

    estimator: Estimator
    higher_is_better: bool = False

    def score(self, samples: list[Features], real: Features, others: Features | None, seed: int) -> Score:
        values = [self._distance(features, real) for features in samples]
        halves = [jackknife.QUANTILE * frechet.standard_error(features, real, self.estimator) for features in samples]
        curve = frechet.bias_curve(samples[0], real, seed, self.estimator)
        return _score(values, halves, None if others is None else self._distance(others, real), curve)

    def _distance(self, first: Features, second: Features) -> float:
        return frechet.distance(frechet.of_clips(first), frechet.of_clips(second), self.estimator)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """See `metrics.kernel`."""

    higher_is_better: bool = False

    def score(self, samples: list[Features], real: Features, others: Features | None, seed: int) -> Score:
        if real.shape[1] > 1:
            raise ValueError("a kernel distance compares independent vectors, one a clip; frames of one clip are not")
        found = [kernel.distance(features[:, 0], real[:, 0]) for features in samples]
        halves = [jackknife.QUANTILE * one.standard_error for one in found]
        floor = None if others is None else kernel.discrepancy(others[:, 0], real[:, 0])
        return _score([one.value for one in found], halves, floor, None)


@dataclasses.dataclass(frozen=True)
class InceptionScore:
    """See `metrics.inception_score`. The features are logits; the floor, a score of the data, is a ceiling here."""

    num_splits: int = 10
    higher_is_better: bool = True

    def score(self, samples: list[Features], real: Features, others: Features | None, seed: int) -> Score:
        found = [self._score(logits) for logits in samples]
        quantile = float(stdtrit(self.num_splits - 1, 0.975))
        # over the parts, whose standard deviation is reported over N
        halves = [quantile * std / np.sqrt(self.num_splits - 1) for _, std in found]
        floor = None if others is None else self._score(others)[0]  # it grows with the number of clips
        return _score([value for value, _ in found], halves, floor, None)

    def _score(self, logits: Features) -> tuple[float, float]:
        return inception_score.inception_score(logits.reshape(-1, logits.shape[-1]), self.num_splits)


def _score(values: list[float], halves: list[float], floor: float | None, curve: BiasCurve | None) -> Score:
    """Repeats share the clips of the data, so their errors are not independent: the interval stays that of one set."""
    value, half = float(np.mean(values)), float(np.mean(halves))
    return Score(value, value - half, value + half, floor, curve)


MIN_CLIPS = jackknife.NUM_GROUPS  # of each set
