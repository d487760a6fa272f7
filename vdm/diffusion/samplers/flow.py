"""The probability-flow ODE and the reverse SDE (Song et al. 2021), by steps in t.

Both are written with the estimates of x0 and of the noise, so that nothing is divided by alpha: the ODE is dx/dt =
alpha' x0 + sigma' noise, finite without any signal too, and g^2 score = d log_snr/dt (x - alpha E[x0 | x]) by Tweedie.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vdm.diffusion import process, schedules
from vdm.diffusion.schedules import Schedule
from vdm.types import Denoiser, Time, Video

Draw = Callable[[int | Int[Array, ""]], Video]  # the first, second, ... noise of a step


def velocity(denoiser: Denoiser, schedule: Schedule, x: Video, t: Time) -> Video:
    """dx/dt = f x - g^2 score / 2 of the probability-flow ODE; sigma(t) > 0."""
    _, sigma, alpha_rate, sigma_rate = schedules.rates(schedule, t)
    level = schedules.level(schedule, t)
    x0 = denoiser(x, level)
    of_x = sigma_rate / sigma
    return process.spread(of_x) * x + process.spread(alpha_rate - level.alpha * of_x) * x0


@dataclasses.dataclass(frozen=True)
class Euler:
    """A step of the ODE; order 1."""

    evaluations: ClassVar[int] = 1

    def __call__(self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Draw) -> Video:
        return xt + process.spread(s - t) * velocity(denoiser, schedule, xt, t)


@dataclasses.dataclass(frozen=True)
class Heun:
    """The ODE by the mean of the velocities at both ends (explicit trapezoid); order 2."""

    evaluations: ClassVar[int] = 2

    def __call__(self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Draw) -> Video:
        step = process.spread(s - t)
        first = velocity(denoiser, schedule, xt, t)
        second = velocity(denoiser, schedule, xt + step * first, s)
        return xt + 0.5 * step * (first + second)


@dataclasses.dataclass(frozen=True)
class AdaptiveFlow:
    """The ODE by Dormand and Prince's method of order 5 (diffrax), each example with steps of its own.

    Attributes:
      rtol, atol: relative and absolute error of a step.
      max_steps: more are an error when the program runs.

    Raises:
      ValueError: a tolerance that is not positive, or no step at all.
    """

    rtol: float
    atol: float
    max_steps: int = 4096

    def __post_init__(self) -> None:
        if not (self.rtol > 0.0 and self.atol > 0.0 and self.max_steps >= 1):
            raise ValueError(
                f"adaptive needs rtol > 0, atol > 0 and max_steps >= 1, got {self.rtol:g}, {self.atol:g} and"
                f" {self.max_steps}"
            )

    def solve(self, denoiser: Denoiser, schedule: Schedule, times: Float[Array, "num_times"], x: Video) -> Video:
        def field(t: Float[Array, ""], x: Float[Array, "..."], args: None) -> Float[Array, "..."]:
            return velocity(denoiser, schedule, x[None], jnp.full((1, x.shape[0]), t, x.dtype))[0]

        def solve(x: Float[Array, "frames height width channels"]) -> Float[Array, "frames height width channels"]:
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(field),  # pyright: ignore[reportArgumentType]  # it takes any function
                diffrax.Dopri5(),
                times[0].astype(x.dtype),
                times[-1].astype(x.dtype),
                None,
                x,
                stepsize_controller=diffrax.PIDController(rtol=self.rtol, atol=self.atol),
                max_steps=self.max_steps,
            )
            assert solution.ys is not None
            return solution.ys[-1]

        return jax.vmap(solve)(x)


@dataclasses.dataclass(frozen=True)
class EulerMaruyama:
    """A step of dx = [f x - g^2 score] dt + g dw, backwards in time; weak order 1."""

    evaluations: ClassVar[int] = 1
    needs_signal: ClassVar[bool] = True

    def __call__(self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Draw) -> Video:
        level = schedules.level(schedule, t)
        drift = process.spread(schedules.drift(schedule, t)) * xt
        rate = process.spread(schedules.log_snr_rate(schedule, t))
        g2_score = rate * (xt - process.spread(level.alpha) * denoiser(xt, level))
        std = jnp.sqrt((t - s) * schedules.diffusion_squared(schedule, t))
        return xt + process.spread(s - t) * (drift - g2_score) + process.spread(std) * noise(0)


@dataclasses.dataclass(frozen=True)
class ReverseDiffusion:
    """x - f_i + G_i^2 score + G_i z, where x_{i+1} = x_i + f_i + G_i z is the exact kernel between the two levels (Song
    et al. 2021, equation 46); weak order 1.
    """

    evaluations: ClassVar[int] = 1

    def __call__(self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Draw) -> Video:
        here, there = schedules.level(schedule, t), schedules.level(schedule, s)
        scale, variance = (process.spread(number) for number in process.transition(there, here))
        score = process.score_from(denoiser(xt, here), xt, here)
        return (2.0 - scale) * xt + variance * score + jnp.sqrt(variance) * noise(0)
