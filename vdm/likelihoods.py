"""Bits per dimension of a network on held-out clips: by bounds, by the flow, and where along log-SNR they lie.

    chain  the discrete bound of a chain's T steps (Ho et al. 2020), each evaluated once
    bound  the continuous bound (Kingma et al. 2021) between two log-SNRs, with what is left at both ends
    flow   the density that the probability-flow ODE gives (Song et al. 2021), of dequantised clips

A network that was trained with `config.objective.dequantise` is asked for the density of dequantised clips by all; any
other one is asked by the bounds for the probability of the 8-bit clips themselves. Clips, noise and levels are the same
for every network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from vdm import build, validation
from vdm.diffusion import bound, likelihood, noise_priors, objectives, schedules
from vdm.diffusion.times import LogSnrUniform
from vdm.records import statistics
from vdm.records.record import BITS, PER_LOG_SNR, Metric
from vdm.runtime import mesh as meshes
from vdm.runtime import random
from vdm.runtime.random import Purpose
from vdm.tasks.completion import generation
from vdm.tasks.training import Generation
from vdm.types import Config, Denoiser, Params

TITLES = {name: f"{BITS} ({name})" for name in ("chain", "bound", "flow")}
_DEPENDS_ON = {  # which of `config.scores`, besides num_likelihood and the flow's own
    "chain": (),
    "bound": ("log_snr_max", "log_snr_min", "num_levels"),
    "flow": ("log_snr_max",),
}

PerClip = Float64[np.ndarray, "clips"]
OfBatch = Callable[[Params, Mapping[str, Array]], Float[Array, "batch"]]


def measure(
    experiment: build.Experiment, params: Params, beat: Callable[[], None] = lambda: None
) -> tuple[tuple[Metric, ...], dict[str, tuple[tuple[float, float], ...]]]:
    """The metrics that `config.scores.likelihoods` names, and with any of them the curve of the bound."""
    options = experiment.config.scores
    if not options.likelihoods:
        return (), {}
    check_options(experiment.config)
    made = {"chain": make_chain, "bound": make_bound, "flow": make_flow}
    metrics = []
    for name in options.likelihoods:
        of_batch = made[name](experiment, params)
        per_clip = over_clips(experiment, of_batch, params, beat)
        interval = statistics.mean_of_few(per_clip)
        protocol = protocol_of(experiment, name)
        metrics.append(Metric(TITLES[name], interval.estimate, interval.low, interval.high, "", False, protocol))
    return tuple(metrics), {PER_LOG_SNR: curve(experiment, params, beat)}


def check_options(config: Config) -> None:
    """Raises ValueError for options of `config.scores` that cannot be, before anything is opened."""
    options = config.scores
    for name in options.likelihoods:
        build.lookup(TITLES, name, "scores.likelihoods")
    for key, smallest in (("num_likelihood", 2), ("num_levels", 2)):
        if options[key] < smallest:
            raise ValueError(f"config.scores.{key} is {options[key]}; it must be at least {smallest}")
    if not 0.0 <= options.chain.variance_interpolation <= 1.0:
        raise ValueError(
            f"config.scores.chain.variance_interpolation is {options.chain.variance_interpolation:g}; it must be from "
            "0, the lower variance of a step, to 1, the upper one"
        )
    if options.log_snr_min >= options.log_snr_max:
        raise ValueError(
            f"config.scores.log_snr_min is {options.log_snr_min:g} and log_snr_max {options.log_snr_max:g}; the first "
            "must be lower"
        )


def check(experiment: build.Experiment) -> None:
    """Raises ValueError where the data or the objective do not allow what is asked for, before anything is computed."""
    config, held = experiment.config, len(experiment.splits.validation)
    if not config.scores.likelihoods:
        return
    if not experiment.tasks.draws(generation(config.data.num_frames)):
        raise ValueError(
            f"config.scores.likelihoods is {tuple(config.scores.likelihoods)}: of whole clips, none of which"
            f" config.task ({config.task.name}) has shown the network without given frames; leave them out"
        )
    if held < config.scores.num_likelihood:
        raise ValueError(
            f"config.scores.num_likelihood is {config.scores.num_likelihood}, and the validation split has {held} "
            "clips; lower it"
        )
    noise_priors.require_regular(experiment.objective.noise_prior, config.data.num_frames, "a likelihood")
    if "chain" in config.scores.likelihoods:
        _check_chain(experiment)
    low, high = log_snr_range(experiment)
    if low >= high:
        raise ValueError(
            f"the objective was trained on log-SNRs that config.scores leaves out: none is from {low:g} to {high:g}"
        )


def _check_chain(experiment: build.Experiment) -> None:
    config = experiment.config
    if experiment.objective.schedule.num_steps is None:
        raise ValueError(
            f"config.scores.likelihoods has chain, and the schedule {config.schedule.name} has no steps; set "
            "config.schedule.discretise, or leave it out"
        )
    if config.network.learned_variance:
        raise ValueError(
            "config.scores.likelihoods has chain, which takes one variance_interpolation for all steps, and this "
            "network has learned its own (config.network.learned_variance); leave it out"
        )


def log_snr_range(experiment: build.Model) -> tuple[float, float]:
    """Those of `config.scores` as far as the objective's measure reaches: beyond it the network was never trained."""
    options, objective = experiment.config.scores, experiment.objective
    ends = jnp.array(objective.times.ends(objective.schedule))
    high, low = np.asarray(schedules.log_snr(objective.schedule, ends), np.float64)
    return max(options.log_snr_min, float(low)), min(options.log_snr_max, float(high))


