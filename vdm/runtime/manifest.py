"""What a checkpoint says of itself: whose it is, and the layout and checksum of every array."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree, Shaped, UInt

from vdm.nets.sharding import path_of


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Everything of a checkpoint but the numbers.

    Attributes:
      identity: of the run: its resolved config without `run`, as JSON (`vdm.records.identity`).
      layout: type and shape of every array by its path, "float32[3, 3, 16, 32]".
      checksum: of every array by its path, see `checksums`.
    """

    identity: Mapping[str, Any]
    layout: Mapping[str, str]
    checksum: Mapping[str, int]

    @classmethod
    def of(cls, tree: PyTree[Shaped[Array, "..."]], identity: Mapping[str, Any]) -> "Manifest":
        """The manifest of a tree of arrays; waits until they are computed."""
        return cls(identity, layout(tree), checksums(tree))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Manifest":
        """The inverse of `dataclasses.asdict`. Raises KeyError if it is not the JSON of a manifest."""
        return cls(content["identity"], content["layout"], content["checksum"])


def layout(tree: PyTree[Any]) -> dict[str, str]:
    """Type and shape of every array (or `jax.ShapeDtypeStruct`) by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_of(key_path): f"{leaf.dtype}{list(leaf.shape)}" for key_path, leaf in leaves}


def checksums(tree: PyTree[Shaped[Array, "..."]]) -> dict[str, int]:
    """A 32-bit checksum of the bits of every array, by path.

    It is the sum over the elements of (2 i + 1) x bits modulo 2^32, i being the element's index: a sum of integers, so
    the same on every mesh, with odd factors, so every change of one element shows.

    Args:
      tree: of arrays of at most 32 bits an element.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    # one after the other: of many programs in flight, several processes on CPUs may each wait for another one's sum
    return {path_of(key_path): int(_checksum(leaf)) for key_path, leaf in leaves}


@jax.jit  # an array at a time: one program for hundreds of arrays would take longer to compile than these few
def _checksum(leaf: Shaped[Array, "..."]) -> UInt[Array, ""]:
    bits = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")).astype(jnp.uint32)
    index = jnp.zeros(leaf.shape, jnp.uint32)
    for axis in range(leaf.ndim):  # no reshape: it would gather an array that the mesh splits
        stride = math.prod(leaf.shape[axis + 1 :]) % 2**32
        index += jnp.uint32(stride) * jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
    return jnp.sum((2 * index + 1) * bits, dtype=jnp.uint32)


def differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """One sentence for every key whose value differs, or which only one side has."""
    names = dict.fromkeys([*saved, *given])
    return [
        f"{name} is {saved.get(name, 'not there')} in the checkpoint and {given.get(name, 'not there')} here"
        for name in names
        if saved.get(name) != given.get(name)
    ]


def listed(items: Sequence[str], most: int = 8) -> str:
    """The first items as one line, and how many more there are."""
    more = f"; and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + more
