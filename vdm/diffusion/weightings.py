"""Weightings: how much an error counts at each noise level.

A weighting is a logarithm and the target whose squared error it weighs. `log_factor` turns it, in logs, into the one
factor on the squared error of the target that the network really predicts, so nothing is ever a large number times a
small one. To add a weighting, write its constructor (of the data's standard deviation and its own options) and add it
to the table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vdm.diffusion import schedules, targets
from vdm.diffusion.schedules import Schedule
from vdm.diffusion.targets import FLOW, NOISE, X0, Target, V, log_leverage
from vdm.diffusion.times import Times
from vdm.types import Level, Time


@dataclasses.dataclass(frozen=True)
class Weighting:
    """exp(log_weight(schedule, t)) times the squared error of `on`; None: of whatever the network predicts.

    Attributes:
      needs_signal: refused on measures whose levels come without any signal, even as an end that has no share.
      over_time: the weight is that of a unit of time, whichever levels are visited: it is divided by their density.
      whitened: the error is taken in the norm of the inverse covariance of the noise, as likelihoods want it.
    """

    name: str
    on: Target | None
    log_weight: Callable[[Schedule, Time], Time]
    needs_signal: bool = False
    over_time: bool = False
    whitened: bool = False


def _one(schedule: Schedule, t: Time) -> Time:
    return jnp.zeros_like(t)


def _likelihood(schedule: Schedule, t: Time) -> Time:
    """log(-1/2 dSNR/dt): zero, and not zero times infinity, without any signal."""
    log_snr = schedules.log_snr(schedule, t)
    keeps_signal = jnp.isfinite(log_snr)
    rate = schedules.log_snr_rate(schedule, jnp.where(keeps_signal, t, 0.5))
    return jnp.where(keeps_signal, jnp.log(-0.5 * rate) + log_snr, -jnp.inf)


def _vlb(schedule: Schedule, t: Time) -> Time:
    """log of T/2 times the rise of SNR to the cleaner neighbour; of the first step, which has none, T/(2 sigma^2)."""
    steps = schedule.num_steps
    if steps is None:
        raise ValueError(
            f"weighting vlb weighs the steps of a chain, and {type(schedule).__name__} has none: set"
            " schedule.discretise, or take weighting likelihood"
        )
    is_first = t * steps < 1.5
    cleaner = schedules.log_snr(schedule, jnp.where(is_first, t, t - 1.0 / steps))
    fall = cleaner - schedules.log_snr(schedule, t)
    rise = cleaner + jnp.log(-jnp.expm1(-jnp.where(is_first, 1.0, fall)))
    return math.log(0.5 * steps) + jnp.where(is_first, -2.0 * jnp.log(schedule.sigma(t)), rise)


@dataclasses.dataclass(frozen=True)
class _ClippedSnr:
    """power log min(SNR, gamma)."""

    gamma: float
    power: float

    def __call__(self, schedule: Schedule, t: Time) -> Time:
        return self.power * jnp.minimum(schedules.log_snr(schedule, t), math.log(self.gamma))


@dataclasses.dataclass(frozen=True)
class _P2:
    """-gamma log(k + SNR)."""

    k: float
    gamma: float

    def __call__(self, schedule: Schedule, t: Time) -> Time:
        return -self.gamma * jnp.logaddexp(math.log(self.k), schedules.log_snr(schedule, t))


@dataclasses.dataclass(frozen=True)
class _Sigmoid:
    """log(-dSNR/dt sigmoid(bias - log_snr))."""

    bias: float

    def __call__(self, schedule: Schedule, t: Time) -> Time:
        log_sigmoid = jax.nn.log_sigmoid(self.bias - schedules.log_snr(schedule, t))
        return math.log(2.0) + _likelihood(schedule, t) + log_sigmoid


def unit(data_std: float) -> Weighting:
    """1 on the error of whatever the network predicts."""
    return Weighting("unit", None, _one)


def simple(data_std: float) -> Weighting:
    """1 on the noise error: L_simple of Ho et al. 2020; lambda = std^2 of Song et al. 2021."""
    return Weighting("simple", NOISE, _one)


def likelihood(data_std: float) -> Weighting:
    """g^2 / (2 std^2) = -1/2 d log_snr/dt on the noise error, -1/2 dSNR/dt on that of x0: for t uniform the bound
    on the negative log-likelihood in nats (Song et al. 2021b; Kingma et al. 2021).
    """
    return Weighting("likelihood", X0, _likelihood, whitened=True)


def vlb(data_std: float) -> Weighting:
    """T beta^2 / (2 beta_tilde (1 - beta) sigma^2) = T/2 (e^{fall of log-SNR in the step} - 1) on the noise error of a
    chain's step, T/(2 (1 - beta_1)) in the first: the bound of Ho et al. 2020 in nats, whose L_0 takes beta_1.
    """
    return Weighting("vlb", X0, _vlb, whitened=True)


def v(data_std: float) -> Weighting:
    """1 on the v error, 1 + 1/SNR on the noise error, whatever the network predicts (Salimans and Ho 2022)."""
    return Weighting("v", V, _one)


def edm(data_std: float) -> Weighting:
    """1 on the error of EDM's F, 1 + (s / data_std)^2 on the noise error (Karras et al. 2022)."""
    return Weighting("edm", targets.edm(data_std), _one)


