"""An oracle for moving shapes: reads position, velocity, shape and colour back from pixels and judges clips.

A clip is valid when it shows one object in all frames, of the right mass, in one colour, on a path of constant velocity
that reflects at the walls, at an allowed speed. The oracle takes plain numbers and one callable: it knows no data set.
Coordinates are (x, y) in pixels, x to the right, y downwards; the centre of the pixel in row i and column j is
(j + 1/2, i + 1/2).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Shaped
from scipy import ndimage
from scipy.special import bdtr

from vdm.metrics.paths import fit_reflecting_path

OBJECT_LEVEL = 0.3  # share of the full contrast from which on a pixel belongs to an object
COLOUR_SHARE = 0.8  # of an object's energy that its colour must explain
MASS_TOLERANCE = 0.2  # relative, in every frame
PATH_TOLERANCE = 0.5  # pixels, root mean square distance between centroids and path
SPEED_TOLERANCE = 0.15  # relative
SPEED_SEARCH = 2.0  # times the fastest allowed speed, per axis: the range in which a path is looked for
MIN_FRAMES = 4  # three positions or fewer are always near some path

NEIGHBOURS = np.zeros((3, 3, 3), bool)  # pixels of the same frame that touch, corners included
NEIGHBOURS[1] = True


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the oracle saw. Frames without an object have a NaN position and no mass; their clips have a NaN path.

    Attributes:
      position: centroid of the largest object, pixels.
      mass: of that object, in pixels of full contrast; `num_objects` counts all objects.
      colour, shape: the indices that explain the clip best.
      velocity: of the fitted path as it leaves frame 0, pixels per frame; `residual`: its root mean square distance
        from the centroids, pixels.
      direction: index of the direction nearest to `velocity`; -1 without a path.
      checks: for each condition of validity, which clips meet it.
    """

    position: Float64[np.ndarray, "clips frames 2"]
    mass: Float64[np.ndarray, "clips frames"]
    num_objects: Int[np.ndarray, "clips frames"]
    colour: Int[np.ndarray, "clips"]
    shape: Int[np.ndarray, "clips"]
    velocity: Float64[np.ndarray, "clips 2"]
    residual: Float64[np.ndarray, "clips"]
    direction: Int[np.ndarray, "clips"]
    checks: dict[str, Bool[np.ndarray, "clips"]]

    @property
    def speed(self) -> Float64[np.ndarray, "clips"]:
        return np.linalg.norm(self.velocity, axis=-1)

    @property
    def valid(self) -> Bool[np.ndarray, "clips"]:
        return np.all(list(self.checks.values()), axis=0)


@dataclasses.dataclass(frozen=True)
class Apart:
    """How far what clips show is from the uniform distribution of the data.

    Attributes:
      total_variation: 0 (the same) to 1; 1 without a clip.
      floor: its expectation for as many clips of the data.
    """

    total_variation: float
    floor: float


