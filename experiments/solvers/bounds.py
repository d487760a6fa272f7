"""How far the variational bounds are above -log p on the Gaussian video, in nats per clip, without sampling error.

With the exact denoiser every term of the bound is quadratic in clip and noise, so its mean over a design that has their
exact second moments is its expectation. -log p is the entropy of the clean clips, a closed form.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.solvers.paths import rounded
from experiments.solvers.worlds import GaussianVideo
from vdm.diffusion import bound, schedules
from vdm.diffusion.bound import Bound
from vdm.diffusion.noise_priors import Independent
from vdm.diffusion.schedules import Schedule
from vdm.diffusion.times import LogSnrUniform
from vdm.types import Video

STEPS = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
SHARES = {"lower": 0.0, "middle": 0.5, "upper": 1.0}  # of the steps' variance
CLEANEST = (4.0, 6.0, 8.0, 10.0, 12.0)  # log-SNR at which the continuous bound decodes
NOISIEST = -25.0  # log-SNR below which nothing of the integral is left
NUM_LEVELS = 1024  # of its midpoint rule
WORLD = GaussianVideo()


def make_schedules() -> dict[str, Schedule]:
    return {
        "cosine": schedules.cosine(-20.0, 20.0),
        "vp_linear": schedules.vp_linear(0.1, 20.0),
    }


@jax.jit
def discrete(schedule: Schedule, share: Float[Array, ""], x0: Video, noise: Video) -> Bound:
    return bound.discrete(
        WORLD.denoise,
        schedule,
        x0,
        lambda index: noise,
        decoder=bound.gaussian,
        noise_prior=Independent(),
        share=share,  # pyright: ignore[reportArgumentType]  # an array: one program for all shares
    )


def continuous(schedule: Schedule, log_snr_max: float, x0: Video, noise: Video) -> Bound:
    """Decoded at log_snr_max; the integral over log-SNR by the midpoint rule."""
    u = jnp.broadcast_to((jnp.arange(NUM_LEVELS)[:, None] + 0.5) / NUM_LEVELS, (NUM_LEVELS, x0.shape[0]))

    @jax.jit
    def estimate(x0: Video, noise: Video) -> Bound:
        return bound.continuous(
            WORLD.denoise,
            schedule,
            LogSnrUniform(NOISIEST, log_snr_max),
            x0,
            u,
            lambda index: noise,
            decoder=bound.gaussian,
            noise_prior=Independent(),
        )

    return estimate(x0, noise)


def run() -> dict[str, Any]:
    """Settings; rows of part `discrete` (T and the gap) and of part `continuous` (the log-SNR at which it decodes and
    the gap), each with the three terms of its last bound.
    """
    rows = []
    with jax.enable_x64(True):
        x0, noise = (jnp.asarray(part) for part in WORLD.moment_design())
        for name, schedule in make_schedules().items():
            for title, share in SHARES.items():
                chains = [schedules.discretised(schedule, steps) for steps in STEPS]
                bounds = [discrete(chain, jnp.asarray(share), x0, noise) for chain in chains]
                first = [schedules.log_snr(chain, jnp.asarray(1.0 / chain.num_steps)) for chain in chains]
                row = {"part": "discrete", "schedule": name, "variance": title, "steps": STEPS}
                rows.append(row | _gaps(bounds) | {"first_log_snr": rounded(np.array(first))})
        for name, schedule in make_schedules().items():
            reached = [log_snr for log_snr in CLEANEST if log_snr < _cleanest(schedule)]
            bounds = [continuous(schedule, log_snr, x0, noise) for log_snr in reached]
            rows.append({"part": "continuous", "schedule": name, "log_snr_max": reached} | _gaps(bounds))
    return {"settings": {"entropy": WORLD.entropy(), "num_levels": NUM_LEVELS}, "rows": rows}


def _cleanest(schedule: Schedule) -> float:
    with jax.ensure_compile_time_eval():
        return float(schedules.log_snr(schedule, jnp.asarray(1e-9)))


def _gaps(bounds: list[Bound]) -> dict[str, Any]:
    means = [jax.tree.map(lambda part: float(jnp.mean(part)), value) for value in bounds]
    gaps = np.array([value.total for value in means]) - WORLD.entropy()
    last = means[-1]
    return {"gap": rounded(gaps, 6), "terms": rounded(np.array([last.prior, last.diffusion, last.decoder]), 8)}
