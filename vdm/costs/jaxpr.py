"""FLOPs and bytes of a traced program, counted on its jaxpr: loops times their length, on all devices together.

Counted are multiplications and additions of matrix products and convolutions, two per pair, which are what a chip's
peak is quoted for. A tap of a convolution that falls on padding, or into a hole of a dilated input, is not counted:
nobody needs it, though a compiler may compute it. What no output depends on is not counted either.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from vdm.costs.convolutions import pairs

_REDUCTIONS = {"reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "argmax", "argmin"}


@dataclasses.dataclass(frozen=True)
class Operation:
    """A matrix product, convolution or reduction: FLOPs and bytes each time, and how often it is done."""

    flops: float
    bytes: float
    count: float = 1


@dataclasses.dataclass(frozen=True)
class Work:
    """What a program does.

    Attributes:
      operations: matrix products, convolutions and reductions, with the bytes that they read and write. All else is
        taken to be fused into them, so there are fewer bytes than in any compiler's figure.
      num_unbounded_loops: loops whose length only the data decide; their body is counted once.
    """

    operations: tuple[Operation, ...] = ()
    num_unbounded_loops: int = 0

    @property
    def flops(self) -> float:
        return sum(each.flops * each.count for each in self.operations)

    @property
    def bytes(self) -> float:
        return sum(each.bytes * each.count for each in self.operations)

    def __add__(self, other: Work) -> Work:
        unbounded = self.num_unbounded_loops + other.num_unbounded_loops
        return Work(self.operations + other.operations, unbounded)

    def times(self, count: float) -> Work:
        """The same `count` times over."""
        more = tuple(dataclasses.replace(each, count=each.count * count) for each in self.operations)
        return dataclasses.replace(self, operations=more)


def work(function: Callable[..., Any], *args: Any) -> Work:
    """What `function` does on abstract or concrete arguments; nothing is computed."""
    return work_of(traced(function, *args))


def traced(function: Callable[..., Any], *args: Any) -> ClosedJaxpr:
    """The jaxpr of a function. One that is jitted is traced by itself: inside another it may not have options."""
    trace = getattr(function, "trace", None) or jax.jit(function).trace
    return trace(*args).jaxpr


def work_of(program: ClosedJaxpr) -> Work:
    """What a jaxpr does."""
    return _work(program.jaxpr, [True] * len(program.jaxpr.outvars))


def _work(jaxpr: Jaxpr, needed: Sequence[bool]) -> Work:
    total = Work()
    live = {var for var, is_needed in zip(jaxpr.outvars, needed, strict=True) if is_needed and _is_variable(var)}
    for equation in reversed(jaxpr.eqns):
        wanted = [var in live for var in equation.outvars]
        if not any(wanted) and not equation.effects:
            continue
        live.update(var for var in equation.invars if _is_variable(var))
        total += _equation(equation, wanted)
    return total


def _is_variable(atom: Any) -> bool:
    return not isinstance(atom, Literal)


def _equation(equation: Any, wanted: list[bool]) -> Work:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return Work((Operation(_dot_flops(equation), _bytes(equation)),))
    if name == "conv_general_dilated":
        return Work((Operation(_conv_flops(equation), _bytes(equation)),))
    if name in _REDUCTIONS:
        return Work((Operation(0.0, _bytes(equation)),))
    bodies = _bodies(params)
    if name == "scan":
        return bodies[0].times(params["length"])
    if name == "while":
        return sum(bodies, Work(num_unbounded_loops=1))
    if name == "cond":
        return max(bodies, key=lambda branch: branch.flops)
    if name == "shard_map":
        return bodies[0].times(_manual_devices(params))
    if len(bodies) == 1 and len(_jaxprs(params)[0].outvars) == len(wanted):
        return _work(_jaxprs(params)[0], wanted)
    return sum(bodies, Work())


def _bodies(params: dict[str, Any]) -> list[Work]:
    return [_work(body, [True] * len(body.outvars)) for body in _jaxprs(params)]


def _jaxprs(params: dict[str, Any]) -> list[Jaxpr]:
    """Those that an equation holds, in the order of its parameters."""
    found = []
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, Jaxpr):
                found.append(item)
    return found


def _manual_devices(params: dict[str, Any]) -> int:
    """Over how many devices the body of a `shard_map` is split, each doing its block."""
    mesh, axes = params["mesh"], params["newly_manual_axes"]
    return math.prod(mesh.shape[axis] for axis in axes)


def _dot_flops(equation: Any) -> float:
    left, right = (var.aval.shape for var in equation.invars)
    (contracted, other), (batch, _) = equation.params["dimension_numbers"]
    summed = math.prod(left[axis] for axis in contracted)
    shared = math.prod(left[axis] for axis in batch)
    rows = math.prod(left) // max(summed * shared, 1)
    columns = math.prod(right) // max(math.prod(right[axis] for axis in other) * shared, 1)
    return 2.0 * shared * rows * columns * summed


def _conv_flops(equation: Any) -> float:
    """Every output number sums, over its group's input channels, the taps that meet the input."""
    params = equation.params
    (left, right), out = (var.aval.shape for var in equation.invars), equation.outvars[0].aval.shape
    left_spec, right_spec, out_spec = params["dimension_numbers"]
    met = 1
    windows = zip(
        *(params[name] for name in ("window_strides", "padding", "lhs_dilation", "rhs_dilation")), strict=True
    )
    for axis, (stride, (low, _), hole, spread) in enumerate(windows):
        sizes = (shape[spec[axis + 2]] for shape, spec in ((left, left_spec), (right, right_spec), (out, out_spec)))
        met *= pairs(*sizes, stride=stride, low=low, hole=hole, spread=spread)
    batch, channels_out = out[out_spec[0]], out[out_spec[1]]
    return 2.0 * batch * channels_out * right[right_spec[1]] * met


def _bytes(equation: Any) -> float:
    return float(sum(math.prod(var.aval.shape) * var.aval.dtype.itemsize for var in _arrays(equation)))


def _arrays(equation: Any) -> list[Any]:
    return [var for var in (*equation.invars, *equation.outvars) if hasattr(var.aval, "dtype")]


def peak_bytes(program: ClosedJaxpr) -> float:
    """Most bytes that intermediate results take at once, in the order of the jaxpr, on all devices together.

    Arguments and results of the whole are not counted, every other array is from its making to its last use: no fusion,
    so it is an upper estimate of what a compiler needs.
    """
    return _peak(program.jaxpr)


def _peak(jaxpr: Jaxpr) -> float:
    last = {var: place for place, equation in enumerate(jaxpr.eqns) for var in equation.invars if _is_variable(var)}
    kept = {var for var in (*jaxpr.invars, *jaxpr.constvars, *jaxpr.outvars) if _is_variable(var)}
    live = peak = 0.0
    ends: dict[int, float] = {}
    for place, equation in enumerate(jaxpr.eqns):
        inner = max((_peak(body) for body in _jaxprs(equation.params)), default=0.0)
        made = {var: _size(var) for var in equation.outvars if var not in kept}
        live += sum(made.values())
        peak = max(peak, live + inner)
        for var, size in made.items():
            end = last.get(var, place)
            ends[end] = ends.get(end, 0.0) + size
        live -= ends.pop(place, 0.0)
    return peak


def _size(var: Any) -> float:
    return math.prod(var.aval.shape) * var.aval.dtype.itemsize if hasattr(var.aval, "dtype") else 0.0
