"""Schedules and the SDE that each one stands for, against closed forms in float64."""

import dataclasses

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
    "sub_vp": schedules.sub_vp(0.1, 20.0),
    "ve": schedules.ve(0.02, 100.0),
    "edm": schedules.edm(0.002, 80.0, 7.0),
    "flow": schedules.flow(),
    "smld": schedules.smld(1000, 0.02, 100.0),
    "zero_terminal": schedules.zero_terminal(schedules.ddpm_linear(1000, 1e-4, 0.02)),
    "shifted": schedules.shifted(schedules.vp_linear(0.1, 20.0), -1.4),
    "learned": schedules.learned(16, -12.0, 9.0),
}
PRESERVING = ("ddpm_linear", "ddpm_cosine", "vp_linear", "cosine", "zero_terminal", "shifted", "learned")
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def last_time(schedule):
    """1, or a time before it where no signal is left."""
    return 1.0 if float(schedule.alpha(jnp.ones(()))) > 0.0 else 0.99


log_snr_of = jax.jit(schedules.log_snr)
level_of = jax.jit(schedules.level)


@jax.jit
def rates_of(schedule, t):
    """(f, g^2, d log_snr/dt)"""
    return tuple(rate(schedule, t) for rate in (schedules.drift, schedules.diffusion_squared, schedules.log_snr_rate))


@pytest.mark.feature("O5")
@each_schedule
def test_log_snr_falls_and_comes_back_through_its_inverse(schedule):
    t = jnp.asarray(np.geomspace(1e-3, last_time(schedule), 1001), jnp.float32)
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
    """Against float64 at the same times, wherever log-SNR is in [-20, 20]: alpha and sigma within 4 eps (1 + |log|),
    what exp must lose of its argument; a power loses rho times as much, sums over steps or hidden units more.
    """
    t = np.concatenate([np.geomspace(1e-3, 0.1, 40), 1.0 - np.geomspace(1e-6, 0.5, 40)]).astype(np.float32)
    single = jax.tree.map(np.asarray, level_of(schedule, jnp.asarray(t[None])))
    with jax.enable_x64(True):
        in_double = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), schedule)
        double = jax.tree.map(np.asarray, level_of(in_double, jnp.asarray(t[None].astype(np.float64))))
    inside = np.abs(double.log_snr) <= 20.0
    assert inside.sum() >= 60
    times = {schedules.EDM: 7, schedules.Chain: 4, schedules.ZeroTerminal: 25, schedules.Learned: 10}
    eps = 2.0**-24 * 4 * times.get(type(schedule), 1)
    for name in ("alpha", "sigma"):
        exact = getattr(double, name)[inside]
        error = np.abs(getattr(single, name)[inside] / exact - 1.0)
        assert np.all(error <= eps * (1.0 + np.abs(np.log(exact)))), (name, (error / eps).max())
    np.testing.assert_allclose(double.log_snr, 2.0 * np.log(double.alpha / double.sigma), atol=1e-9)


@pytest.mark.feature("O5")
@pytest.mark.parametrize("name", PRESERVING)
def test_variance_is_preserved(name):
    with jax.enable_x64(True):
        level = level_of(SCHEDULES[name], jnp.asarray(np.linspace(1e-3, 1.0, 101)[None]))
    np.testing.assert_allclose(
        level.alpha**2 + level.sigma**2, 1.0, atol=1e-6 if name in ("learned", "shifted") else 1e-12
    )


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


@pytest.mark.feature("O7", "O8", "O9")
@each_schedule
def test_moments_of_the_sde_are_the_marginals(schedule):
    """d log m/dt = f and d (v/m^2)/dt = g^2/m^2, integrated by Gauss-Legendre inside the smooth pieces, are log alpha
    and 1/SNR.
    """
    nodes, weights = np.polynomial.legendre.leggauss(8)
    towards_ends = np.geomspace(1e-7, 1e-3, 40)
    edges = np.unique(np.concatenate([np.linspace(0.0, 1.0, 1001), towards_ends, 1.0 - towards_ends]))
    edges = edges[(edges >= (1e-3 if schedule.num_steps else 0.0)) & (edges <= last_time(schedule))]
    t = (edges[:-1, None] + edges[1:, None] + (edges[1:, None] - edges[:-1, None]) * nodes) / 2
    with jax.enable_x64(True):
        drift, diffusion, _ = (np.asarray(rate) for rate in rates_of(schedule, jnp.asarray(t)))
        alpha = np.asarray(level_of(schedule, jnp.asarray(t)).alpha)
        ends = jax.tree.map(lambda number: np.asarray(number)[0], level_of(schedule, jnp.asarray(edges)[None]))
    log_alpha, inverse_snr = np.log(ends.alpha), (ends.sigma / ends.alpha) ** 2
    halves = np.diff(edges) / 2
    integrals = [(integrand * weights).sum(-1) * halves for integrand in (drift, diffusion / alpha**2)]
    mean, ratio = (np.concatenate([[0.0], np.cumsum(integral)]) for integral in integrals)
    tolerance = 1e-6 if isinstance(schedule, schedules.Learned) else 1e-8  # its numbers are float32
    np.testing.assert_allclose(mean, log_alpha - log_alpha[0], atol=tolerance)
    np.testing.assert_allclose(ratio, inverse_snr - inverse_snr[0], rtol=tolerance, atol=1e-12)


