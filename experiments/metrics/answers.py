"""What each metric says of each rung, with the error of its difference from the undistorted clips."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.metrics import grid
from vdm.metrics import frechet, jackknife, kernel, moments

Features = Float[np.ndarray, "n d"]
Sets = dict[str, Features]  # "reference", "undistorted" and a rung's name -> features, clip by clip
ERRORS = 2.0  # standard errors from which on a difference is one
ROUNDING = 1e-9  # of the floor: what two orders of the same sum may differ by


def answers(metric: str, sets: Sets) -> list[dict[str, Any]]:
    """A row for every rung and number of clips: value, floor, their difference and its standard error, the answer."""
    rungs = [name for name in sets if name not in ("reference", "undistorted")]
    return [
        {"metric": metric, "rung": rung, "clips": number} | _answer(metric, sets, rung, number)
        for rung, number in itertools.product(rungs, grid.NUMBERS)
    ]


def _answer(metric: str, sets: Sets, rung: str, number: int) -> dict[str, Any]:
    per_clip = len(sets["reference"]) // grid.NUM_CLIPS  # vectors: one, or one for each frame
    first = {name: sets[name][: number * per_clip] for name in ("reference", "undistorted", rung)}
    measure = kernel.discrepancy if metric == "kvd" else _frechet
    value, floor = (measure(first[name], first["reference"]) for name in (rung, "undistorted"))
    error = _error_of_difference(measure, first[rung], first["undistorted"], first["reference"], per_clip)
    answer = "above" if value - floor > max(ERRORS * error, ROUNDING * abs(floor)) else "floor"
    return {"value": value, "floor": floor, "difference": value - floor, "standard_error": error, "answer": answer}


def _error_of_difference(
    measure: Callable[[Features, Features], float],
    rung: Features,
    undistorted: Features,
    reference: Features,
    per_clip: int,
) -> float:
    """The same clips are on both sides of the difference, so they are left out together."""
    rows = [_rows(group, per_clip) for group in jackknife.groups(len(reference) // per_clip)]

    def difference(own: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
        some, others = np.concatenate(own), np.concatenate(theirs)
        return measure(rung[some], reference[others]) - measure(undistorted[some], reference[others])

    return jackknife.standard_error(difference, rows, rows)


def _rows(clips: np.ndarray, per_clip: int) -> np.ndarray:
    return (clips[:, None] * per_clip + np.arange(per_clip)).reshape(-1)


def _frechet(first: Features, second: Features) -> float:
    return frechet.distance(moments.of(first), moments.of(second))
