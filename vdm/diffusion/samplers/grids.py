"""Time grids of samplers: num_steps intervals, from the noisiest time down to where the clean clip is read off.

For a schedule that is a chain of T steps every time is moved to the nearest i/T, so that a network that was trained on
the chain's levels only meets no other. All T of them take num_steps = T - 1 and t_min = 1/T. `common` alone stays
between the levels of a chain: its levels are those of every other schedule. To add a grid, write it and add it to the
table.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdm.diffusion import schedules
from vdm.diffusion.schedules import Schedule

Grid = Float[Array, "num_times"]


def uniform(schedule: Schedule, num_steps: int, t_min: float) -> Grid:
    """From 1 to t_min, equally spaced in t.

    Raises:
      ValueError: no step at all, t_min outside of (0, 1), no finite log-SNR at t_min, or more intervals than the
        schedule's chain has.
    """
    _check(schedule, num_steps, t_min)
    return _on_chain(schedule, np.linspace(1.0, t_min, num_steps + 1))


def trailing(schedule: Schedule, num_steps: int) -> Grid:
    """1, 1 - d, ..., d with d = 1/(num_steps + 1): the last step is that to 0 (Lin et al. 2023, table 2). Raises as
    `uniform`.
    """
    last = 1.0 / (num_steps + 1)
    _check(schedule, num_steps, last)
    return _on_chain(schedule, np.linspace(1.0, last, num_steps + 1))


def log_snr(schedule: Schedule, num_steps: int, t_min: float) -> Grid:
    """From 1 to t_min, equally spaced in log-SNR. Raises as `uniform`, and without signal at t = 1."""
    noisiest, cleanest = _ends(schedule, num_steps, t_min)
    inner = _times(schedule, np.linspace(noisiest, cleanest, num_steps + 1)[1:-1])
    return _on_chain(schedule, np.concatenate([[1.0], inner, [t_min]]))


def common(schedule: Schedule, num_steps: int, log_snr_min: float, log_snr_max: float) -> Grid:
    """Equally spaced between two given log-SNRs: the same levels on every schedule that reaches them.

    Raises:
      ValueError: no step at all, or levels out of order or beyond what the schedule reaches.
    """
    if num_steps < 1 or not log_snr_min < log_snr_max:
        raise ValueError(
            "spacing common needs num_steps >= 1 and log_snr_min < log_snr_max, got"
            f" {num_steps}, {log_snr_min:g} and {log_snr_max:g}"
        )
    return jnp.asarray(_times(schedule, np.linspace(log_snr_min, log_snr_max, num_steps + 1)))


def karras(schedule: Schedule, num_steps: int, t_min: float, rho: float) -> Grid:
    """From 1 to t_min, (sigma/alpha)^(1/rho) equally spaced (Karras et al. 2022, equation 5: rho = 7). Raises as
    `log_snr`, and for rho that is not positive.
    """
    if not 0.0 < rho < np.inf:
        raise ValueError(f"sampler.spacing.karras.rho must be positive, got {rho:g}")
    noisiest, cleanest = (np.exp(-end / (2.0 * rho)) for end in _ends(schedule, num_steps, t_min))
    roots = np.linspace(noisiest, cleanest, num_steps + 1)
    inner = _times(schedule, -2.0 * rho * np.log(roots[1:-1]))
    return _on_chain(schedule, np.concatenate([[1.0], inner, [t_min]]))


GRIDS = {"uniform": uniform, "trailing": trailing, "log_snr": log_snr, "common": common, "karras": karras}


def _check(schedule: Schedule, num_steps: int, t_min: float) -> None:
    if num_steps < 1:
        raise ValueError(f"sampler.num_steps must be at least 1, got {num_steps}")
    if not 0.0 < t_min < 1.0:
        raise ValueError(f"t_min must be in (0, 1), got {t_min:g}")
    with jax.ensure_compile_time_eval():
        at_end = float(schedules.log_snr(schedule, jnp.asarray(t_min)))
    if not np.isfinite(at_end):
        raise ValueError(f"log-SNR is {at_end:g} at t_min = {t_min:g}: raise it")


def _ends(schedule: Schedule, num_steps: int, t_min: float) -> tuple[float, float]:
    _check(schedule, num_steps, t_min)
    with jax.ensure_compile_time_eval():
        first, last = (float(end) for end in schedules.log_snr(schedule, jnp.array([1.0, t_min])))
    if not np.isfinite(first):
        raise ValueError(
            f"{type(schedule).__name__} has no signal at t = 1, from where no spacing in log-SNR can start: take"
            " uniform, trailing or common"
        )
    return first, last


def _times(schedule: Schedule, log_snrs: Float[np.ndarray, "levels"]) -> Float[np.ndarray, "levels"]:
    with jax.ensure_compile_time_eval():
        return np.asarray(schedules.time_of(schedule, jnp.asarray(log_snrs)))


def _on_chain(schedule: Schedule, times: Float[np.ndarray, "num_times"]) -> Grid:
    steps = schedule.num_steps
    if steps is None:
        return jnp.asarray(times)
    index = np.maximum(np.rint(times * steps), 1.0)
    if np.any(np.diff(index) == 0.0):
        raise ValueError(
            f"{times.size - 1} steps down to t = {times[-1]:g} visit a level of the {steps}-step chain twice:"
            f" take fewer (at most {steps - 1} in uniform spacing), or a continuous schedule"
        )
    return jnp.asarray(index / steps)
