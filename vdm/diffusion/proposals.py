"""Proposals: how the numbers u in [0, 1), from which the measure makes noise levels, are drawn for a batch.

They change the variance of the gradient and never the objective: where u is not uniform, every loss is multiplied by
the ratio of the two densities. What a proposal remembers is part of the train state.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

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
        density = self.density(memory)
        even = _stratify(jnp.sum(jnp.where(row == 0, uniform, 0.0)), row)
        ends = jnp.concatenate([jnp.zeros(1), jnp.cumsum(density) / self.num_buckets])
        bucket = jnp.clip(jnp.searchsorted(ends, even, side="right") - 1, 0, self.num_buckets - 1)
        within = (even - ends[bucket]) / (ends[bucket + 1] - ends[bucket])
        u = (bucket + jnp.clip(within, 0.0, 1.0 - 2.0**-12)) / self.num_buckets
        return u, 1.0 / density[bucket]

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


def _stratify(offset: Float[Array, ""], row: Int[Array, "batch"]) -> PerExample:
    return (offset + row / row.size) % 1.0
