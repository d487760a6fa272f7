"""One objective for all: target x weighting x measure of noise levels, on a schedule.

    v, unit = TARGETS["v"](0.5), WEIGHTINGS["unit"](0.5)                    # of data with a standard deviation of 0.5
    objective = Objective(schedule, v, unit, times.Uniform(1e-3), data_std=0.5)
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

import copy
import dataclasses
import functools
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from einops import reduce, repeat
from jaxtyping import Array, Bool, Float

from vdm.diffusion import bound, noise_priors, process, schedules, targets, weightings
from vdm.diffusion.noise_priors import Independent, NoisePrior
from vdm.diffusion.schedules import Learned, Schedule
from vdm.diffusion.targets import Target
from vdm.diffusion.times import Grid, Times, Uniform
from vdm.diffusion.weightings import Weighting
from vdm.types import Level, LogSnr, Prediction, Time, Video, register_tree

_CHECKED_LEVELS = 1025  # times at which an objective is tried before it is used
_SUMMED_LEVELS = 8193  # log-SNRs that the effective weight of a continuous measure is integrated over
_FAR = 30.0  # log-SNR beyond which an effective weight that can be integrated has nothing left
_FALL = 1e-3  # a rise of log-SNR between two of them that is more than rounding


@runtime_checkable
class Predict(Protocol):
    """The network with everything bound but the noisy clip (scaled to unit variance) and its log-SNR per frame."""

    def __call__(self, xt: Video, log_snr: LogSnr) -> Prediction: ...


@dataclasses.dataclass(frozen=True)
class Objective:
    """What training minimises. Its schedule's numbers must be known when it is built.

    Attributes:
      data_std: root mean square about zero of the data as fed; scales the network's input only.
      noise_prior: what correlates the noise of a clip's frames.
      variance_weight: of the variational bound, in bits/dim summed over a chain's T steps, that trains the
        network's variance and nothing else (L_hybrid of Nichol and Dhariwal 2021: 0.001); 0: no variance is learned.
      scale: of the whole loss, positive; see `normalised`.

    Raises:
      ValueError: data_std is not positive; the measure's grid is not the schedule's; log-SNR rises somewhere; or some
        level that the measure visits has no noise at all, does not let the target determine x0, has a factor that is
        not finite, or is a step of a chain that the weighting gives no weight (all but vlb, unit, v, edm and flow
        without any signal), so that it would never be trained. On a continuous measure such an end has no share, and is
        refused of min-SNR alone, which falls with SNR towards it.
    """

    schedule: Schedule
    target: Target
    weighting: Weighting
    times: Times
    data_std: float
    noise_prior: NoisePrior = dataclasses.field(default_factory=Independent)
    variance_weight: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.data_std < np.inf:
            raise ValueError(
                f"data_std must be positive and finite, got {self.data_std:g}: measure it on the data as fed"
            )
        if self.weighting.whitened:
            noise_priors.require_regular(self.noise_prior, 2, f"weighting {self.weighting.name}")
        _check_grid(self)
        _check_learned(self)
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
    return repeat(objective.times.time(objective.schedule, u), "batch -> batch frames", frames=num_frames)


def loss(
    objective: Objective,
    predict: Predict,
    x0: Video,
    noise: Video,
    t: Time,
    given: Bool[Array, "batch frames"] | None = None,
) -> Losses:
    """The loss of every example at its frames' times, for given clean clips and standard normal noise, which the
    objective's prior correlates.

    The error is taken on the network's raw output and multiplied by one factor per frame, formed in logs.

    Args:
      given: True for frames that the network is shown without noise and that count nothing, nor have a gradient; some
        frame of every example must not be. None: all are wanted.

    Raises:
      ValueError: given frames under a weighting whose error mixes frames.
    """
    noise = noise_priors.correlate(objective.noise_prior, noise)
    level = schedules.level(objective.schedule, t)
    seen = level if given is None else process.without_noise(level, given)
    xt = process.diffuse(x0, noise, seen)
    prediction = predict(scaled(xt, seen, objective.data_std), seen.log_snr)
    # at a given frame the target's level is still that of its time: what is not selected must be finite, too
    error = prediction.value - targets.value_of(objective.target, x0, noise, level)
    if given is not None:
        require_apart(objective)
        error = jnp.where(process.spread(given), 0.0, error)
    of_target = targets.log_leverage(objective.target, level)
    per_frame = _mean_square(error)

    def mean(log_weight: Time) -> Float[Array, "batch"]:
        return reduce(jnp.exp(log_weight) * per_frame, "batch frames -> batch", "mean")

    losses = Losses(
        loss=objective.scale * _weighted(objective, error, t, level),
        x0_error=mean(2.0 * (targets.log_leverage(targets.X0, level) - of_target)),
        noise_error=mean(2.0 * (targets.log_leverage(targets.NOISE, level) - of_target)),
    )
    if objective.variance_weight:
        of_variance = objective.scale * _hybrid(objective, prediction, x0, xt, t, level, given)
        losses = dataclasses.replace(losses, loss=losses.loss + of_variance)
    return losses if given is None else jax.tree.map(lambda mean: mean / (1.0 - given.mean(axis=1)), losses)


def with_schedule(objective: Objective, schedule: Schedule) -> Objective:
    """The objective on a schedule that is being trained; it was checked with the numbers that it was built with."""
    changed = copy.copy(objective)
    object.__setattr__(changed, "schedule", schedule)
    return changed


def spread(losses: Float[Array, "batch"]) -> Float[Array, "batch"]:
    """What a learned schedule minimises: the squares of losses whose mean does not depend on it, relative to that mean.

    Its gradient is that of their variance (Kingma et al. 2021, appendix I.2); the size of the losses drops out.
    """
    return 0.5 * (losses / jax.lax.stop_gradient(losses.mean())) ** 2


def _weighted(objective: Objective, error: Video, t: Time, level: Level) -> Float[Array, "batch"]:
    log_factor = weightings.log_factor(
        objective.weighting, objective.target, objective.schedule, objective.times, t, level
    )
    if not objective.weighting.whitened or isinstance(objective.noise_prior, Independent):
        return reduce(jnp.exp(log_factor) * _mean_square(error), "batch frames -> batch", "mean")
    of_noise = process.spread(jnp.exp(0.5 * log_factor)) * error
    return _mean_square(noise_priors.whiten(objective.noise_prior, of_noise)).mean(axis=1)


def require_apart(objective: Objective) -> None:
    """Raises ValueError where the errors of a clip's frames cannot be told apart, as given frames need."""
    if objective.weighting.whitened and not isinstance(objective.noise_prior, Independent):
        raise ValueError(
            f"weighting {objective.weighting.name} whitens correlated noise over all frames, so it has no error of the"
            " wanted ones alone: take another weighting, or independent noise"
        )


