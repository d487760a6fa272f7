"""Time grids of samplers: num_steps intervals from t = 1 down to t_min, where the clean clip is read off.

For a schedule that is a chain of T steps every time is moved to the nearest i/T, so that a network that was trained on
the chain's levels only meets no other. All T of them take num_steps = T - 1 and t_min = 1/T.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdm.diffusion import schedules
from vdm.diffusion.schedules import Schedule


def uniform(schedule: Schedule, num_steps: int, t_min: float) -> Float[Array, "num_times"]:
    """num_steps + 1 times, equally spaced in t.

    Raises:
      ValueError: no step at all, t_min outside of (0, 1), no finite log-SNR at t_min, or more intervals than the
        schedule's chain has.
    """
    _check(schedule, num_steps, t_min)
    return _on_chain(schedule, np.linspace(1.0, t_min, num_steps + 1))


def uniform_in_log_snr(schedule: Schedule, num_steps: int, t_min: float) -> Float[Array, "num_times"]:
    """num_steps + 1 times, equally spaced in log-SNR. Raises as `uniform`."""
    _check(schedule, num_steps, t_min)
    with jax.ensure_compile_time_eval():
        first, last = (float(end) for end in schedules.log_snr(schedule, jnp.array([1.0, t_min])))
        inner = schedules.time_of(schedule, jnp.linspace(first, last, num_steps + 1)[1:-1])
    return _on_chain(schedule, np.concatenate([[1.0], np.asarray(inner), [t_min]]))


GRIDS = {"uniform": uniform, "log_snr": uniform_in_log_snr}


def _check(schedule: Schedule, num_steps: int, t_min: float) -> None:
    if num_steps < 1:
        raise ValueError(f"sampler.num_steps must be at least 1, got {num_steps}")
    if not 0.0 < t_min < 1.0:
        raise ValueError(f"sampler.t_min must be in (0, 1), got {t_min:g}")
    with jax.ensure_compile_time_eval():
        ends = schedules.log_snr(schedule, jnp.array([1.0, t_min]))
        if not np.all(np.isfinite(ends)):
            raise ValueError(
                f"log-SNR is {ends[0]:g} at t = 1 and {ends[1]:g} at t_min = {t_min:g}: raise sampler.t_min"
            )


def _on_chain(schedule: Schedule, times: Float[np.ndarray, "num_times"]) -> Float[Array, "num_times"]:
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
