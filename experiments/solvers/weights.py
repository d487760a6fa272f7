"""The effective weight w_eff(log-SNR) of every named objective: the weight on the error of the noise times the density
of levels per unit of log-SNR.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.solvers.paths import rounded
from experiments.solvers.rows import rows
from experiments.solvers.worlds import GaussianVideo
from vdm.diffusion import objectives, schedules
from vdm.diffusion.schedules import Schedule

LOG_SNRS = np.linspace(-14.0, 14.0, 225)
SHARES = (0.1, 0.5, 0.9)
WORLD = GaussianVideo()


def run() -> dict[str, Any]:
    """Settings, and a row for every objective: `log_snr` where the schedule reaches, `weight` there with an integral of
    one, and the log-SNRs below which 10, 50 and 90 % lie of the weight (`weight_quantiles`) and of the loss that the
    exact denoiser still has on the Gaussian video (`loss_quantiles`).
    """
    made = []
    for row in rows(WORLD.rms):
        reached = LOG_SNRS[_reaches(row.objective.schedule)]
        weight = np.asarray(objectives.effective_weight(row.objective, jnp.asarray(reached)), np.float64)
        loss = weight * minimal_noise_error(reached)
        made.append(
            {
                "objective": row.name,
                "log_snr": rounded(reached),
                "weight": rounded(weight / _integral(weight)),
                "weight_quantiles": rounded(_quantiles(reached, weight)),
                "loss_quantiles": rounded(_quantiles(reached, loss)),
            }
        )
    return {"settings": {"data_std": WORLD.rms, "shares": SHARES}, "rows": made}


def minimal_noise_error(log_snrs: Float[np.ndarray, "levels"]) -> Float[np.ndarray, "levels"]:
    """Of the exact denoiser on the Gaussian video, per pixel."""
    scaled = np.exp(log_snrs)[:, None] * WORLD.modes[0]
    return np.mean(scaled / (1.0 + scaled), axis=1)


def _reaches(schedule: Schedule) -> np.ndarray:
    with jax.ensure_compile_time_eval():
        first = 0.0 if schedule.num_steps is None else 1.0 / schedule.num_steps
        noisiest, cleanest = np.asarray(schedules.log_snr(schedule, jnp.array([1.0, first])))
    return np.less(noisiest, LOG_SNRS) & np.less(LOG_SNRS, cleanest)


def _integral(weight: Float[np.ndarray, "levels"]) -> float:
    return float(np.sum(weight) * (LOG_SNRS[1] - LOG_SNRS[0]))


def _quantiles(
    log_snrs: Float[np.ndarray, "levels"], weight: Float[np.ndarray, "levels"]
) -> Float[np.ndarray, "shares"]:
    share = np.cumsum(weight) / np.sum(weight)
    return np.interp(SHARES, share, log_snrs)
