"""Schedules made from another: shifted in log-SNR, or without any signal at the end."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdm.diffusion.schedules.schedule import Schedule
from vdm.types import register_tree


@register_tree
@dataclasses.dataclass(frozen=True)
class Shifted:
    """log-SNR + log_snr_shift at every time, alpha^2 + sigma^2 as before (Hoogeboom, Heek and Salimans 2023, arXiv
    2301.11093: 2 log(64 / d) for frames of d x d, whose neighbouring pixels average the noise away).
    """

    schedule: Schedule
    log_snr_shift: float

    @property
    def num_steps(self) -> int | None:
        return self.schedule.num_steps

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.schedule.alpha(t) * self._rescale(t)

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.schedule.sigma(t) * self._less_noise(t) * self._rescale(t)

    def _less_noise(self, t: Float[Array, "*shape"]) -> Float[Array, ""]:
        return jnp.exp(jnp.asarray(-0.5 * self.log_snr_shift, t.dtype))

    def _rescale(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return jnp.sqrt((alpha**2 + sigma**2) / (alpha**2 + (sigma * self._less_noise(t)) ** 2))


@register_tree
@dataclasses.dataclass(frozen=True)
class ZeroTerminal:
    """A variance-preserving schedule whose alpha is stretched linearly until nothing of the data is left at t = 1 (Lin
    et al. 2023, arXiv 2305.08891). Its first level, t = 1/T of a chain and 0 otherwise, stays; before it there is no
    noise at all, and none of its rates.
    """

    schedule: Schedule

    @property
    def num_steps(self) -> int | None:
        return self.schedule.num_steps

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        first, last = self._ends(t)
        of_first, of_last = self.schedule.alpha(first), self.schedule.alpha(last)
        return (self.schedule.alpha(t) - of_last) / (of_first - of_last) * of_first

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        first, last = self._ends(t)
        of_first, of_last = self.schedule.alpha(first), self.schedule.alpha(last)
        # 1 - alpha without the cancellation near data: 1 - alpha of the schedule is sigma^2 / (1 + alpha)
        missing, missing_first = self._missing(t), self._missing(first)
        missing = missing + (missing - missing_first) * of_last / (of_first - of_last)
        return jnp.sqrt(jnp.maximum(missing, 0.0) * (1.0 + self.alpha(t)))

    def _missing(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.schedule.sigma(t) ** 2 / (1.0 + self.schedule.alpha(t))

    def _ends(self, t: Float[Array, "*shape"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        steps = self.schedule.num_steps
        return jnp.asarray(0.0 if steps is None else 1.0 / steps, t.dtype), jnp.ones((), t.dtype)


def shifted(schedule: Schedule, log_snr_shift: float) -> Shifted:
    """Raises ValueError for a shift that is not finite."""
    if not np.isfinite(log_snr_shift):
        raise ValueError(f"log_snr_shift must be finite, got {log_snr_shift:g}")
    return Shifted(schedule, float(log_snr_shift))


def zero_terminal(schedule: Schedule) -> ZeroTerminal:
    """Raises ValueError for a schedule that is not variance-preserving, or has no signal at t = 1 already."""
    with jax.ensure_compile_time_eval():
        t = jnp.linspace(0.0, 1.0, 65)
        alpha, sigma = np.asarray(schedule.alpha(t)), np.asarray(schedule.sigma(t))
    if not np.allclose(alpha**2 + sigma**2, 1.0, atol=1e-4):
        raise ValueError(
            f"zero terminal SNR is defined for variance-preserving schedules; {type(schedule).__name__} has alpha^2 +"
            f" sigma^2 from {np.min(alpha**2 + sigma**2):g} to {np.max(alpha**2 + sigma**2):g}: take another schedule"
        )
    if alpha[-1] == 0.0:
        raise ValueError(f"{type(schedule).__name__} has no signal at t = 1 already: zero terminal SNR changes nothing")
    return ZeroTerminal(schedule)
