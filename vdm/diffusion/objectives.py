"""One objective for all: target x weighting x measure of noise levels, on a schedule.

    objective = Objective(schedule, TARGETS["v"], WEIGHTINGS["unit"], times.Uniform(1e-3), data_std=0.5)
    t = times_of(objective, u, num_frames)                # u [batch] in [0, 1): one level per clip
    losses = loss(objective, predict, x0, noise, t)       # per example; the mean over a batch estimates the objective
    denoise = denoiser(objective, predict)                # what samplers and evaluation take

`predict(scaled_xt, log_snr) -> Prediction` is the network with its parameters, condition and frame positions bound. In
every objective it is shown xt / sqrt(alpha^2 data_std^2 + sigma^2), which has unit variance, and it knows the level by
the log-SNR alone, so that no objective wins or loses by plumbing. What an objective really is, is `effective_weight`:
two objectives that agree in it have equal expected losses and gradients for a given predictor of x0, and differ in the
variance of their gradients only.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from einops import reduce, repeat
from jaxtyping import Array, Float

from vdm.diffusion import process, schedules, targets, weightings
from vdm.diffusion.schedules import Schedule
from vdm.diffusion.targets import Target
from vdm.diffusion.times import Times
from vdm.diffusion.weightings import Weighting
from vdm.types import Denoiser, Level, LogSnr, Prediction, Time, Video, register_tree

_CHECKED_LEVELS = 1025  # times, from the smallest to 1, at which an objective is tried before it is used


@runtime_checkable
class Predict(Protocol):
    """The network with everything bound but the noisy clip (scaled to unit variance) and its log-SNR per frame."""

    def __call__(self, xt: Video, log_snr: LogSnr) -> Prediction: ...


@dataclasses.dataclass(frozen=True)
class Objective:
    """What training minimises. Its schedule's numbers must be known when it is built.

    Attributes:
      data_std: root mean square about zero of the data as fed; scales the network's input only.

    Raises:
      ValueError: data_std is not positive; the measure's grid is not the schedule's; or some level that the measure
        visits has no noise at all, does not let the target determine x0, gets no weight from the weighting (min-SNR
        without any signal), or has a factor that is not finite.
    """

    schedule: Schedule
    target: Target
    weighting: Weighting
    times: Times
    data_std: float

    def __post_init__(self) -> None:
        if not 0.0 < self.data_std < np.inf:
            raise ValueError(
                f"data_std must be positive and finite, got {self.data_std:g}: measure it on the data as fed"
            )
        _check_levels(self)


@register_tree
@dataclasses.dataclass(frozen=True)
class Losses:
    """Means over all frames, pixels and channels of an example, not over examples.

    Attributes:
      loss: of the objective: factor times the squared error of the target.
      x0_error: squared error of the estimate of x0.
      noise_error: squared error of the estimate of the noise; SNR times that of x0 at one level.
    """

    loss: Float[Array, "batch"]
    x0_error: Float[Array, "batch"]
    noise_error: Float[Array, "batch"]


def times_of(objective: Objective, u: Float[Array, "batch"], num_frames: int) -> Time:
    """The times that the measure gives to uniform numbers in [0, 1), one for all frames of a clip."""
    return repeat(objective.times.time(u), "batch -> batch frames", frames=num_frames)


def loss(objective: Objective, predict: Predict, x0: Video, noise: Video, t: Time) -> Losses:
    """The loss of every example at its frames' times, for given clean clips and standard normal noise.

    The error is taken on the network's raw output and multiplied by one factor per frame, formed in logs.
    """
    level = schedules.level(objective.schedule, t)
    xt = process.diffuse(x0, noise, level)
    value = predict(scaled(xt, level, objective.data_std), level.log_snr).value
    error = (value - targets.value_of(objective.target, x0, noise, level)) ** 2
    per_frame = reduce(error, "batch frames height width channels -> batch frames", "mean")

    log_factor = weightings.log_factor(objective.weighting, objective.target, objective.schedule, t, level)
    of_target = targets.log_leverage(objective.target, level)

    def mean(log_weight: Time) -> Float[Array, "batch"]:
        return reduce(jnp.exp(log_weight) * per_frame, "batch frames -> batch", "mean")

    return Losses(
        loss=mean(log_factor),
        x0_error=mean(2.0 * (targets.log_leverage(targets.X0, level) - of_target)),
        noise_error=mean(2.0 * (targets.log_leverage(targets.NOISE, level) - of_target)),
    )


def denoiser(objective: Objective, predict: Predict) -> Denoiser:
    """(xt, level) -> the estimate of E[x0 | xt] that the network's value stands for."""

    def denoise(xt: Video, level: Level) -> Video:
        value = predict(scaled(xt, level, objective.data_std), level.log_snr).value
        return targets.solve(objective.target, value, xt, level)[0]

    return denoise


