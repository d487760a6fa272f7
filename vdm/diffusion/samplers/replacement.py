"""Replacement: conditioning on given frames by sampling alone (Song et al. 2021; baseline of Ho et al. 2022)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool

from vdm.diffusion import process, schedules
from vdm.diffusion.process import spread
from vdm.diffusion.samplers.loop import Draw, Step
from vdm.diffusion.schedules import Schedule
from vdm.types import Denoiser, Time, Video


@dataclasses.dataclass(frozen=True)
class Replacement:
    """Before each step the given frames are drawn anew from q(xt | x0) of their clean value.

    The wanted frames then follow their own denoiser, which knows nothing of what is given but its noisy version: the
    conditional is biased, and no number of steps mends it.

    Attributes:
      step: what carries the clip.
      given: True for frames whose x0 is known.
      x0: the clean clip; only its given frames are read.
    """

    step: Step
    given: Bool[Array, "batch frames"]
    x0: Video

    @property
    def evaluations(self) -> int:
        return self.step.evaluations

    def __call__(self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Draw) -> Video:
        known = process.diffuse(self.x0, noise(0), schedules.level(schedule, t))
        x = jnp.where(spread(self.given), known, xt)
        return self.step(denoiser, schedule, x, t, s, lambda i: noise(i + 1))
