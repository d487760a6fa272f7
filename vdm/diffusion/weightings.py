"""Weightings: how much an error counts at each noise level.

A weighting is a logarithm and the target whose squared error it weighs. `log_factor` turns it, in logs, into the one
factor on the squared error of the target that the network really predicts, so nothing is ever a large number times a
small one. To add a weighting, write its constructor and add it to the table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax.numpy as jnp

from vdm.diffusion import schedules
from vdm.diffusion.schedules import Schedule
from vdm.diffusion.targets import NOISE, X0, Target, log_leverage
from vdm.types import Level, Time


@dataclasses.dataclass(frozen=True)
class Weighting:
    """exp(log_weight(schedule, t)) times the squared error of `on`; None: of whatever the network predicts."""

    name: str
    on: Target | None
    log_weight: Callable[[Schedule, Time], Time]


def _one(schedule: Schedule, t: Time) -> Time:
    return jnp.zeros_like(t)


def _likelihood(schedule: Schedule, t: Time) -> Time:
    return jnp.log(-0.5 * schedules.log_snr_rate(schedule, t))


@dataclasses.dataclass(frozen=True)
class _ClippedSnr:
    """power log min(SNR, gamma)."""

    gamma: float
    power: float

    def __call__(self, schedule: Schedule, t: Time) -> Time:
        return self.power * jnp.minimum(schedules.log_snr(schedule, t), math.log(self.gamma))


def unit() -> Weighting:
    """1 on the error of whatever the network predicts."""
    return Weighting("unit", None, _one)


def simple() -> Weighting:
    """1 on the noise error: L_simple of Ho et al. 2020; lambda = std^2 of Song et al. 2021."""
    return Weighting("simple", NOISE, _one)


def likelihood() -> Weighting:
    """g^2 / (2 std^2) = -1/2 d log_snr/dt on the noise error: the bound on the negative log-likelihood in nats (Song et
    al. 2021b; Kingma et al. 2021).
    """
    return Weighting("likelihood", NOISE, _likelihood)


def min_snr(gamma: float, power: float) -> Weighting:
    """min(SNR, gamma)^power on the x0 error.

    With power 1 min-SNR (Hang et al. 2023, arXiv 2303.09556). Less flattens it towards 1 on the x0 error: at 1/2 it
    stands half-way to the noise error on a logarithmic scale, up to gamma. Levels without any signal get no weight,
    so an objective that visits one is refused.

    Raises:
      ValueError: gamma is not positive, or power not in (0, 1].
    """
    if gamma <= 0 or not 0 < power <= 1:
        raise ValueError(f"weighting.min_snr needs gamma > 0 and power in (0, 1], got {gamma:g} and {power:g}")
    return Weighting("min_snr", X0, _ClippedSnr(gamma, power))


WEIGHTINGS = {"unit": unit, "simple": simple, "likelihood": likelihood, "min_snr": min_snr}


def log_factor(weighting: Weighting, target: Target, schedule: Schedule, t: Time, level: Level) -> Time:
    """log of the factor on the squared error of `target` at time t, where the level is `level`."""
    log_weight = weighting.log_weight(schedule, t)
    if weighting.on is None:
        return log_weight
    return log_weight + 2.0 * (log_leverage(weighting.on, level) - log_leverage(target, level))
