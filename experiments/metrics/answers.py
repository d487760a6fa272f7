"""What each metric says of each rung, with the error of its difference from the undistorted clips."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.metrics import grid
from vdm.metrics import frechet, jackknife, kernel

Features = Float[np.ndarray, "_ _ d"]  # clips, vectors of each
Sets = dict[str, Features]  # "reference", "undistorted" and a rung's name -> features
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
    first = {name: sets[name][:number] for name in ("reference", "undistorted", rung)}
    measure = _kernel if metric == "kvd" else _frechet
    value, floor = (measure(first[name], first["reference"]) for name in (rung, "undistorted"))
    error = _error_of_difference(measure, first[rung], first["undistorted"], first["reference"])
    answer = "above" if value - floor > max(ERRORS * error, ROUNDING * abs(floor)) else "floor"
    return {"value": value, "floor": floor, "difference": value - floor, "standard_error": error, "answer": answer}


def _error_of_difference(
    measure: Callable[[Features, Features], float], rung: Features, undistorted: Features, reference: Features
) -> float:
    """The same clips are on both sides of the difference, so they are left out together."""
    groups = jackknife.groups(len(reference))

    def difference(own: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
        some, others = np.concatenate(own), np.concatenate(theirs)
        return measure(rung[some], reference[others]) - measure(undistorted[some], reference[others])

    return jackknife.standard_error(difference, groups, groups)


def _frechet(first: Features, second: Features) -> float:
    return frechet.distance(frechet.of_clips(first), frechet.of_clips(second))


def _kernel(first: Features, second: Features) -> float:
    return kernel.discrepancy(first[:, 0], second[:, 0])
