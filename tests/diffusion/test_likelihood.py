"""Exact log-likelihood on Gaussian video, whose density is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracles.gaussian_video import GaussianVideo
from tests.oracles.mixture import two_clips
from vdm.diffusion import likelihood, schedules
from vdm.diffusion.noise_priors import Independent

VIDEO = GaussianVideo(num_frames=2, height=2, width=2)  # 8 dimensions
COSINE = schedules.cosine(-20.0, 20.0)
T_MIN = 1e-3


def ends(schedule):
    return [(float(schedule.alpha(t)), float(schedule.sigma(t))) for t in (jnp.asarray(T_MIN), jnp.ones(()))]


def measured(x, schedule=COSINE, probes=None, rtol=1e-8, denoise=VIDEO.denoise_evenly):
    return jax.jit(
        lambda x, probes: likelihood.log_prob(
            denoise, schedule, x, t_min=T_MIN, rtol=rtol, atol=rtol, noise_prior=Independent(), probes=probes
        )
    )(x, probes)


@pytest.mark.feature("O14")
@pytest.mark.parametrize(
    "schedule", [COSINE, schedules.vp_linear(0.1, 20.0), schedules.flow()], ids=["cos", "vp", "flow"]
)
def test_log_prob_and_latent_are_exact(schedule):
    """Against slogdet, to 1e-4 nats, and the latent against the exact flow map. On VP-linear the prior has the variance
    sigma(1)^2, not that of the data at t = 1.
    """
    with jax.enable_x64(True):
        (a0, s0), (a1, s1) = ends(schedule)
        x = jnp.asarray(VIDEO.sample(jax.random.key(0), 4) * a0, jnp.float64)
        got = measured(x, schedule)
    np.testing.assert_allclose(got.latent, VIDEO.flow_map(x, (a0, s0), (a1, s1)), rtol=1e-5, atol=1e-6)
    values = VIDEO.eigenvalues
    # of the prior's density at the latent, and the change of volume, both in eigendirections
    flat = np.asarray(got.latent).reshape(4, -1)
    change = 0.5 * np.sum(np.log(a1**2 * values + s1**2) - np.log(a0**2 * values + s0**2))
    exact = -0.5 * ((flat / s1) ** 2).sum(axis=1) - 8 * np.log(s1 * np.sqrt(2 * np.pi)) + change
    np.testing.assert_allclose(got.log_prob, exact, atol=1e-4)
    # N(0, sigma(1)^2 I) is not the marginal at t = 1; where alpha(1) is e^-10 that costs less than 1e-3 nats
    np.testing.assert_allclose(got.log_prob, VIDEO.log_prob(x, a0, s0), atol=1e-4 if a1 < 1e-3 else 2e-3)
    assert np.all(np.asarray(got.standard_error) == 0.0)


@pytest.mark.feature("O14")
def test_hutchinson_is_unbiased_and_states_its_standard_error():
    """512 probes of one clip: the mean of their estimates within 4 of the stated standard errors of the exact one, and
    the exact divergence is what all basis vectors together give.
    """
    with jax.enable_x64(True):
        (a0, s0), _ = ends(COSINE)
        x = jnp.asarray(VIDEO.sample(jax.random.key(1), 1), jnp.float64)
        probes = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], size=(512, 1, *VIDEO.shape)))
        got = measured(x, probes=probes, rtol=1e-6)
        basis = jnp.sqrt(8.0) * jnp.eye(8).reshape(8, 1, *VIDEO.shape)
        every = measured(x, probes=basis, rtol=1e-6)
    exact = VIDEO.log_prob(x, a0, s0)
    error = float(got.standard_error[0])
    assert 0.005 < error < 0.5
    assert abs(float(got.log_prob[0]) - exact[0]) < 4 * error
    np.testing.assert_allclose(every.log_prob, exact, atol=1e-4)


@pytest.mark.feature("O14")
def test_an_example_does_not_depend_on_its_batch_and_costs_more_with_a_finer_tolerance():
    with jax.enable_x64(True):
        x = (
            jnp.asarray(VIDEO.sample(jax.random.key(2), 3), jnp.float64)
            * jnp.asarray([1.0, 8.0, 0.1])[:, None, None, None, None]
        )
        coarse, alone, fine = measured(x, rtol=1e-3), measured(x[:1], rtol=1e-3), measured(x, rtol=1e-6)
    np.testing.assert_allclose(coarse.log_prob[:1], alone.log_prob, rtol=1e-12)
    assert int(coarse.num_evaluations[0]) == int(alone.num_evaluations[0])
    assert np.all(np.asarray(fine.num_evaluations) > np.asarray(coarse.num_evaluations))


@pytest.mark.feature("O14")
def test_the_density_of_a_mixture():
    """A score that is not linear."""
    mixture = two_clips()
    with jax.enable_x64(True):
        x = jnp.asarray(mixture.sample(jax.random.key(0), 4)[0], jnp.float64)
        got = measured(x, denoise=mixture.denoise, rtol=1e-6).log_prob
        level = schedules.level(COSINE, jnp.full((4, 3), T_MIN))
        exact = mixture.log_prob(x, level)
    np.testing.assert_allclose(got, exact, atol=2e-3)


def test_times_without_a_likelihood_are_refused():
    with pytest.raises(ValueError, match=r"t_min must be in \(0, 1\), got 0"):
        likelihood.log_prob(
            VIDEO.denoise_evenly,
            COSINE,
            jnp.zeros((1, *VIDEO.shape)),
            t_min=0.0,
            rtol=1e-3,
            atol=1e-3,
            noise_prior=Independent(),
        )
