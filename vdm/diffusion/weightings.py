"""Weightings: how much an error counts at each noise level.

A weighting is a logarithm and the target whose squared error it weighs. `log_factor` turns it, in logs, into the one
factor on the squared error of the target that the network really predicts, so nothing is ever a large number times a
small one. To add a weighting, add a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from vdm.diffusion import schedules
from vdm.diffusion.schedules import Schedule
from vdm.diffusion.targets import NOISE, Target, log_leverage
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


UNIT = Weighting("unit", None, _one)
SIMPLE = Weighting("simple", NOISE, _one)  # L_simple, Ho et al. 2020; lambda = std^2 of Song et al. 2021
# g^2 / (2 std^2) = -1/2 d log_snr/dt: the bound on the negative log-likelihood in nats (Song et al. 2021b; Kingma et
# al. 2021)
LIKELIHOOD = Weighting("likelihood", NOISE, _likelihood)

WEIGHTINGS = {weighting.name: weighting for weighting in (UNIT, SIMPLE, LIKELIHOOD)}


def log_factor(weighting: Weighting, target: Target, schedule: Schedule, t: Time, level: Level) -> Time:
    """log of the factor on the squared error of `target` at time t, where the level is `level`."""
    log_weight = weighting.log_weight(schedule, t)
    if weighting.on is None:
        return log_weight
    return log_weight + 2.0 * (log_leverage(weighting.on, level) - log_leverage(target, level))
