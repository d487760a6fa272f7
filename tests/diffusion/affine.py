"""Independent pixels with known variances: there every sampler is affine in its start and its noises, so what it does
to variances is exact, without drawing anything.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.diffusion import samplers, schedules
from vdm.diffusion.process import spread
from vdm.diffusion.samplers import (
    Ancestral,
    AnnealedLangevin,
    Ddim,
    DpmSolver,
    Euler,
    EulerMaruyama,
    Heun,
    PredictorCorrector,
    ReverseDiffusion,
    StochasticHeun,
    UniPC,
)

EVERY = [
    Ancestral(),
    Ddim(),
    EulerMaruyama(),
    ReverseDiffusion(),
    Euler(),
    Heun(),
    StochasticHeun(0.1),
    PredictorCorrector("ancestral", 0.16, 2),
    AnnealedLangevin(0.2, 3),
    DpmSolver(2, False),
    DpmSolver(2, True),
    UniPC(),
]
every_sampler = pytest.mark.parametrize("step", EVERY, ids=lambda step: type(step).__name__)

VARIANCES = np.array([0.02, 0.3, 0.7, 2.5])  # of the data; one pixel each
SHAPE = (1, 1, 1, VARIANCES.size, 1)


def exact(xt, level):
    """E[x0 | xt]. Like a network it knows the level by its log-SNR, wherever that tells sigma."""
    prior = jnp.asarray(VARIANCES, xt.dtype)
    told = level.alpha * jnp.exp(-0.5 * jnp.maximum(level.log_snr, -1e3))
    alpha, sigma = spread(level.alpha), spread(jnp.where(level.alpha > 0.0, told, level.sigma))
    return alpha * prior[:, None] * xt / (alpha**2 * prior[:, None] + sigma**2)


def silence(index):
    return jnp.zeros(SHAPE)


def marginal(schedule, t):
    """Standard deviations of xt, float64."""
    with jax.enable_x64(True):
        level = jax.jit(schedules.level)(schedule, jnp.asarray(np.full((1, 1), t)))
        alpha, sigma = float(level.alpha[0, 0]), float(level.sigma[0, 0])
    return np.sqrt(alpha**2 * VARIANCES + sigma**2)


def final_variance(sampler, schedule, times, start, draws=1):
    """Exact variances [pixel] that a sampler ends with, from those it starts with: the squares of its response to the
    start and to every noise, which one backward pass gives for all pixels at once.
    """
    x = jnp.zeros(SHAPE)
    noises = jnp.zeros((draws * (len(times) - 1), *SHAPE))

    def end(x, noises, times):
        return samplers.integrate(exact, schedule, sampler, times, x, lambda index: noises[index]).sum()

    of_x, of_noise = jax.jit(jax.grad(end, argnums=(0, 1)))(x, noises, jnp.asarray(times))
    of_x, of_noise = np.asarray(of_x).ravel(), np.asarray(of_noise).reshape(-1, VARIANCES.size)
    return of_x**2 * start + (of_noise**2).sum(axis=0)


def flow_errors(sampler, schedule, sizes, t_min, start=1.0):
    """Relative error [size, pixel] of the map from `start` to t_min against sqrt(var(t_min)/var(start))."""
    exact_map = marginal(schedule, t_min) / marginal(schedule, start)
    carry = jax.jit(lambda times: samplers.integrate(exact, schedule, sampler, times, silence(0) + 1.0, silence))
    grids = (jnp.asarray(np.linspace(start, t_min, size + 1)) for size in sizes)
    return np.array([np.asarray(carry(grid)).ravel() / exact_map - 1.0 for grid in grids])


def order(sizes, errors):
    """Of convergence per pixel, from the errors [size, pixel]."""
    return -np.polyfit(np.log(sizes), np.log(np.abs(errors)), 1)[0]