@pytest.mark.feature("O7")
def test_vp_coefficients_are_songs():
    t = np.linspace(1e-5, 1.0, 1001)
    beta, integral = 0.1 + 19.9 * t, 0.1 * t + 9.95 * t**2
    with jax.enable_x64(True):
        drift, diffusion, rate = rates_of(SCHEDULES["vp_linear"], jnp.asarray(t))
    np.testing.assert_allclose(drift, -beta / 2, rtol=1e-10)
    np.testing.assert_allclose(diffusion, beta, rtol=1e-10)
    np.testing.assert_allclose(rate, -beta / -np.expm1(-integral), rtol=1e-10)


@pytest.mark.feature("O8", "O9")
def test_coefficients_of_ve_and_sub_vp_are_songs():
    """Table of Song et al. 2021: g^2 = sigma^2 2 log(sigma_max/sigma_min), and beta (1 - e^{-2 B}) with the standard
    deviation 1 - e^-B, which is below that of VP.
    """
    t = np.linspace(1e-3, 1.0, 101)
    beta, integral = 0.1 + 19.9 * t, 0.1 * t + 9.95 * t**2
    with jax.enable_x64(True):
        exploding, sub = ([np.asarray(x) for x in rates_of(SCHEDULES[n], jnp.asarray(t))] for n in ("ve", "sub_vp"))
        sigma = {name: np.asarray(SCHEDULES[name].sigma(jnp.asarray(t))) for name in ("ve", "sub_vp", "vp_linear")}
    np.testing.assert_array_equal(exploding[0], 0.0)
    np.testing.assert_allclose(sigma["ve"], 0.02 * 5000.0**t, rtol=1e-10)
    np.testing.assert_allclose(exploding[1], sigma["ve"] ** 2 * 2 * np.log(5000.0), rtol=1e-9)
    np.testing.assert_allclose(sub[0], -beta / 2, rtol=1e-9)
    np.testing.assert_allclose(sub[1], beta * -np.expm1(-2 * integral), rtol=1e-9)
    np.testing.assert_allclose(sigma["sub_vp"], -np.expm1(-integral), rtol=1e-10)
    assert np.all(sigma["sub_vp"] < sigma["vp_linear"])
    for name, (_, diffusion, rate) in (("ve", exploding), ("sub_vp", sub)):  # g^2/std^2 = -d log_snr/dt
        np.testing.assert_allclose(diffusion / sigma[name] ** 2, -rate, rtol=1e-9)


@pytest.mark.feature("O15", "O16", "O19")
def test_levels_of_edm_smld_and_flow():
    index = np.arange(18)
    with jax.enable_x64(True):
        karras = SCHEDULES["edm"].sigma(jnp.asarray(1 - index / 17))
        smld = SCHEDULES["smld"].sigma(jnp.asarray(np.arange(1, 1001) / 1000))
        flow = SCHEDULES["flow"]
        half = [float(part(jnp.asarray(0.25))) for part in (flow.alpha, flow.sigma)]
    roots = 80 ** (1 / 7) + index / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))
    np.testing.assert_allclose(karras, roots**7, rtol=1e-10)
    np.testing.assert_allclose(smld, np.geomspace(0.02, 100.0, 1000), rtol=1e-10)
    assert half == [0.75, 0.25]


