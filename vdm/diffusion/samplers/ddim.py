"""DDIM (Song, Meng and Ermon 2021, arXiv 2010.02502) between any two levels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp

from vdm.diffusion import process, schedules
from vdm.diffusion.schedules import Schedule
from vdm.types import Denoiser, Time, Video


@dataclasses.dataclass(frozen=True)
class Ddim:
    """Keeps the part sqrt(1 - eta^2 ...) of the estimated noise and draws the rest anew.

    Attributes:
      eta: 0 is deterministic (Euler for x/alpha in the variable sigma/alpha), 1 is ancestral sampling with the lower
        variance.

    Raises:
      ValueError: eta outside of [0, 1].
    """

    eta: float = 0.0
    evaluations: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"ddim.eta must be in [0, 1], got {self.eta:g}")

    def __call__(
        self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Callable[[int], Video]
    ) -> Video:
        here, there = schedules.level(schedule, t), schedules.level(schedule, s)
        x0 = denoiser(xt, here)
        kept_noise = process.noise_from(x0, xt, here)
        x_s = process.spread(there.alpha) * x0
        if self.eta == 0.0:  # also where s is noisier than t (inversion), where a share of lost SNR has no meaning
            return x_s + process.spread(there.sigma) * kept_noise
        drawn = self.eta**2 * process.lost_share(there, here)
        return (
            x_s
            + process.spread(there.sigma * jnp.sqrt(1.0 - drawn)) * kept_noise
            + process.spread(there.sigma * jnp.sqrt(drawn)) * noise(0)
        )
