"""The one loop of all fixed-step samplers, and the seam that step rules meet it by.

    step = Heun()                                               # or Ancestral(0.0), Ddim(0.0)
    times = grids.uniform(schedule, num_steps=32, t_min=1e-3)   # 33 times, from 1 down to t_min
    xT = prior(schedule, standard_normal)
    x0 = sample(denoiser, schedule, step, times, xT, noise)     # noise(i): standard normal Video of step i = 0 .. 31

The denoiser is evaluated `num_evaluations(step, times)` times in all. A step rule is handed its noise and knows of no
label, mask, network or key; rules that need none leave it alone, and the compiler then never draws it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vdm.diffusion import schedules
from vdm.diffusion.schedules import Schedule
from vdm.types import Denoiser, Time, Video

Noise = Callable[[Int[Array, ""]], Video]
Times = Float[Array, "num_times"]


@runtime_checkable
class Step(Protocol):
    """From xt at time t to a draw (or the solution) at time s, frame by frame. To add a sampler, write one."""

    @property
    def evaluations(self) -> int:
        """How often one step calls the denoiser."""
        ...

    def __call__(self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Video) -> Video: ...


def prior(schedule: Schedule, noise: Video) -> Video:
    """Where sampling starts, N(0, sigma(1)^2 I), from standard normal noise; sigma(1) = 1 within 1e-4 for the VP
    schedules.
    """
    return noise * jnp.exp(schedule.log_sigma(jnp.ones((), noise.dtype)))


def integrate(denoiser: Denoiser, schedule: Schedule, step: Step, times: Times, x: Video, noise: Noise) -> Video:
    """Carries x from times[0] to times[-1], one step between neighbours; the times may fall or, for an ODE, rise."""
    shape = x.shape[:2]

    def advance(xt: Video, interval: tuple[Array, Array, Array]) -> tuple[Video, None]:
        index, t, s = interval
        at = jnp.broadcast_to(t, shape), jnp.broadcast_to(s, shape)
        return step(denoiser, schedule, xt, *at, noise(index)), None

    return jax.lax.scan(advance, x, (jnp.arange(times.size - 1), times[:-1], times[1:]))[0]


def sample(denoiser: Denoiser, schedule: Schedule, step: Step, times: Times, xT: Video, noise: Noise) -> Video:
    """A clip: integrates from times[0] to times[-1] and there reads off the estimate of x0."""
    x = integrate(denoiser, schedule, step, times, xT, noise)
    return denoiser(x, schedules.level(schedule, jnp.broadcast_to(times[-1], x.shape[:2])))


def num_evaluations(step: Step, times: Times) -> int:
    """Calls of the denoiser in `sample` (the number of function evaluations), the final one included."""
    return step.evaluations * (times.size - 1) + 1
