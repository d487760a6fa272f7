"""Is the difference between two arms more than chance? Intervals of proportions and means, and the verdict they give.

Arms of a comparison draw their samples from the same noise, so sample i of one arm is paired with sample i of the
other, and what the two share cancels in the difference. The intervals speak of the samples of these trained networks;
they do not know how much another seed of training would change: only `mean_of_few`, over seeds, does. Where several
pairs are shown, `holm` keeps the chance of any false separation at 5 %.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
NUM_BLOCKS, RESAMPLES_PER_BLOCK = 100, 40  # of the bootstrap; a block bounds its memory

Verdict = Literal["separated", "not separated"]


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate with the limits of its confidence interval, low <= estimate <= high, all in the estimate's unit."""

    estimate: float
    low: float
    high: float

    @property
    def is_tie(self) -> bool:
        """Of values that are all equal, which say nothing of how much others would stray."""
        return self.low == self.high

    def limits(self, show: Callable[[float], str]) -> str:
        """The limits in words."""
        return "all equal" if self.is_tie else f"{show(self.low)} to {show(self.high)}"

    def __post_init__(self) -> None:
        if not self.low <= self.estimate <= self.high:
            raise ValueError(
                f"An interval needs low <= estimate <= high, finite; given {self.low}, {self.estimate}, {self.high}."
            )


def verdict(difference: Interval) -> Verdict:
    """`separated` where the interval of a difference leaves zero out.

    `not separated` says that so few runs cannot tell, not that the arms are equal.
    """
    return "not separated" if difference.is_tie or difference.low <= 0.0 <= difference.high else "separated"


def proportion(successes: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a binomial proportion (method 3 of Newcombe 1998, Statist. Med. 17:857-872)."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(
            f"A proportion needs 0 <= successes <= trials and at least one trial; given {successes} of {trials}."
        )
    z, p = _normal_quantile(confidence), successes / trials
    centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    # At 0 and 1 the limit equals the estimate in exact arithmetic; rounding must not put it on the other side.
    return Interval(p, min(centre - half, p), max(centre + half, p))


def paired_proportion_difference(
    first: Bool[np.ndarray, " samples"], second: Bool[np.ndarray, " samples"], confidence: float = CONFIDENCE
) -> Interval:
    """The share of successes of `first` minus that of `second`, where sample i of both comes from the same noise.

    Newcombe's square-and-add interval with the correlation of the pairs, shrunk where it is positive (method 10 of
    Newcombe 1998, Statistics in Medicine 17:2635-2650).
    """
    num = len(first)
    one, two = proportion(int(first.sum()), num, confidence), proportion(int(second.sum()), num, confidence)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_one, only_two = int((first & ~second).sum()), int((~first & second).sum())
    product = float(first.sum()) * float((~first).sum()) * float(second.sum()) * float((~second).sum())
    covariance = both * neither - only_one * only_two
    if covariance > 0:
        covariance = max(covariance - num / 2, 0)
    # An arm that always or never succeeds carries no correlation.
    correlation = covariance / math.sqrt(product) if product else 0.0
    below = _square_and_add(one.estimate - one.low, two.high - two.estimate, correlation)
    above = _square_and_add(one.high - one.estimate, two.estimate - two.low, correlation)
    difference = one.estimate - two.estimate
    return Interval(difference, difference - below, difference + above)


def mean(values: Float[np.ndarray, " samples"], seed: int, confidence: float = CONFIDENCE) -> Interval:
    """The mean with its percentile bootstrap interval.

    The resamples are a function of `seed` and of the number of values alone.
    """
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(
            f"A bootstrap needs at least 2 values, all finite; given {len(values)}, "
            f"{int((~np.isfinite(values)).sum())} not finite."
        )
    values = values.astype(np.float64)
    generator = np.random.default_rng(seed)
    shape = (RESAMPLES_PER_BLOCK, len(values))
    means = [values[generator.integers(len(values), size=shape)].mean(axis=1) for _ in range(NUM_BLOCKS)]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    estimate = float(values.mean())
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate))


def mean_of_few(values: Float[np.ndarray, " values"], confidence: float = CONFIDENCE) -> Interval:
    """The mean with Student's interval, for a handful of values that are about normal, such as one per seed.

    Values that are all equal have none: its limits are the mean (`Interval.is_tie`).
    """
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"An interval of a mean needs at least 2 values, all finite; given {values.tolist()}.")
    estimate = float(values.mean())
    half = float(stdtrit(len(values) - 1, _upper(confidence)) * values.std(ddof=1)) / math.sqrt(len(values))
    half = 0.0 if _are_ties(values[None])[0] else half
    return Interval(estimate, estimate - half, estimate + half)


def p_values_of_few(values: Float[np.ndarray, "pairs seeds"]) -> Float[np.ndarray, "pairs"]:
    """Of each row: the chance that values whose mean is zero stray this far or further (Student's test, two-sided)."""
    num = values.shape[-1]
    if num < 2 or not np.isfinite(values).all():
        raise ValueError(f"A test of a mean needs at least 2 values, all finite; given {values.tolist()}.")
    mean, error = values.mean(axis=-1), values.std(axis=-1, ddof=1) / math.sqrt(num)
    # equal values say nothing of how much others would stray: the results may be coarse, such as shares of few samples
    distance = np.divide(np.abs(mean), error, out=np.zeros_like(mean), where=~_are_ties(values))
    return 2 * stdtr(num - 1, -distance)


def correlation(one: Float[np.ndarray, " values"], two: Float[np.ndarray, " values"]) -> float | None:
    """Pearson's, of values in pairs; None for fewer than 3 pairs, or where one side does not vary."""
    if len(one) < 3 or not one.std() or not two.std():
        return None
    return float(np.corrcoef(one, two)[0, 1])


def holm(p_values: Sequence[float] | Float[np.ndarray, " pairs"]) -> tuple[float, ...]:
    """Each p-value corrected for all of them (Holm 1979), whatever their dependence.

    Calling those at or below 5 % real is wrong anywhere in at most 5 % of studies.
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, np.float64)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return tuple(corrected.tolist())


def pixel_correlation(
    first: UInt8[np.ndarray, "clips frames height width channels"],
    second: UInt8[np.ndarray, "clips frames height width channels"],
) -> Float[np.ndarray, " clips"]:
    """Pearson's correlation over all values of a clip, in [-1, 1], clip i of `first` with clip i of `second`.

    NaN where a clip is constant.
    """
    one, two = (rearrange(clips.astype(np.float64), "n f h w c -> n (f h w c)") for clips in (first, second))
    one, two = one - one.mean(axis=1, keepdims=True), two - two.mean(axis=1, keepdims=True)
    scale = np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
    return np.divide((one * two).sum(axis=1), scale, out=np.full(len(one), np.nan), where=scale > 0)


def _are_ties(values: Float[np.ndarray, "rows values"]) -> Bool[np.ndarray, "rows"]:
    """Whether a row's values are equal but for rounding: 0.3 - 0.2 is not 0.2 - 0.1 to the last bit."""
    return np.ptp(values, axis=-1) <= 1e-9 * np.abs(values).max(axis=-1)


def _normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(_upper(confidence))


def _upper(confidence: float) -> float:
    """The probability below the upper limit of an interval that is symmetric in probability."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"A confidence lies between 0 and 1 (0.95 is usual); given {confidence}.")
    return (1 + confidence) / 2


def _square_and_add(one: float, two: float, correlation: float) -> float:
    # The sum of squares is a variance's, at least (one - two)^2: only rounding can bring it below zero.
    return math.sqrt(max(one**2 - 2 * correlation * one * two + two**2, 0.0))
