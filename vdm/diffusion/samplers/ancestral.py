"""Ancestral sampling: a draw from the exact posterior with x0 replaced by its estimate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from vdm.diffusion import process, schedules
from vdm.diffusion.schedules import Schedule
from vdm.types import Denoiser, Level, Time, Video


@dataclasses.dataclass(frozen=True)
class Ancestral:
    """Ho et al. 2020 on a chain; Kingma et al. 2021 between any two levels.

    Attributes:
      variance_interpolation: 0 takes the lower variance (beta tilde, exact for a point), 1 the upper one (beta, exact
        for unit normal data), and between them log variance is interpolated (Nichol and Dhariwal 2021; gamma of Ho et
        al. 2022).

    Raises:
      ValueError: variance_interpolation outside of [0, 1].
    """

    variance_interpolation: float = 0.0
    evaluations: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.variance_interpolation <= 1.0:
            raise ValueError(f"ancestral.variance_interpolation must be in [0, 1], got {self.variance_interpolation:g}")

    def __call__(
        self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Callable[[int], Video]
    ) -> Video:
        here, there = schedules.level(schedule, t), schedules.level(schedule, s)
        share = jnp.asarray(self.variance_interpolation, xt.dtype)
        return _step(denoiser(xt, here), xt, there, here, share, noise(0))


@dataclasses.dataclass(frozen=True)
class LearnedAncestral:
    """The same with the variance that the network has learned (Nichol and Dhariwal 2021, arXiv 2102.09672).

    The denoiser must be that of an objective with a `variance_weight`; guidance has no variance to offer.
    """

    evaluations: ClassVar[int] = 1

    def __call__(
        self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Callable[[int], Video]
    ) -> Video:
        here, there = schedules.level(schedule, t), schedules.level(schedule, s)
        if not isinstance(denoiser, DenoiserWithVariance):
            raise ValueError(
                "sampler learned_ancestral needs the network's own variance, which guidance and thresholds do not"
                " pass on: take another sampler, or no guidance"
            )
        x0, share = denoiser.with_variance(xt, here)
        return _step(x0, xt, there, here, share, noise(0))


@runtime_checkable
class DenoiserWithVariance(Protocol):
    """As `objectives.NetworkDenoiser`."""

    def with_variance(self, xt: Video, level: Level) -> tuple[Video, Video]:
        """The estimate of x0, and where the log variance of the step stands between the lower (0) and upper (1) one."""
        ...


def _step(x0: Video, xt: Video, s: Level, t: Level, share: Float[Array, "..."], noise: Video) -> Video:
    of_xt, of_x0, lower = (process.spread(number) for number in process.posterior(s, t))
    _, upper = process.transition(s, t)
    std = jnp.sqrt(lower) ** (1.0 - share) * jnp.sqrt(process.spread(upper)) ** share
    return of_xt * xt + of_x0 * x0 + std * noise
