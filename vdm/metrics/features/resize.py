"""Bilinear resizing of frames as the feature extractors' own scripts did it, without anti-aliasing.

What lies between pixels depends on where their centres are taken to be, and FVD values differ with it:
  corners: pixel i at i, as TensorFlow 1's resize_bilinear (the FVD of google-research).
  centres: pixel i at i + 1/2, as PyTorch's interpolate with align_corners=False (StyleGAN-V and what came after).
"""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

Grid = Literal["corners", "centres"]
GRIDS = ("corners", "centres")


def stretch(
    video: Float[Array, "*clips height width channels"], size: int, grid: Grid
) -> Float[Array, "*clips size size channels"]:
    """Frames of size x size, whatever their shape was."""
    height, width = video.shape[-3:-1]
    rows, columns = _weights(height, size, grid), _weights(width, size, grid)
    video = jnp.einsum("sh,...hwc->...swc", rows, video, precision="highest")
    return jnp.einsum("sw,...hwc->...hsc", columns, video, precision="highest")


def _weights(length: int, size: int, grid: Grid) -> Float32[np.ndarray, "size length"]:
    """Of the old pixels in each new one; the edge pixel stands for what is beyond it."""
    scale = length / size
    place = (np.arange(size) + 0.5) * scale - 0.5 if grid == "centres" else np.arange(size) * scale
    place = np.clip(place, 0, length - 1)
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, length - 1)
    weights = np.zeros((size, length))
    np.add.at(weights, (np.arange(size), below), 1 - (place - below))
    np.add.at(weights, (np.arange(size), above), place - below)
    return weights.astype(np.float32)
