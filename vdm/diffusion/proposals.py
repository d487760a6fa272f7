"""Proposals: how the numbers u in [0, 1), from which the measure makes noise levels, are drawn for a batch.

They change the variance of the gradient and never the objective: where u is not uniform, every loss is multiplied by
the ratio of the two densities. What a proposal remembers is part of the train state.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from vdm.diffusion.schedules import Learned, Schedule
from vdm.diffusion.times import LAST, Grid, Times

_NUM_BUCKETS = 1024  # equally probable ones of another measure, within which levels come as the own measure has them
_BISECTIONS = 48
_NOTHING = 1e-6  # of the own measure, beyond the other one: rounding

Memory = PyTree[Any]
PerExample = Float[Array, "batch"]


@runtime_checkable
class Proposal(Protocol):
    """To add one, write these three and add it to the table of build.py."""

    def first(self) -> Memory:
        """The memory before the first step; () where nothing is remembered."""
        ...

    def draw(self, memory: Memory, uniform: PerExample, row: Int[Array, "batch"]) -> tuple[PerExample, PerExample]:
        """(u, importance) of every example: importance times loss has the mean over uniform u.

        Args:
          uniform: independent uniform numbers in [0, 1), one for each example.
          row: of the example in its batch, 0..batch_size-1.
        """
        ...

    def observe(self, memory: Memory, u: PerExample, loss: PerExample) -> Memory:
        """The memory with the losses of a step, without their importance."""
        ...


class _Forgetful:
    def first(self) -> Memory:
        return ()

    def observe(self, memory: Memory, u: PerExample, loss: PerExample) -> Memory:
        return memory


@dataclasses.dataclass(frozen=True)
class Independent(_Forgetful):
    """Each example for itself."""

    def draw(self, memory: Memory, uniform: PerExample, row: Int[Array, "batch"]) -> tuple[PerExample, PerExample]:
        return uniform, jnp.ones_like(uniform)


@dataclasses.dataclass(frozen=True)
class Stratified(_Forgetful):
    """The batch shares one offset and its rows are spread evenly (Kingma et al. 2021, appendix I): each number alone is
    uniform still, so only the variance of the mean falls.
    """

    def draw(self, memory: Memory, uniform: PerExample, row: Int[Array, "batch"]) -> tuple[PerExample, PerExample]:
        offset = jnp.sum(jnp.where(row == 0, uniform, 0.0))
        return _stratify(offset, row), jnp.ones_like(uniform)


@dataclasses.dataclass(frozen=True)
class LossAware:
    """Levels in proportion to the root mean square of their recent losses (Nichol and Dhariwal 2021, section 3.3), over
    buckets of equal probability, and spread evenly within a batch.

    Attributes:
      num_buckets: of u.
      decay: of a bucket's running mean, per step in which it is visited.
      uniform_share: probability that a draw does not look at the losses, which bounds the importance.

    Raises:
      ValueError: an option out of its range.
    """

    num_buckets: int
    decay: float
    uniform_share: float

    def __post_init__(self) -> None:
        if not (self.num_buckets >= 2 and 0.0 <= self.decay < 1.0 and 0.0 < self.uniform_share <= 1.0):
            raise ValueError(
                "proposal.loss_aware needs num_buckets >= 2, decay in [0, 1) and uniform_share in (0, 1], got"
                f" {self.num_buckets}, {self.decay:g} and {self.uniform_share:g}"
            )

    def first(self) -> Memory:
        return jnp.zeros((2, self.num_buckets))

    def draw(self, memory: Memory, uniform: PerExample, row: Int[Array, "batch"]) -> tuple[PerExample, PerExample]:
        ends = jnp.arange(self.num_buckets + 1) / self.num_buckets
        return _draw_from_buckets(ends, self.density(memory) / self.num_buckets, uniform, row)

    def observe(self, memory: Memory, u: PerExample, loss: PerExample) -> Memory:
        in_bucket = jax.nn.one_hot((u * self.num_buckets).astype(jnp.int32), self.num_buckets)
        count, total = in_bucket.sum(axis=0), (loss**2) @ in_bucket
        kept = jnp.where(count > 0, self.decay, 1.0)
        seen = jnp.where(count > 0, total / jnp.maximum(count, 1.0), 0.0)
        return jnp.stack([kept * memory[0] + (1.0 - kept) * seen, kept * memory[1] + (1.0 - kept)])

    def density(self, memory: Memory) -> Float[Array, "buckets"]:
        """Of u in every bucket, with mean 1; even until every bucket has been seen."""
        size = jnp.sqrt(memory[0] / jnp.where(memory[1] > 0, memory[1], 1.0))
        mean = size.mean()
        known = jnp.all(memory[1] > 0) & jnp.isfinite(mean) & (mean > 0)
        aware = jnp.where(known, size / jnp.where(known, mean, 1.0), 1.0)
        return self.uniform_share + (1.0 - self.uniform_share) * aware


@dataclasses.dataclass(frozen=True)
class Uneven(_Forgetful):
    """u from buckets, each with its mass, and spread evenly within a batch.

    Attributes:
      ends: of the buckets, rising from 0 to 1.
      mass: of each bucket, positive, with a sum of 1.
    """

    ends: tuple[float, ...]
    mass: tuple[float, ...]

    def draw(self, memory: Memory, uniform: PerExample, row: Int[Array, "batch"]) -> tuple[PerExample, PerExample]:
        return _draw_from_buckets(jnp.asarray(self.ends), jnp.asarray(self.mass), uniform, row)


def as_measure(schedule: Schedule, own: Times, other: Times, own_share: float) -> Uneven:
    """Levels as often as another measure visits them, of those that the objective's own measure has.

    Args:
      own_share: probability that a draw is from the own measure, which bounds the importance by its inverse.

    Raises:
      ValueError: own_share is not in (0, 1]; a measure is a grid's, or the schedule is learned, so that its levels
        move; or the other measure visits no level of the own one.
    """
    if not 0.0 < own_share <= 1.0:
        raise ValueError(f"proposal.measure needs own_share in (0, 1], got {own_share:g}")
    if isinstance(own, Grid) or isinstance(other, Grid) or isinstance(schedule, Learned):
        raise ValueError(
            "proposal.measure needs two continuous measures on a schedule that is not learned; take proposal"
            " stratified, or another objective.times"
        )
    with jax.ensure_compile_time_eval():
        times = other.time(schedule, jnp.minimum(jnp.arange(_NUM_BUCKETS + 1) / _NUM_BUCKETS, LAST))
        at = np.asarray(_number_of(schedule, own, times), np.float64)
    at[0], at[-1] = (0.0 if at[0] < _NOTHING else at[0]), (1.0 if at[-1] > 1.0 - _NOTHING else at[-1])
    share = np.diff(at, prepend=0.0, append=1.0)  # by the own measure: first and last what the other one does not reach
    visits = np.pad(np.where(share[1:-1] > 0, 1.0 / _NUM_BUCKETS, 0.0), 1)
    if not visits.any():
        raise ValueError(f"{other} visits no level of {own}, so it cannot propose any")
    kept = share > 0
    mass = (own_share * share + (1.0 - own_share) * visits / visits.sum())[kept]
    return Uneven((0.0, *np.cumsum(share[kept])[:-1].tolist(), 1.0), tuple(mass.tolist()))


def _number_of(schedule: Schedule, own: Times, times: Float[Array, "levels"]) -> Float[Array, "levels"]:
    """The u in [0, 1] to which a measure gives these times, or the end that is next to them; by bisection."""

    def halve(i: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        is_noisier = own.time(schedule, jnp.minimum(middle, LAST)) > times  # times fall as u rises
        return jnp.where(is_noisier, middle, low), jnp.where(is_noisier, high, middle)

    low, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(times), jnp.ones_like(times)))
    return low


def _draw_from_buckets(
    ends: Float[Array, "ends"], mass: Float[Array, "buckets"], uniform: PerExample, row: Int[Array, "batch"]
) -> tuple[PerExample, PerExample]:
    """(u, importance) of rows that are spread evenly over buckets of u with their masses."""
    even = _stratify(jnp.sum(jnp.where(row == 0, uniform, 0.0)), row)
    edges = jnp.concatenate([jnp.zeros(1), jnp.cumsum(mass)[:-1], jnp.ones(1)])  # a sum of floats is not 1
    bucket = jnp.clip(jnp.searchsorted(edges, even, side="right") - 1, 0, mass.size - 1)
    within = jnp.clip((even - edges[bucket]) / (edges[bucket + 1] - edges[bucket]), 0.0, 1.0 - 2.0**-12)
    width = ends[bucket + 1] - ends[bucket]
    return jnp.minimum(ends[bucket] + within * width, LAST), width / mass[bucket]


def _stratify(offset: Float[Array, ""], row: Int[Array, "batch"]) -> PerExample:
    return (offset + row / row.size) % 1.0
