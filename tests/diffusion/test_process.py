"""The forward process: one-step kernels, their composition, and the posterior by Bayes' rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracles.gaussian_video import GaussianVideo
from vdm.diffusion import process, schedules
from vdm.types import Level

level_of, transition, posterior = (jax.jit(f) for f in (schedules.level, process.transition, process.posterior))


def levels(schedule, *times):
    return [level_of(schedule, jnp.asarray(np.full((1, 1), t))) for t in times]


def numbers(outputs):
    return [float(number[0, 0]) for number in outputs]


@pytest.mark.feature("O1")
def test_a_thousand_kernels_compose_to_the_marginal():
    betas = np.linspace(1e-4, 0.02, 1000)
    schedule = schedules.ddpm_linear(1000, 1e-4, 0.02)

    def kernels(dtype):
        every = jax.tree.map(
            np.asarray, level_of(schedule, jnp.asarray((np.arange(1, 1001) / 1000)[None].astype(dtype)))
        )
        before, after = (
            jax.tree.map(lambda number, cut=cut: number[:, cut], every) for cut in (slice(-1), slice(1, None))
        )
        return every, [np.asarray(number[0]) for number in transition(*jax.tree.map(jnp.asarray, (before, after)))]

    single, (scales, variances) = kernels(np.float32)
    np.testing.assert_allclose(scales, np.sqrt(1 - betas[1:]), rtol=1e-6)
    np.testing.assert_allclose(variances, betas[1:], rtol=1e-3)  # float32: a difference of log-SNRs that agree to 1e-2
    with jax.enable_x64(True):
        double, (scales, variances) = kernels(np.float64)
    np.testing.assert_allclose(variances, betas[1:], rtol=1e-8)

    mean, spread = np.sqrt(1 - betas[0]), betas[0]
    for scale, variance in zip(scales, variances, strict=True):
        mean, spread = scale * mean, scale**2 * spread + variance
    assert mean**2 == pytest.approx(4.0358e-5, rel=1e-5)  # A_T at the betas of Ho et al. 2020
    for every, tolerance in ((single, 1e-6), (double, 1e-12)):
        assert every.alpha[0, -1] == pytest.approx(mean, abs=tolerance)
        assert every.sigma[0, -1] ** 2 == pytest.approx(spread, abs=tolerance)


@pytest.mark.feature("O1")
def test_diffused_clips_have_the_marginal_moments():
    gaussian, noise = GaussianVideo().moment_design()
    level = Level(*(jnp.asarray(np.full((24, 3), number, np.float32)) for number in (0.6, 0.8, 2 * np.log(0.75))))
    xt = np.asarray(jax.jit(process.diffuse)(gaussian, noise, level)).reshape(24, -1)
    expected = 0.36 * GaussianVideo().covariance + 0.64 * np.eye(12)
    np.testing.assert_allclose(xt.T @ xt / 24, expected, atol=1e-6)


def test_noise_and_score_are_what_diffused_the_clip():
    random = np.random.default_rng(0)
    x0, noise = (jnp.asarray(random.normal(size=(2, 3, 1, 2, 1)), jnp.float32) for _ in range(2))
    level = levels(schedules.vp_linear(0.1, 20.0), 0.4)[0]
    xt = process.diffuse(x0, noise, level)
    np.testing.assert_allclose(process.noise_from(x0, xt, level), noise, atol=1e-5)
    alpha, sigma = float(level.alpha[0, 0]), float(level.sigma[0, 0])
    gradient = jax.grad(lambda xt: -0.5 * jnp.sum((xt - alpha * x0) ** 2) / sigma**2)(xt)  # of log q(xt | x0)
    np.testing.assert_allclose(process.score_from(x0, xt, level), gradient, atol=1e-4)


@pytest.mark.parametrize("times", [(0.3, 0.300001), (0.001, 0.999), (0.4, 0.7)])
def test_posterior_is_bayes_rule(times):
    """q(x_s | x_t, x0) from the product of the two Gaussians q(x_s | x0) q(x_t | x_s), for schedules that are VP and
    that are not.
    """
    with jax.enable_x64(True):
        s, t = levels(schedules.cosine(-20.0, 20.0), *times)
        stretched = [
            Level(3.0 * level.alpha, 3.0 * level.sigma, level.log_snr) if number else level
            for number, level in enumerate((s, t))
        ]
        for before, after in ((s, t), stretched):
            scale, variance = numbers(transition(before, after))
            alpha, sigma = float(before.alpha[0, 0]), float(before.sigma[0, 0])
            precision = 1 / sigma**2 + scale**2 / variance
            expected = scale / variance / precision, alpha / sigma**2 / precision, 1 / precision
            got = numbers(posterior(before, after))
            np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_posterior_of_a_ddpm_step_is_the_published_one():
    betas = np.linspace(1e-4, 0.02, 1000)
    kept = np.cumprod(1 - betas)
    i = 499
    with jax.enable_x64(True):
        s, t = levels(schedules.ddpm_linear(1000, 1e-4, 0.02), i / 1000, (i + 1) / 1000)
        got = numbers(posterior(s, t))
    # equation 7 of Ho et al. 2020; index i is step i + 1
    expected = [
        np.sqrt(1 - betas[i]) * (1 - kept[i - 1]) / (1 - kept[i]),
        np.sqrt(kept[i - 1]) * betas[i] / (1 - kept[i]),
        betas[i] * (1 - kept[i - 1]) / (1 - kept[i]),
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_posterior_from_pure_noise_forgets_it():
    s = levels(schedules.vp_linear(0.1, 20.0), 0.5)[0]
    t = Level(jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.full((1, 1), -jnp.inf))
    of_xt, of_x0, variance = posterior(s, t)
    assert numbers((of_xt, of_x0)) == [0.0, float(s.alpha[0, 0])]
    assert float(variance[0, 0]) == pytest.approx(float(s.sigma[0, 0]) ** 2, rel=1e-6)


def test_the_oracle_agrees_with_itself():
    """Three routes to one posterior mean: a solve per spatial mode, a gain per eigenvector, the dense score."""
    video, vp = GaussianVideo(num_frames=4, height=3, channels=2), schedules.vp_linear(0.1, 20.0)
    random = np.random.default_rng(1)
    with jax.enable_x64(True):
        xt = jnp.asarray(random.normal(size=(5, *video.shape)))
        shared, own = (level_of(vp, jnp.asarray(t)) for t in (np.full((5, 4), 0.3), random.uniform(0.01, 1.0, (5, 4))))
        denoise = jax.jit(video.denoise)
        np.testing.assert_allclose(
            denoise(xt, shared), jax.jit(video.denoise_evenly)(xt, shared), rtol=1e-9, atol=1e-12
        )
        score = jax.jit(process.score_from)(denoise(xt, own), xt, own)
        np.testing.assert_allclose(score, jax.jit(video.score)(xt, own), rtol=1e-8, atol=1e-10)
