"""Moving shapes: one coloured shape on a plain ground moves at constant velocity and bounces off the frame's borders.

The world is exact: a clip is a function of (seed, split, index) alone, its state is known (`Simulated.state`), and
`vdm.metrics.oracles` reads the state back from pixels. Coordinates are (x, y) in pixels, x to the right, y downwards,
the origin in the frame's top left corner; the centre of the pixel in row i and column j is (j + 1/2, i + 1/2).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from data.sources import Actions, Example

SQRT2, SQRT3 = math.sqrt(2), math.sqrt(3)
RENDERING = 1  # goes into the fingerprint; another number whenever the same state gives other pixels

# The outline of a shape of radius r as edges: the signed distance of (x, y) to each of them in pixels, negative inside.
# A shape is what lies inside all of its edges; its centroid is the origin, and it fits the square [-r, r]^2.
SHAPES: dict[str, Callable[..., tuple[Any, ...]]] = {
    "disk": lambda x, y, r: (np.sqrt(x * x + y * y) - r,),
    "square": lambda x, y, r: (np.abs(x) - r, np.abs(y) - r),
    "triangle": lambda x, y, r: (y - r / 2, (SQRT3 * x - y - r) / 2, (-SQRT3 * x - y - r) / 2),
    "diamond": lambda x, y, r: ((np.abs(x + y) - r) / SQRT2, (np.abs(x - y) - r) / SQRT2),
    "ring": lambda x, y, r: ((centre := np.sqrt(x * x + y * y)) - r, r / 2 - centre),
}

# 8-bit RGB. No channel is near 0 or 255, so that sensor noise is not cut off.
PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (224, 48, 48),
    "green": (48, 200, 64),
    "blue": (56, 88, 224),
    "yellow": (224, 208, 48),
    "magenta": (208, 48, 200),
    "cyan": (48, 200, 216),
    "orange": (224, 128, 32),
    "white": (224, 224, 224),
}

COMPASS = ("right", "up-right", "up", "up-left", "left", "down-left", "down", "down-right")  # every 45 degrees
TURNS = (0, 1, -1)  # action -> turn of the motion in units of 360 degrees / num_directions, counter-clockwise
CUE_SIZE = 2  # pixels, the side of the cue's square mark
CUE_COLOUR = "white"
MIN_RADIUS = 1.5  # pixels; smaller shapes look the same after anti-aliasing
MIN_CONTRAST = 0.5  # distance between a colour and the ground in RGB, each channel in [-1, 1]
NOISE_MARGIN = 4.0  # standard deviations of the sensor's noise that must fit between any level and the end of the range


@dataclasses.dataclass(frozen=True)
class World:
    """What is shown and how it moves. Impossible worlds are ValueErrors.

    Attributes:
      num_frames, height, width: of a clip.
      shapes: names from `SHAPES`; colours: names from `PALETTE`. The class is shape x colour.
      num_directions: of the first velocity, equally spaced, counter-clockwise on the screen, the first along +x.
      speeds: of the first velocity, pixels per frame.
      radius: pixels; a shape fills a square of side 2 radius, and its centre stays in [radius, size - radius].
      background: grey level of the ground in [-1, 1].
      noise: standard deviation of Gaussian noise on every pixel and channel, in units of [-1, 1].
      gravity: added to the downward velocity before every step, pixels per frame^2. The mean path then falls, so that
        clips played backwards are told from clips.
      trail: share of a frame's difference from the ground that is still there in the next frame, in [0, 1).
      cue: True: a mark in frame 0, top left (0) or top right (1), decides the last frame's object: 0 its own colour,
        1 white. Nothing between the two frames tells.
      action_probability: per frame after the first, that an action turns the motion by one direction step, left or
        right with equal probability. `actions[i]` (an index into `TURNS`) acts before the step to frame i.
    """

    num_frames: int
    height: int
    width: int
    shapes: tuple[str, ...] = ("disk", "square")
    colours: tuple[str, ...] = ("red", "green", "blue")
    num_directions: int = 8
    speeds: tuple[float, ...] = (1.0,)
    radius: float = 2.5
    background: float = -1.0
    noise: float = 0.0
    gravity: float = 0.0
    trail: float = 0.0
    cue: bool = False
    action_probability: float = 0.0

    def __post_init__(self):
        _check_names("shape", self.shapes, SHAPES)
        _check_names("colour", self.colours, PALETTE)
        self._check_motion()
        self._check_looks()

    def _check_motion(self):
        if min(self.num_frames, self.num_directions) < 1:
            raise ValueError(
                f"num_frames={self.num_frames} and num_directions={self.num_directions} must be at least 1."
            )
        travel = min(self.height, self.width) - 2 * self.radius
        if self.radius < MIN_RADIUS or travel <= 0:
            raise ValueError(
                f"radius={self.radius} does not fit: it must be at least {MIN_RADIUS} pixels, and a shape of "
                f"{2 * self.radius} pixels must be smaller than the frame of {self.height} x {self.width}."
            )
        if not self.speeds or min(self.speeds) <= 0 or max(self.speeds) > travel / 2:
            raise ValueError(
                f"speeds={self.speeds} must be one or more numbers in (0, {travel / 2}] pixels per frame: half the way "
                "between two walls, so that the velocity can be told from positions. Choose others or larger frames."
            )
        if abs(self.gravity) * self.num_frames + max(self.speeds) > travel:
            raise ValueError(
                f"gravity={self.gravity} over {self.num_frames} frames reaches steps longer than the way between two "
                f"walls ({travel} pixels): choose less."
            )
        if not 0 <= self.action_probability <= 1:
            raise ValueError(f"action_probability={self.action_probability} must be in [0, 1].")

    def _check_looks(self):
        if not 0 <= self.trail < 1:
            raise ValueError(f"trail={self.trail} must be in [0, 1).")
        if not -1 <= self.background <= 1:
            raise ValueError(f"background={self.background} must be a grey level in [-1, 1].")
        if self.cue and (CUE_COLOUR in self.colours or self.num_frames < 2):
            raise ValueError(f"A world with a cue needs two frames or more and no {CUE_COLOUR!r} among its colours.")
        shown = self.colours + ((CUE_COLOUR,) if self.cue else ())
        for name, colour in zip(shown, _levels(shown), strict=True):
            if np.linalg.norm(colour - self.background) < MIN_CONTRAST:
                raise ValueError(f"Colour {name!r} cannot be told from background={self.background}: change one.")
        extreme = max(abs(self.background), np.abs(_levels(shown)).max())
        if self.noise < 0 or (self.noise > 0 and extreme + NOISE_MARGIN * self.noise > 1):
            raise ValueError(
                f"noise={self.noise} must be in [0, {(1 - extreme) / NOISE_MARGIN:.3f}] for these colours and "
                f"background={self.background}: {NOISE_MARGIN} standard deviations must fit below 1 and above -1."
            )

    @property
    def rendering(self) -> str:
        return f"moving_shapes {RENDERING}"

    @property
    def num_channels(self) -> int:
        return 3

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class = shape index x number of colours + colour index."""
        return tuple(f"{colour} {shape}" for shape in self.shapes for colour in self.colours)

    def draw(self, split: str, rng: np.random.Generator) -> State:
        """Everything is uniform over what there is, the start over all that fits; splits differ in `rng` alone."""
        draws = rng.random(7).tolist()
        sizes = (len(self.shapes), len(self.colours), self.num_directions, len(self.speeds))
        shape, colour, direction, speed = (int(u * n) for u, n in zip(draws, sizes, strict=False))
        low, high = self.radius, (self.width - self.radius, self.height - self.radius)
        start = [low + u * (end - low) for u, end in zip(draws[4:6], high, strict=True)]
        actions = np.zeros(self.num_frames, np.int32)
        if self.action_probability:
            acts = rng.random(self.num_frames) < self.action_probability
            actions[1:] = np.where(acts, rng.integers(1, len(TURNS), self.num_frames), 0)[1:]
        angle = 2 * math.pi * direction / self.num_directions
        velocity = [self.speeds[speed] * math.cos(angle), -self.speeds[speed] * math.sin(angle)]
        positions, velocities = _move(self, start, velocity, actions.tolist())
        cue = int(draws[6] * 2) if self.cue else 0
        return State(positions, velocities, shape, colour, direction, self.speeds[speed], cue, actions)

    def show(self, state: State, rng: np.random.Generator) -> Example:
        """The clip; `rng` draws the sensor's noise."""
        label = np.int32(state.shape * len(self.colours) + state.colour)
        example = Example(video=_render(self, state, rng), label=label)
        if self.action_probability:
            example["actions"] = state.actions
        return example

    def caption(self, state: State) -> str:
        """Such as "a red disk moves up-left": the first direction, and the speed where there is more than one."""
        octant, rest = divmod(8 * state.direction, self.num_directions)
        way = f"at {360 * state.direction / self.num_directions:g} degrees" if rest else COMPASS[octant]
        speed = f" at {state.speed:g} pixels a frame" if len(self.speeds) > 1 else ""
        article = "an" if self.colours[state.colour][0] in "aeiou" else "a"
        return f"{article} {self.colours[state.colour]} {self.shapes[state.shape]} moves {way}{speed}"

    def coverage(self, shape: int, centres: Float[np.ndarray, "n 2"]) -> Float32[np.ndarray, "n height width"]:
        """The share of every pixel that a shape covers: exact for upright edges, to first order for others."""
        centres = centres.astype(np.float32)
        x = np.arange(0.5, self.width, dtype=np.float32) - centres[:, None, :1]
        y = np.arange(0.5, self.height, dtype=np.float32)[:, None] - centres[:, None, 1:]
        inside = np.float32(1)
        for distance in SHAPES[self.shapes[shape]](x, y, np.float32(self.radius)):
            inside = inside * np.minimum(np.maximum(np.float32(0.5) - distance, 0), 1)
        return np.asarray(inside)

    def oracle_facts(self) -> dict[str, Any]:
        """Keyword arguments of `vdm.metrics.oracles.ShapeOracle`. ValueError where velocity is not constant."""
        plain = dataclasses.replace(self, gravity=0.0, trail=0.0, cue=False, action_probability=0.0)
        if plain != self:
            raise ValueError(
                "The oracle judges constant velocity: it needs gravity=0, trail=0, cue=False and action_probability=0 "
                f"(given: {self.gravity}, {self.trail}, {self.cue}, {self.action_probability})."
            )
        return {
            "coverage": self.coverage,
            "shape_names": self.shapes,
            "colour_names": self.colours,
            "palette": _levels(self.colours),
            "background": self.background,
            "radius": self.radius,
            "speeds": self.speeds,
            "num_directions": self.num_directions,
            "height": self.height,
            "width": self.width,
        }