def _hybrid(
    objective: Objective,
    prediction: Prediction,
    x0: Video,
    xt: Video,
    t: Time,
    level: Level,
    given: Bool[Array, "batch frames"] | None,
) -> Float[Array, "batch"]:
    """The variance's part of L_hybrid: the mean is held fixed in it."""
    if prediction.log_variance is None:
        raise ValueError(
            "variance_weight is set, but the network predicts no variance: set network.learned_variance to True"
        )
    estimate = jax.lax.stop_gradient(targets.solve(objective.target, prediction.value, xt, level)[0])
    decoder = bound.discretised_gaussian(1.0 / 255.0)
    nats = bound.learned_step(objective.schedule, t, x0, estimate, prediction.log_variance, decoder)
    nats = nats if given is None else jnp.where(given, 0.0, nats)
    assert objective.schedule.num_steps is not None
    per_step = bound.bits_per_dim(nats.sum(axis=1), x0[0].size)
    return objective.variance_weight * objective.schedule.num_steps * per_step


@dataclasses.dataclass(frozen=True)
class NetworkDenoiser:
    """(xt, level) -> the estimate of E[x0 | xt] that the network's value stands for."""

    objective: Objective
    predict: Predict

    def __call__(self, xt: Video, level: Level) -> Video:
        return self._solved(xt, level)[0]

    def with_variance(self, xt: Video, level: Level) -> tuple[Video, Video]:
        """The estimate of x0, and the share of the upper log variance in that of the step (0: the lower one).

        Raises:
          ValueError: the network predicts no variance.
        """
        x0, share = self._solved(xt, level)
        if share is None:
            raise ValueError("the network predicts no variance: set network.learned_variance to True and train it")
        return x0, share

    def _solved(self, xt: Video, level: Level) -> tuple[Video, Video | None]:
        prediction = self.predict(scaled(xt, level, self.objective.data_std), level.log_snr)
        return targets.solve(self.objective.target, prediction.value, xt, level)[0], prediction.log_variance


def denoiser(objective: Objective, predict: Predict) -> NetworkDenoiser:
    """The network as samplers and evaluation see it: a `Denoiser`."""
    return NetworkDenoiser(objective, predict)


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
        density = objective.times.density(objective.schedule, t) / -schedules.log_snr_rate(objective.schedule, t)
        return _weight_on_noise(objective, t) * density

    return weight_at(t)[:, 0]


