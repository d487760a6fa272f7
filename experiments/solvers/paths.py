"""What the studies of samplers share: schedules, time grids between the same two levels, and padding."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.solvers.worlds import time_at
from vdm.diffusion import schedules
from vdm.diffusion.samplers import Multistep, Step, grids
from vdm.diffusion.samplers.loop import Draw
from vdm.diffusion.schedules import Schedule
from vdm.types import Denoiser, Time, Video

ENDS = (-8.5, 10.0)  # log-SNR at the start and at the end: all four schedules reach both
SPACINGS = ("log_snr", "time")


def make_schedules() -> dict[str, Schedule]:
    """The schedules on which the same levels are visited."""
    return {
        "cosine": schedules.cosine(-20.0, 20.0),
        "vp_linear": schedules.vp_linear(0.1, 20.0),
        "flow": schedules.flow(),
        "edm": schedules.edm(0.002, 80.0, 7.0),
    }


def make_grid(spacing: str, schedule: Schedule, num_steps: int) -> Float[np.ndarray, "num_times"]:
    """Times between `ENDS`: `log_snr` has the same levels on every schedule, `time` is uniform in the schedule's t."""
    if spacing == "log_snr":
        return np.asarray(grids.common(schedule, num_steps, *ENDS))
    return np.linspace(*(time_at(schedule, end) for end in ENDS), num_steps + 1)


def pad(times: Float[np.ndarray, "num_times"], num_steps: int) -> Float[np.ndarray, "padded"]:
    """The last time repeated, up to num_steps intervals."""
    return np.append(times, np.full(num_steps + 1 - times.size, times[-1]))


@dataclasses.dataclass(frozen=True)
class Padded:
    """A step rule for which intervals of no length are no steps: one compiled program serves every number of steps."""

    sampler: Any  # a Step or a Multistep

    @property
    def evaluations(self) -> int:
        return self.sampler.evaluations

    def first(self, xt: Video) -> Any:
        return self.sampler.first(xt) if isinstance(self.sampler, Multistep) else ()

    def advance(
        self, denoiser: Denoiser, schedule: Schedule, memory: Any, xt: Video, t: Time, s: Time, noise: Draw
    ) -> tuple[Video, Any]:
        if isinstance(self.sampler, Multistep):
            moved = self.sampler.advance(denoiser, schedule, memory, xt, t, s, noise)
        else:
            assert isinstance(self.sampler, Step)
            moved = self.sampler(denoiser, schedule, xt, t, s, noise), memory
        is_step = t[0, 0] != s[0, 0]
        return jax.tree.map(lambda new, old: jnp.where(is_step, new, old), moved, (xt, memory))


def rounded(values: Float[Array | np.ndarray, "..."], digits: int = 4) -> list[float | None]:
    """Numbers as records hold them: so many significant digits, None for what is not finite."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in np.ravel(values).tolist()]
