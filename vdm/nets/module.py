"""The seam between flax modules and plain trees of parameters.

A module is split once, when the network is made: its structure stays in a `Part`, its parameters are a plain nested
dict outside. Modules hold `nnx.Param`s only, no random streams and no mutable variables: a part is a pure function.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vdm.nets import sharding
from vdm.types import ExampleKeys, FrameKeys, Key, Params


@dataclasses.dataclass(frozen=True)
class Part:
    """One block of a network as a pair of pure functions.

    Attributes:
      name: path of its parameters in the network's tree, such as "down_0/block_1".
      build: makes the module from a random stream.
      graphdef: the module's structure, without numbers.
      shapes: of its parameters.
    """

    name: str
    build: Callable[[nnx.Rngs], nnx.Module]
    graphdef: nnx.GraphDef
    shapes: Params

    def init(self, key: Key) -> Params:
        """Its parameters; they depend on `key` and the part's name alone, not on what else the network holds."""
        module = self.build(nnx.Rngs(params=named_key(key, self.name)))
        return nnx.to_pure_dict(nnx.split(module)[1])

    def apply(
        self,
        params: Params,
        frames: Sequence[Any] = (),
        clips: Sequence[Any] = (),
        *,
        dtype: DTypeLike = jnp.float32,
        remat: str = "none",
    ) -> Any:
        """Calls the module on what belongs to frames and to clips; see `sharding.on_each_device`.

        Args:
          params: its own, as they rest: `subtree(params_of_the_network, name)`.
          frames: arguments [batch, frames, ...].
          clips: further arguments, [batch, ...].
          dtype: that the module computes in.
          remat: what of it the backward pass computes again, a name in `REMAT`.
        """
        return sharding.on_each_device(self.call, params, self.name, frames, clips, dtype=dtype, remat=remat)

    def equals(self, other: Part) -> bool:
        """Whether both compute the same function of parameters and arguments."""
        return self.graphdef == other.graphdef and self.shapes == other.shapes

    def call(self, params: Params, *args: Any) -> Any:
        """Calls the module with its own parameters on `args`; profiles and plans show the name of the part."""
        with jax.named_scope(self.name):
            return nnx.merge(self.graphdef, params)(*args)  # type: ignore[operator]


def split(name: str, build: Callable[[nnx.Rngs], nnx.Module]) -> Part:
    """Makes the part `name` of the module that `build` makes; allocates no parameter."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(params=0))))
    return Part(name, build, graphdef, nnx.to_pure_dict(state))


def init(parts: Mapping[str, Part], key: Key) -> Params:
    """The parameters of all parts as one nested dict: names are split at "/"."""
    tree: dict[str, Any] = {}
    for part in parts.values():
        put(tree, part.name, part.init(key))
    return tree


def put(tree: dict[str, Any], name: str, branch: Any) -> None:
    """Makes `branch` that of a nested dict at the path `name`; the inverse of `subtree`."""
    *parents, last = name.split("/")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = branch


def subtree(params: Mapping[str, Any], name: str) -> Any:
    """The branch of a nested dict at the path `name`."""
    node: Any = params
    for word in name.split("/"):
        node = node[word]
    return node


def named_key(key: Key, name: str) -> Key:
    """A key of `key` for a name; the same in every process and version of Python."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def frame_keys(keys: ExampleKeys, num_frames: int) -> FrameKeys:
    """A key of each of the keys for every frame: a frame draws the same on whatever device it is."""
    return jax.vmap(lambda key: jax.vmap(lambda frame: jax.random.fold_in(key, frame))(jnp.arange(num_frames)))(keys)


def named_keys(keys: FrameKeys, name: str) -> FrameKeys:
    """`named_key` of each of the keys."""
    return jax.vmap(jax.vmap(lambda key: named_key(key, name)))(keys)
