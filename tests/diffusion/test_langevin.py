"""Langevin steps: they leave the marginal of their level alone, and alone they sample a mixture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion.affine import SHAPE, VARIANCES, exact, marginal
from tests.oracles.mixture import two_clips
from vdm.diffusion import samplers, schedules
from vdm.diffusion.samplers import AnnealedLangevin, PredictorCorrector, grids
from vdm.diffusion.samplers.langevin import correct

VP = schedules.vp_linear(0.1, 20.0)


@pytest.mark.feature("S6")
def test_a_step_leaves_the_marginal_alone_to_second_order():
    """Of the variance V a step of size e makes (1 - e/V)^2 V + 2 e = V + e^2/V: off by (e/V)^2, and by a quarter of it
    with half the size.
    """
    with jax.enable_x64(True):
        t = jnp.asarray(np.full((1, 1), 0.5))
        ones, zeros = jnp.ones(SHAPE), jnp.zeros(SHAPE)
        variance = marginal(VP, 0.5) ** 2
        sigma = float(VP.sigma(t)[0, 0])
        for relative in (0.2, 0.1):
            of_x, of_z = (np.ravel(correct(exact, VP, x, t, relative, z)) for x, z in ((ones, zeros), (zeros, ones)))
            after = of_x**2 * variance + of_z**2
            size = relative * sigma**2
            np.testing.assert_allclose(after / variance - 1.0, (size / variance) ** 2, rtol=1e-8)


@pytest.mark.feature("S6")
def test_the_corrector_runs_at_the_level_the_predictor_arrives_at():
    """snr r: steps of 2 (r sigma)^2 with the second, third, ... noise."""
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, *noises = (jnp.asarray(random.normal(size=SHAPE)) for _ in range(4))
        drawn = jnp.stack(noises)
        t, s = (jnp.asarray(np.full((1, 1), time)) for time in (0.6, 0.5))
        got = PredictorCorrector("ancestral", 0.16, 2)(exact, VP, x, t, s, lambda draw: drawn[draw])
        sigma, alpha = float(VP.sigma(s)[0, 0]), float(VP.alpha(s)[0, 0])
        expected = np.asarray(samplers.Ancestral()(exact, VP, x, t, s, lambda draw: noises[0]))
        size = 2 * (0.16 * sigma) ** 2
        for z in noises[1:]:
            score = -expected / (alpha**2 * VARIANCES[:, None] + sigma**2)
            expected = expected + size * score + np.sqrt(2 * size) * np.asarray(z)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.feature("O16")
def test_a_step_of_ncsn_is_the_published_one():
    """Song and Ermon 2019, algorithm 1, at the level that it arrives at: x + alpha/2 score + sqrt(alpha) z with alpha =
    step_size sigma^2.
    """
    random = np.random.default_rng(0)
    ladder = schedules.smld(10, 0.01, 1.0)
    with jax.enable_x64(True):
        x, z = (jnp.asarray(random.normal(size=SHAPE)) for _ in range(2))
        t, s = (jnp.asarray(np.full((1, 1), time)) for time in (0.6, 0.5))
        got = AnnealedLangevin(0.2, 1)(exact, ladder, x, t, s, lambda draw: z)
    sigma = 0.01 * 100.0 ** (4 / 9)  # the fifth of ten levels
    size = 0.2 * sigma**2
    expected = (
        np.asarray(x) - size / 2 * np.asarray(x) / (VARIANCES[:, None] + sigma**2) + np.sqrt(size) * np.asarray(z)
    )
    np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.feature("O16", "S6")
def test_annealed_langevin_finds_both_clips_in_their_proportion():
    """NCSN's sampler on the mixture with its exact score: weights of 0.3 and 0.7 within 5 % and the spread of 0.2."""
    mixture, schedule = two_clips(), schedules.smld(24, 0.05, 6.0)
    num = 2000
    times = grids.uniform(schedule, 23, 1 / 24)

    @jax.jit
    def drawn():
        def noise(i):
            return jax.random.normal(jax.random.fold_in(jax.random.key(0), i), (num, *mixture.means.shape[1:]))

        start = samplers.prior(schedule, times, noise(10**6))
        return samplers.integrate(mixture.denoise, schedule, AnnealedLangevin(0.2, 20), times, start, noise)

    x = np.asarray(drawn())
    distance = np.stack([((x - mean) ** 2).sum(axis=(1, 2, 3, 4)) for mean in mixture.means], axis=1)
    own = distance.argmin(axis=1)
    assert abs((own == 0).mean() - 0.3) < 0.05
    std = np.std(x - mixture.means[own])
    assert std == pytest.approx(np.hypot(0.2, 0.05), rel=0.08)  # finite steps widen it
