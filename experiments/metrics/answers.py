"""What each metric says of each rung, with the error of its difference from the undistorted clips."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.metrics import grid
from vdm.metrics import frechet, jackknife, kernel, moments
from vdm.metrics.moments import Moments

Features = Float[np.ndarray, "_ _ d"]  # clips, vectors of each
Sets = dict[str, Features]  # "reference", "undistorted" and a rung's name -> features
ERRORS = 2.0  # standard errors from which on a difference is one
ROUNDING = 1e-9  # of the floor: what two orders of the same sum may differ by


@dataclasses.dataclass(frozen=True)
class Distances:
    """Of a set from the reference: of all clips, and with each group of clips of either set left out."""

    whole: float
    without_own: Float[np.ndarray, "groups"]
    without_reference: Float[np.ndarray, "groups"]


def answers(metric: str, sets: Sets) -> list[dict[str, Any]]:
    """A row for every rung and number of clips: value, floor, their difference and its standard error, the answer."""
    rungs = [name for name in sets if name not in ("reference", "undistorted")]
    distances = _kernel if metric == "kvd" else _frechet
    rows = {}
    for number in grid.NUMBERS:
        reference = sets["reference"][:number]
        undistorted = distances(sets["undistorted"][:number], reference)
        rows |= {(rung, number): _answer(distances(sets[rung][:number], reference), undistorted) for rung in rungs}
    return [
        {"metric": metric, "rung": rung, "clips": number} | rows[rung, number]
        for rung, number in itertools.product(rungs, grid.NUMBERS)
    ]


def _answer(rung: Distances, undistorted: Distances) -> dict[str, Any]:
    difference = rung.whole - undistorted.whole
    # the same clips are on both sides of the difference, so they are left out together
    error = jackknife.spread(
        list(rung.without_own - undistorted.without_own), list(rung.without_reference - undistorted.without_reference)
    )
    answer = "above" if difference > max(ERRORS * error, ROUNDING * abs(undistorted.whole)) else "floor"
    return {
        "value": rung.whole,
        "floor": undistorted.whole,
        "difference": difference,
        "standard_error": error,
        "answer": answer,
    }


def _frechet(features: Features, reference: Features) -> Distances:
    first, second = (_left_out(moved) for moved in _in_their_span(features, reference))
    return Distances(
        frechet.distance(first[0], second[0]),
        np.array([frechet.distance(one, second[0]) for one in first[1:]]),
        np.array([frechet.distance(first[0], one) for one in second[1:]]),
    )


def _in_their_span(features: Features, reference: Features) -> tuple[Features, Features]:
    """Both sets in coordinates of the space that all their vectors span, in which no distance changes: with fewer
    vectors than dimensions matrices are smaller there.
    """
    vectors = np.concatenate([features, reference]).reshape(-1, features.shape[-1]).astype(np.float64)
    if len(vectors) >= vectors.shape[1]:
        return features, reference
    basis = np.linalg.qr(vectors.T)[0]
    return features @ basis, reference @ basis


def _left_out(features: Features) -> list[Moments]:
    """The moments of all clips, and those without each group."""
    parts = [frechet.of_clips(features[rows]) for rows in jackknife.groups(len(features))]
    return [moments.total(parts), *(moments.total(jackknife.without(parts, i)) for i in range(len(parts)))]


def _kernel(features: Features, reference: Features) -> Distances:
    groups = jackknife.groups(len(reference))
    everyone = np.arange(len(reference))
    others = [np.concatenate(jackknife.without(groups, i)) for i in range(len(groups))]

    def between(some: np.ndarray, these: np.ndarray) -> float:
        return kernel.discrepancy(features[some, 0], reference[these, 0])

    return Distances(
        between(everyone, everyone),
        np.array([between(rows, everyone) for rows in others]),
        np.array([between(everyone, rows) for rows in others]),
    )
