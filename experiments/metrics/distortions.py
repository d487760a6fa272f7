"""What can be wrong with a clip, in known amounts: 8-bit clips to 8-bit clips, with random numbers where needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

Clips = UInt8[np.ndarray, "clips frames height width channels"]
Distortion = Callable[[Clips, np.random.Generator], Clips]


def blur(pixels: float) -> Distortion:
    """A Gaussian of that standard deviation, over rows and columns."""
    return lambda clips, _: _to_uint8(ndimage.gaussian_filter(clips.astype(np.float32), (0, 0, pixels, pixels, 0)))


def noise(levels: float) -> Distortion:
    """Independent Gaussian noise on every value, in units of the 256 levels."""
    return lambda clips, rng: _to_uint8(clips + rng.normal(scale=levels, size=clips.shape))


def freeze(clips: Clips, _: np.random.Generator) -> Clips:
    """The first frame stays for the whole clip."""
    return np.repeat(clips[:, :1], clips.shape[1], axis=1)


def shuffle(clips: Clips, rng: np.random.Generator) -> Clips:
    """The frames of each clip in a random order of its own."""
    return np.stack([clip[rng.permutation(len(clip))] for clip in clips])


def reverse(clips: Clips, _: np.random.Generator) -> Clips:
    """Backwards."""
    return clips[:, ::-1].copy()


def jitter(pixels: int) -> Distortion:
    """Every frame is shifted by itself, up to so many whole pixels along each axis; what comes in repeats the edge."""

    def shift(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rows, columns = rng.integers(-pixels, pixels + 1, size=2) + pixels
        height, width = frame.shape[:2]
        wide = np.pad(frame, ((pixels, pixels), (pixels, pixels), (0, 0)), mode="edge")
        return wide[rows : rows + height, columns : columns + width]

    return lambda clips, rng: np.stack([[shift(frame, rng) for frame in clip] for clip in clips])


def swap_identity(clips: Clips, _: np.random.Generator) -> Clips:
    """The second half of each clip is that of the next one: another object, at another place."""
    half = clips.shape[1] // 2
    return np.concatenate([clips[:, :half], np.roll(clips, 1, axis=0)[:, half:]], axis=1)


def _to_uint8(values: np.ndarray) -> Clips:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
