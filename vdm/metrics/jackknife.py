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
    return spread(
        [statistic(without(first, i), second) for i in range(len(first))],
        [statistic(first, without(second, i)) for i in range(len(second))],
    )


def spread(*left_out: Sequence[float]) -> float:
    """The standard error, from the statistic with each group of a sample left out, sample by sample."""
    return math.sqrt(sum((len(values) - 1) * float(np.var(values)) for values in left_out))


def without(groups: Sequence[Group], index: int) -> Sequence[Group]:
    return [*groups[:index], *groups[index + 1 :]]
