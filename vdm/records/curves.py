"""Curves of several runs taken together: at what they share, and how far each arm's is above the best one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np

X = TypeVar("X", bound=float)
Arm = TypeVar("Arm")
Excess = list[tuple[float, float, float, float]]  # (x, lowest, mean, highest over seeds)


def together(curves: Iterable[Iterable[tuple[X, float]]]) -> dict[X, list[float]]:
    """x -> the value of every curve there, in their order, at what all of them have; x rises."""
    found = [dict(curve) for curve in curves]
    shared = sorted(set.intersection(*map(set, found))) if found else []
    return {x: [curve[x] for curve in found] for x in shared}


def excess(curves: Mapping[Arm, Mapping[int, Iterable[tuple[float, float]]]]) -> dict[Arm, Excess]:
    """How far every arm's curve is above that of the best arm there (the one with the lowest mean) in the same seed, so
    that what a seed does to both is no part of it.

    Args:
      curves: arm -> seed -> its curve. Left out are seeds that an arm lacks, and where a seed of the arm has no value.
    """
    seeds = sorted(set.intersection(*map(set, curves.values()))) if curves else []
    tables = {arm: together(of_arm[seed] for seed in seeds) for arm, of_arm in curves.items()}
    best: dict[float, list[float]] = {}
    for table in tables.values():
        for x, values in table.items():
            best[x] = min(best.get(x, values), values, key=np.mean)

    def row(x: float, values: list[float]) -> tuple[float, float, float, float]:
        apart = np.subtract(values, best[x])
        return x, float(apart.min()), float(apart.mean()), float(apart.max())

    return {arm: [row(x, values) for x, values in table.items()] for arm, table in tables.items()}
