"""The one loop of all samplers, and the seams that step rules meet it by.

    sampler = Heun()                                            # or Ancestral(0.0), DpmSolver(2, False), ...
    times = grids.uniform(schedule, num_steps=32, t_min=1e-3)   # 33 times, from 1 down to t_min
    xT = prior(schedule, times, standard_normal)
    x0 = sample(denoiser, schedule, sampler, times, xT, noise)  # noise(i): standard normal Video

The denoiser is evaluated `num_evaluations(sampler, times)` times in all. A step rule is handed its noise and knows of
no label, mask, network or key; rules that need none leave it alone, and the compiler then never draws it. With
correlated noise (`noise_priors`) both the start and `noise` are drawn from the prior; no rule changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vdm.diffusion import schedules
from vdm.diffusion.samplers.ddim import Ddim
from vdm.diffusion.samplers.flow import Draw
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

    def __call__(self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Draw) -> Video: ...


@runtime_checkable
class Multistep(Protocol):
    """A step rule that remembers earlier steps."""

    @property
    def evaluations(self) -> int: ...

    def first(self, xt: Video) -> Any:
        """The memory before the first step."""
        ...

    def advance(
        self, denoiser: Denoiser, schedule: Schedule, memory: Any, xt: Video, t: Time, s: Time, noise: Draw
    ) -> tuple[Video, Any]: ...


@runtime_checkable
class Solver(Protocol):
    """Chooses its own times between the first and the last."""

    def solve(self, denoiser: Denoiser, schedule: Schedule, times: Times, x: Video) -> Video: ...


Sampler = Step | Multistep | Solver


def prior(schedule: Schedule, times: Times, noise: Video) -> Video:
    """Where sampling starts, N(0, sigma^2 S) at the first time, from noise of the prior N(0, S)."""
    return noise * schedule.sigma(jnp.asarray(times[0], noise.dtype))


def integrate(denoiser: Denoiser, schedule: Schedule, sampler: Sampler, times: Times, x: Video, noise: Noise) -> Video:
    """Carries x from times[0] to times[-1], one step between neighbours; the times may fall or, for an ODE, rise.

    Step i draws noise(i), and where it needs more, noise(i + num_steps), ...
    """
    if isinstance(sampler, Solver):
        return sampler.solve(denoiser, schedule, times, x)
    shape, num_steps = x.shape[:2], times.size - 1
    first = sampler.first(x) if isinstance(sampler, Multistep) else None

    def advance(carry: tuple[Video, Any], interval: tuple[Array, Array, Array]) -> tuple[tuple[Video, Any], None]:
        index, t, s = interval
        at = jnp.broadcast_to(t, shape), jnp.broadcast_to(s, shape)
        xt, memory = carry
        draw = lambda i: noise(index + i * num_steps)  # noqa: E731
        if isinstance(sampler, Multistep):
            return sampler.advance(denoiser, schedule, memory, xt, *at, draw), None
        return (sampler(denoiser, schedule, xt, *at, draw), None), None

    return jax.lax.scan(advance, (x, first), (jnp.arange(num_steps), times[:-1], times[1:]))[0][0]


def sample(denoiser: Denoiser, schedule: Schedule, sampler: Sampler, times: Times, xT: Video, noise: Noise) -> Video:
    """A clip: integrates from times[0] to times[-1] and there reads off the estimate of x0."""
    x = integrate(denoiser, schedule, sampler, times, xT, noise)
    return denoiser(x, schedules.level(schedule, jnp.broadcast_to(times[-1], x.shape[:2])))


def invert(denoiser: Denoiser, schedule: Schedule, times: Times, x: Video) -> Video:
    """DDIM inversion: from x at times[-1] back up to times[0], with the noise estimated where it stands (Song, Meng and
    Ermon 2021; Dhariwal and Nichol 2021, appendix F). Sampling with `Ddim(0)` over `times` returns to x within O(1/S).
    """
    ddim: Any = Ddim(0.0)  # of a type that pyright finds in no member of Sampler: its ClassVar is no property
    return integrate(denoiser, schedule, ddim, times[::-1], x, lambda index: jnp.zeros_like(x))


def num_evaluations(sampler: Sampler, times: Times) -> int | None:
    """Calls of the denoiser in `sample` (the number of function evaluations), the final one included; None where the
    solver decides while it runs.
    """
    return None if isinstance(sampler, Solver) else sampler.evaluations * (times.size - 1) + 1


def check_start(sampler: Sampler, schedule: Schedule, times: Times) -> None:
    """Raises ValueError for a rule that cannot start where there is no signal at all, as some divide by alpha."""
    with jax.ensure_compile_time_eval():
        alpha = float(schedule.alpha(jnp.asarray(times[0])))
    if alpha == 0.0 and getattr(sampler, "needs_signal", False):
        raise ValueError(
            f"{type(sampler).__name__} cannot start at t = {float(times[0]):g}, where {type(schedule).__name__} has no"
            " signal left: take ancestral, ddim, heun or dpm_solver, or a schedule that keeps some"
        )
