"""What held-out clips cost by the world that they are from: no network can do with fewer bits on average.

A world with sensor noise gives a clip with a probability that is known: its pixels are independent around the clean
picture, which is a function of the object, its direction and where it starts. Of the sum over objects and directions
the true one is taken: another explains such a clip within a few hundredths of a pixel of a wall at most. The integral
over the start is taken on a grid around the true one.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float, UInt8
from scipy.special import ndtr

from data.sources.moving_shapes import PALETTE, State, World
from data.sources.simulated import Simulated

_HALF_WIDTH, _POINTS = 8.0, 33  # of the grid along each axis: standard deviations of the start, given the clip
_STEP = 1e-3  # pixels, of the derivative that the standard deviation is taken from


def bits_per_dim(source: Simulated, count: int) -> Float[np.ndarray, "count"]:
    """-log2 of the probability of the first 8-bit clips of a split, per pixel and channel."""
    world = source.world
    assert isinstance(world, World)
    if not world.noise:
        raise ValueError("a world without sensor noise has no entropy that is known: set data.moving_shapes.noise")
    plain = dataclasses.replace(world, gravity=0.0, trail=0.0, cue=False, action_probability=0.0)
    if plain != world:
        raise ValueError("the entropy is that of plain motion: gravity, trail, cue and actions must be off")
    return np.array([_of_clip(world, source.state(index), source[index]["video"]) for index in range(count)])


def _of_clip(world: World, state: State, video: UInt8[np.ndarray, "..."]) -> float:
    start = state.position[0]
    low, high = world.radius, np.array([world.width, world.height]) - world.radius
    spread = _posterior_std(world, state)
    offsets = np.linspace(-_HALF_WIDTH, _HALF_WIDTH, _POINTS)
    cell = float(np.prod(spread * (offsets[1] - offsets[0])))
    grid = start + spread * np.stack(np.meshgrid(offsets, offsets, indexing="ij"), axis=-1).reshape(-1, 2)
    grid = grid[((grid >= low) & (grid <= high)).all(axis=1)]
    log_prob = np.array([_log_prob(world, clean(world, state, one), video) for one in grid])
    largest = log_prob.max()
    integral = largest + math.log(np.exp(log_prob - largest).sum() * cell)
    choices = len(world.shapes) * len(world.colours) * world.num_directions * len(world.speeds)
    nats = -(integral - math.log(float(np.prod(high - low))) - math.log(choices))
    return nats / math.log(2) / video.size


def clean(world: World, state: State, start: Float[np.ndarray, "2"]) -> Float[np.ndarray, "frames height width 3"]:
    """The picture without noise, in 8-bit levels, of the state's object from another start."""
    low, high = world.radius, np.array([world.width, world.height]) - world.radius
    straight = start - low + _first_velocity(world, state) * np.arange(world.num_frames)[:, None]
    length = high - low
    folded = straight % (2 * length)
    position = low + np.minimum(folded, 2 * length - folded)  # a reflection at each wall
    coverage = world.coverage(state.shape, position)[..., None].astype(np.float64)
    ground = (world.background + 1) * 127.5
    return ground + coverage * (np.array(PALETTE[world.colours[state.colour]]) - ground)


def _first_velocity(world: World, state: State) -> Float[np.ndarray, "2"]:
    angle = 2 * math.pi * state.direction / world.num_directions
    return state.speed * np.array([math.cos(angle), -math.sin(angle)])


def _log_prob(world: World, mean: Float[np.ndarray, "..."], video: UInt8[np.ndarray, "..."]) -> float:
    """Of the 8-bit levels that rounding and the ends of the range make of normal noise."""
    std = world.noise * 127.5
    upper = np.where(video == 255, np.inf, (video + 0.5 - mean) / std)
    lower = np.where(video == 0, -np.inf, (video - 0.5 - mean) / std)
    flip = lower > 0  # the tail in which both are far from one
    return float(np.log(np.where(flip, ndtr(-lower) - ndtr(-upper), ndtr(upper) - ndtr(lower))).sum())


def _posterior_std(world: World, state: State) -> Float[np.ndarray, "2"]:
    """Of the start along each axis, were the other one known: from the change of the clean clip with it."""
    start, middle = state.position[0], np.array([world.width, world.height]) / 2
    inwards = np.where(start < middle, _STEP, -_STEP)  # away from the walls, at which a clip changes its course
    slopes = [(clean(world, state, start + step) - clean(world, state, start)) / _STEP for step in np.diag(inwards)]
    return np.array([world.noise * 127.5 / np.sqrt((slope**2).sum()) for slope in slopes])
