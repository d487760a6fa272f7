"""Frames become batch entries and back, without traffic between devices; and frames are exchanged for pixels.

A 1x3x3 convolution is a 2-D convolution over (batch x frames). A reshape that merges two dimensions which the mesh
splits makes XLA move data, because the merged order crosses devices. So under a mesh every device merges its own block:
the rows of the folded array are then ordered by device, which no per-frame operation can see, and `unfold` undoes it.

What looks across frames needs all of them at a pixel. Where the mesh splits frames, devices exchange them for pixels
(one all-to-all), compute on whole tubes, and exchange back: 2 (n - 1) / n of the activations travel over n devices.
To gather keys and values instead would move 2 (n - 1) times the activations.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from vdm.nets.sharding import split_mesh
from vdm.types import BATCH_AXES, FRAME_AXES

_CLIPS = PartitionSpec(BATCH_AXES, FRAME_AXES)
_ROWS = PartitionSpec((*BATCH_AXES, *FRAME_AXES))
_PIXELS = PartitionSpec(BATCH_AXES, None, FRAME_AXES)


def fold(video: Float[Array, "batch frames *rest"]) -> Float[Array, "rows *rest"]:
    """Merges batch and frames. Under a mesh with the axes data, fsdp and frames each device merges its own block.

    Raises:
      ValueError: the mesh does not divide the batch or the number of frames.
    """
    mesh = _split_mesh()
    if mesh is None:
        return _merge(video)
    batch, frames = (_size(mesh, axes) for axes in (BATCH_AXES, FRAME_AXES))
    if video.shape[0] % batch or video.shape[1] % frames:
        raise ValueError(
            f"The mesh splits the batch {batch} ways and the frames {frames} ways, which does not divide "
            f"{video.shape[0]} clips of {video.shape[1]} frames: choose multiples, or another mesh."
        )
    return _local(mesh, _merge, _CLIPS, _ROWS)(video)


def unfold(rows: Float[Array, "rows *rest"], num_frames: int) -> Float[Array, "batch frames *rest"]:
    """The inverse of `fold` for clips of `num_frames` frames, under the same mesh."""
    mesh = _split_mesh()
    if mesh is None:
        return _separate(rows, num_frames)
    frames_here = num_frames // _size(mesh, FRAME_AXES)
    return _local(mesh, lambda block: _separate(block, frames_here), _ROWS, _CLIPS)(rows)


def tubes(video: Float[Array, "batch frames height width channels"]) -> Float[Array, "batch pixels frames 1 channels"]:
    """Pixels become what frames were, and frames what rows of pixels were: a layer within a frame, applied to it, looks
    across frames at one pixel. Under a mesh that splits frames, the pixels of the result are split, in its place.

    Where the mesh does not divide the pixels, zeros are added at their end.
    """
    flat = rearrange(video, "b f h w c -> b f (h w) c")
    mesh = _split_mesh()
    ways = 1 if mesh is None else _size(mesh, FRAME_AXES)
    if mesh is not None and ways > 1:
        flat = jnp.pad(flat, ((0, 0), (0, 0), (0, -flat.shape[2] % ways), (0, 0)))
        flat = _local(mesh, _to_pixels, _CLIPS, _PIXELS)(flat)
    return rearrange(flat, "b f p c -> b p f 1 c")


def untubed(
    tubes: Float[Array, "batch pixels frames 1 channels"], height: int, width: int
) -> Float[Array, "batch frames height width channels"]:
    """The inverse of `tubes` for frames of height x width pixels, under the same mesh."""
    flat = rearrange(tubes, "b p f 1 c -> b f p c")
    mesh = _split_mesh()
    if mesh is not None and _size(mesh, FRAME_AXES) > 1:
        flat = _local(mesh, _to_frames, _PIXELS, _CLIPS)(flat)[:, :, : height * width]
    return rearrange(flat, "b f (h w) c -> b f h w c", h=height)


def _to_pixels(block: jax.Array) -> jax.Array:
    return jax.lax.all_to_all(block, FRAME_AXES, split_axis=2, concat_axis=1, tiled=True)


def _to_frames(block: jax.Array) -> jax.Array:
    return jax.lax.all_to_all(block, FRAME_AXES, split_axis=1, concat_axis=2, tiled=True)


def _merge(video: jax.Array) -> jax.Array:
    return video.reshape(-1, *video.shape[2:])


def _separate(rows: jax.Array, num_frames: int) -> jax.Array:
    return rows.reshape(-1, num_frames, *rows.shape[1:])


def _split_mesh() -> Any | None:
    """The mesh in use, if it splits batch or frames at all; otherwise a plain reshape is local already."""
    mesh = split_mesh()
    if mesh is None or _size(mesh, (*BATCH_AXES, *FRAME_AXES)) == 1:
        return None
    return mesh


def _size(mesh: Any, axes: tuple[str, ...]) -> int:
    size = 1
    for axis in axes:
        size *= mesh.shape[axis]
    return size


def _local(mesh: Any, function: Any, in_spec: PartitionSpec, out_spec: PartitionSpec) -> Any:
    """`function` on each device's block. The axis `tensor` stays with the compiler: channels may be split over it."""
    manual = {*BATCH_AXES, *FRAME_AXES}
    return jax.shard_map(function, mesh=mesh, in_specs=in_spec, out_specs=out_spec, axis_names=manual)
