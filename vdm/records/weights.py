"""The averaged parameters of a run as a safetensors file: names, shapes and numbers, and nothing that could be run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import PyTree

from vdm.nets.sharding import path_of
from vdm.types import Params

DTYPE = "F32"  # safetensors' word for what parameters are


def dumps(params: Params) -> bytes:
    """The file of the parameters, each by its path in the tree (`down_0/block_0/conv_1/kernel`); fetches them."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return safetensors.numpy.save({path_of(key_path): np.asarray(leaf, order="C") for key_path, leaf in leaves})


def read(path: Path, like: PyTree[jax.ShapeDtypeStruct]) -> Params:
    """The parameters of a file as a tree, each array at its resting place.

    Args:
      like: the tree, with shapes and shardings.

    Raises:
      ValueError: the file has other arrays; names them.
    """
    with _opened(path) as arrays:
        leaves = jax.tree_util.tree_leaves_with_path(like)
        asked = {path_of(key_path): tuple(leaf.shape) for key_path, leaf in leaves}
        found = {name: tuple(arrays.get_slice(name).get_shape()) for name in arrays.keys()}  # noqa: SIM118  # no dict
        if unlike := sorted(name for name, _ in asked.items() ^ found.items()):
            raise ValueError(f"{path} has other arrays than its config's network: {', '.join(map(ascii, unlike[:8]))}")

        def placed(key_path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
            return jax.device_put(arrays.get_tensor(path_of(key_path)), leaf.sharding)

        return jax.tree_util.tree_map_with_path(placed, like)


def check(path: Path, num_parameters: int) -> None:
    """Reads the names, types and shapes of a file, and no numbers.

    Raises:
      ValueError: it is no safetensors file, or does not hold `num_parameters` numbers of float32.
    """
    with _opened(path) as arrays:
        parts: dict[str, Any] = {name: arrays.get_slice(name) for name in arrays.keys()}  # noqa: SIM118  # no dict
        kinds = {part.get_dtype() for part in parts.values()}
        found = sum(math.prod(part.get_shape()) for part in parts.values())
    if kinds != {DTYPE} or found != num_parameters:
        raise ValueError(
            f"{path} holds {found} numbers of {', '.join(sorted(kinds)) or 'no type'}; the record's network has "
            f"{num_parameters} parameters of {DTYPE}. Get the card anew."
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework="np") as arrays:
            yield arrays
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error}). Delete it, or get the card anew.") from error
