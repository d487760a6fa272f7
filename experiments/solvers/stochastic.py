"""Relative error of the covariance that stochastic samplers end with on the Gaussian video, without Monte Carlo.

With the exact denoiser every step is affine, so in each eigendirection of K it is known from what the real step rule
makes of a unit state, a unit memory (of multistep rules) and unit noises; covariances then follow exactly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.solvers.paths import ENDS, SPACINGS, Padded, make_grid, make_schedules, pad, rounded
from experiments.solvers.worlds import GaussianVideo, level_at
from vdm.diffusion.process import spread
from vdm.diffusion.samplers import (
    Ancestral,
    AnnealedLangevin,
    Ddim,
    DpmSolver,
    EulerMaruyama,
    Multistep,
    PredictorCorrector,
    ReverseDiffusion,
    StochasticHeun,
)
from vdm.diffusion.schedules import Schedule
from vdm.types import Level, Video

BUDGETS = (8, 16, 32, 64, 128, 256, 512)  # NFE
WORLD = GaussianVideo()
MOST_CHURN = float(np.sqrt(2.0) - 1.0)


def _churned(total: float) -> Callable[[int], StochasticHeun]:
    """S_churn of Karras et al. 2022, spread over the steps."""
    return lambda num_steps: StochasticHeun(min(total / num_steps, MOST_CHURN))


SAMPLERS: dict[str, Callable[[int], Any]] = {  # from the number of steps
    "ancestral lower": lambda _: Ancestral(0.0),
    "ancestral middle": lambda _: Ancestral(0.5),
    "ancestral upper": lambda _: Ancestral(1.0),
    "ddim eta 1": lambda _: Ddim(1.0),
    "euler_maruyama": lambda _: EulerMaruyama(),
    "reverse_diffusion": lambda _: ReverseDiffusion(),
    "dpm_solver 2 sde": lambda _: DpmSolver(2, True),
    "pc reverse_diffusion": lambda _: PredictorCorrector("reverse_diffusion", 0.16, 1),
    "pc ancestral": lambda _: PredictorCorrector("ancestral", 0.16, 1),
    "annealed_langevin": lambda _: AnnealedLangevin(0.2, 4),
    "stochastic_heun churn 5": _churned(5.0),
    "stochastic_heun churn 40": _churned(40.0),
    "ddim eta 0": lambda _: Ddim(0.0),  # deterministic, for comparison
    "dpm_solver 2": lambda _: DpmSolver(2, False),
}


def exact(xt: Video, level: Level) -> Video:
    """E[x0 | xt] where the pixels are the eigendirections of K."""
    variances = jnp.asarray(WORLD.modes[0], xt.dtype)[:, None]
    alpha, sigma = spread(level.alpha), spread(level.sigma)
    return alpha * variances * xt / (alpha**2 * variances + sigma**2)


@functools.partial(jax.jit, static_argnames=("sampler", "num_draws"))
def variances_at_the_end(
    sampler: Any, num_draws: int, schedule: Schedule, times: Float[Array, "num_times"], start: Float[Array, "size"]
) -> Float[Array, "size"]:
    """Of every eigendirection, from those at times[0].

    Args:
      sampler: a `Padded` rule whose memory, where it has one, is (the last estimate of x0, the last step's length).
      num_draws: noises of a step, at most.
    """
    size = start.size
    shape = (2 + num_draws, 1, 1, size, 1)  # a unit state, a unit memory, unit noises

    def unit(row: int) -> Video:
        return jnp.zeros(shape).at[row].set(1.0)

    remembers = isinstance(sampler.sampler, Multistep)

    def advance(carry: tuple[Array, Any], interval: tuple[Array, Array]) -> tuple[tuple[Array, Any], None]:
        covariance, length = carry
        t, s = (jnp.full(shape[:2], time) for time in interval)
        memory = (unit(1), length) if remembers else ()
        x, memory = sampler.advance(exact, schedule, memory, unit(0), t, s, lambda draw: unit(2 + draw))
        estimate, length = memory if remembers else (jnp.zeros(shape), length)
        rows = jnp.stack([x, estimate])[:, :, 0, 0, :, 0]  # (new state, new memory), of which unit, direction
        of_state, of_noise = rows[:, :2], rows[:, 2:]
        moved = jnp.einsum("ajd,jkd,bkd->abd", of_state, covariance, of_state)
        return (moved + jnp.einsum("ajd,bjd->abd", of_noise, of_noise), length), None

    covariance = jnp.zeros((2, 2, size)).at[0, 0].set(start)
    first = sampler.first(jnp.zeros(shape))[1] if remembers else jnp.zeros(shape[:2])
    (covariance, _), _ = jax.lax.scan(advance, (covariance, first), (times[:-1], times[1:]))
    return covariance[0, 0]


def run() -> dict[str, Any]:
    """Settings, and a row for every schedule, spacing and sampler: `nfe`; `error`, the relative error of the covariance
    in the Frobenius norm; `smallest` and `largest`, the ratio of the variance to the exact one in the direction of the
    data's smallest and largest variance.
    """
    rows = []
    with jax.enable_x64(True):
        for name, schedule in make_schedules().items():
            for title, make in SAMPLERS.items():
                rows += [_row(name, schedule, spacing, title, make) for spacing in SPACINGS]
    return {"settings": {"log_snr": ENDS, "eigenvalues": rounded(WORLD.modes[0])}, "rows": rows}


def _row(name: str, schedule: Schedule, spacing: str, title: str, make: Callable[[int], Any]) -> dict[str, Any]:
    values, _ = WORLD.modes
    nfe, ratios = [], []
    for budget in BUDGETS:
        evaluations = make(1).evaluations
        num_steps = budget // evaluations
        sampler = make(num_steps)
        times = make_grid(spacing, schedule, num_steps)
        (alpha, sigma), (alpha_end, sigma_end) = (level_at(schedule, t) for t in (times[0], times[-1]))
        start, wanted = alpha**2 * values + sigma**2, alpha_end**2 * values + sigma_end**2
        padded = jnp.asarray(pad(times, BUDGETS[-1] // evaluations))
        end = variances_at_the_end(Padded(sampler), evaluations, schedule, padded, jnp.asarray(start))
        nfe.append(num_steps * evaluations)
        ratios.append(np.asarray(end) / wanted)
    by_budget = np.stack(ratios)
    error = np.sqrt(np.sum(((by_budget - 1.0) * wanted) ** 2, axis=1) / np.sum(wanted**2))
    row = {"schedule": name, "spacing": spacing, "sampler": title, "nfe": nfe, "error": rounded(error)}
    return row | {"smallest": rounded(by_budget[:, 0]), "largest": rounded(by_budget[:, -1])}
