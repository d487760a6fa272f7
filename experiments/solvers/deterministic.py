"""Error of every deterministic sampler against the number of function evaluations (NFE).

The probability-flow ODE is solved from one log-SNR to another with the exact denoiser, in float64, and x / alpha at the
end is held against the exact flow map: a closed form for the Gaussian video, an adaptive solution at a tolerance of
1e-10 for the mixture.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.solvers.paths import ENDS, SPACINGS, Padded, make_grid, make_schedules, pad, rounded
from experiments.solvers.worlds import Clips, GaussianVideo, MixtureVideo, World, level_at, noisy, time_at
from vdm.diffusion import samplers, schedules
from vdm.diffusion.samplers import AdaptiveFlow, Ddim, DpmSolver, Euler, Heun, Sampler, StochasticHeun, UniPC
from vdm.diffusion.schedules import Schedule
from vdm.types import Level, Video

BUDGETS = (8, 16, 32, 64, 128, 256)  # NFE
NUM_CLIPS = 256
NUM_COUNTED = 64  # of them, for the adaptive solver: each is solved for itself and its evaluations are counted
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
REFERENCE = AdaptiveFlow(rtol=1e-10, atol=1e-10)
MISPLACED = 0.3  # RMS of a clip's error beyond which it is another clip of the mixture

WORLDS: tuple[World, ...] = (GaussianVideo(), MixtureVideo())
SAMPLERS: dict[str, Any] = {
    "ddim": Ddim(0.0),
    "dpm_solver 1": DpmSolver(1, False),
    "euler": Euler(),
    "heun": Heun(),
    "stochastic_heun": StochasticHeun(0.0),
    "dpm_solver 2": DpmSolver(2, False),
    "unipc": UniPC(),
}


@functools.partial(jax.jit, static_argnames=("world", "sampler"))
def carry(world: World, sampler: Sampler, schedule: Schedule, times: Float[Array, "num_times"], x: Video) -> Video:
    """x at times[-1] from x at times[0]; no noise is drawn."""
    return samplers.integrate(world.denoise, schedule, sampler, times, x, lambda index: jnp.zeros_like(x))


def count(
    world: World, solver: AdaptiveFlow, schedule: Schedule, times: Float[Array, "num_times"], x: Video
) -> tuple[Video, float]:
    """The solution, and the mean over clips of the denoiser's evaluations; each clip is solved for itself."""
    calls: list[int] = []

    def counting(xt: Video, level: Level) -> Video:
        jax.debug.callback(lambda: calls.append(1))
        return world.denoise(xt, level)

    solve = jax.jit(lambda clip: solver.solve(counting, schedule, times, clip))
    ends = jnp.concatenate([solve(clip[None]) for clip in x])
    jax.effects_barrier()
    return ends, len(calls) / x.shape[0]


def exact_end(world: World, start: Clips) -> tuple[Clips, float]:
    """x / alpha at the end from x / alpha at the start, and how far two routes to it are apart (RMS).

    The routes are the closed form (Gaussian video) and adaptive solutions on two schedules.
    """
    ends = []
    for schedule in (schedules.cosine(-20.0, 20.0), schedules.flow()):
        times = make_grid("log_snr", schedule, 1)
        (alpha, sigma), (alpha_end, sigma_end) = (level_at(schedule, t) for t in times)
        solved = carry(world, REFERENCE, schedule, jnp.asarray(times), jnp.asarray(alpha * start))
        ends.append(np.asarray(solved) / alpha_end)
        if isinstance(world, GaussianVideo):
            ends.insert(0, world.transport(alpha * start, (alpha, sigma), (alpha_end, sigma_end)) / alpha_end)
    return ends[0], float(np.sqrt(np.mean((ends[0] - ends[-1]) ** 2)))


def run() -> dict[str, Any]:
    """Settings, and a row for every world, schedule, spacing and sampler.

    Of a row: `nfe`; `rms` of the error of x / alpha over clips and pixels; `median` over clips of the RMS of each;
    `misplaced`, the number of clips that end at another clip of the mixture than the exact map has them.
    """
    rows, gaps = [], {}
    with jax.enable_x64(True):
        for world in WORLDS:
            random = np.random.default_rng(0)
            alpha, sigma = level_at(schedules.cosine(-20.0, 20.0), time_at(schedules.cosine(-20.0, 20.0), ENDS[0]))
            start = noisy(world, random, NUM_CLIPS, alpha, sigma) / alpha
            wanted, gaps[world.name] = exact_end(world, start)
            for name, schedule in make_schedules().items():
                rows += _fixed(world, name, schedule, start, wanted)
                rows.append(_adaptive(world, name, schedule, start, wanted))
    settings = {"log_snr": ENDS, "num_clips": NUM_CLIPS, "num_clips_adaptive": NUM_COUNTED, "reference_gap": gaps}
    return {"settings": settings, "rows": rows}


def _fixed(world: World, name: str, schedule: Schedule, start: Clips, wanted: Clips) -> list[dict[str, Any]]:
    rows = []
    for title, sampler in SAMPLERS.items():
        longest = BUDGETS[-1] // sampler.evaluations
        for spacing in SPACINGS:
            errors = []
            for budget in BUDGETS:
                times = pad(make_grid(spacing, schedule, budget // sampler.evaluations), longest)
                errors.append(_errors(world, Padded(sampler), schedule, times, start, wanted))
            row = {"world": world.name, "schedule": name, "spacing": spacing, "sampler": title, "nfe": BUDGETS}
            rows.append(row | _summary(world, errors))
    return rows


def _adaptive(world: World, name: str, schedule: Schedule, start: Clips, wanted: Clips) -> dict[str, Any]:
    times = make_grid("log_snr", schedule, 1)
    first, last = (level_at(schedule, t)[0] for t in times)
    nfe, errors = [], []
    for tolerance in TOLERANCES:
        solver = AdaptiveFlow(rtol=tolerance, atol=tolerance)
        end, calls = count(world, solver, schedule, jnp.asarray(times), jnp.asarray(first * start[:NUM_COUNTED]))
        nfe.append(calls)
        errors.append(_by_clip(np.asarray(end) / last - wanted[:NUM_COUNTED]))
    row = {"world": world.name, "schedule": name, "spacing": "adaptive", "sampler": "adaptive", "rtol": TOLERANCES}
    return row | {"nfe": rounded(np.array(nfe))} | _summary(world, errors)


def _summary(world: World, errors: list[Float[np.ndarray, "clips"]]) -> dict[str, Any]:
    by_clip = np.stack(errors)
    summary = {
        "rms": rounded(np.sqrt(np.mean(by_clip**2, axis=1))),
        "median": rounded(np.median(by_clip, axis=1)),
    }
    if isinstance(world, MixtureVideo):
        summary["misplaced"] = np.sum(by_clip > MISPLACED, axis=1).tolist()
    return summary


def _errors(
    world: World,
    sampler: Sampler,
    schedule: Schedule,
    times: Float[np.ndarray, "num_times"],
    start: Clips,
    exact: Clips,
) -> Float[np.ndarray, "clips"]:
    first, last = (level_at(schedule, t)[0] for t in (times[0], times[-1]))
    end = carry(world, sampler, schedule, jnp.asarray(times), jnp.asarray(first * start))
    return _by_clip(np.asarray(end) / last - exact)


def _by_clip(difference: Clips) -> Float[np.ndarray, "clips"]:
    """RMS over the pixels of every clip."""
    return np.sqrt(np.mean(difference**2, axis=(1, 2, 3, 4)))
