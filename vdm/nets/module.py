"""The seam between flax modules and plain trees of parameters.

A module is split once, when the network is made: its structure stays in a `Part`, its parameters are a plain nested
dict outside. Modules hold `nnx.Param`s only, no random streams and no mutable variables: a part is a pure function.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vdm.nets import sharding
from vdm.nets.remat import REMAT
from vdm.types import ExampleKeys, Key, Params


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

    def apply(self, params: Params, *args: Any, dtype: DTypeLike = jnp.float32, remat: str = "none") -> Any:
        """Calls the module on `args`, its parameters laid out as it needs them.

        Args:
          params: its own, as they rest: `subtree(params_of_the_network, name)`.
          dtype: that the module computes in.
          remat: what of it the backward pass computes again, a name in `REMAT`.
        """

        def call(params: Params, *args: Any) -> Any:
            return self.call(sharding.enter(params, self.name, dtype), *args)

        if remat != "none" or sharding.gathers_kernels():
            call = jax.checkpoint(call, policy=REMAT[remat])
        return call(params, *args)

    def equals(self, other: Part) -> bool:
        """Whether both compute the same function of parameters and arguments."""
        return self.graphdef == other.graphdef and self.shapes == other.shapes

    def call(self, params: Params, *args: Any) -> Any:
        """Calls the module with its own parameters on `args`."""
        return nnx.merge(self.graphdef, params)(*args)  # type: ignore[operator]


def split(name: str, build: Callable[[nnx.Rngs], nnx.Module]) -> Part:
    """Makes the part `name` of the module that `build` makes; allocates no parameter."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(params=0))))
    return Part(name, build, graphdef, nnx.to_pure_dict(state))


def init(parts: Mapping[str, Part], key: Key) -> Params:
    """The parameters of all parts as one nested dict: names are split at "/"."""
    tree: dict[str, Any] = {}
    for part in parts.values():
        *parents, last = part.name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = part.init(key)
    return tree


def subtree(params: Mapping[str, Any], name: str) -> Any:
    """The branch of a nested dict at the path `name`."""
    node: Any = params
    for word in name.split("/"):
        node = node[word]
    return node


def named_key(key: Key, name: str) -> Key:
    """A key of `key` for a name; the same in every process and version of Python."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def named_keys(keys: ExampleKeys, name: str) -> ExampleKeys:
    """`named_key` of each of the keys."""
    return jax.vmap(lambda key: named_key(key, name))(keys)
