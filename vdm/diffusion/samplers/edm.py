"""The stochastic Heun sampler of Karras et al. 2022 (arXiv 2206.00364, algorithm 2), on any schedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from vdm.diffusion import schedules
from vdm.diffusion.process import spread
from vdm.diffusion.schedules import Schedule
from vdm.types import Denoiser, Level, Time, Video


@dataclasses.dataclass(frozen=True)
class StochasticHeun:
    """Raises the noise a little, then takes a Heun step for x/alpha in the variable sigma/alpha; order 2 without churn.

    Raised levels are none of the time grid's; in the first step, and where churn exceeds the grid's ratio, they are
    noisier than the level before. Over N levels down to 0 it costs 2N - 1 evaluations, the last
    of which reads the clip off (an Euler step to 0).

    Attributes:
      churn: relative rise of the noise in each step, S_churn / N of the paper, at most sqrt(2) - 1; 0: deterministic.
      churn_min, churn_max: sigma/alpha between which there is churn.
      noise_scale: standard deviation of the noise that is added, S_noise of the paper (1.003 for ImageNet).

    Raises:
      ValueError: churn outside of [0, sqrt(2) - 1], an empty range, or a scale that is not positive.
    """

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = np.inf
    noise_scale: float = 1.0
    evaluations: ClassVar[int] = 2
    needs_signal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.churn <= np.sqrt(2.0) - 1.0:
            raise ValueError(f"stochastic_heun.churn must be in [0, sqrt(2) - 1], got {self.churn:g}")
        if not (0.0 <= self.churn_min < self.churn_max and self.noise_scale > 0.0):
            raise ValueError(
                "stochastic_heun needs 0 <= churn_min < churn_max and noise_scale > 0, got"
                f" {self.churn_min:g}, {self.churn_max:g} and {self.noise_scale:g}"
            )

    def __call__(
        self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Callable[[int], Video]
    ) -> Video:
        here, there = schedules.level(schedule, t), schedules.level(schedule, s)
        before, last = here.sigma / here.alpha, there.sigma / there.alpha
        x = xt / spread(here.alpha)
        first = before
        if self.churn:
            churned = (before >= self.churn_min) & (before <= self.churn_max)
            first = before * (1.0 + jnp.where(churned, self.churn, 0.0))
            x += self.noise_scale * spread(jnp.sqrt(first**2 - before**2)) * noise(0)

        def slope(x: Video, sigma: Time, alpha: Time) -> Video:
            level = Level(alpha, alpha * sigma, -2.0 * jnp.log(sigma))
            return (x - denoiser(spread(alpha) * x, level)) / spread(sigma)

        step = spread(last - first)
        start = slope(x, first, here.alpha)
        end = slope(x + step * start, last, there.alpha)
        return spread(there.alpha) * (x + 0.5 * step * (start + end))