def curve(
    experiment: build.Experiment, params: Params, beat: Callable[[], None] = lambda: None
) -> tuple[tuple[float, float], ...]:
    """(log_snr, bits per dimension and unit of log-SNR) at fixed log-SNRs common to all networks, within the range.

    It is E |noise error|^2 / (2 D ln 2): the bound is its integral, with what is left at both ends.
    """
    options = experiment.config.scores
    low, high = log_snr_range(experiment)
    everywhere = np.linspace(options.log_snr_min, options.log_snr_max, options.num_levels)
    within = [float(log_snr) for log_snr in everywhere if low <= log_snr <= high]
    with jax.set_mesh(experiment.mesh):
        of_whole_clips = validation.make_validation(experiment, beat, within, options.num_likelihood, Generation())
        losses = of_whole_clips(params)
    return tuple((log_snr, error / (2 * math.log(2))) for log_snr, error in losses["validation/noise_error"])


def make_chain(experiment: build.Experiment, params: Params) -> OfBatch:
    """Bits per dimension by the bound of a chain's steps, one number a clip; the network is evaluated T times."""
    decoder = bound.gaussian if experiment.config.objective.dequantise else bound.discretised_gaussian(1.0 / 255.0)

    def of_batch(params: Params, batch: Mapping[str, Array]) -> Float[Array, "batch"]:
        found = bound.discrete(
            _denoiser(experiment, params, batch),
            experiment.objective_of(params).schedule,
            validation.clean_clips(experiment, batch, experiment.key(Purpose.LIKELIHOOD_DEQUANTISATION)),
            _noise(experiment, batch),
            decoder=decoder,
            noise_prior=experiment.objective.noise_prior,
            share=experiment.config.scores.chain.variance_interpolation,
        )
        return _bits(experiment, found)

    return of_batch


def make_bound(experiment: build.Experiment, params: Params) -> OfBatch:
    """Bits per dimension by the bound, one number a clip; every clip is seen at `config.scores.num_levels` levels."""
    config = experiment.config
    count = config.scores.num_levels
    measure = LogSnrUniform(*log_snr_range(experiment))
    is_density = config.objective.dequantise

    def of_batch(params: Params, batch: Mapping[str, Array]) -> Float[Array, "batch"]:
        def level(i: Array) -> Array:
            return random.example_uniform(experiment.key(Purpose.LIKELIHOOD_LEVEL, i), batch["index"])

        rows = jnp.arange(count)
        found = bound.continuous(
            _denoiser(experiment, params, batch),
            experiment.objective_of(params).schedule,
            measure,
            validation.clean_clips(experiment, batch, experiment.key(Purpose.LIKELIHOOD_DEQUANTISATION)),
            (rows[:, None] + jax.vmap(level)(rows)) / count,
            _noise(experiment, batch),
            decoder=bound.gaussian if is_density else bound.nearest_level,
            noise_prior=experiment.objective.noise_prior,
            decode_at="estimate" if is_density else "noisy",
        )
        return _bits(experiment, found)

    return of_batch


