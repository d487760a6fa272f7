"""The averaged parameters of a run as a safetensors file: names, shapes and numbers, and nothing that could be run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from vdm.nets.sharding import path_of
from vdm.types import Params

DTYPE = "F32"  # safetensors' word for what parameters are


def dumps(params: Params) -> bytes:
    """The file of the parameters, each by its path in the tree (`down_0/block_0/conv_1/kernel`); fetches them."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return safetensors.numpy.save({path_of(key_path): np.ascontiguousarray(leaf) for key_path, leaf in leaves})


def check(path: Path, num_parameters: int) -> None:
    """Reads the names, types and shapes of a file, and no numbers.

    Raises:
      ValueError: it is no safetensors file, or does not hold `num_parameters` numbers of float32.
    """
    try:
        with safetensors.safe_open(path, framework="np") as arrays:
            parts: dict[str, Any] = {name: arrays.get_slice(name) for name in arrays.keys()}  # noqa: SIM118  # no dict
            kinds = {part.get_dtype() for part in parts.values()}
            found = sum(math.prod(part.get_shape()) for part in parts.values())
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error}). Delete it, or get the card anew.") from error
    if kinds != {DTYPE} or found != num_parameters:
        raise ValueError(
            f"{path} holds {found} numbers of {', '.join(sorted(kinds)) or 'no type'}; the record's network has "
            f"{num_parameters} parameters of {DTYPE}. Get the card anew."
        )
