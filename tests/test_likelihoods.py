"""Bits per dimension against a density that is known, and the bound against the integral of its curve."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vdm import build, likelihoods
from vdm.diffusion import bound, schedules
from vdm.records.record import PER_LOG_SNR
from vdm.runtime import random
from vdm.runtime.random import Purpose
from vdm.types import Prediction

VARIANCE = 0.6  # of the pixels that the network believes in
STEPS = 128  # of the longer chain
NUM_CLIPS = 16


@dataclasses.dataclass(frozen=True)
class OfGaussianPixels:
    """The exact network for independent pixels N(0, VARIANCE) on a variance-preserving schedule; its target is v."""

    def init(self, key):
        return {}

    def apply(self, params, xt, log_snr, frame_index, condition, *, keys=None):
        alpha, sigma = (jnp.sqrt(jax.nn.sigmoid(sign * log_snr))[..., None, None, None] for sign in (1, -1))
        x0 = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * xt
        return Prediction(alpha * (xt - alpha * x0) / sigma - sigma * x0)


def experiment_of(**scores):
    config = tiny.get_config()
    config.scores.update({"likelihoods": ("bound", "flow"), "num_likelihood": NUM_CLIPS, "num_levels": 128} | scores)
    return build.experiment(config)


def exact(dequantise=True, num_clips=NUM_CLIPS, discretise=0, background=-1.0):
    config = tiny.get_config()
    config.data.moving_shapes.background = background
    config.schedule.discretise = discretise
    config.data.moving_shapes.num_validation = num_clips
    config.objective.dequantise = dequantise
    config.scores.update(likelihoods=("bound", "flow"), num_likelihood=num_clips, num_levels=128)
    config.scores.flow.probes = 4
    return dataclasses.replace(build.experiment(config), network=OfGaussianPixels())


def dequantised(experiment, num_clips=NUM_CLIPS):
    shape = experiment.config.data.num_frames, experiment.frame_shape
    key = random.key(experiment.config.seed, Purpose.LIKELIHOOD_DEQUANTISATION)
    uniform = jax.scipy.special.ndtr(random.example_noise(key, jnp.arange(num_clips), *shape))
    videos = jnp.stack([jnp.asarray(experiment.splits.validation[i]["video"], jnp.float32) for i in range(num_clips)])
    return np.asarray(bound.dequantised(videos, uniform), np.float64)


@pytest.mark.feature("O13", "O14")
@pytest.mark.parametrize("route", ["bound", "flow"])
def test_both_routes_give_the_density_of_gaussian_pixels(route):
    """The exact network's process is the reverse of the forward one, so its bound is tight for every single clip."""
    experiment = exact()
    make = {"bound": likelihoods.make_bound, "flow": likelihoods.make_flow}[route]
    found = likelihoods.over_clips(experiment, make(experiment, {}), {})
    x = dequantised(experiment)
    nats = 0.5 * (x**2 / VARIANCE + math.log(2 * math.pi * VARIANCE))
    expected = nats.mean(axis=(1, 2, 3, 4)) / math.log(2) + 7
    assert np.ptp(expected) > 0.01, "clips differ, or nothing is tested"
    # what is random of the bound is mostly the decoder's noise, of standard deviation sqrt(D/2)/(D ln 2) = 0.037 bits
    clips, mean = {"bound": (0.16, 0.04), "flow": (0.005, 0.002)}[route]
    np.testing.assert_allclose(found, expected, atol=clips)
    assert found.mean() == pytest.approx(expected.mean(), abs=mean)