def normalised(objective: Objective) -> Objective:
    """The objective whose effective weight integrates to 1 over log-SNR: losses of different objectives then have one
    scale, and a limit on the gradient's norm means the same for all.

    Raises:
      ValueError: the integral is not finite, as that of a unit velocity error without any signal.
    """
    steps = objective.times.num_steps if isinstance(objective.times, Grid) else None
    with jax.ensure_compile_time_eval():
        if steps is not None:
            each = _weight_on_noise(objective, jnp.arange(1, steps + 1)[:, None] / steps)
            total, beyond = float(np.mean(np.asarray(each, np.float64))), 0.0
        else:
            ends = schedules.log_snr(objective.schedule, jnp.array(objective.times.ends(objective.schedule)))
            high, low = np.clip(np.asarray(ends, np.float64), -_FAR, _FAR)
            log_snrs = np.linspace(low, high, _SUMMED_LEVELS)[1:-1]
            weights = np.asarray(effective_weight(objective, jnp.asarray(log_snrs, jnp.float32)), np.float64)
            total = float(np.trapezoid(weights, log_snrs))
            cut = np.abs([low, high]) == _FAR
            beyond = float(np.max(weights[[0, -1]] * cut))
    if not 0.0 < total < np.inf or beyond > 1e-3 * total:
        raise ValueError(
            "the integral of the effective weight over log-SNR is not finite, so it cannot be made 1: set"
            " objective.normalise to False, or take another weighting or a measure that ends where there is some signal"
        )
    return dataclasses.replace(objective, scale=objective.scale / total)


def _weight_on_noise(objective: Objective, t: Time) -> Time:
    """On the squared error of the noise at a time, whatever its density."""
    level = schedules.level(objective.schedule, t)
    own = weightings.log_factor(objective.weighting, objective.target, objective.schedule, objective.times, t, level)
    to_noise = targets.log_leverage(objective.target, level) - targets.log_leverage(targets.NOISE, level)
    return objective.scale * jnp.exp(own + 2.0 * to_noise)


def _mean_square(error: Video) -> Time:
    return reduce(error**2, "batch frames height width channels -> batch frames", "mean")


def _check_grid(objective: Objective) -> None:
    grid = objective.times.num_steps if isinstance(objective.times, Grid) else None
    steps = objective.schedule.num_steps
    if grid is not None and steps is not None and grid != steps:
        raise ValueError(
            f"times.grid.num_steps is {grid}, but the schedule is a chain of {steps} steps: make them equal"
        )
    if not objective.variance_weight:
        return
    if objective.variance_weight < 0.0:
        raise ValueError(f"variance_weight must be at least 0, got {objective.variance_weight:g}")
    if grid is None or steps is None or not isinstance(objective.noise_prior, Independent):
        raise ValueError(
            "a learned variance belongs to the steps of a chain: take a schedule with steps (or schedule.discretise),"
            " times.name = grid and independent noise"
        )


def _check_learned(objective: Objective) -> None:
    invariant = objective.weighting.name == "likelihood" or objective.weighting.over_time
    whole = objective.times == Uniform(0.0)
    if isinstance(objective.schedule, Learned) and not (invariant and whole):
        raise ValueError(
            "a learned schedule is trained to lower the variance of a mean that does not depend on it: take weighting"
            f" likelihood or sigmoid, not {objective.weighting.name}, and times uniform with min = 0"
        )


def _check_levels(objective: Objective) -> None:
    smallest, largest = objective.times.ends(objective.schedule)
    steps = objective.times.num_steps if isinstance(objective.times, Grid) else None
    even = np.linspace(smallest, largest, _CHECKED_LEVELS) if steps is None else np.arange(1, steps + 1) / steps
    t = even.astype(np.float32)
    with jax.ensure_compile_time_eval():
        tried = _tried(
            objective.schedule, objective.target, objective.weighting, objective.times, jnp.asarray(t[:, None])
        )
        log_snr, leverage, factor = (np.asarray(values)[:, 0] for values in tried)
    with np.errstate(invalid="ignore"):  # from infinity to infinity
        rises = np.append(np.diff(log_snr) > _FALL, False)
    name = objective.target.name
    remedy = "take another weighting, target or measure, or a schedule that keeps some signal"
    faults = {
        "there is no noise (log-SNR is not below infinity); raise times.uniform.min": ~(log_snr < np.inf),
        f"log-SNR rises: {type(objective.schedule).__name__} is no schedule, whose signal is lost monotonically": rises,
        f"{name} does not determine x0; predict v or x0": ~np.isfinite(leverage),
        f"weighting {objective.weighting.name} gives no weight; take another weighting, or a schedule that keeps some"
        " signal": (factor == 0.0) if steps else objective.weighting.needs_signal & ~(log_snr > -np.inf),
        f"weighting {objective.weighting.name} is not finite on the error of {name}; {remedy}": ~np.isfinite(factor),
    }
    for fault, where in faults.items():
        if np.any(where):
            raise ValueError(f"at t = {t[where][0]:g} {fault}")


@functools.partial(jax.jit, static_argnames=("target", "weighting", "times"))
def _tried(schedule: Schedule, target: Target, weighting: Weighting, times: Times, t: Time) -> tuple[Time, Time, Time]:
    """(log-SNR, log leverage of the target, factor on the target's error)."""
    level = schedules.level(schedule, t)
    log_factor = weightings.log_factor(weighting, target, schedule, times, t, level)
    return level.log_snr, targets.log_leverage(target, level), jnp.exp(log_factor)
