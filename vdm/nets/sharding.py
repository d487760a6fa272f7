"""How parameters rest on the mesh, and what a block does with them.

They rest by one table of (pattern over the parameter's path, PartitionSpec), read from the top. The first pattern that
is found in the path decides, and a path that none matches is an error. The optimiser's moments and the EMA carry the
path of the parameter that they mirror at the end of their own ("opt_state/0/mu/down_0/conv/kernel"), so the same line
of the table places all of them; patterns must therefore not be anchored at the start of the path.

A block runs on each device's own clips and frames, inside `jax.shard_map`, with kernels that are whole along `fsdp`:
they are gathered when it is entered, in the compute type, and the float32 sums of their gradients are scattered back to
where the parameters rest. Only `tensor` is left to the compiler. Left more, it reduced gradients in bfloat16, or took
the products of a gradient apart into loops of sums that are sent on from device to device.
"""

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from vdm.nets.remat import REMAT
from vdm.types import BATCH_AXES, FRAME_AXES, Params

Rule = tuple[str, PartitionSpec]

# A spec speaks of the last dimensions of the array: (input, output channels) of a kernel, be it of a dense layer [in,
# out], of a convolution [height, width, in, out], or stacked over layers.
UNET_RULES: tuple[Rule, ...] = (
    (r"(^|/)heads/out/kernel$", PartitionSpec("tensor", "fsdp")),  # its input channels are the heads, split over tensor
    (r"(^|/)label/kernel$", PartitionSpec()),  # rows are looked up by class
    (r"(^|/)kernel$", PartitionSpec("fsdp", "tensor")),
    (r"(^|/)(bias|scale)$", PartitionSpec()),
)


def path_of(key_path: tuple[Any, ...]) -> str:
    """A leaf's path as the table and every message write it: "params/down_0/conv/kernel"."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def spec_of(path: str, shape: Sequence[int], rules: Sequence[Rule], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """The PartitionSpec of one array.

    A dimension that the mesh axis does not divide stays whole (the first convolution has 3 input channels on any mesh);
    numbers (rank 0) are replicated and need no rule.

    Args:
      path: of the array, see `path_of`.
      shape: of the array.
      rules: the table.
      mesh: whose axes the rules name; without devices (`AbstractMesh`) it does for a plan.

    Raises:
      ValueError: if no rule matches, or the rule names more dimensions than the array has.
    """
    if not shape:
        return PartitionSpec()
    pattern, spec = _first_match(path, rules)
    if len(spec) > len(shape):
        raise ValueError(
            f"the sharding rule {pattern!r} splits the last {len(spec)} dimensions, but {path!r} has the shape "
            f"{tuple(shape)}; put a line for it above that rule"
        )
    whole = (None,) * (len(shape) - len(spec))
    fitted = (
        axes if size % _ways(axes, mesh) == 0 else None for axes, size in zip(spec, shape[len(whole) :], strict=True)
    )
    return PartitionSpec(*whole, *fitted) if len(spec) else PartitionSpec()


def _first_match(path: str, rules: Sequence[Rule]) -> Rule:
    for pattern, spec in rules:
        if re.search(pattern, path):
            return pattern, spec
    patterns = ", ".join(repr(pattern) for pattern, _ in rules)
    raise ValueError(
        f"no sharding rule matches the parameter {path!r}; add a line for it to the table, which has: {patterns}"
    )


def _ways(axes: str | tuple[str, ...] | None, mesh: Mesh | AbstractMesh) -> int:
    names = axes if isinstance(axes, tuple) else () if axes is None else (axes,)
    return math.prod(mesh.shape[name] for name in names)


def shardings(tree: PyTree[Any], rules: Sequence[Rule], mesh: Mesh | AbstractMesh) -> PyTree[NamedSharding]:
    """The resting place of every array of a tree.

    Args:
      tree: of arrays or `jax.ShapeDtypeStruct`: parameters, or a whole train state.
      rules: the table, e.g. `UNET_RULES`.
      mesh: with the axes that the rules name.

    Returns:
      A tree of the same structure.

    Raises:
      ValueError: as `spec_of`, naming the path.
    """

    def place(key_path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, spec_of(path_of(key_path), leaf.shape, rules, mesh))

    return jax.tree_util.tree_map_with_path(place, tree)


_SPLIT = (*BATCH_AXES, *FRAME_AXES)  # axes that a block's devices differ along
_CLIPS, _FRAMES = PartitionSpec(BATCH_AXES), PartitionSpec(BATCH_AXES, FRAME_AXES)


def split_mesh() -> AbstractMesh | None:
    """The mesh in use (`jax.set_mesh`); None where there is none, or one of a single device."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.size == 1 else mesh


def ways_of_frames() -> int:
    """Into how many parts the mesh in use splits the frames of a clip."""
    mesh = split_mesh()
    return 1 if mesh is None else _ways(FRAME_AXES, mesh)


