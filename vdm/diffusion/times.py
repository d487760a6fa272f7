"""Measures of noise levels: how often training visits each time t.

A measure maps a number u in [0, 1) to a time, so that whoever draws u (independently, or spread over the batch to lower
the variance) decides nothing about the objective. The same u gives neighbouring times in every measure here.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float


@runtime_checkable
class Times(Protocol):
    """p(t). To add a measure, write these three."""

    @property
    def smallest(self) -> float:
        """The lower end of the times."""
        ...

    def time(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The time that u in [0, 1) stands for; falls from 1 as u rises."""
        ...

    def density(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """p(t); for a measure on a grid, the mass of the cell ((i - 1)/T, i/T] over its width."""
        ...


@dataclasses.dataclass(frozen=True)
class Uniform:
    """t uniform in (min, 1] ("over the time interval", Song et al. 2021); 0 <= min < 1."""

    min: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.min < 1.0:
            raise ValueError(f"times.uniform.min must be in [0, 1), got {self.min:g}")

    @property
    def smallest(self) -> float:
        return self.min

    def time(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 1.0 - (1.0 - self.min) * u

    def density(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.where((t >= self.min) & (t <= 1.0), 1.0 / (1.0 - self.min), 0.0)


@dataclasses.dataclass(frozen=True)
class Grid:
    """t uniform over {1, ..., T}/T, the levels of a DDPM chain (Ho et al. 2020); T = num_steps >= 1."""

    num_steps: int

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"times.grid.num_steps must be at least 1, got {self.num_steps}")

    @property
    def smallest(self) -> float:
        return 1.0 / self.num_steps

    def time(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return (self.num_steps - jnp.floor(u * self.num_steps)) / self.num_steps

    def density(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.where((t > 0.0) & (t <= 1.0), 1.0, 0.0)