@dataclasses.dataclass(frozen=True)
class State:
    """The truth about a clip. `position` and `velocity` are (x, y), in every frame after the bounce that led to it."""

    position: Float64[np.ndarray, "frames 2"]
    velocity: Float64[np.ndarray, "frames 2"]
    shape: int
    colour: int
    direction: int
    speed: float
    cue: int
    actions: Actions


def _move(
    world: World, start: list[float], velocity: list[float], actions: list[int]
) -> tuple[Float64[np.ndarray, "frames 2"], Float64[np.ndarray, "frames 2"]]:
    """Steps of one frame: turn, fall, move, reflect. Plain floats: for so few numbers numpy would be slower."""
    walls = [(world.radius, world.width - world.radius), (world.radius, world.height - world.radius)]
    position = list(start)
    path = [(*position, *velocity)]
    for action in actions[1:]:
        if action:
            turn = 2 * math.pi * TURNS[action] / world.num_directions
            cos, sin = math.cos(turn), math.sin(turn)
            velocity = [cos * velocity[0] + sin * velocity[1], cos * velocity[1] - sin * velocity[0]]
        velocity = [velocity[0], velocity[1] + world.gravity]
        for axis, (low, high) in enumerate(walls):
            moved = position[axis] + velocity[axis]
            if moved < low or moved > high:
                moved = 2 * (low if moved < low else high) - moved
                velocity[axis] = -velocity[axis]
            position[axis] = moved
        path.append((*position, *velocity))
    both = np.array(path)
    return both[:, :2], both[:, 2:]