@dataclasses.dataclass(frozen=True)
class ShapeOracle:
    """Judges by the world that the clips should come from.

    Attributes:
      coverage: (shape index, centres [n, 2]) -> share of each pixel that the shape covers, [n, height, width].
      shape_names, colour_names: what the indices mean. Class = shape index x number of colours + colour index.
      palette: colours in [-1, 1]; background: grey level of the ground in [-1, 1].
      radius: the object's centre stays in [radius, size - radius], pixels.
      speeds: allowed ones, pixels per frame.
      num_directions: equally spaced and, as all classes are, equally likely; counter-clockwise on the screen, the
        first along +x.
    """

    coverage: Callable[[int, Float[np.ndarray, "n 2"]], Float[np.ndarray, "n height width"]]
    shape_names: tuple[str, ...]
    colour_names: tuple[str, ...]
    palette: Float64[np.ndarray, "colours 3"]
    background: float
    radius: float
    speeds: tuple[float, ...]
    num_directions: int
    height: int
    width: int

    def read(self, videos: Shaped[np.ndarray, "clips frames h w c"]) -> Reading:
        """Reads clips of uint8, or of floating point in [-1, 1] (values beyond are taken as they are).

        ValueError for frames of another size, too few frames for a path, other types, and NaN or infinity.
        """
        difference = self._difference(videos)
        frame_colour, colour, strength = self._colours(difference)
        labels, num_objects = _objects(strength > OBJECT_LEVEL)
        window = _largest(labels, strength)
        strength = strength * window
        mass = strength.sum((-2, -1))
        position = _centroid(strength, mass)
        seen = np.min(num_objects, axis=-1) > 0

        centres = np.where(seen[:, None, None], position, 0.0)
        shape, template_mass = self._shapes(strength, centres)
        velocity, residual = self._paths(centres, seen)
        explained = _explained(difference, strength, self._contrast[frame_colour], window)
        speed = np.linalg.norm(velocity, axis=-1)
        with np.errstate(invalid="ignore"):
            checks = {
                "one object in all frames": np.all(num_objects == 1, axis=-1),
                "mass": np.all(np.abs(mass - template_mass) <= MASS_TOLERANCE * template_mass, axis=-1) & seen,
                "one colour": np.all((frame_colour == colour[:, None]) & (explained >= COLOUR_SHARE), axis=-1),
                "path": residual <= PATH_TOLERANCE,
                "speed": np.any(
                    [np.abs(speed - allowed) <= SPEED_TOLERANCE * allowed for allowed in self.speeds], axis=0
                ),
            }
        direction = np.where(seen, self._direction(np.where(seen[:, None], velocity, 0.0)), -1)
        return Reading(position, mass, num_objects, colour, shape, velocity, residual, direction, checks)

    def classes(self, reading: Reading) -> Int[np.ndarray, "clips"]:
        return reading.shape * len(self.colour_names) + reading.colour

    def directions_apart(self, reading: Reading) -> Apart:
        """Of the valid clips' directions, from the data's."""
        return _from_uniform(reading.direction[reading.valid], self.num_directions)

    def classes_apart(self, reading: Reading) -> Apart:
        """Of the valid clips' classes, from the data's."""
        num_classes = len(self.shape_names) * len(self.colour_names)
        return _from_uniform(self.classes(reading)[reading.valid], num_classes)

    @property
    def protocol(self) -> dict[str, Any]:
        """Everything that a clip's validity depends on besides the clip, as plain values."""
        facts = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "coverage"
        }
        return facts | {
            "palette": self.palette.tolist(),
            "object_level": OBJECT_LEVEL,
            "colour_share": COLOUR_SHARE,
            "mass_tolerance": MASS_TOLERANCE,
            "path_tolerance_pixels": PATH_TOLERANCE,
            "speed_tolerance": SPEED_TOLERANCE,
            "speed_search": SPEED_SEARCH,
        }

    @property
    def _contrast(self) -> Float64[np.ndarray, "colours 3"]:
        return self.palette - self.background

    def _difference(self, videos: np.ndarray) -> Float64[np.ndarray, "clips frames h w 3"]:
        if videos.shape[2:] != (self.height, self.width, 3) or videos.shape[1] < MIN_FRAMES or not len(videos):
            raise ValueError(
                f"The oracle reads clips [clips, {MIN_FRAMES} frames or more, {self.height}, {self.width}, 3]; given: "
                f"{list(videos.shape)}."
            )
        if videos.dtype == np.uint8:
            return videos / 127.5 - (1 + self.background)
        if not np.issubdtype(videos.dtype, np.floating) or not np.isfinite(videos).all():
            raise ValueError(f"The oracle reads uint8 or finite floating point in [-1, 1]; given: {videos.dtype}.")
        return videos.astype(np.float64) - self.background

    def _colours(
        self, difference: np.ndarray
    ) -> tuple[Int[np.ndarray, "clips frames"], Int[np.ndarray, "clips"], Float64[np.ndarray, "clips frames h w"]]:
        """Which colour, in the best amount from 0 to 1 per pixel, leaves the least unexplained: per frame, per clip.

        Returns also each pixel's amount of its frame's colour, from least squares, not limited.
        """
        amounts = np.einsum("bfhwc,kc->kbfhw", difference, self._contrast, optimize=True)
        energy = np.sum(self._contrast**2, -1)[:, None, None, None, None]
        amounts /= energy
        limited = np.minimum(np.maximum(amounts, 0), 1)
        explained = np.sum(energy * limited * (2 * amounts - limited), (-2, -1))
        frame_colour = explained.argmax(0)
        return (
            frame_colour,
            explained.sum(-1).argmax(0),
            np.take_along_axis(amounts, frame_colour[None, ..., None, None], 0)[0],
        )

    def _shapes(self, strength: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The shape whose templates at the centroids differ least from what is seen, and their mass in every frame."""
        flat = centres.reshape(-1, 2)
        errors, masses = [], []
        for shape in range(len(self.shape_names)):
            template = self.coverage(shape, flat).reshape(strength.shape)
            errors.append(np.sum((template - strength) ** 2, (1, 2, 3)))
            masses.append(template.sum((-2, -1), dtype=np.float64))
        best = np.argmin(errors, axis=0)
        return best, np.stack(masses)[best, np.arange(len(best))]

    def _paths(self, centres: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = np.array([self.width, self.height], float)
        _, velocity, path = fit_reflecting_path(
            centres, np.full(2, float(self.radius)), size - self.radius, SPEED_SEARCH * max(self.speeds)
        )
        residual = np.sqrt(np.mean(np.sum((path - centres) ** 2, -1), -1))
        return np.where(seen[:, None], velocity, np.nan), np.where(seen, residual, np.nan)

    def _direction(self, velocity: np.ndarray) -> np.ndarray:
        turn = np.arctan2(-velocity[:, 1], velocity[:, 0]) / (2 * math.pi)
        return np.rint(turn * self.num_directions).astype(int) % self.num_directions


def _objects(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected components inside each frame: labels (0: none) of the pixels, and their number [clips, frames]."""
    frames = mask.reshape(-1, *mask.shape[2:])
    labels = np.empty(frames.shape, np.int32)
    ndimage.label(frames, structure=NEIGHBOURS, output=labels)
    _, first = np.unique(labels, return_index=True)
    owner = first[labels.ravel()[first] > 0] // frames[0].size
    counts = np.bincount(owner, minlength=len(frames))
    return labels.reshape(mask.shape), counts.reshape(mask.shape[:2])


def _largest(labels: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """The object of most mass in every frame with a rim of one pixel, which holds its anti-aliased edge."""
    masses = np.bincount(labels.ravel(), weights=strength.ravel())
    masses[0] = 0.0
    flat = labels.reshape(-1, *labels.shape[2:])
    pixel = masses[flat].reshape(len(flat), -1).argmax(1)
    winner = flat.reshape(len(flat), -1)[np.arange(len(flat)), pixel]
    mask = (flat == winner[:, None, None]) & (flat > 0)
    return ndimage.binary_dilation(mask, structure=NEIGHBOURS).reshape(labels.shape)


def _centroid(strength: np.ndarray, mass: np.ndarray) -> Float64[np.ndarray, "clips frames 2"]:
    height, width = strength.shape[2:]
    x = strength.sum(-2) @ np.arange(0.5, width)
    y = strength.sum(-1) @ np.arange(0.5, height)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([x, y], -1) / mass[..., None]


def _explained(difference: np.ndarray, strength: np.ndarray, contrast: np.ndarray, window: np.ndarray) -> np.ndarray:
    """The share of the window's energy that `strength` times its frame's colour explains, [clips, frames]."""
    energy = np.einsum("bfhwc,bfhwc,bfhw->bf", difference, difference, window.astype(float))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sum(strength**2, (-2, -1)) * np.sum(contrast**2, -1) / energy


def _from_uniform(index: Int[np.ndarray, "clips"], length: int) -> Apart:
    if not len(index):
        return Apart(1.0, 1.0)
    counts = np.bincount(index, minlength=length)
    variation = np.abs(counts / len(index) - 1 / length).sum() / 2
    return Apart(float(variation), _mean_deviation(len(index), 1 / length) * length / (2 * len(index)))


def _mean_deviation(draws: int, probability: float) -> float:
    """E|X - draws x probability| of a binomial X, exactly (De Moivre; Diaconis & Zabell 1991)."""
    above = min(math.floor(draws * probability) + 1, draws)
    mass = bdtr(above, draws, probability) - bdtr(above - 1, draws, probability)
    return float(2 * above * (1 - probability) * mass)
