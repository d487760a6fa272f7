"""How parameters rest on the mesh, and what a block does with them.

They rest by one table of (pattern over the parameter's path, PartitionSpec), read from the top. The first pattern that
is found in the path decides, and a path that none matches is an error. The optimiser's moments and the EMA carry the
path of the parameter that they mirror at the end of their own ("opt_state/0/mu/down_0/conv/kernel"), so the same line
of the table places all of them; patterns must therefore not be anchored at the start of the path.

A block computes with kernels that are whole along `fsdp`: they are gathered when it is entered, in the compute type,
and the float32 gradients go back to where the parameters rest. Activations are laid out at the block's boundary. Left
to itself the compiler infers layouts of activations from those of kernels and moves both.
"""

import functools
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from vdm.nets.remat import GATHERED
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


def split_mesh() -> AbstractMesh | None:
    """The mesh in use (`jax.set_mesh`); None where there is none, or one of a single device."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.size == 1 else mesh


def gathers_kernels() -> bool:
    """Whether the mesh in use splits resting kernels along `fsdp`."""
    mesh = split_mesh()
    return mesh is not None and mesh.shape["fsdp"] > 1


def enter(params: Params, path: str, dtype: DTypeLike) -> Params:
    """A block's parameters as it computes with them: kernels rounded to `dtype` and whole along `fsdp`.

    Type and gradients stay float32, and the gradients are laid out as the parameters rest. Without a mesh nothing is
    done: the layers cast.

    Args:
      params: of the block, as they rest.
      path: of the block in the network's tree, "down_0/block_1".
      dtype: that the block computes in.
    """
    mesh = split_mesh()
    if mesh is None:
        return params

    def entered(key_path: tuple[Any, ...], leaf: Float[Array, "..."]) -> Float[Array, "..."]:
        name = f"{path}/{path_of(key_path)}"
        resting = spec_of(name, leaf.shape, UNET_RULES, mesh)
        return _enter(leaf, dtype if name.endswith("/kernel") else leaf.dtype, resting)

    return jax.tree_util.tree_map_with_path(entered, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _enter(leaf: Float[Array, "..."], dtype: DTypeLike, resting: PartitionSpec) -> Float[Array, "..."]:
    gathered = jax.lax.with_sharding_constraint(leaf.astype(dtype), _gathered(resting))
    return checkpoint_name(gathered.astype(leaf.dtype), GATHERED)  # the layers cast again, for float32 gradients


def _forward(leaf: Float[Array, "..."], dtype: DTypeLike, resting: PartitionSpec) -> tuple[Float[Array, "..."], None]:
    return _enter(leaf, dtype, resting), None


def _backward(
    dtype: DTypeLike, resting: PartitionSpec, residual: None, gradient: Float[Array, "..."]
) -> tuple[Float[Array, "..."]]:
    # Whole, then split: the compiler makes one reduce-scatter of both. Asked for the split gradient alone it takes the
    # product apart into a loop with as many steps, and sums sent on, as there are devices.
    whole = jax.lax.with_sharding_constraint(gradient, _gathered(resting))
    return (jax.lax.with_sharding_constraint(whole, resting),)


def _gathered(resting: PartitionSpec) -> PartitionSpec:
    return PartitionSpec(*(None if axes == "fsdp" else axes for axes in resting))


_enter.defvjp(_forward, _backward)


def lay_out(x: Float[Array, "batch frames ..."]) -> Float[Array, "batch frames ..."]:
    """Activations between blocks: batch and frames split, channels whole."""
    return x if split_mesh() is None else jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH_AXES, FRAME_AXES))


def whole_clips(x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    """What belongs to a clip as a whole, such as the distances between its frames: the batch split, the rest whole."""
    return x if split_mesh() is None else jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH_AXES))
