"""The probability-flow ODE and the reverse SDE (Song et al. 2021), by Euler, Heun and Euler-Maruyama steps in t.

Both are written with x - alpha x0, so that nothing is divided by sigma: g^2 score = d log_snr/dt (x - alpha E[x0 | x])
by Tweedie.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from vdm.diffusion import process, schedules
from vdm.diffusion.schedules import Schedule
from vdm.types import Denoiser, Time, Video


@dataclasses.dataclass(frozen=True)
class EulerMaruyama:
    """A step of dx = [f x - g^2 score] dt + g dw, backwards in time; weak order 1."""

    evaluations: ClassVar[int] = 1

    def __call__(self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Video) -> Video:
        deterministic = process.spread(s - t) * _velocity(denoiser, schedule, xt, t, of_score=1.0)
        std = jnp.sqrt((t - s) * schedules.diffusion_squared(schedule, t))
        return xt + deterministic + process.spread(std) * noise


@dataclasses.dataclass(frozen=True)
class Euler:
    """A step of dx/dt = f x - g^2 score / 2; order 1."""

    evaluations: ClassVar[int] = 1

    def __call__(self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Video) -> Video:
        return xt + process.spread(s - t) * _velocity(denoiser, schedule, xt, t, of_score=0.5)


@dataclasses.dataclass(frozen=True)
class Heun:
    """The same ODE by the mean of the velocities at both ends (explicit trapezoid); order 2."""

    evaluations: ClassVar[int] = 2

    def __call__(self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Video) -> Video:
        step = process.spread(s - t)
        first = _velocity(denoiser, schedule, xt, t, of_score=0.5)
        second = _velocity(denoiser, schedule, xt + step * first, s, of_score=0.5)
        return xt + 0.5 * step * (first + second)


def _velocity(denoiser: Denoiser, schedule: Schedule, x: Video, t: Time, of_score: float) -> Video:
    level = schedules.level(schedule, t)
    drift = process.spread(schedules.drift(schedule, t)) * x
    scaled_score = process.spread(schedules.log_snr_rate(schedule, t)) * (
        x - process.spread(level.alpha) * denoiser(x, level)
    )
    return drift - of_score * scaled_score