@pytest.mark.feature("O13")
def test_the_bound_of_a_chain_is_the_exact_codes_loss():
    """Every step on Gaussian pixels has a closed form. What a chain loses to the density falls with its steps: its
    reverse steps keep the variance that they would have if the clean clip were known.
    """
    found = {steps: _of_chain(steps, share=0.0) for steps in (STEPS // 4, STEPS)}
    for steps, (measured, expected) in found.items():
        assert measured == pytest.approx(expected, abs=0.04), steps  # three times what the noise leaves
    assert found[STEPS // 4][0] > found[STEPS][0] + 0.15
    for share in (0.5, 1.0):
        measured, expected = _of_chain(STEPS // 4, share=share)
        assert measured == pytest.approx(expected, abs=0.04)
        assert abs(measured - found[STEPS // 4][0]) > 0.1, "another variance is another bound"
    # a bin of a pixel, 2/255 wide, is narrow beside the first level's noise: its mass is its width times the density
    measured, expected = _of_chain(STEPS // 4, share=0.0, dequantise=False)
    assert measured + 7 == pytest.approx(expected + math.log2(255 / 2), abs=0.04)


def _of_chain(steps, share, dequantise=True):
    """Bits/dim beyond the density of the clips, measured and in closed form."""
    experiment = exact(dequantise, discretise=steps, num_clips=256, background=-0.95)  # no pixel in the outermost bins
    experiment.config.scores.chain.variance_interpolation = share
    found = likelihoods.over_clips(experiment, likelihoods.make_chain(experiment, {}), {})
    x = dequantised(experiment, 256)
    if not dequantise:
        videos = np.stack([experiment.splits.validation[i]["video"] for i in range(256)])
        x = np.asarray(bound.to_float(jnp.asarray(videos)), np.float64)
    second = np.mean(x**2)
    times = jnp.arange(1, steps + 1)[:, None] / steps
    log_snr = np.asarray(schedules.log_snr(experiment.objective.schedule, times), np.float64)[:, 0]
    alpha2, sigma2 = 1 / (1 + np.exp(-log_snr)), 1 / (1 + np.exp(log_snr))
    # the mean squared error of the exact network for pixels whose second moment is not the one it believes in
    shrink = np.sqrt(alpha2) * VARIANCE / (alpha2 * VARIANCE + sigma2)
    error = (1 - shrink * np.sqrt(alpha2)) ** 2 * second + shrink**2 * sigma2
    ratio = share * np.log(sigma2[1:] / sigma2[:-1])  # log variance of a step over the lower one
    weighted = np.exp(-ratio) * (np.exp(log_snr[:-1]) - np.exp(log_snr[1:])) * error[1:]
    nats = 0.5 * np.sum(ratio + np.exp(-ratio) - 1 + weighted)
    nats += 0.5 * np.log(2 * np.pi * sigma2[0]) + 0.5 * error[0] / sigma2[0]
    nats += 0.5 * np.exp(log_snr[-1]) * second
    density = 0.5 * (second / VARIANCE + math.log(2 * math.pi * VARIANCE))
    return found.mean() - density / math.log(2) - 7, (nats - density) / math.log(2)


@pytest.mark.feature("O14")
def test_the_flow_gives_the_density_of_the_noisy_clips_that_it_starts_from():
    """At log-SNR 2 pixels are alpha x, of density N(0, alpha^2 VARIANCE + sigma^2), and dx is d(alpha x) / alpha."""
    experiment = exact()
    experiment.config.scores.log_snr_max = 2.0
    found = likelihoods.over_clips(experiment, likelihoods.make_flow(experiment, {}), {})
    alpha2, sigma2 = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))
    variance = alpha2 * VARIANCE + sigma2
    nats = 0.5 * (alpha2 * dequantised(experiment) ** 2 / variance + math.log(2 * math.pi * variance / alpha2))
    np.testing.assert_allclose(found, nats.mean(axis=(1, 2, 3, 4)) / math.log(2) + 7, atol=0.005)


@pytest.mark.feature("O13", "O20")
def test_the_bound_is_the_integral_of_its_curve_with_both_ends():
    # Both routes draw noise of their own; the curve's is the same at all levels, so that its integral strays by
    # sqrt(2 / (clips x D)) = 0.3 %.
    experiment = exact(dequantise=False, num_clips=256)
    experiment.config.scores.log_snr_min = 0.0  # where half of the data is left, which the prior's term must tell
    measured = likelihoods.over_clips(experiment, likelihoods.make_bound(experiment, {}), {}).mean()
    curve = np.array(likelihoods.curve(experiment, {}))
    low, high = likelihoods.log_snr_range(experiment)
    inside = np.trapezoid(curve[:, 1], curve[:, 0])
    inside += curve[0, 1] * (curve[0, 0] - low) + curve[-1, 1] * (high - curve[-1, 0])
    videos = np.stack([experiment.splits.validation[i]["video"] for i in range(256)])
    x0 = bound.to_float(jnp.asarray(videos))
    noisiest = float(experiment.times_of({}, (low,))[0])
    prior = bound.prior_kl(experiment.objective.schedule, x0, experiment.objective.noise_prior, noisiest)
    std = np.exp(-high / 2)
    z = x0 + std * jax.random.normal(jax.random.key(1), x0.shape)
    ends = float(jnp.mean(prior + bound.nearest_level(x0, z, jnp.full((1, 1, 1, 1, 1), std)).sum(axis=1)))
    assert measured == pytest.approx(inside + ends / (x0[0].size * math.log(2)), rel=0.01)


def test_the_curve_is_blank_where_the_objective_does_not_reach():
    experiment = experiment_of(log_snr_min=-12.0, log_snr_max=12.0, num_levels=25)
    schedule = experiment.objective.schedule
    low, high = (
        float(schedules.log_snr(schedule, jnp.array(t))) for t in (1.0, experiment.config.objective.times.uniform.min)
    )
    experiment = dataclasses.replace(experiment, network=OfGaussianPixels())
    reached = [log_snr for log_snr, _ in likelihoods.curve(experiment, {})]
    assert reached == [log_snr for log_snr in range(-12, 13) if low <= log_snr <= high]
    assert reached[0] == -10 and reached[-1] == 9


def test_what_has_no_bound_of_a_chain_is_refused():
    with pytest.raises(ValueError, match=r"has chain, and the schedule vp_linear has no steps; set "):
        likelihoods.check(experiment_of(likelihoods=("chain",)))
    config = tiny.get_config()
    config.schedule.name, config.objective.times.name = "ddpm_linear", "grid"
    config.network.learned_variance = True
    config.objective.variance_weight = 0.001
    config.scores.update(likelihoods=("chain",), num_likelihood=NUM_CLIPS)
    with pytest.raises(ValueError, match="has chain, which takes one variance_interpolation for all steps"):
        likelihoods.check(build.experiment(config))


def test_a_run_is_told_what_was_measured_and_how():
    experiment = exact()
    likelihoods.check(experiment)
    metrics, curves = likelihoods.measure(experiment, {})
    assert [metric.name for metric in metrics] == ["bits/dim (bound)", "bits/dim (flow)"]
    for metric in metrics:
        assert metric.low < metric.value < metric.high and metric.higher_is_better is False
        assert metric.protocol["data"] == "dequantised" and metric.protocol["num_likelihood"] == NUM_CLIPS
    asked = tiny.get_config()
    for metric in metrics:
        likelihoods.ask_again(asked, metric.protocol)
    assert asked.scores.to_dict() == experiment.config.scores.to_dict()
    with pytest.raises(ValueError, match="no protocol of bits/dim: 'probes'"):
        likelihoods.ask_again(asked, {"metric": "flow", "num_likelihood": 4, "log_snr_max": 10.0})
    assert len(curves[PER_LOG_SNR]) > 100
    with pytest.raises(ValueError, match=r"config.scores.likelihoods is 'elbo'; it must be one of: chain, bound, flow"):
        likelihoods.measure(experiment_of(likelihoods=("elbo",)), {})
