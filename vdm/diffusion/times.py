"""Measures of noise levels: how often training visits each time t of a schedule.

A measure maps a number u in [0, 1) to a time, so that whoever draws u (independently, spread over the batch, or where
losses are large, to lower the variance) decides nothing about the objective. The same u gives neighbouring levels in
every measure here. Those of log-SNR are truncated to what the schedule reaches.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float

from vdm.diffusion import schedules
from vdm.diffusion.schedules import Schedule

LAST = 1.0 - 2.0**-24  # the largest u below 1 in float32


@runtime_checkable
class Times(Protocol):
    """p(t). To add a measure, write these three."""

    def ends(self, schedule: Schedule) -> tuple[float, float]:
        """The smallest and the largest time."""
        ...

    def time(self, schedule: Schedule, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The time that u in [0, 1) stands for; falls as u rises."""
        ...

    def density(self, schedule: Schedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """p(t); for a measure on a grid, the mass of the cell ((i - 1)/T, i/T] over its width."""
        ...


@dataclasses.dataclass(frozen=True)
class Uniform:
    """t uniform in (min, 1] ("over the time interval", Song et al. 2021); 0 <= min < 1."""

    min: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.min < 1.0:
            raise ValueError(f"times.uniform.min must be in [0, 1), got {self.min:g}")

    def ends(self, schedule: Schedule) -> tuple[float, float]:
        return self.min, 1.0

    def time(self, schedule: Schedule, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 1.0 - (1.0 - self.min) * u

    def density(self, schedule: Schedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.where((t >= self.min) & (t <= 1.0), 1.0 / (1.0 - self.min), 0.0)


@dataclasses.dataclass(frozen=True)
class Grid:
    """t uniform over {1, ..., T}/T, the levels of a DDPM chain (Ho et al. 2020); T = num_steps >= 1."""

    num_steps: int

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"times.grid.num_steps must be at least 1, got {self.num_steps}")

    def ends(self, schedule: Schedule) -> tuple[float, float]:
        return 1.0 / self.num_steps, 1.0

    def time(self, schedule: Schedule, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return (self.num_steps - jnp.floor(u * self.num_steps)) / self.num_steps

    def density(self, schedule: Schedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.where((t > 0.0) & (t <= 1.0), 1.0, 0.0)


@dataclasses.dataclass(frozen=True)
class LogitNormal:
    """logit t normal, truncated to [min, 1] (Esser et al. 2024, arXiv 2403.03206, for flow: 0 and 1)."""

    mean: float
    std: float
    min: float

    def __post_init__(self) -> None:
        if not (0.0 < self.std < np.inf and 0.0 < self.min < 1.0):
            raise ValueError(f"times.logit_normal needs std > 0 and min in (0, 1), got {self.std:g} and {self.min:g}")

    def ends(self, schedule: Schedule) -> tuple[float, float]:
        with jax.ensure_compile_time_eval():
            return self.min, float(self.time(schedule, jnp.zeros(())))

    def time(self, schedule: Schedule, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        # both numbers count from the noisy end, where u = 0 is t = 1, which has no density
        normal = -ndtri(jnp.maximum(u, 1.0 - LAST) * self._mass(u))
        return jnp.clip(jax.nn.sigmoid(self.mean + self.std * normal), self.min, 1.0)

    def density(self, schedule: Schedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        inside = (t >= self.min) & (t < 1.0)
        safe = jnp.where(inside, t, 0.5)
        logit = jnp.log(safe) - jnp.log1p(-safe)
        pdf = norm.pdf(logit, self.mean, self.std) / (safe * (1.0 - safe))
        return jnp.where(inside, pdf / self._mass(t), 0.0)

    def _mass(self, like: Float[Array, "..."]) -> Float[Array, ""]:
        lowest = (np.log(self.min) - np.log1p(-self.min) - self.mean) / self.std
        return ndtr(jnp.asarray(-lowest, like.dtype))


@dataclasses.dataclass(frozen=True)
class LogSnrUniform:
    """log-SNR uniform in [min, max] (Kingma and Gao 2023, arXiv 2303.00848, call it the uniform distribution)."""

    min: float
    max: float

    def __post_init__(self) -> None:
        if not -np.inf < self.min < self.max < np.inf:
            raise ValueError(f"times.log_snr_uniform needs finite min < max, got {self.min:g} and {self.max:g}")

    def ends(self, schedule: Schedule) -> tuple[float, float]:
        return _ends(self, schedule)

    def time(self, schedule: Schedule, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        low, high = self._range(schedule, u)
        return schedules.time_of_unchecked(schedule, low + (high - low) * u)

    def density(self, schedule: Schedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        low, high = self._range(schedule, t)
        return jnp.where(_within(schedule, t, low, high), -schedules.log_snr_rate(schedule, t) / (high - low), 0.0)

    def _range(self, schedule: Schedule, like: Float[Array, "..."]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        noisiest, cleanest = _reached(schedule, like)
        return jnp.maximum(self.min, noisiest), jnp.minimum(self.max, cleanest)


@dataclasses.dataclass(frozen=True)
class LogNormalSigma:
    """log(sigma / alpha) normal (Karras et al. 2022: -1.2 and 1.2), truncated to what the schedule reaches."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not 0.0 < self.std < np.inf:
            raise ValueError(f"times.log_normal_sigma needs std > 0, got {self.std:g}")

    def ends(self, schedule: Schedule) -> tuple[float, float]:
        return _ends(self, schedule)

    def time(self, schedule: Schedule, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        low, high = self._masses(schedule, u)
        standard = ndtri(low + (high - low) * u)
        return schedules.time_of_unchecked(schedule, 2.0 * (self.std * standard - self.mean))

    def density(self, schedule: Schedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        low, high = self._masses(schedule, t)
        log_snr = schedules.log_snr(schedule, t)
        inside = _within(schedule, t, *_reached(schedule, t))
        of_log_snr = norm.pdf(jnp.where(inside, log_snr, 0.0), -2.0 * self.mean, 2.0 * self.std) / (high - low)
        return jnp.where(inside, -schedules.log_snr_rate(schedule, t) * of_log_snr, 0.0)

    def _masses(self, schedule: Schedule, like: Float[Array, "..."]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Of the normal distribution of log-SNR, below the two ends of the schedule."""
        noisiest, cleanest = ((end / 2.0 + self.mean) / self.std for end in _reached(schedule, like))
        return ndtr(noisiest), ndtr(cleanest)


def _reached(schedule: Schedule, like: Float[Array, "..."]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The log-SNR at t = 1 and at t = 0, or at the first level of a chain."""
    steps = schedule.num_steps
    first = jnp.asarray(0.0 if steps is None else 1.0 / steps, like.dtype)
    return schedules.log_snr(schedule, jnp.ones((), like.dtype)), schedules.log_snr(schedule, first)


def _within(
    schedule: Schedule, t: Float[Array, "*shape"], low: Float[Array, ""], high: Float[Array, ""]
) -> Bool[Array, "*shape"]:
    log_snr = schedules.log_snr(schedule, t)
    slack = 1e-5 * (1.0 + jnp.abs(jnp.where(jnp.isfinite(log_snr), log_snr, 0.0)))
    return (log_snr >= low - slack) & (log_snr <= high + slack) & jnp.isfinite(log_snr)


def _ends(times: Times, schedule: Schedule) -> tuple[float, float]:
    with jax.ensure_compile_time_eval():
        last, first = (float(times.time(schedule, jnp.asarray(u, jnp.float32))) for u in (0.0, LAST))
    if not first < last:
        raise ValueError(f"{times} leaves no level of {type(schedule).__name__}: its log-SNRs lie outside")
    return first, last