def _noise(experiment: build.Experiment, batch: Mapping[str, Array]) -> Callable[[Array], Array]:
    """Standard normal noise of the clips by the number of the evaluation."""

    def noise(i: Array) -> Array:
        key = experiment.key(Purpose.LIKELIHOOD_NOISE, i)
        return random.example_noise(key, batch["index"], experiment.config.data.num_frames, experiment.frame_shape)

    return noise


def _bits(experiment: build.Experiment, found: bound.Bound) -> Float[Array, "batch"]:
    """Per dimension, of a bound on the density of dequantised clips or on the probability of 8-bit ones."""
    size = math.prod((experiment.config.data.num_frames, *experiment.frame_shape))
    if experiment.config.objective.dequantise:
        return bound.bits_per_dim_of_density(-found.total, size)
    return bound.bits_per_dim(found.total, size)


def make_flow(experiment: build.Experiment, params: Params) -> OfBatch:
    """Bits per dimension by the flow, one number a clip, from the highest log-SNR of the range on."""
    config, options = experiment.config, experiment.config.scores
    shape = config.data.num_frames, experiment.frame_shape
    start = float(experiment.times_of(params, log_snr_range(experiment)[1:])[0])

    def of_batch(params: Params, batch: Mapping[str, Array]) -> Float[Array, "batch"]:
        index, schedule = batch["index"], experiment.objective_of(params).schedule
        x0 = validation.dequantised(experiment, batch, experiment.key(Purpose.LIKELIHOOD_DEQUANTISATION))
        alpha = schedules.level(schedule, jnp.full((1, 1), start)).alpha[0, 0]

        def signs(i: Array) -> Array:
            return jnp.sign(random.example_noise(experiment.key(Purpose.LIKELIHOOD_PROBE, i), index, *shape))

        found = likelihood.log_prob(
            _denoiser(experiment, params, batch),
            schedule,
            alpha * x0,
            t_min=start,
            rtol=options.flow.rtol,
            atol=options.flow.rtol,
            noise_prior=experiment.objective.noise_prior,
            probes=jax.vmap(signs)(jnp.arange(options.flow.probes)),
        )
        size = math.prod((shape[0], *shape[1]))
        return bound.bits_per_dim_of_density(found.log_prob + size * jnp.log(alpha), size)

    return of_batch


def over_clips(
    experiment: build.Experiment, of_batch: OfBatch, params: Params, beat: Callable[[], None] = lambda: None
) -> PerClip:
    """Of the first `config.scores.num_likelihood` clips of the validation split."""
    compiled = jax.jit(of_batch, out_shardings=meshes.replicated(experiment.mesh))
    count = experiment.config.scores.num_likelihood
    return validation.over_clips(experiment, compiled, params, experiment.splits.validation, count, beat)


def _denoiser(experiment: build.Experiment, params: Params, batch: Mapping[str, Array]) -> Denoiser:
    predict = validation.predict_labelled(experiment, params, batch)
    return objectives.denoiser(experiment.objective_of(params), predict)


def protocol_of(experiment: build.Experiment, name: str) -> dict[str, Any]:
    """What was asked for; how far the objective reaches is its own."""
    config, options = experiment.config, experiment.config.scores
    own = dict(options[name]) if name in options else {}
    own |= {"steps": experiment.objective.schedule.num_steps} if name == "chain" else {}
    return {
        "metric": name,
        "num_likelihood": options.num_likelihood,
        "split": "validation",
        "data": "dequantised" if name == "flow" or config.objective.dequantise else "8-bit",
        **{key: options[key] for key in _DEPENDS_ON[name]},
        **own,
        "parameters": "average",
        "seed": experiment.seed_of("evaluation"),
    }


def ask_again(config: Config, protocol: Mapping[str, Any]) -> None:
    """Sets `config.scores` so that the number of this protocol is taken once more, beside those asked for already.

    Raises:
      ValueError: it is none of `protocol_of`.
    """
    options = config.scores
    try:
        name = protocol["metric"]
        build.lookup(TITLES, name, "scores.likelihoods")
        for key in ("num_likelihood", *_DEPENDS_ON[name]):
            options[key] = protocol[key]
        for key in options.get(name, ()):  # the route's own
            options[name][key] = protocol[key]
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is no protocol of bits/dim: {error}") from error
    options.likelihoods = (*options.likelihoods, name)