def scaled(xt: Video, level: Level, data_std: float) -> Video:
    """The network's input: xt at unit variance (c_in of Karras et al. 2022, arXiv 2206.00364, for any alpha and
    sigma).
    """
    return xt / process.spread(jnp.hypot(level.alpha * data_std, level.sigma))


def effective_weight(objective: Objective, log_snrs: Float[Array, "levels"]) -> Float[Array, "levels"]:
    """w_eff: the weight on the squared error of the noise times the density of levels per unit of log-SNR.

    Zero where the measure never goes. The measure on a grid counts with the mass of each cell spread over the cell.

    Raises:
      ValueError: a log-SNR that the schedule does not reach.
    """
    t = schedules.time_of(objective.schedule, log_snrs)[:, None]

    @jax.jit
    def weight_at(t: Time) -> Time:
        level = schedules.level(objective.schedule, t)
        own = weightings.log_factor(objective.weighting, objective.target, objective.schedule, t, level)
        to_noise = targets.log_leverage(objective.target, level) - targets.log_leverage(targets.NOISE, level)
        density = objective.times.density(t) / -schedules.log_snr_rate(objective.schedule, t)
        return jnp.exp(own + 2.0 * to_noise) * density

    return weight_at(t)[:, 0]


def _check_levels(objective: Objective) -> None:
    grid = getattr(objective.times, "num_steps", None)
    steps = objective.schedule.num_steps
    if grid is not None and steps is not None and grid != steps:
        raise ValueError(
            f"times.grid.num_steps is {grid}, but the schedule is a chain of {steps} steps: make them equal"
        )
    t = np.linspace(objective.times.smallest, 1.0, _CHECKED_LEVELS, dtype=np.float32)
    with jax.ensure_compile_time_eval():
        tried = _tried(objective.schedule, objective.target, objective.weighting, jnp.asarray(t[:, None]))
        log_snr, leverage, log_weight, factor = (np.asarray(values)[:, 0] for values in tried)
    name = objective.target.name
    faults = {
        "there is no noise (log-SNR is not below infinity); raise times.uniform.min": ~(log_snr < np.inf),
        f"{name} does not determine x0; predict v or x0": ~np.isfinite(leverage),
        f"weighting {objective.weighting.name} gives no weight; take another weighting, or a schedule that keeps some"
        " signal": log_weight == -np.inf,
        f"weighting {objective.weighting.name} is not finite on the error of {name}; take another weighting or target,"
        " or raise times.uniform.min": ~np.isfinite(factor),
    }
    for fault, where in faults.items():
        if np.any(where):
            raise ValueError(f"at t = {t[where][0]:g} {fault}")


@functools.partial(jax.jit, static_argnames=("target", "weighting"))
def _tried(schedule: Schedule, target: Target, weighting: Weighting, t: Time) -> tuple[Time, Time, Time, Time]:
    """(log-SNR, log leverage of the target, log weight, factor on the target's error)."""
    level = schedules.level(schedule, t)
    log_factor = weightings.log_factor(weighting, target, schedule, t, level)
    log_weight = weighting.log_weight(schedule, t)
    return level.log_snr, targets.log_leverage(target, level), log_weight, jnp.exp(log_factor)
