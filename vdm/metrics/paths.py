"""Paths of constant velocity that reflect at walls, fitted to positions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

POSITION_STEP = 0.35  # pixels: how far the nearest start of the search may be from the best path, per axis
NUM_CANDIDATES = 8  # starts that are refined
NUM_REFINEMENTS = 10
CLIPS_AT_A_TIME = 64  # bounds the memory of the search


def reflect(position: Float[np.ndarray, "*n"], length: float) -> Float64[np.ndarray, "*n"]:
    """Folds the whole line onto [0, length] as two mirrors would: a triangle wave of period 2 length."""
    return length - np.abs(np.mod(position, 2 * length) - length)


def fit_reflecting_path(
    position: Float[np.ndarray, "clips frames 2"],
    low: Float[np.ndarray, "2"],
    high: Float[np.ndarray, "2"],
    max_speed: float,
) -> tuple[Float64[np.ndarray, "clips 2"], Float64[np.ndarray, "clips 2"], Float64[np.ndarray, "clips frames 2"]]:
    """Least-squares fit of reflect(start + velocity t), t = 0, 1, ..., between walls at `low` and `high`, axis by axis.

    A grid over (start, velocity) finds the basin, then each step unfolds the positions along the current path and fits
    a line. Reflection never lengthens distances, so no step makes the fit worse. Searched: |velocity| <= `max_speed`
    per axis; beyond high - low a velocity is another's alias.

    Returns:
      start: in frame 0, between the walls. velocity: leaving it, pixels per frame. path: the fitted positions.
    """
    num_frames = position.shape[1]
    start, velocity, path = np.empty((len(position), 2)), np.empty((len(position), 2)), np.empty(position.shape)
    for axis in range(2):
        length = float(high[axis] - low[axis])
        search = _grid(length, min(max_speed, length), num_frames)
        for first in range(0, len(position), CLIPS_AT_A_TIME):
            some = slice(first, first + CLIPS_AT_A_TIME)
            start[some, axis], velocity[some, axis] = _fit_axis(position[some, :, axis] - low[axis], length, *search)
        path[..., axis] = low[axis] + reflect(
            start[:, axis, None] + velocity[:, axis, None] * np.arange(num_frames), length
        )
    return start + low, velocity, path


def _grid(length: float, max_speed: float, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and velocities, [grid] each, so dense that a path between two of them is nowhere far from both."""
    velocity_step = 2 * POSITION_STEP / max(num_frames - 1, 1)
    starts = np.linspace(0, length, 2 + int(length / (2 * POSITION_STEP)))
    velocities = np.linspace(-max_speed, max_speed, 3 + 2 * int(max_speed / velocity_step))
    both = np.meshgrid(starts, velocities, indexing="ij")
    return both[0].ravel(), both[1].ravel()


def _fit_axis(
    position: np.ndarray, length: float, starts: np.ndarray, velocities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """position [clips, frames] between walls at 0 and `length` -> start [clips], velocity [clips]."""
    times = np.arange(position.shape[1])
    paths = reflect(starts[:, None] + velocities[:, None] * times, length)
    errors = np.sum(paths**2, -1) - 2 * position @ paths.T
    best = np.argpartition(errors, min(NUM_CANDIDATES, len(starts) - 1), axis=1)[:, :NUM_CANDIDATES]
    start, velocity = starts[best], velocities[best]
    centred = times - times.mean()
    for _ in range(NUM_REFINEMENTS):
        wall = np.floor((start[..., None] + velocity[..., None] * times) / length)
        odd = np.mod(wall, 2)
        line = (wall + odd) * length + (1 - 2 * odd) * position[:, None]
        velocity = line @ centred / np.sum(centred**2)
        start = line.mean(-1) - velocity * times.mean()
    fitted = reflect(start[..., None] + velocity[..., None] * times, length)
    choice = np.argmin(np.sum((fitted - position[:, None]) ** 2, -1), axis=1)[:, None]
    start = np.take_along_axis(start, choice, 1)[:, 0]
    velocity = np.take_along_axis(velocity, choice, 1)[:, 0]
    # A start beyond a wall is the mirror image of one between the walls, with the opposite velocity.
    mirrored = np.mod(np.floor(start / length), 2) == 1
    return reflect(start, length), np.where(mirrored, -velocity, velocity)
