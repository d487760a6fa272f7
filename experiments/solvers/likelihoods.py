"""Error of log p by the probability-flow ODE: against the solver's tolerance, and against the number of probes.

On the Gaussian video the error is taken against the density that the exact flow gives the schedule's prior, a closed
form, so it is the solver's or the probes' alone; `prior_gap` is how far that density is from the data's own, because
the prior is not exactly the marginal at t = 1. For the mixture the data's own density is the reference.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.solvers.paths import rounded
from experiments.solvers.worlds import Clips, GaussianVideo, MixtureVideo, World, level_at, noisy, time_at
from vdm.diffusion import likelihood, schedules
from vdm.diffusion.likelihood import Likelihood
from vdm.diffusion.noise_priors import Independent
from vdm.diffusion.schedules import Schedule
from vdm.types import Video

LOG_SNR = 10.0  # of the clips whose density is measured
NUM_CLIPS = 64
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
PROBES = (1, 4, 16, 64)
PROBE_TOLERANCE = 1e-6
WORLDS: tuple[World, ...] = (GaussianVideo(), MixtureVideo())


def make_schedules() -> dict[str, Schedule]:
    return {
        "cosine": schedules.cosine(-20.0, 20.0),
        "vp_linear": schedules.vp_linear(0.1, 20.0),
        "flow": schedules.flow(),
    }


@functools.partial(jax.jit, static_argnames=("world", "t_min"))
def measured(
    world: World,
    schedule: Schedule,
    t_min: float,
    tolerance: Float[Array, ""],
    x: Video,
    probes: Float[Array, "probes batch frames height width channels"] | None,
) -> Likelihood:
    return likelihood.log_prob(
        world.denoise,
        schedule,
        x,
        t_min=t_min,
        rtol=tolerance,  # pyright: ignore[reportArgumentType]  # an array: one program for all tolerances
        atol=tolerance,  # pyright: ignore[reportArgumentType]
        noise_prior=Independent(),
        probes=probes,
    )


def reference(world: World, schedule: Schedule, t_min: float, x: Clips) -> tuple[Float[np.ndarray, "batch"], float]:
    """Nats of every clip, and the RMS of what the prior's mismatch makes of them."""
    start, end = level_at(schedule, t_min), level_at(schedule, 1.0)
    own = world.log_prob(x, *start)
    if not isinstance(world, GaussianVideo):
        return own, 0.0
    latent = world.transport(x, start, end).reshape(x.shape[0], -1)
    of_prior = -0.5 * np.sum((latent / end[1]) ** 2 + np.log(2.0 * np.pi * end[1] ** 2), axis=1)
    exact = of_prior + np.sum(np.log(world.stretch(start, end)))
    return exact, _rms(exact - own)


def run() -> dict[str, Any]:
    """Settings; rows of part `tolerance` (rtol, mean NFE, mean absolute and largest error in nats per clip) and of part
    `probes` (m, RMS error, RMS of the stated standard error, which one probe has none of, and the share of clips within
    two of them).
    """
    rows = []
    with jax.enable_x64(True):
        for world in WORLDS:
            for name, schedule in make_schedules().items():
                x = _clips(world, schedule)
                rows.append(_tolerance_row(world, name, schedule, x))
                if name != "vp_linear":
                    rows += [_probe_row(world, name, schedule, x, kind) for kind in ("signs", "normal")]
    settings = {"log_snr": LOG_SNR, "num_clips": NUM_CLIPS, "probe_rtol": PROBE_TOLERANCE}
    return {"settings": settings, "rows": rows}


def _clips(world: World, schedule: Schedule) -> Clips:
    return noisy(world, np.random.default_rng(1), NUM_CLIPS, *level_at(schedule, time_at(schedule, LOG_SNR)))


def _tolerance_row(world: World, name: str, schedule: Schedule, x: Clips) -> dict[str, Any]:
    t_min = time_at(schedule, LOG_SNR)
    exact, gap = reference(world, schedule, t_min, x)
    nfe, mean, largest = [], [], []
    for tolerance in TOLERANCES:
        got = measured(world, schedule, t_min, jnp.asarray(tolerance), jnp.asarray(x), None)
        error = np.abs(np.asarray(got.log_prob) - exact)
        nfe.append(float(np.mean(got.num_evaluations)))
        mean.append(error.mean())
        largest.append(error.max())
    row = {
        "part": "tolerance",
        "world": world.name,
        "schedule": name,
        "rtol": TOLERANCES,
        "nfe": rounded(np.array(nfe)),
    }
    row |= {"error": rounded(np.array(mean)), "largest": rounded(np.array(largest))}
    return row | {"prior_gap": rounded(np.array([gap]))[0]}


def _probe_row(world: World, name: str, schedule: Schedule, x: Clips, kind: str) -> dict[str, Any]:
    t_min = time_at(schedule, LOG_SNR)
    exact, _ = reference(world, schedule, t_min, x)
    random = np.random.default_rng(2)
    errors, stated, within = [], [], []
    for m in PROBES:
        normal = random.normal(size=(m, *x.shape))
        probes = jnp.asarray(np.sign(normal) if kind == "signs" else normal)
        got = measured(world, schedule, t_min, jnp.asarray(PROBE_TOLERANCE), jnp.asarray(x), probes)
        error, standard = np.asarray(got.log_prob) - exact, np.asarray(got.standard_error)
        errors.append(_rms(error))
        stated.append(_rms(standard))
        within.append(float(np.mean(np.abs(error) < 2.0 * standard)) if m > 1 else np.nan)
    row = {"part": "probes", "world": world.name, "schedule": name, "kind": kind, "probes": PROBES}
    return row | {
        "error": rounded(np.array(errors)),
        "stated": rounded(np.array(stated)),
        "within_two": rounded(np.array(within)),
    }


def _rms(values: Float[np.ndarray, "..."]) -> float:
    return float(np.sqrt(np.mean(values**2)))
