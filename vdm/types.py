"""The shared words of every room.

Video on the device is float32 [batch, frames, height, width, channels] in [-1, 1]. Time t runs from 0 (data) to 1
(noise). A noise level belongs to a frame, not to a clip: everything that depends on it has the shape [batch, frames].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
from jaxtyping import Array, Bool, Float, Int, PyTree
from jaxtyping import Key as KeyArray

Video = Float[Array, "batch frames height width channels"]
Time = Float[Array, "batch frames"]
LogSnr = Float[Array, "batch frames"]
FrameIndex = Int[Array, "batch frames"]
Key = KeyArray[Array, ""]
ExampleKeys = KeyArray[Array, "batch"]
FrameKeys = KeyArray[Array, "batch frames"]
Params = PyTree[Any]
Config = Any  # an ml_collections.ConfigDict, whose keys no type checker knows

MESH_AXES = ("data", "fsdp", "tensor", "frames")  # of every mesh of devices
BATCH_AXES = ("data", "fsdp")  # those that split the batch
FRAME_AXES = ("frames",)  # those that split the frames of a clip

Class = TypeVar("Class", bound=type)


def static(**options: Any) -> Any:
    """A field of a registered dataclass that is part of its structure, not a number: a count, say."""
    return dataclasses.field(metadata={"static": True}, **options)


def register_tree(cls: Class) -> Class:
    """Makes a dataclass a pytree, every field a subtree but for those marked `static()`: a class decorator.

    It stands where `jax.tree_util.register_dataclass` would, whose structures do not tell classes apart (jax 0.10.2 and
    0.12.0): two classes with as many fields compare equal, and where their hashes happen to share a slot of the cache,
    in one process of 25 or so, a compiled function runs the program of the first class on the second.
    """
    fields = dataclasses.fields(cls)
    names = tuple(field.name for field in fields if not field.metadata.get("static"))
    fixed = tuple(field.name for field in fields if field.metadata.get("static"))
    keys = tuple(jax.tree_util.GetAttrKey(name) for name in names)

    def flatten(tree: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(tree, name) for name in names), tuple(getattr(tree, name) for name in fixed)

    def flatten_with_keys(tree: Any) -> tuple[tuple[tuple[Any, Any], ...], tuple[Any, ...]]:
        children, values = flatten(tree)
        return tuple(zip(keys, children, strict=True)), values

    def unflatten(values: tuple[Any, ...], children: Iterable[Any]) -> Any:
        tree = object.__new__(cls)  # its leaves may be anything, shapes or shardings say: no __init__ that checks them
        for name, child in (*zip(names, children, strict=True), *zip(fixed, values, strict=True)):
            object.__setattr__(tree, name, child)
        return tree

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


@register_tree
@dataclasses.dataclass(frozen=True)
class Level:
    """The noise level of every frame: xt = alpha x0 + sigma noise, log_snr = log(alpha^2 / sigma^2).

    The three numbers travel together because each loses precision when it is computed from the others at an end of the
    range.
    """

    alpha: Float[Array, "batch frames"]
    sigma: Float[Array, "batch frames"]
    log_snr: LogSnr


@register_tree
@dataclasses.dataclass(frozen=True)
class Condition:
    """What the network is told besides the noisy clip. None means: not told.

    Attributes:
      label: class of every clip, in [0, num_classes); `num_classes` itself is the null class (the label was dropped).
      is_image: True where the frames of an example are independent images; temporal attention is then held at the
        identity.
    """

    label: Int[Array, "batch"] | None = None
    is_image: Bool[Array, "batch"] | None = None


@register_tree
@dataclasses.dataclass(frozen=True)
class Prediction:
    """The network's raw output.

    Attributes:
      value: estimates the target.
      log_variance: only where a variance is learned: where the log variance of the step back stands between the lower
        one (0) and the upper one (1).
    """

    value: Video
    log_variance: Video | None = None


@runtime_checkable
class Denoiser(Protocol):
    """E[x0 | xt] at a noise level; network, parameters, condition and frame positions are bound inside."""

    def __call__(self, xt: Video, level: Level) -> Video: ...


@runtime_checkable
class Network(Protocol):
    """The seam behind which flax lives: `xt` arrives at unit variance, the level is known by `log_snr` alone."""

    def init(self, key: Key) -> Params: ...

    def apply(
        self,
        params: Params,
        xt: Video,
        log_snr: LogSnr,
        frame_index: FrameIndex,
        condition: Condition,
        *,
        keys: ExampleKeys | None = None,
    ) -> Prediction: ...
