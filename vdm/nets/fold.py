"""Frames become batch entries and back; and frames are exchanged for pixels.

Where a mesh splits batch and frames, all of this happens on a device's own block (`sharding.on_each_device`): merging
two dimensions that the mesh splits would make XLA move data, because the merged order crosses devices.

What looks across frames needs all of them at a pixel. Where the mesh splits frames, devices exchange them for pixels
(one all-to-all), compute on whole tubes, and exchange back: 2 (n - 1) / n of the activations travel over n devices.
To gather keys and values instead would move 2 (n - 1) times the activations.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from vdm.nets.sharding import ways_of_frames


def fold(video: Float[Array, "batch frames *rest"]) -> Float[Array, "rows *rest"]:
    """Merges batch and frames."""
    return video.reshape(-1, *video.shape[2:])


def unfold(rows: Float[Array, "rows *rest"], num_frames: int) -> Float[Array, "batch frames *rest"]:
    """The inverse of `fold` for clips of `num_frames` frames."""
    return rows.reshape(-1, num_frames, *rows.shape[1:])


def tubes(
    video: Float[Array, "batch _frames height width channels"],
) -> Float[Array, "batch _pixels frames 1 channels"]:
    """Pixels become what frames were, and frames what rows of pixels were: a layer within a frame, applied to it, looks
    across frames at one pixel. Where a device holds a part of the frames, it then holds all of them at a part of the
    pixels; zeros are added at their end where the mesh does not divide them.
    """
    flat, ways = rearrange(video, "b f h w c -> b f (h w) c"), ways_of_frames()
    if ways > 1:
        flat = jnp.pad(flat, ((0, 0), (0, 0), (0, -flat.shape[2] % ways), (0, 0)))
        flat = jax.lax.all_to_all(flat, "frames", split_axis=2, concat_axis=1, tiled=True)
    return rearrange(flat, "b f p c -> b p f 1 c")


def untubed(
    tubes: Float[Array, "batch _pixels frames 1 channels"], height: int, width: int
) -> Float[Array, "batch _frames height width channels"]:
    """The inverse of `tubes` for frames of height x width pixels."""
    flat = rearrange(tubes, "b p f 1 c -> b f p c")
    if ways_of_frames() > 1:
        flat = jax.lax.all_to_all(flat, "frames", split_axis=1, concat_axis=2, tiled=True)[:, :, : height * width]
    return rearrange(flat, "b f (h w) c -> b f h w c", h=height)
