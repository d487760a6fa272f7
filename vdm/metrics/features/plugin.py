"""Extractors from a user's own file: Inception, C3D, VideoMAE, CLIP, whose weights no package carries.

The file is a serialised `jax.export` program with its weights inside: a graph of array operations without any Python.
`write` makes one from any function; its hash is part of every score's protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jax import export
from jaxtyping import Array, Float

from vdm.metrics.features import weights
from vdm.metrics.features.extractor import Extractor, Sees

PLATFORMS = ("cpu", "cuda", "tpu")  # that a file runs on


def write(
    path: epath.PathLike,
    apply: Callable[[Float[Array, "clips frames h w c"]], Float[Array, "n d"]],
    num_frames: int,
    height: int,
    width: int,
    num_channels: int,
) -> None:
    """Writes a function of clips in [-1, 1], of any number but of one shape, as a file that `read` takes."""
    (clips,) = export.symbolic_shape("clips")
    shape = (clips, num_frames, height, width, num_channels)
    program = export.export(jax.jit(apply), platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, jnp.float32))
    epath.Path(path).write_bytes(bytes(program.serialize()))


def read(name: str, path: str, sha256: str, *, sees: Sees, size: int, min_frames: int) -> Extractor:
    """The extractor in a file.

    Raises:
      ValueError: there is no such file, it has another hash, or it is no program of `write`.
    """
    content = weights.read_checked(path, sha256)
    try:
        program = export.deserialize(bytearray(content))
        (video,) = program.in_avals
    except ImportError as error:
        raise ValueError(f"{error}. {weights.INSTALL}") from error
    except Exception as error:  # whatever flatbuffers and MLIR raise
        raise ValueError(f"{path} is not a file of vdm.metrics.features.plugin.write: {error}") from error
    num_frames, height, width, num_channels = video.shape[1:]

    def apply(_: Any, clips: Float[Array, "clips frames h w c"]) -> Float[Array, "n d"]:
        if clips.shape[1:] != video.shape[1:]:
            raise ValueError(
                f"{name} was made for clips of {num_frames} frames of {height} x {width}; given are "
                f"{clips.shape[1]} of {clips.shape[2]} x {clips.shape[3]}"
            )
        return program.call(clips)

    return Extractor(name, sha256, sees, size, min_frames, num_channels, (), apply)
