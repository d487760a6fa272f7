"""Learned variance and L_hybrid (Nichol and Dhariwal 2021)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from vdm.diffusion import objectives, process, schedules
from vdm.diffusion.objectives import Objective
from vdm.diffusion.samplers import Ancestral, LearnedAncestral
from vdm.diffusion.targets import NOISE
from vdm.diffusion.times import Grid, Uniform
from vdm.diffusion.weightings import simple
from vdm.types import Prediction

STEPS = 20
CHAIN = schedules.ddpm_linear(STEPS, 0.01, 0.4)
SHAPE = (4, 1, 1, 2, 1)
BETAS = np.linspace(0.01, 0.4, STEPS)
KEPT = np.cumprod(1 - BETAS)


def hybrid(weight=0.1):
    return Objective(CHAIN, NOISE, simple(1.0), Grid(STEPS), 1.0, variance_weight=weight)


def clips():
    random = np.random.default_rng(0)
    return [jnp.asarray(random.normal(size=SHAPE) * 0.4), jnp.asarray(random.normal(size=SHAPE))]


def losses(built, value, share, index):
    """Per-example losses of a network that says `value` and `share` everywhere, at step `index` of 1..T."""
    x0, noise = clips()
    t = jnp.full(SHAPE[:2], index / STEPS, x0.dtype)
    predict = lambda xt, log_snr: Prediction(value * jnp.ones_like(xt), share * jnp.ones_like(xt))  # noqa: E731
    return objectives.loss(built, predict, x0, noise, t).loss


def by_hand(value, share, index):
    """L_{t-1} or L_0 in bits/dim, from the betas."""
    x0, noise = (np.asarray(clip, np.float64) for clip in clips())
    i = index - 1
    xt = np.sqrt(KEPT[i]) * x0 + np.sqrt(1 - KEPT[i]) * noise
    estimate = (xt - np.sqrt(1 - KEPT[i]) * value) / np.sqrt(KEPT[i])
    if index == 1:
        lower = BETAS[1] * (1 - KEPT[0]) / (1 - KEPT[1])  # of the second step
        std = np.sqrt(BETAS[0] ** share * lower ** (1 - share))
        mass = norm.cdf((x0 + 1 / 255 - estimate) / std) - norm.cdf((x0 - 1 / 255 - estimate) / std)
        return -np.log2(mass).mean(axis=(1, 2, 3, 4))
    lower = BETAS[i] * (1 - KEPT[i - 1]) / (1 - KEPT[i])
    variance = BETAS[i] ** share * lower ** (1 - share)
    off = np.sqrt(KEPT[i - 1]) * BETAS[i] / (1 - KEPT[i]) * (x0 - estimate)
    nats = 0.5 * (np.log(variance / lower) + (lower + off**2) / variance - 1)
    return nats.mean(axis=(1, 2, 3, 4)) / np.log(2)


@pytest.mark.feature("O4")
@pytest.mark.parametrize("index", [1, 2, 9, STEPS])
def test_the_hybrid_adds_t_times_the_bound_in_bits(index):
    with jax.enable_x64(True):
        plain = losses(hybrid(1e-12), 0.3, 0.35, index)
        got = losses(hybrid(0.1), 0.3, 0.35, index) - plain
    np.testing.assert_allclose(got, 0.1 * STEPS * by_hand(0.3, 0.35, index), rtol=1e-6)


@pytest.mark.feature("O4")
@pytest.mark.parametrize("index", [1, 7])
def test_the_bound_trains_the_variance_and_nothing_else(index):
    with jax.enable_x64(True):
        value, share = jnp.asarray(0.3), jnp.asarray(0.4)
        of_both = [
            jax.jit(jax.grad(lambda v, s, w=w: losses(hybrid(w), v, s, index).mean(), argnums=(0, 1)))(value, share)
            for w in (0.1, 0.2)
        ]
    assert float(of_both[0][0]) == pytest.approx(float(of_both[1][0]), rel=1e-12) and float(of_both[0][0]) != 0.0
    assert float(of_both[1][1]) == pytest.approx(2 * float(of_both[0][1]), rel=1e-9) and float(of_both[0][1]) != 0.0


@pytest.mark.feature("O4")
def test_the_best_share_is_that_of_the_error():
    """Where the estimate is x0 itself the lower variance is best; where it errs, a larger one: the variance that the
    bound wants is lower + off^2.
    """
    with jax.enable_x64(True):
        t, s = (jnp.full(SHAPE[:2], index / STEPS) for index in (7, 6))
        here, there = schedules.level(CHAIN, t), schedules.level(CHAIN, s)
        _, of_x0, lower = process.posterior(there, here)
        _, upper = process.transition(there, here)
        x0, noise = clips()
        value = 0.3
        off = np.asarray(
            process.spread(of_x0)
            * (
                x0
                - (process.diffuse(x0, noise, here) - process.spread(here.sigma) * value) / process.spread(here.alpha)
            )
        )
        wanted = float(lower[0, 0]) + (off**2).mean()
        best = np.log(wanted / float(lower[0, 0])) / np.log(float(upper[0, 0] / lower[0, 0]))
        slope = jax.grad(lambda share: losses(hybrid(), value, share, 7).mean())
        assert float(slope(best)) == pytest.approx(0.0, abs=1e-9)
        assert float(slope(best + 0.1)) > 0 > float(slope(best - 0.1))


@pytest.mark.feature("O4")
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_sampler_takes_the_variance_that_was_learned(share):
    x0, noise = clips()
    t, s = (jnp.full(SHAPE[:2], index / STEPS, x0.dtype) for index in (7, 6))
    predict = lambda xt, log_snr: Prediction(0.2 * xt, jnp.full_like(xt, share))  # noqa: E731
    denoise = objectives.denoiser(hybrid(), predict)
    learned = LearnedAncestral()(denoise, CHAIN, x0, t, s, lambda draw: noise)
    fixed = Ancestral(share)(denoise, CHAIN, x0, t, s, lambda draw: noise)
    np.testing.assert_allclose(learned, fixed, rtol=1e-6)


def test_what_cannot_have_a_learned_variance_is_refused():
    vp = schedules.vp_linear(0.1, 20.0)
    with pytest.raises(ValueError, match="belongs to the steps of a chain"):
        Objective(vp, NOISE, simple(1.0), Uniform(1e-3), 1.0, variance_weight=0.1)
    with pytest.raises(ValueError, match="variance_weight must be at least 0"):
        hybrid(-1.0)
    x0, noise = clips()
    silent = lambda xt, log_snr: Prediction(xt)  # noqa: E731
    with pytest.raises(ValueError, match="predicts no variance"):
        objectives.loss(hybrid(), silent, x0, noise, jnp.full(SHAPE[:2], 0.5))
    with pytest.raises(ValueError, match="predicts no variance"):
        objectives.denoiser(hybrid(), silent).with_variance(x0, schedules.level(CHAIN, jnp.full(SHAPE[:2], 0.5)))
    with pytest.raises(ValueError, match="needs the network's own variance"):
        t = jnp.full(SHAPE[:2], 0.5)
        LearnedAncestral()(lambda xt, level: xt, CHAIN, x0, t, t, lambda draw: noise)
