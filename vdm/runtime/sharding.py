"""How parameters rest on the mesh: one table of (pattern over the parameter's path, PartitionSpec), read from the top.

The first pattern that is found in the path decides, and a path that none matches is an error. The optimiser's moments
and the EMA carry the path of the parameter that they mirror at the end of their own
("opt_state/0/mu/down_0/conv/kernel"), so the same line of the table places all of them; patterns must therefore not be
anchored at the start of the path.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

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
