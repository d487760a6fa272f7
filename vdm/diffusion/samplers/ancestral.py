"""Ancestral sampling: a draw from the exact posterior with x0 replaced by its estimate."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from vdm.diffusion import process, schedules
from vdm.diffusion.schedules import Schedule
from vdm.types import Denoiser, Time, Video


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

    def __call__(self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Video) -> Video:
        here, there = schedules.level(schedule, t), schedules.level(schedule, s)
        of_xt, of_x0, lower = process.posterior(there, here)
        _, upper = process.transition(there, here)
        share = self.variance_interpolation
        std = jnp.sqrt(lower) ** (1.0 - share) * jnp.sqrt(upper) ** share
        x0 = denoiser(xt, here)
        return process.spread(of_xt) * xt + process.spread(of_x0) * x0 + process.spread(std) * noise
