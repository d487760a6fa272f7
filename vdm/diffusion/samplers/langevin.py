"""Langevin steps at a fixed level: as corrector after a predictor, or alone down a ladder of levels.

A step is x + e score + sqrt(2 e) z, which leaves the marginal of the level as it is up to O(e). Published correctors
take e from the ratio of norms of z and of the score, averaged over the batch; a norm of the very z that is added biases
the marginal (5 to 18 % of its variance, measured in 12 dimensions), and the average makes a clip depend on its batch.
Here e is that rule's value in the limit of many dimensions, 2 (snr sigma)^2. With correlated noise the steps are
preconditioned by its covariance.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vdm.diffusion import process, schedules
from vdm.diffusion.process import spread
from vdm.diffusion.samplers.ancestral import Ancestral
from vdm.diffusion.samplers.flow import Draw, EulerMaruyama, ReverseDiffusion
from vdm.diffusion.schedules import Schedule
from vdm.types import Denoiser, Time, Video

PREDICTORS = {"ancestral": Ancestral, "reverse_diffusion": ReverseDiffusion, "euler_maruyama": EulerMaruyama}


@dataclasses.dataclass(frozen=True)
class PredictorCorrector:
    """A step of the predictor, then Langevin steps at the level it arrives at (Song et al. 2021, algorithms 2 and 3).

    Attributes:
      predictor: one of `PREDICTORS`.
      snr: signal-to-noise ratio r of a Langevin step, of size 2 (r sigma)^2; 0.16 is typical.
      num_corrections: Langevin steps after each step of the predictor.

    Raises:
      ValueError: no such predictor, snr not in (0, 1), or no correction at all.
    """

    predictor: str
    snr: float
    num_corrections: int

    def __post_init__(self) -> None:
        if self.predictor not in PREDICTORS:
            raise ValueError(
                f"predictor_corrector.predictor is {self.predictor!r}; it must be one of: {', '.join(PREDICTORS)}"
            )
        if not (0.0 < self.snr < 1.0 and self.num_corrections >= 1):
            raise ValueError(
                f"predictor_corrector needs snr in (0, 1) and num_corrections >= 1, got {self.snr:g} and"
                f" {self.num_corrections}"
            )

    @property
    def needs_signal(self) -> bool:
        return getattr(PREDICTORS[self.predictor], "needs_signal", False)

    @property
    def evaluations(self) -> int:
        return 1 + self.num_corrections

    def __call__(self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Draw) -> Video:
        x = PREDICTORS[self.predictor]()(denoiser, schedule, xt, t, s, noise)

        def again(i: Int[Array, ""], x: Video) -> Video:
            return correct(denoiser, schedule, x, s, 2.0 * self.snr**2, noise(1 + i))

        return jax.lax.fori_loop(0, self.num_corrections, again, x)


@dataclasses.dataclass(frozen=True)
class AnnealedLangevin:
    """Langevin steps at every level after the first, where the prior starts, and nothing between (Song and Ermon 2019,
    algorithm 1).

    Attributes:
      step_size: alpha_i / sigma_i^2 of the paper, which is epsilon / sigma_L^2: 0.2 there.
      num_corrections: T of the paper, 100 there.

    Raises:
      ValueError: step_size not in (0, 4), beyond which steps diverge, or no step at all.
    """

    step_size: float
    num_corrections: int

    def __post_init__(self) -> None:
        if not (0.0 < self.step_size < 4.0 and self.num_corrections >= 1):
            raise ValueError(
                f"annealed_langevin needs step_size in (0, 4) and num_corrections >= 1, got {self.step_size:g} and"
                f" {self.num_corrections}"
            )

    @property
    def evaluations(self) -> int:
        return self.num_corrections

    def __call__(self, denoiser: Denoiser, schedule: Schedule, xt: Video, t: Time, s: Time, noise: Draw) -> Video:
        def again(i: Int[Array, ""], x: Video) -> Video:
            return correct(denoiser, schedule, x, s, 0.5 * self.step_size, noise(i))

        return jax.lax.fori_loop(0, self.num_corrections, again, xt)


def correct(denoiser: Denoiser, schedule: Schedule, x: Video, t: Time, relative_size: float, noise: Video) -> Video:
    """A Langevin step of size e = relative_size sigma(t)^2 at the level of t."""
    level = schedules.level(schedule, t)
    size = spread(relative_size * level.sigma**2)
    score = process.score_from(denoiser(x, level), x, level)
    return x + size * score + jnp.sqrt(2.0 * size) * noise