@pytest.mark.feature("O6")
def test_zero_terminal_snr_keeps_the_first_level_and_loses_the_last():
    """Lin et al. 2023, algorithm 1, on the square roots of A."""
    root = np.sqrt(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    expected = (root - root[-1]) * root[0] / (root[0] - root[-1])
    plain, rescaled = SCHEDULES["ddpm_linear"], SCHEDULES["zero_terminal"]
    t = np.arange(1, 1001) / 1000
    with jax.enable_x64(True):
        alpha = np.asarray(rescaled.alpha(jnp.asarray(t)))
        sigma = np.asarray(rescaled.sigma(jnp.asarray(t)))
        first = float(plain.alpha(jnp.asarray(1e-3)))
    np.testing.assert_allclose(alpha, expected, atol=1e-12)
    np.testing.assert_allclose(sigma, np.sqrt(1 - expected**2), rtol=1e-7)
    ends = jax.jit(lambda t: (rescaled.alpha(t), plain.alpha(t), rescaled.sigma(t)))(jnp.asarray(np.float32([1e-3, 1])))
    assert (alpha[-1], float(ends[0][1]), float(ends[2][1])) == (0.0, 0.0, 1.0)
    assert alpha[0] == first and float(ends[0][0]) == float(ends[1][0])
    assert np.isfinite(np.asarray(schedules.rates(rescaled, jnp.ones(())))).all()


def test_shift_moves_log_snr_and_nothing_else():
    t = jnp.asarray(np.linspace(0.01, 1.0, 50), jnp.float32)
    for name in ("vp_linear", "sub_vp", "flow"):
        moved = schedules.shifted(SCHEDULES[name], 2.0 * float(np.log(64 / 128)))
        t = t * (0.99 if name == "flow" else 1.0)
        difference = log_snr_of(moved, t) - log_snr_of(SCHEDULES[name], t)
        np.testing.assert_allclose(difference, -2.0 * np.log(2.0), atol=2e-5)
        norms = [np.hypot(schedule.alpha(t), schedule.sigma(t)) for schedule in (moved, SCHEDULES[name])]
        np.testing.assert_allclose(*norms, rtol=1e-6)


def test_a_discretised_schedule_has_the_same_marginals_and_a_number_of_steps():
    chain = schedules.discretised(SCHEDULES["cosine"], 50)
    t = jnp.asarray(np.arange(1, 51) / 50, jnp.float32)
    assert chain.num_steps == 50
    np.testing.assert_array_equal(log_snr_of(chain, t), log_snr_of(SCHEDULES["cosine"], t))


@pytest.mark.feature("O13")
def test_a_learned_schedule_keeps_its_ends_and_falls_whatever_its_numbers():
    for seed in range(5):
        random = np.random.default_rng(seed)
        start = schedules.learned(16, -7.0, 5.0)
        noisy = jax.tree.map(lambda leaf, random=random: leaf + 2 * random.normal(size=leaf.shape), start)
        noisy = dataclasses.replace(noisy, log_snr_min=start.log_snr_min, log_snr_max=start.log_snr_max)
        log_snr = np.asarray(log_snr_of(noisy, jnp.asarray(np.linspace(0, 1, 1001), jnp.float32)))
        np.testing.assert_allclose(log_snr[[0, -1]], [5.0, -7.0], atol=1e-5)
        assert np.all(np.diff(log_snr) < 0.0)


@pytest.mark.feature("O7", "O8", "O9")
@pytest.mark.parametrize("name", ["vp_linear", "sub_vp", "ve"])
def test_simulated_paths_have_the_marginal_moments(name):
    """Euler-Maruyama forwards from x0 = 0.7: mean and variance of 20,000 paths within 4 standard errors at three
    times.
    """
    schedule, steps, paths, x0 = SCHEDULES[name], 2000, 20_000, 0.7

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
        t = (index + 1) / steps
        decay = np.exp(-0.1 * t - 9.95 * t**2)
        variance = {"vp_linear": 1.0 - decay, "sub_vp": (1.0 - decay) ** 2, "ve": 0.02**2 * (5000.0 ** (2 * t) - 1.0)}
        mean, variance = np.sqrt(decay) * x0 if name != "ve" else x0, variance[name]
        assert abs(float(moments[index, 0]) - mean) < 4 * np.sqrt(variance / paths)
        assert abs(float(moments[index, 1]) - variance) < 4 * variance * np.sqrt(2 / paths)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: schedules.ddpm_linear(10, 0.0, 0.02), r"every beta in \(0, 1\)"),
        (lambda: schedules.ddpm_linear(0, 1e-4, 0.02), "at least one step"),
        (lambda: schedules.vp_linear(20.0, 0.1), "beta_min <= beta_max"),
        (lambda: schedules.cosine(20.0, -20.0), "log_snr_min < log_snr_max"),
        (lambda: schedules.sub_vp(0.0, 20.0), "sub_vp needs 0 < beta_min"),
        (lambda: schedules.ve(1.0, 0.1), "ve needs 0 < sigma_min < sigma_max"),
        (lambda: schedules.edm(0.002, 80.0, 0.0), "edm needs rho > 0"),
        (lambda: schedules.smld(1, 0.1, 1.0), "at least 2 levels"),
        (lambda: schedules.discretised(SCHEDULES["ddpm_linear"], 10), "a chain of 1000"),
        (lambda: schedules.discretised(SCHEDULES["cosine"], 0), "at least 1 step, got 0"),
        (lambda: schedules.zero_terminal(SCHEDULES["ve"]), "defined for variance-preserving schedules; VE has"),
        (lambda: schedules.zero_terminal(SCHEDULES["zero_terminal"]), "no signal at t = 1 already"),
        (lambda: schedules.shifted(SCHEDULES["cosine"], float("inf")), "must be finite"),
        (lambda: schedules.learned(0, -5.0, 5.0), "hidden >= 1"),
        (lambda: schedules.time_of(SCHEDULES["cosine"], jnp.array([0.0, 21.0])), "reaches -20"),
    ],
)
def test_impossible_schedules_are_refused(build, said):
    with pytest.raises(ValueError, match=said):
        build()
