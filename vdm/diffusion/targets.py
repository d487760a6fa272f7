"""What the network is asked for: a target is a row (a, b) in y = a x0 + b noise.

With xt = alpha x0 + sigma noise every row gives a 2x2 system, and one solve converts any target to any other. To add a
target, write its constructor (of the data's standard deviation, which only EDM's uses) and add it to the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from vdm.diffusion.process import spread
from vdm.types import Level, Time, Video


@dataclasses.dataclass(frozen=True)
class Target:
    """y = a x0 + b noise, with (a, b) = row(level)."""

    name: str
    row: Callable[[Level], tuple[Time, Time]]


def _x0(level: Level) -> tuple[Time, Time]:
    return jnp.ones_like(level.alpha), jnp.zeros_like(level.sigma)


def _noise(level: Level) -> tuple[Time, Time]:
    return jnp.zeros_like(level.alpha), jnp.ones_like(level.sigma)


def _v(level: Level) -> tuple[Time, Time]:
    norm = jnp.hypot(level.alpha, level.sigma)
    return -level.sigma / norm, level.alpha / norm


def _flow(level: Level) -> tuple[Time, Time]:
    return -jnp.ones_like(level.alpha), jnp.ones_like(level.sigma)


@dataclasses.dataclass(frozen=True)
class _Edm:
    """(x0 - c_skip x) / c_out of the noisy clip x = x0 + s noise, s = sigma / alpha."""

    data_std: float

    def __call__(self, level: Level) -> tuple[Time, Time]:
        signal = level.alpha * self.data_std
        norm = jnp.hypot(signal, level.sigma)
        return level.sigma / (norm * self.data_std), -signal / norm


X0 = Target("x0", _x0)
NOISE = Target("noise", _noise)
V = Target("v", _v)  # Salimans and Ho 2022, arXiv 2202.00512
# The score is -F/sigma with F the network's output: F regresses the noise. A raw score is no regression target, its
# size is 1/sigma.
SCORE = Target("score", _noise)
FLOW = Target("flow", _flow)  # the velocity noise - x0 of straight paths (Lipman et al. 2023)


def edm(data_std: float) -> Target:
    """F of Karras et al. 2022 (arXiv 2206.00364, equation 7) for any alpha and sigma: unit variance for data of that
    standard deviation. At 1 it is -v.
    """
    return Target("edm", _Edm(data_std))


TARGETS: dict[str, Callable[[float], Target]] = {
    "x0": lambda data_std: X0,
    "noise": lambda data_std: NOISE,
    "v": lambda data_std: V,
    "score": lambda data_std: SCORE,
    "flow": lambda data_std: FLOW,
    "edm": edm,
}


def value_of(target: Target, x0: Video, noise: Video, level: Level) -> Video:
    """What the network should have said."""
    a, b = target.row(level)
    return spread(a) * x0 + spread(b) * noise


def solve(target: Target, value: Video, xt: Video, level: Level) -> tuple[Video, Video]:
    """The (x0, noise) that a value of the target and xt determine together."""
    a, b = target.row(level)
    determinant = level.alpha * b - level.sigma * a
    x0 = spread(b / determinant) * xt - spread(level.sigma / determinant) * value
    noise = spread(level.alpha / determinant) * value - spread(a / determinant) * xt
    return x0, noise


def convert(source: Target, value: Video, to: Target, xt: Video, level: Level) -> Video:
    """A value of one target as the value of another, at the same xt."""
    return value_of(to, *solve(source, value, xt, level), level)


def log_leverage(target: Target, level: Level) -> Time:
    """log |alpha b - sigma a|: at fixed xt an error of y is exp(log_leverage) times a scale that all targets share.

    So a squared error of target p is exp(2 (log_leverage(p) - log_leverage(q))) times the squared error of target q; it
    is log alpha for the noise, log sigma for x0. Minus infinity means that the target does not determine x0 and the
    noise at this level.
    """
    a, b = target.row(level)
    return jnp.log(jnp.abs(level.alpha * b - level.sigma * a))
