"""Multistep solvers in log-SNR: DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095) and UniPC (Zhao et al. 2023, arXiv
2302.04867), one evaluation a step.

Both solve x_s = (sigma_s/sigma_t) x_t + sigma_s times the integral of e^l x0(l) over l = log(alpha/sigma) from l_t to
l_s = l_t + h, with x0(l) extrapolated from earlier estimates.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from vdm.diffusion import schedules
from vdm.diffusion.process import spread
from vdm.diffusion.samplers.flow import Draw
from vdm.diffusion.schedules import Schedule
from vdm.types import Denoiser, Level, Time, Video


@dataclasses.dataclass(frozen=True)
class DpmSolver:
    """DPM-Solver++(2M), and its SDE form.

    Attributes:
      order: 1 (DDIM, or where it is stochastic ancestral sampling) or 2.
      stochastic: solve the reverse SDE, not the ODE.

    Raises:
      ValueError: another order.
    """

    order: int = 2
    stochastic: bool = False
    evaluations: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ValueError(f"dpm_solver.order must be 1 or 2, got {self.order}")

    def first(self, xt: Video) -> tuple[Video, Time]:
        return jnp.zeros_like(xt), jnp.full(xt.shape[:2], jnp.inf, xt.dtype)

    def advance(
        self,
        denoiser: Denoiser,
        schedule: Schedule,
        memory: tuple[Video, Time],
        xt: Video,
        t: Time,
        s: Time,
        noise: Draw,
    ) -> tuple[Video, tuple[Video, Time]]:
        here, there = schedules.level(schedule, t), schedules.level(schedule, s)
        earlier, h_before = memory  # an infinite step before: there was none
        h = 0.5 * (there.log_snr - here.log_snr)
        x0 = denoiser(xt, here)
        ahead = jnp.where(jnp.isfinite(h_before) & (self.order == 2), 0.5 * h / h_before, 0.0)
        extrapolated = x0 + spread(ahead) * (x0 - earlier)
        of_xt = there.sigma / here.sigma
        if not self.stochastic:
            x = spread(of_xt) * xt - spread(there.alpha * jnp.expm1(-h)) * extrapolated
        else:
            lost = -jnp.expm1(-2.0 * h)
            x = (
                spread(of_xt * jnp.exp(-h)) * xt
                + spread(there.alpha * lost) * extrapolated
                + spread(there.sigma * jnp.sqrt(lost)) * noise(0)
            )
        return x, (x0, h)


@dataclasses.dataclass(frozen=True)
class UniPC:
    """UniPC-2 with B(h) = e^h - 1: the step of DPM-Solver++(2M), corrected with the estimate at its end, which the next
    step needs anyway; order 3.
    """

    evaluations: ClassVar[int] = 1
    needs_signal: ClassVar[bool] = True

    def first(self, xt: Video) -> tuple[Video, Video, Video, Level, Time, Time]:
        frames = jnp.zeros(xt.shape[:2], xt.dtype)
        start = Level(frames, frames + 1.0, frames)  # any level: the step before the first one has no length
        return xt, jnp.zeros_like(xt), jnp.zeros_like(xt), start, frames, jnp.full_like(frames, jnp.inf)

    def advance(
        self, denoiser: Denoiser, schedule: Schedule, memory: Any, xt: Video, t: Time, s: Time, noise: Draw
    ) -> tuple[Video, Any]:
        here, there = schedules.level(schedule, t), schedules.level(schedule, s)
        x_before, x0_before, x0_earlier, before, h_before, h_earlier = memory
        x0 = denoiser(xt, here)
        is_first = h_before == 0.0
        corrected = _corrected(x_before, x0_before, x0_earlier, x0, before, here, h_before, h_earlier)
        x = jnp.where(spread(is_first), xt, corrected)

        h = 0.5 * (there.log_snr - here.log_snr)
        ahead = jnp.where(is_first, 0.0, 0.5 * h / jnp.where(is_first, 1.0, h_before))
        extrapolated = x0 + spread(ahead) * (x0 - x0_before)
        x_s = spread(there.sigma / here.sigma) * x - spread(there.alpha * jnp.expm1(-h)) * extrapolated
        return x_s, (x, x0, x0_before, here, h, jnp.where(is_first, jnp.inf, h_before))


def _corrected(
    x: Video, x0: Video, x0_earlier: Video, x0_end: Video, start: Level, end: Level, h: Time, h_earlier: Time
) -> Video:
    """The step from `start` to `end` of length h with x0(l) through the estimates before, at and after it."""
    phi_1, phi_2, phi_3 = (_phi(k, -h) for k in (1, 2, 3))
    before = -h_earlier / jnp.where(h == 0.0, 1.0, h)  # where the earlier estimate stands, in units of h
    exact_for_lines, exact_for_parabolas = phi_2 / phi_1, 2.0 * phi_3 / phi_1
    of_earlier = (exact_for_lines - exact_for_parabolas) / (1.0 - before)
    of_end = exact_for_lines - of_earlier
    slope = spread(jnp.where(jnp.isfinite(before), of_earlier / before, 0.0)) * (x0_earlier - x0)
    estimate = x0 + slope + spread(of_end) * (x0_end - x0)
    return spread(end.sigma / start.sigma) * x - spread(end.alpha * jnp.expm1(-h)) * estimate


def _phi(k: int, z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """phi_1 = (e^z - 1)/z, phi_{k+1} = (phi_k - 1/k!)/z: by its series where the quotient cancels."""
    small = jnp.abs(z) < 0.5
    near = jnp.where(small, z, 0.0)
    series = sum(near**i / float(math.factorial(i + k)) for i in range(12))
    far = jnp.where(small, 1.0, z)
    quotient = jnp.expm1(far) / far
    for i in range(1, k):
        quotient = (quotient - 1.0 / math.factorial(i)) / far
    return jnp.where(small, series, quotient)
