"""Moving digits: one or two real handwritten digits drift through a black frame and bounce off its borders.

The world of Moving MNIST (Srivastava et al. 2015) with digits that may be carried along: the 1,797 images of UCI's
*Optical Recognition of Handwritten Digits* (E. Alpaydin and C. Kaynak 1998, CC BY 4.0; see `optdigits.md`), enlarged by
cubic splines. Training and validation never show the same image. Unlike there, digits move by fractions of a pixel: a
digit's centroid follows the state exactly, up to the rounding to 8 bits. Coordinates are those of `moving_shapes`:
(x, y) in pixels, the origin in the frame's top left corner, the centre of the pixel in row i and column j at
(j + 1/2, i + 1/2).
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import itertools
import pathlib

import numpy as np
from einops import einsum
from jaxtyping import Float, Int, UInt8

from data.sources import Example

RENDERING = 1  # goes into the fingerprint; another number whenever the same state gives other pixels
FILE = pathlib.Path(__file__).with_name("optdigits.csv.gz")
VALIDATION_EVERY = 5  # every so many-th image belongs to validation

_SIDE, _MAX_INK = 8, 16  # of the original images


@dataclasses.dataclass(frozen=True)
class World:
    """What is shown and how it moves. Impossible worlds are ValueErrors.

    Attributes:
      num_frames, height, width: of a clip.
      num_digits: 1 (the class is the digit) or 2 (the class is the unordered pair: 55 classes).
      digit_size: pixels, the side of a digit's square; 0: 22/64 of the frame's short side, and 8 at least.
      speed: pixels per frame, in a direction uniform over the circle.
    """

    num_frames: int
    height: int
    width: int
    num_digits: int = 2
    digit_size: int = 0
    speed: float = 2.0

    def __post_init__(self):
        if self.num_frames < 1:
            raise ValueError(f"a clip needs one frame or more, got num_frames={self.num_frames}")
        if self.num_digits not in (1, 2):
            raise ValueError(f"num_digits must be 1 or 2, got {self.num_digits}")
        if self.digit_size < 0 or self.side >= min(self.height, self.width):
            raise ValueError(
                f"digits of {self.side} pixels cannot move in a frame of {self.height}x{self.width}; "
                "make the frame larger or digit_size smaller"
            )
        if not 0 <= self.speed <= min(self.height, self.width) - self.side:
            raise ValueError(
                f"speed must be in [0, {min(self.height, self.width) - self.side}] pixels per frame, so that a digit "
                f"does not cross the frame in one step; got {self.speed}"
            )

    @property
    def side(self) -> int:
        """Pixels: the side of the square that a digit fills."""
        return self.digit_size or max(_SIDE, round(min(self.height, self.width) * 22 / 64))

    @property
    def rendering(self) -> str:
        return f"moving_digits {RENDERING} {_file_hash()}"

    @property
    def num_channels(self) -> int:
        return 1

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(" and ".join(map(str, digits)) for digits in _classes(self.num_digits))

    def draw(self, split: str, rng: np.random.Generator) -> State:
        """Digits are uniform over the classes, images over those of the split, starts over all places that fit."""
        candidates = _image_rows(split)
        digits = rng.integers(10, size=self.num_digits)
        images = np.array([rng.choice(candidates[digit]) for digit in digits])
        room = np.array([self.width - self.side, self.height - self.side], float)
        start = rng.uniform(0, room, size=(self.num_digits, 2))
        angle = rng.uniform(0, 2 * np.pi, size=self.num_digits)
        velocity = self.speed * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        path = start[:, None] + velocity[:, None] * np.arange(self.num_frames)[:, None]
        corners = room - np.abs(room - path % (2 * room))  # a straight path, folded at the walls
        return State(images, digits, corners + self.side / 2)

    def show(self, state: State, rng: np.random.Generator) -> Example:
        return {"video": _render(self, state), "label": np.int32(_class_of(state))}

    def caption(self, state: State) -> str:
        """Such as "a 7 moves" and "a 3 and an 8 move", the smaller digit first."""
        digits = " and ".join(f"{'an' if digit == 8 else 'a'} {digit}" for digit in sorted(state.digits.tolist()))
        return f"{digits} {'moves' if self.num_digits == 1 else 'move'}"


@dataclasses.dataclass(frozen=True)
class State:
    """What a clip shows, exactly.

    Attributes:
      images: rows of `optdigits.csv.gz`; digits: their classes, 0 to 9.
      centres: (x, y) of the centre of each digit's square in every frame, pixels.
    """

    images: Int[np.ndarray, "num_digits"]
    digits: Int[np.ndarray, "num_digits"]
    centres: Float[np.ndarray, "num_digits frames 2"]


@functools.cache
def load_digits() -> tuple[UInt8[np.ndarray, "1797 8 8"], UInt8[np.ndarray, "1797"]]:
    """The original images, ink from 0 to 16, and their classes."""
    with gzip.open(FILE, "rt") as file:
        rows = np.loadtxt(file, delimiter=",").astype(np.uint8)
    return rows[:, :-1].reshape(-1, _SIDE, _SIDE), rows[:, -1]


@functools.cache
def enlarged_digits(side: int) -> Float[np.ndarray, "1797 side side"]:
    """The images as cubic splines of `side` x `side` pixels, ink from 0 to 1, black beyond the border.

    A spline overshoots at steep edges: ink below 0 and above 1 is cut off.
    """
    from scipy import ndimage

    images, _ = load_digits()
    # A spline is linear and separable: what it makes of the unit vectors is all there is to know.
    weights = np.empty((side, _SIDE))
    for i, unit in enumerate(np.eye(_SIDE)):
        weights[:, i] = ndimage.zoom(unit, side / _SIDE, order=3, mode="grid-constant", grid_mode=True)
    ink = einsum(weights, images / _MAX_INK, weights, "y i, n i j, x j -> n y x")
    return np.clip(ink, 0, 1).astype(np.float32)


@functools.cache
def _image_rows(split: str) -> tuple[Int[np.ndarray, "rows"], ...]:
    """For every digit, the rows of its images in a split."""
    _, classes = load_digits()
    rows = np.arange(len(classes))
    chosen = (rows % VALIDATION_EVERY == 0) == (split == "validation")
    return tuple(rows[chosen & (classes == digit)] for digit in range(10))


@functools.cache
def _classes(num_digits: int) -> tuple[tuple[int, ...], ...]:
    return tuple(itertools.combinations_with_replacement(range(10), num_digits))


def _class_of(state: State) -> int:
    return _classes(len(state.digits)).index(tuple(sorted(state.digits.tolist())))


@functools.cache
def _file_hash() -> str:
    return hashlib.sha256(FILE.read_bytes()).hexdigest()[:16]


def _render(world: World, state: State) -> UInt8[np.ndarray, "frames height width 1"]:
    """Moves digits by linear interpolation, which moves centroids exactly; where two overlap the brighter wins."""
    ink = enlarged_digits(world.side)[state.images]
    corners = (state.centres - world.side / 2).astype(np.float32)
    across = _shift(corners[..., 0], world.width, world.side)
    down = _shift(corners[..., 1], world.height, world.side)
    moved = down @ ink[:, None] @ np.swapaxes(across, -1, -2)
    return np.rint(255 * moved.max(axis=0)).astype(np.uint8)[..., None]


def _shift(
    corner: Float[np.ndarray, "num_digits frames"], size: int, side: int
) -> Float[np.ndarray, "num_digits frames size side"]:
    """Weights of a digit's rows (or columns) in the frame's: pixel k of the digit lands on corner + k."""
    places = corner[..., None, None] + np.arange(side, dtype=np.float32)
    return np.maximum(0, 1 - np.abs(np.arange(size, dtype=np.float32)[:, None] - places))
