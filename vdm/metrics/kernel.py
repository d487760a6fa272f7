"""The kernel distance between two sets of features: an unbiased estimate of a squared maximum mean discrepancy.

With the kernel (x . y / d + 1)^3 of KID (Binkowski et al. 2018) on the features of FVD it is KVD. Unlike a Frechet
distance it is zero on average, and sometimes negative, for two samples of one distribution, at any number of samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64

from vdm.metrics import jackknife

DEGREE = 3


@dataclasses.dataclass(frozen=True)
class KernelDistance:
    """The estimate, and how much it would vary with other samples of the same sizes; both without unit."""

    value: float
    standard_error: float


def discrepancy(first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "m e"]) -> float:
    """The unbiased squared discrepancy (Gretton et al. 2012, equation 3): no vector is compared with itself.

    Raises:
      ValueError: features of different lengths.
    """
    _require_same_length(first, second)
    n, m = len(first), len(second)
    within = [np.sum(_kernel(part, part)) - np.sum(_kernel_with_itself(part)) for part in (first, second)]
    across = np.sum(_kernel(first, second))
    return float(within[0] / (n * (n - 1)) + within[1] / (m * (m - 1)) - 2 * across / (n * m))


def distance(first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "m e"]) -> KernelDistance:
    """The discrepancy and its standard error, by leaving out groups, whose kernels are summed once.

    Raises:
      ValueError: features of different lengths, or too few vectors for a standard error.
    """
    _require_same_length(first, second)
    one, two = ([features[rows] for rows in jackknife.groups(len(features))] for features in (first, second))
    within_one, within_two, across = _sums(one, one), _sums(two, two), _sums(one, two)
    for within, parts in ((within_one, one), (within_two, two)):
        within[np.diag_indices(len(parts))] -= [np.sum(_kernel_with_itself(part)) for part in parts]
    size_one, size_two = (np.array([len(part) for part in parts]) for parts in (one, two))

    def statistic(rows: Sequence[int], columns: Sequence[int]) -> float:
        n, m = size_one[rows].sum(), size_two[columns].sum()
        return float(
            within_one[np.ix_(rows, rows)].sum() / (n * (n - 1))
            + within_two[np.ix_(columns, columns)].sum() / (m * (m - 1))
            - 2 * across[np.ix_(rows, columns)].sum() / (n * m)
        )

    every = list(range(jackknife.NUM_GROUPS))
    return KernelDistance(statistic(every, every), jackknife.standard_error(statistic, every, every))


def _require_same_length(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"Features of {first.shape[1]} and of {second.shape[1]} numbers have no distance: they come from different "
            "extractors."
        )


def _sums(rows: list[np.ndarray], columns: list[np.ndarray]) -> Float64[np.ndarray, "rows columns"]:
    """Sums of the kernel over all pairs between two groups, for every two groups; a group of rows at a time in
    memory."""
    starts = np.cumsum([0, *(len(column) for column in columns[:-1])])
    together = np.concatenate(columns)
    return np.array([np.add.reduceat(_kernel(row, together).sum(axis=0), starts) for row in rows])


def _kernel(one: Float[np.ndarray, "n d"], two: Float[np.ndarray, "m d"]) -> Float64[np.ndarray, "n m"]:
    return (one.astype(np.float64) @ two.astype(np.float64).T / one.shape[1] + 1) ** DEGREE


def _kernel_with_itself(features: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n"]:
    return (np.sum(features.astype(np.float64) ** 2, axis=1) / features.shape[1] + 1) ** DEGREE