def _render(world: World, state: State, rng: np.random.Generator) -> UInt8[np.ndarray, "frames height width 3"]:
    coverage = world.coverage(state.shape, state.position)[..., None]
    ground = np.float32((world.background + 1) * 127.5)
    colour = np.array(PALETTE[world.colours[state.colour]], np.float32)
    if world.trail:
        video = np.empty((*coverage.shape[:3], 3), np.float32)
        behind = np.full(video.shape[1:], ground)
        for i in range(world.num_frames):
            video[i] = behind + coverage[i] * (colour - behind)
            behind = ground + np.float32(world.trail) * (video[i] - ground)
    else:
        video = coverage * (colour - ground) + ground
    if world.cue:
        white = np.array(PALETTE[CUE_COLOUR], np.float32)
        video[0, :CUE_SIZE, slice(-CUE_SIZE, None) if state.cue else slice(CUE_SIZE)] = white
        if state.cue:
            video[-1] += coverage[-1] * (white - colour)
    if world.noise:
        video += rng.standard_normal(video.shape, np.float32) * np.float32(world.noise * 127.5)
        video = np.minimum(np.maximum(video, 0), 255)
    return (video + np.float32(0.5)).astype(np.uint8)


def _levels(colours: tuple[str, ...]) -> Float64[np.ndarray, "colours 3"]:
    return np.array([PALETTE[name] for name in colours]) / 127.5 - 1


def _check_names(what: str, given: tuple[str, ...], table: dict[str, Any]):
    unknown = [name for name in given if name not in table]
    if unknown or not given or len(set(given)) < len(given):
        raise ValueError(f"A world needs different {what}s of {sorted(table)}; given: {tuple(given)}.")