def kernels_are_whole() -> bool:
    """Whether every device holds all of every kernel."""
    mesh = split_mesh()
    return mesh is None or _ways(("fsdp", "tensor"), mesh) == 1


def on_each_device(
    block: Callable[..., Any],
    params: Params,
    path: str,
    frames: Sequence[Any],
    clips: Sequence[Any],
    *,
    dtype: DTypeLike,
    remat: str,
) -> Any:
    """`block(params, *frames, *clips)`, each device computing its own clips and frames.

    Args:
      block: no clip's result may depend on another clip; a frame's may on others by `fold.tubes` alone.
      params: of the block, as they rest.
      path: of the block in the network's tree, "down_0/block_1".
      frames: arrays [batch, frames, ...] or None, of which a device sees its frames.
      clips: arrays [batch, ...] or None, of which a device sees all frames.
      dtype: that the block computes in: of the gathered kernels.
      remat: what of it the backward pass computes again, a name in `REMAT`.

    Returns:
      What the block returns, [batch, frames, ...]; [batch, ...] where `frames` is empty.

    Raises:
      ValueError: the mesh does not divide the batch or the number of frames.
    """
    mesh = split_mesh()
    if mesh is None:
        return _again(block, remat, gathers=False)(params, *frames, *clips)
    _check_divides(mesh, frames)
    resting = jax.tree_util.tree_map_with_path(
        lambda key_path, leaf: spec_of(f"{path}/{path_of(key_path)}", leaf.shape, UNET_RULES, mesh), params
    )
    differ = _SPLIT if len(frames) else BATCH_AXES  # what looks at clips alone is the same at all frames of one

    def on_device(params: Params, *inputs: Any) -> Any:
        return block(jax.tree.map(functools.partial(_whole, dtype, differ), params, resting), *inputs)

    held = jax.tree.map(_along_fsdp, resting, is_leaf=lambda spec: isinstance(spec, PartitionSpec))
    return jax.shard_map(
        _again(on_device, remat, gathers=mesh.shape["fsdp"] > 1),
        mesh=mesh,
        in_specs=(held, *(_FRAMES for _ in frames), *(_CLIPS for _ in clips)),
        out_specs=_FRAMES if len(frames) else _CLIPS,
        axis_names=set(_SPLIT),
    )(params, *frames, *clips)


def _again(block: Callable[..., Any], remat: str, *, gathers: bool) -> Callable[..., Any]:
    if remat == "none" or (remat == "kernels" and not gathers):
        return block
    return jax.checkpoint(block, policy=REMAT[remat])


def _check_divides(mesh: AbstractMesh, frames: Sequence[Any]) -> None:
    batch, num_frames = _ways(BATCH_AXES, mesh), _ways(FRAME_AXES, mesh)
    for array in frames:
        if array is not None and (array.shape[0] % batch or array.shape[1] % num_frames):
            raise ValueError(
                f"The mesh splits the batch {batch} ways and the frames {num_frames} ways, which does not divide "
                f"{array.shape[0]} clips of {array.shape[1]} frames: choose multiples, or another mesh."
            )


def _along_fsdp(spec: PartitionSpec) -> PartitionSpec:
    return PartitionSpec(*(axes if axes == "fsdp" else None for axes in spec))


def _whole(
    dtype: DTypeLike, differ: Sequence[str], leaf: Float[Array, "..."], resting: PartitionSpec
) -> Float[Array, "..."]:
    """A parameter as a device computes with it. Its gradient is summed over the axes that devices `differ` along."""
    own = _along_fsdp(resting)
    missing = tuple(axis for axis in differ if axis not in own)
    leaf = jax.lax.pcast(leaf, missing, to="varying")  # backwards: the sum, of a device's share after the scatter
    if "fsdp" not in own or jax.lax.axis_size("fsdp") == 1:
        return leaf
    return _gathered(leaf, dtype, own.index("fsdp"))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gathered(leaf: Float[Array, "..."], dtype: DTypeLike, axis: int) -> Float[Array, "..."]:
    gathered = jax.lax.all_gather(leaf.astype(dtype), "fsdp", axis=axis, tiled=True)
    return gathered.astype(leaf.dtype)  # the layers cast again, for float32 gradients


def _forward(leaf: Float[Array, "..."], dtype: DTypeLike, axis: int) -> tuple[Float[Array, "..."], None]:
    return _gathered(leaf, dtype, axis), None


def _backward(dtype: DTypeLike, axis: int, residual: None, gradient: Float[Array, "..."]) -> tuple[Float[Array, "..."]]:
    return (jax.lax.psum_scatter(gradient, "fsdp", scatter_dimension=axis, tiled=True),)


_gathered.defvjp(_forward, _backward)


def lay_out(x: Float[Array, "batch frames ..."]) -> Float[Array, "batch frames ..."]:
    """Activations between blocks: batch and frames split, channels whole."""
    return x if split_mesh() is None else jax.lax.with_sharding_constraint(x, _FRAMES)
