"""Schedules and the SDE that each one stands for, against closed forms in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.diffusion import schedules

SCHEDULES = {
    "ddpm_linear": schedules.ddpm_linear(1000, 1e-4, 0.02),
    "ddpm_cosine": schedules.ddpm_cosine(1000, 0.008, 0.999),
    "vp_linear": schedules.vp_linear(0.1, 20.0),
    "cosine": schedules.cosine(-20.0, 20.0),
}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


log_snr_of = jax.jit(schedules.log_snr)
level_of = jax.jit(schedules.level)


@jax.jit
def rates_of(schedule, t):
    """(f, g^2, d log_snr/dt)"""
    return tuple(rate(schedule, t) for rate in (schedules.drift, schedules.diffusion_squared, schedules.log_snr_rate))


@pytest.mark.feature("O5")
@each_schedule
def test_log_snr_falls_and_comes_back_through_its_inverse(schedule):
    t = jnp.asarray(np.geomspace(1e-3, 1.0, 1001), jnp.float32)
    log_snr = np.asarray(log_snr_of(schedule, t))
    assert np.all(np.diff(log_snr) < 0.0)
    back = log_snr_of(schedule, schedules.time_of(schedule, jnp.asarray(log_snr)))
    spacing = np.abs(rates_of(schedule, t)[2]) * np.spacing(np.asarray(t))  # what neighbouring float32 times differ by
    assert np.all(np.abs(back - log_snr) <= 2e-5 + 2.0 * spacing)


@pytest.mark.feature("O5")
def test_end_points():
    ends = jnp.asarray(np.float32([0.0, 1.0]))
    log_snr = {name: np.asarray(log_snr_of(schedule, ends)) for name, schedule in SCHEDULES.items()}
    np.testing.assert_allclose(log_snr["cosine"], [20.0, -20.0], rtol=1e-6)
    # integral of beta from 0 to 1 is (0.1 + 20)/2 = 10.05
    np.testing.assert_allclose(log_snr["vp_linear"], [np.inf, -np.log(np.expm1(10.05))], rtol=1e-6)
    # prod (1 - beta) = 4.0358e-5 at the betas of Ho et al. 2020
    assert log_snr["ddpm_linear"][1] == pytest.approx(np.log(4.0358e-5 / (1 - 4.0358e-5)), abs=2e-5)
    assert log_snr["ddpm_linear"][0] == log_snr["ddpm_cosine"][0] == np.inf
    # Nichol and Dhariwal clip only the last betas: up to there A_t is cos^2
    kept = np.exp(-np.asarray(SCHEDULES["ddpm_cosine"].integral))[:990]
    angle = (np.arange(990) / 1000 + 0.008) / 1.008 * np.pi / 2
    np.testing.assert_allclose(kept, (np.cos(angle) / np.cos(0.008 / 1.008 * np.pi / 2)) ** 2, rtol=1e-9)
    assert SCHEDULES["ddpm_cosine"].betas.max() == pytest.approx(0.999)


@pytest.mark.feature("O5")
@each_schedule
def test_float32_is_accurate_at_both_ends(schedule):
    t = np.concatenate([np.geomspace(1e-6, 0.1, 20), 1.0 - np.geomspace(1e-6, 0.5, 20)]).astype(np.float32)
    single = jax.tree.map(np.asarray, level_of(schedule, jnp.asarray(t[None])))
    with jax.enable_x64(True):
        double = jax.tree.map(np.asarray, level_of(schedule, jnp.asarray(t[None].astype(np.float64))))
    for name in ("alpha", "sigma"):
        np.testing.assert_allclose(getattr(single, name), getattr(double, name), rtol=2e-5)
    np.testing.assert_allclose(single.log_snr, double.log_snr, atol=2e-5)
    np.testing.assert_allclose(double.log_snr, 2.0 * np.log(double.alpha / double.sigma), atol=1e-9)
    np.testing.assert_allclose(double.alpha**2 + double.sigma**2, 1.0, atol=1e-12)


@pytest.mark.feature("O1")
def test_chain_and_its_betas_are_one():
    t, betas = np.arange(1, 1001) / 1000, np.linspace(1e-4, 0.02, 1000)
    schedule = SCHEDULES["ddpm_linear"]
    np.testing.assert_allclose(schedule.betas, betas, rtol=1e-10)
    with jax.enable_x64(True):
        # beta_i rules all of ((i - 1)/T, i/T], its right end included
        for inside in (t, t - 0.5e-3, t - 0.999e-3):
            got = rates_of(schedule, jnp.asarray(inside))[1]
            np.testing.assert_allclose(got, -1000 * np.log1p(-betas), rtol=1e-8)
    np.testing.assert_allclose(
        rates_of(schedule, jnp.asarray(t.astype(np.float32)))[1], -1000 * np.log1p(-betas), rtol=2e-3
    )


@pytest.mark.feature("O7")
@each_schedule
def test_moments_of_the_sde_are_the_marginals(schedule):
    """d log m/dt = f and d (v/m^2)/dt = g^2/m^2, integrated by Gauss-Legendre inside the smooth pieces, are log alpha
    and 1/SNR.
    """
    nodes, weights = np.polynomial.legendre.leggauss(8)
    towards_ends = np.geomspace(1e-7, 1e-3, 40)
    edges = np.unique(np.concatenate([np.linspace(0.0, 1.0, 1001), towards_ends, 1.0 - towards_ends]))
    t = (edges[:-1, None] + edges[1:, None] + (edges[1:, None] - edges[:-1, None]) * nodes) / 2
    with jax.enable_x64(True):
        drift, diffusion, _ = (np.asarray(rate) for rate in rates_of(schedule, jnp.asarray(t)))
        alpha = np.asarray(level_of(schedule, jnp.asarray(t)).alpha)
        ends = jax.tree.map(lambda number: np.asarray(number)[0], level_of(schedule, jnp.asarray(edges)[None]))
    log_alpha, inverse_snr = np.log(ends.alpha), (ends.sigma / ends.alpha) ** 2
    halves = np.diff(edges) / 2
    integrals = [(integrand * weights).sum(-1) * halves for integrand in (drift, diffusion / alpha**2)]
    mean, ratio = (np.concatenate([[0.0], np.cumsum(integral)]) for integral in integrals)
    np.testing.assert_allclose(mean, log_alpha - log_alpha[0], atol=1e-8)
    np.testing.assert_allclose(ratio, inverse_snr - inverse_snr[0], rtol=1e-8)


@pytest.mark.feature("O7")
def test_vp_coefficients_are_songs():
    t = np.linspace(1e-5, 1.0, 1001)
    beta, integral = 0.1 + 19.9 * t, 0.1 * t + 9.95 * t**2
    with jax.enable_x64(True):
        drift, diffusion, rate = rates_of(SCHEDULES["vp_linear"], jnp.asarray(t))
    np.testing.assert_allclose(drift, -beta / 2, rtol=1e-10)
    np.testing.assert_allclose(diffusion, beta, rtol=1e-10)
    np.testing.assert_allclose(rate, -beta / -np.expm1(-integral), rtol=1e-10)


@pytest.mark.feature("O7")
def test_simulated_paths_have_the_marginal_moments():
    """Euler-Maruyama forwards from x0 = 0.7: mean and variance of 20,000 paths within 4 standard errors at three
    times.
    """
    schedule, steps, paths, x0 = SCHEDULES["vp_linear"], 2000, 20_000, 0.7

    def advance(x, index):
        t = (index + 0.5) / steps
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), index), (paths,))
        x += (
            schedules.drift(schedule, t) * x / steps
            + jnp.sqrt(schedules.diffusion_squared(schedule, t) / steps) * noise
        )
        return x, jnp.stack([x.mean(), x.var()])

    moments = jax.jit(lambda: jax.lax.scan(advance, jnp.full(paths, x0), jnp.arange(steps))[1])()
    for index in (199, 999, 1999):
        decay = np.exp(-0.1 * (index + 1) / steps - 9.95 * ((index + 1) / steps) ** 2)
        mean, variance = np.sqrt(decay) * x0, 1.0 - decay
        assert abs(float(moments[index, 0]) - mean) < 4 * np.sqrt(variance / paths)
        assert abs(float(moments[index, 1]) - variance) < 4 * variance * np.sqrt(2 / paths)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: schedules.ddpm_linear(10, 0.0, 0.02), r"every beta in \(0, 1\)"),
        (lambda: schedules.ddpm_linear(0, 1e-4, 0.02), "at least one step"),
        (lambda: schedules.vp_linear(20.0, 0.1), "beta_min <= beta_max"),
        (lambda: schedules.cosine(20.0, -20.0), "log_snr_min < log_snr_max"),
        (lambda: schedules.time_of(SCHEDULES["cosine"], jnp.array([0.0, 21.0])), "reaches -20"),
    ],
)
def test_impossible_schedules_are_refused(build, said):
    with pytest.raises(ValueError, match=said):
        build()
