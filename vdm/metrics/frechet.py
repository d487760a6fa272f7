"""The Frechet distance between two sets of features, seen as Gaussians, and what it is worth.

d^2 = |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2))  (Dowson & Landau 1982; FID: Heusel et al. 2017; FVD:
Unterthiner et al. 2018). The last trace is the sum of the singular values of C1^(1/2) C2^(1/2), whose factors come
from symmetric eigenvalues: nothing is complex, and fewer vectors than dimensions are no special case.

The distance between samples is larger than between what they were drawn from, by about a constant over N where N is
well above the number of dimensions: a distance means nothing without its N and its floor, the distance between two
sets of real clips of that N.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vdm.metrics import jackknife, moments
from vdm.metrics.moments import Estimator, Moments

SIZES = 5  # of the bias curve: N, and so many equal steps in 1/N, down to N/2
REPEATS = 8  # subsets of each size
MAX_FEATURES = 4096  # of a vector, as C3D gives: a matrix of their square takes 134 MB, an interval 40 of them
MIN_CLIPS_PER_DIMENSION = 2  # in the smallest subset, for a straight line in 1/N


def distance(first: Moments, second: Moments, estimator: Estimator = "N-1") -> float:
    """The squared Frechet distance, as FID and FVD are reported: in squared units of the features.

    Raises:
      ValueError: features of different lengths, or too few vectors for the estimator.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            f"Features of {len(first.mean)} and of {len(second.mean)} numbers have no distance: they come from "
            "different extractors."
        )
    one, two = first.divisor(estimator), second.divisor(estimator)
    shared = np.linalg.norm(first.root @ second.root, ord="nuc") / math.sqrt(one * two)
    traces = np.trace(first.scatter) / one + np.trace(second.scatter) / two
    return float(np.sum((first.mean - second.mean) ** 2) + traces - 2 * shared)


def standard_error(
    first: Float[np.ndarray, "n vectors d"], second: Float[np.ndarray, "m vectors d"], estimator: Estimator = "N-1"
) -> float:
    """How much the distance would vary with other clips, as many, by a jackknife that leaves out groups of them; the
    vectors of a clip (its frames', say) are not independent, and go together.
    """
    return jackknife.standard_error(
        lambda one, two: distance(moments.total(one), moments.total(two), estimator),
        [of_clips(first[rows]) for rows in jackknife.groups(len(first))],
        [of_clips(second[rows]) for rows in jackknife.groups(len(second))],
    )


def of_clips(features: Float[np.ndarray, "clips vectors d"]) -> Moments:
    """The moments of all vectors of clips."""
    return moments.of(features.reshape(-1, features.shape[-1]))


@dataclasses.dataclass(frozen=True)
class BiasCurve:
    """How the distance falls with the number of clips.

    Attributes:
      sizes: numbers of clips, of both sets alike, falling.
      means: of the distance over subsets of that size.
      at_infinity: where the straight line through `means` against 1/size meets zero (Chong & Forsyth 2020); None where
        the smallest subset has too few clips for its dimensions and the curve is no line.
    """

    sizes: tuple[int, ...]
    means: tuple[float, ...]
    at_infinity: float | None


def bias_curve(
    first: Float[np.ndarray, "n vectors d"],
    second: Float[np.ndarray, "m vectors d"],
    seed: int,
    estimator: Estimator = "N-1",
) -> BiasCurve:
    """Distances between random subsets of as many clips of both sets, drawn without replacement.

    Sizes go from the smaller set's down to half of it.
    """
    largest = min(len(first), len(second))
    if largest < 4:
        raise ValueError(f"A bias curve needs at least 4 clips in both sets; given {len(first)} and {len(second)}.")
    sizes = [round(largest / (1 + step / (SIZES - 1))) for step in range(SIZES)]
    generator = np.random.default_rng(seed)

    def once(size: int) -> float:
        one, two = (features[generator.permutation(len(features))[:size]] for features in (first, second))
        return distance(of_clips(one), of_clips(two), estimator)

    def mean(size: int) -> float:
        is_whole = len(first) == len(second) == size  # all its subsets are one
        return float(np.mean([once(size) for _ in range(1 if is_whole else REPEATS)]))

    means = [mean(size) for size in sizes]
    straight = sizes[-1] >= MIN_CLIPS_PER_DIMENSION * first.shape[-1]
    return BiasCurve(tuple(sizes), tuple(means), _intercept(sizes, means) if straight else None)


def _intercept(sizes: Sequence[int], means: Sequence[float]) -> float:
    return float(np.polynomial.polynomial.polyfit(1 / np.asarray(sizes), np.asarray(means), deg=1)[0])