def flow(data_std: float) -> Weighting:
    """1 on the error of the velocity noise - x0: 1/(1 - t)^2 on the noise error of the flow schedule."""
    return Weighting("flow", FLOW, _one)


def min_snr(data_std: float, gamma: float, power: float) -> Weighting:
    """min(SNR, gamma)^power on the x0 error.

    With power 1 min-SNR (Hang et al. 2023, arXiv 2303.09556). Less flattens it towards 1 on the x0 error: at 1/2 it
    stands half-way to the noise error on a logarithmic scale, up to gamma. Levels without any signal get no weight,
    so an objective that visits one is refused.

    Raises:
      ValueError: gamma is not positive, or power not in (0, 1].
    """
    if gamma <= 0 or not 0 < power <= 1:
        raise ValueError(f"weighting.min_snr needs gamma > 0 and power in (0, 1], got {gamma:g} and {power:g}")
    return Weighting("min_snr", X0, _ClippedSnr(gamma, power), needs_signal=True)


def p2(data_std: float, k: float, gamma: float) -> Weighting:
    """1/(k + SNR)^gamma on the noise error (Choi et al. 2022, arXiv 2204.00227: k = 1, gamma = 0.5 or 1).

    Raises:
      ValueError: k is not positive, or gamma negative.
    """
    if not (k > 0 and gamma >= 0):
        raise ValueError(f"weighting.p2 needs k > 0 and gamma >= 0, got {k:g} and {gamma:g}")
    return Weighting("p2", NOISE, _P2(k, gamma))


def sigmoid(data_std: float, bias: float) -> Weighting:
    """sigmoid(bias - log_snr) on the noise error per unit of log-SNR, whatever levels are visited how often (Kingma and
    Gao 2023; Hoogeboom et al. 2024).
    """
    return Weighting("sigmoid", X0, _Sigmoid(bias), over_time=True)


WEIGHTINGS: dict[str, Callable[..., Weighting]] = {
    "unit": unit,
    "simple": simple,
    "likelihood": likelihood,
    "vlb": vlb,
    "v": v,
    "edm": edm,
    "flow": flow,
    "min_snr": min_snr,
    "p2": p2,
    "sigmoid": sigmoid,
}


def log_factor(weighting: Weighting, target: Target, schedule: Schedule, times: Times, t: Time, level: Level) -> Time:
    """log of the factor on the squared error of `target` at time t, where the level is `level`."""
    log_weight = weighting.log_weight(schedule, t)
    if weighting.over_time:
        log_weight -= jnp.log(times.density(schedule, t))
    if weighting.on is None:
        return log_weight
    return log_weight + 2.0 * (log_leverage(weighting.on, level) - log_leverage(target, level))
