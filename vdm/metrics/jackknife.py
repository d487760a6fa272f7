"""Standard errors of statistics that are no means, by leaving out groups (Efron & Tibshirani 1993, chapter 11).

Resampling with replacement would not do: repeated clips change what a Frechet or a kernel distance measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from scipy.special import stdtrit

NUM_GROUPS = 20
QUANTILE = float(stdtrit(NUM_GROUPS - 1, 0.975))  # standard errors on each side of a 95 % interval
Group = TypeVar("Group")


def groups(count: int) -> list[np.ndarray]:
    """The rows 0, ..., count - 1 dealt out to `NUM_GROUPS` groups as equal as can be, at random: clips often come class
    by class, or one of each class in turn.
    """
    if count < NUM_GROUPS:
        raise ValueError(f"A standard error needs at least {NUM_GROUPS} clips in both sets; given {count}.")
    return np.array_split(np.random.default_rng(0).permutation(count), NUM_GROUPS)


def standard_error(
    statistic: Callable[[Sequence[Group], Sequence[Group]], float], first: Sequence[Group], second: Sequence[Group]
) -> float:
    """Of `statistic(first, second)`, two independent samples given group by group.

    Groups of one sample are left out while the other stays whole; the two variances are added.
    """
    variance = 0.0
    for left_out in (
        [statistic(_without(first, i), second) for i in range(len(first))],
        [statistic(first, _without(second, i)) for i in range(len(second))],
    ):
        variance += (len(left_out) - 1) * float(np.var(left_out))
    return math.sqrt(variance)


def _without(groups: Sequence[Group], index: int) -> Sequence[Group]:
    return [*groups[:index], *groups[index + 1 :]]
