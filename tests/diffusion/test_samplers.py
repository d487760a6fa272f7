"""Samplers on Gaussian video with the exact denoiser: exact maps, orders of convergence, and covariances.

Every step is linear there, so a sampler's variance in each eigendirection of K follows exactly from two probes of the
real step rule: what it makes of a unit state, and of a unit noise. Only the tests of whole samples draw random numbers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from tests.diffusion.affine import SHAPE, VARIANCES, every_sampler, exact, final_variance, marginal, silence
from tests.oracles.gaussian_video import GaussianVideo
from vdm.diffusion import guidance, samplers, schedules
from vdm.diffusion.process import spread
from vdm.diffusion.samplers import (
    AdaptiveFlow,
    Ancestral,
    AnnealedLangevin,
    Ddim,
    DpmSolver,
    Euler,
    EulerMaruyama,
    Heun,
    PredictorCorrector,
    ReverseDiffusion,
    StochasticHeun,
    UniPC,
    grids,
)

DDPM = schedules.ddpm_linear(1000, 1e-4, 0.02)
VP = schedules.vp_linear(0.1, 20.0)
COSINE = schedules.cosine(-20.0, 20.0)
VE = schedules.ve(0.02, 100.0)
FLOW = schedules.flow()


def random_clips(count, seed=0):
    random = np.random.default_rng(seed)
    return [jnp.asarray(random.normal(size=SHAPE)) for _ in range(count)]


def step_of(sampler, schedule, x, pair, noise):
    """One step of any rule, in float64 where that is enabled."""
    t, s = (jnp.asarray(np.full((1, 1), time)) for time in pair)

    @jax.jit
    def stepped(x, noise):
        if isinstance(sampler, samplers.Multistep):
            return sampler.advance(exact, schedule, sampler.first(x), x, t, s, lambda draw: noise)[0]
        return sampler(exact, schedule, x, t, s, lambda draw: noise)

    return np.asarray(stepped(x, noise))


@pytest.mark.feature("S5")
def test_heun_follows_the_exact_map_both_ways():
    """x0 = 1.3 of variance 0.3 is carried to 2.37343 by VP-linear: x0 sqrt(var(1)/0.3), and comes back."""
    times = np.linspace(1.0, 1e-3, 12001)
    index = list(VARIANCES).index(0.3)
    with jax.enable_x64(True):
        start = 1.3 * marginal(VP, 1e-3) / np.sqrt(VARIANCES)
        carry = jax.jit(lambda times, x: samplers.integrate(exact, VP, Heun(), times, x, silence))
        noise = carry(jnp.asarray(times[::-1].copy()), jnp.asarray(start[None, None, None, :, None]))
        back = np.asarray(carry(jnp.asarray(times), noise)).ravel()
    assert float(noise.ravel()[index]) == pytest.approx(2.37343, abs=6e-6)  # printed to five decimals
    np.testing.assert_allclose(noise.ravel(), 1.3 * marginal(VP, 1.0) / np.sqrt(VARIANCES), rtol=1e-6)
    np.testing.assert_allclose(back, start, rtol=1e-6)


@pytest.mark.feature("S2")
def test_ddim_is_euler_in_sigma_over_alpha():
    """An independent form of eta = 0: x/alpha moves along the estimated noise by the change of sigma/alpha."""
    with jax.enable_x64(True):
        t, s = jnp.asarray(np.full((1, 1), 0.7)), jnp.asarray(np.full((1, 1), 0.4))
        x = np.array([0.5, -1.0, 2.0, 0.1])[None, None, None, :, None]
        got = jax.jit(lambda x: Ddim(0.0)(exact, VP, x, t, s, silence))(jnp.asarray(x))
    alpha = {time: np.exp(-0.05 * time - 4.975 * time**2) for time in (0.4, 0.7)}
    ratio = {time: np.sqrt(1 / alpha[time] ** 2 - 1) for time in alpha}
    noise = x.ravel() * np.sqrt(1 - alpha[0.7] ** 2) / (alpha[0.7] ** 2 * VARIANCES + 1 - alpha[0.7] ** 2)
    expected = alpha[0.4] * (x.ravel() / alpha[0.7] + (ratio[0.4] - ratio[0.7]) * noise)
    np.testing.assert_allclose(np.ravel(got), expected, rtol=1e-10)


@pytest.mark.feature("S2")
@pytest.mark.parametrize("pair", [(0.9, 0.3), (0.501, 0.5), (0.01, 0.001)])
def test_full_eta_is_ancestral_sampling(pair):
    """eta = 1 has the mean and the variance of the ancestral step with the lower variance; eta = 0 leaves the noise
    alone.
    """
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, noise, other = (jnp.asarray(random.normal(size=(1, 1, 1, 4, 1))) for _ in range(3))
        t, s = (jnp.asarray(np.full((1, 1), time)) for time in pair)

        @functools.partial(jax.jit, static_argnums=0)
        def stepped(step, noise):
            return step(exact, DDPM, x, t, s, lambda draw: noise)

        np.testing.assert_allclose(stepped(Ddim(1.0), noise), stepped(Ancestral(0.0), noise), rtol=1e-8)
        np.testing.assert_array_equal(stepped(Ddim(0.0), noise), stepped(Ddim(0.0), other))
        # sigma of equation 16 of Song, Meng and Ermon 2021, in their cumulative alphas
        after, before = (np.exp(-np.interp(time, np.arange(1001) / 1000, DDPM.integral)) for time in pair)
        std = 0.5 * np.sqrt((1 - before) / (1 - after)) * np.sqrt(1 - after / before)
        drawn = (stepped(Ddim(0.5), noise) - stepped(Ddim(0.5), other)) / (noise - other)
        np.testing.assert_allclose(drawn, std, rtol=1e-6)


@pytest.mark.feature("S2", "S5")
@pytest.mark.parametrize("schedule", [VP, COSINE, VE, FLOW], ids=["vp", "cosine", "ve", "flow"])
def test_first_order_solvers_are_one(schedule):
    """DDIM, Euler for x/alpha in sigma/alpha, DPM-Solver++ of order 1, and Euler in t for flow alone; the SDE form
    of order 1 is ancestral sampling with the lower variance.
    """
    pair = (0.7, 0.4)
    with jax.enable_x64(True):
        x, z = random_clips(2)
        parts = schedule.alpha, schedule.sigma
        (a_t, a_s), (s_t, s_s) = ([float(part(jnp.asarray(t))) for t in pair] for part in parts)
        level = schedules.level(schedule, jnp.full((1, 1), 0.7))
        noise = np.asarray((x - a_t * exact(x, level)) / s_t)
        euler = a_s * (np.asarray(x) / a_t + (s_s / a_s - s_t / a_t) * noise)
        ddim = step_of(Ddim(0.0), schedule, x, pair, z)
        np.testing.assert_allclose(ddim, euler, rtol=1e-9)
        np.testing.assert_allclose(step_of(DpmSolver(1, False), schedule, x, pair, z), ddim, rtol=1e-9)
        np.testing.assert_allclose(step_of(UniPC(), schedule, x, pair, z), ddim, rtol=1e-9)  # its first step
        in_t = np.abs(step_of(Euler(), schedule, x, pair, z) - ddim).max()
        assert in_t < 1e-12 if schedule is FLOW else in_t > 1e-3
        stochastic = step_of(DpmSolver(1, True), schedule, x, pair, z)
        np.testing.assert_allclose(stochastic, step_of(Ancestral(0.0), schedule, x, pair, z), rtol=1e-9)


@pytest.mark.feature("S4")
def test_reverse_diffusion_and_ancestral_steps_are_songs():
    """Song et al. 2021, appendix F: on the DDPM chain (2 - sqrt(1 - b)) x + b score + sqrt(b) z; on VE x + (s_i^2 -
    s_{i-1}^2) score + sqrt(s_{i-1}^2 (s_i^2 - s_{i-1}^2)/s_i^2) z.
    """
    beta = np.linspace(1e-4, 0.02, 1000)[499]
    with jax.enable_x64(True):
        x, z = random_clips(2)

        def score(schedule, t):
            level = schedules.level(schedule, jnp.full((1, 1), t))
            return np.asarray((level.alpha * exact(x, level) - x) / level.sigma**2)

        got = step_of(ReverseDiffusion(), DDPM, x, (0.5, 0.499), z)
        expected = (2 - np.sqrt(1 - beta)) * x + beta * score(DDPM, 0.5) + np.sqrt(beta) * z
        np.testing.assert_allclose(got, expected, rtol=1e-8)
        high, low = 0.02 * 5000**0.6, 0.02 * 5000**0.5
        got = step_of(Ancestral(0.0), VE, x, (0.6, 0.5), z)
        gap = high**2 - low**2
        np.testing.assert_allclose(got, x + gap * score(VE, 0.6) + low * np.sqrt(gap) / high * z, rtol=1e-8)


@pytest.mark.feature("S9")
def test_the_interpolated_variance_is_vdms():
    """Kingma et al. 2021 and Ho et al. 2022: log variance between (1 - e^{lt - ls}) sigma_s^2 and the same share of
    sigma_t^2.
    """
    with jax.enable_x64(True):
        x, z, other = random_clips(3)
        draws = [step_of(Ancestral(0.3), COSINE, x, (0.6, 0.5), noise) for noise in (z, other)]
        both = schedules.level(COSINE, jnp.asarray([[0.5, 0.6]]))
        s, t = (jax.tree.map(lambda number, i=i: float(number[0, i]), both) for i in (0, 1))
    share = -np.expm1(t.log_snr - s.log_snr)
    std = np.sqrt((share * s.sigma**2) ** 0.7 * (share * t.sigma**2) ** 0.3)
    np.testing.assert_allclose((draws[0] - draws[1]) / (np.asarray(z) - np.asarray(other)), std, rtol=1e-8)


@pytest.mark.feature("O15")
def test_churn_is_algorithm_2_of_karras():
    """One step by hand, in the paper's x and sigma, on a schedule that scales."""
    with jax.enable_x64(True):
        x, z = random_clips(2)
        (a_t, a_s), (s_t, s_s) = ([float(part(jnp.asarray(t))) for t in (0.5, 0.4)] for part in (VP.alpha, VP.sigma))
        got = step_of(StochasticHeun(0.2, 0.1, 50.0, 1.003), VP, x, (0.5, 0.4), z)
        outside = step_of(StochasticHeun(0.2, 40.0, 50.0, 1.003), VP, x, (0.5, 0.4), z)
        plain = step_of(StochasticHeun(0.0), VP, x, (0.5, 0.4), z)
    first, last = s_t / a_t, s_s / a_s
    gain = lambda sigma: VARIANCES[:, None] / (VARIANCES[:, None] + sigma**2)  # noqa: E731
    raised = 1.2 * first
    hat = np.asarray(x) / a_t + 1.003 * np.sqrt(raised**2 - first**2) * np.asarray(z)
    slope = (hat - gain(raised) * hat) / raised
    euler = hat + (last - raised) * slope
    heun = hat + (last - raised) * 0.5 * (slope + (euler - gain(last) * euler) / last)
    np.testing.assert_allclose(got, a_s * heun, rtol=1e-8)
    np.testing.assert_array_equal(outside, plain)


@pytest.mark.feature("S5")
def test_adaptive_flow_meets_its_tolerance_example_by_example():
    """The printed map 1.3 -> 2.37343, the errors shrink with the tolerance, and a clip alone takes the same steps."""
    index = list(VARIANCES).index(0.3)
    with jax.enable_x64(True):
        start = jnp.asarray((1.3 * marginal(VP, 1e-3) / np.sqrt(VARIANCES))[None, None, None, :, None])
        x = jnp.concatenate([start, 40.0 * start])
        up = jnp.asarray([1e-3, 1.0])

        def solved(tolerance, x):
            solver = AdaptiveFlow(tolerance, tolerance)
            return np.asarray(jax.jit(lambda x: samplers.integrate(exact, VP, solver, up, x, silence))(x))

        fine, coarse, alone = solved(1e-9, x), solved(1e-4, x), solved(1e-4, x[:1])
    exact_map = np.asarray(x) * (marginal(VP, 1.0) / marginal(VP, 1e-3))[:, None]
    assert fine[0].ravel()[index] == pytest.approx(2.37343, abs=6e-6)
    np.testing.assert_allclose(fine, exact_map, rtol=1e-6)
    error = np.abs(coarse / exact_map - 1.0).max()
    assert 1e-8 < error < 1e-3
    np.testing.assert_allclose(alone[0], coarse[0], rtol=1e-12)


@pytest.mark.feature("S3")
def test_inversion_errors_are_the_known_ones():
    """Round trip of DDIM inversion, Gaussian data of variance 1, cosine schedule [-20, 20]: the root mean square errors
    that were computed independently, which halve when the steps double.
    """
    published = {10: 2.1e-1, 20: 1.2e-1, 50: 4.8e-2, 100: 2.4e-2, 200: 1.2e-2, 400: 6.1e-3}

    def denoise(xt, level):
        return spread(level.alpha) * xt  # of variance 1, alpha^2 + sigma^2 = 1

    with jax.enable_x64(True):
        errors = {}
        for size in published:
            times = jnp.asarray(np.linspace(1.0, 0.0, size + 1))
            x = jnp.ones(SHAPE)
            latent = samplers.invert(denoise, COSINE, times, x)
            back = samplers.integrate(denoise, COSINE, Ddim(0.0), times, latent, silence)
            errors[size] = float(jnp.abs(back - x).max())
    for size, error in published.items():
        assert errors[size] == pytest.approx(error, rel=0.05), errors


@pytest.mark.feature("S3")
def test_inverted_clips_are_standard_normal():
    video = GaussianVideo()
    times = jnp.asarray(np.linspace(1.0, 1e-3, 201), jnp.float32)
    latent = np.asarray(
        jax.jit(lambda x: samplers.invert(video.denoise_evenly, COSINE, times, x))(video.sample(jax.random.key(0), 500))
    ).ravel()
    latent = np.sort(latent.reshape(500, -1) @ np.linalg.eigh(video.covariance)[1], axis=0)
    empirical = (np.arange(500) + 0.5) / 500
    distance = np.abs(norm.cdf(latent) - empirical[:, None]).max(axis=0)
    assert distance.max() < 1.95 / np.sqrt(500) + 1 / 1000  # Kolmogorov-Smirnov, 0.1 %


@pytest.mark.feature("S1")
def test_ancestral_step_is_the_published_one():
    """Algorithm 2 of Ho et al. 2020 at step 500: (x - b/sqrt(1-A) eps)/sqrt(1-b) + std z, std^2 = B_t or b_t, or
    between.
    """
    betas = np.linspace(1e-4, 0.02, 1000)
    kept = np.cumprod(1.0 - betas)
    beta, now, before = betas[499], kept[499], kept[498]
    x, z = (np.random.default_rng(seed).normal(size=(1, 1, 1, 4, 1)) for seed in (0, 1))
    noise = x.ravel() * np.sqrt(1 - now) / (now * VARIANCES + 1 - now)
    mean = (x.ravel() - beta / np.sqrt(1 - now) * noise) / np.sqrt(1 - beta)
    lower, upper = beta * (1 - before) / (1 - now), beta
    with jax.enable_x64(True):
        t, s = (jnp.asarray(np.full((1, 1), time)) for time in (0.5, 0.499))
        for share in (0.0, 0.3, 1.0):
            step = Ancestral(share)
            got = jax.jit(lambda x, z, step=step: step(exact, DDPM, x, t, s, lambda draw: z))(
                jnp.asarray(x), jnp.asarray(z)
            )
            std = np.sqrt(lower ** (1 - share) * upper**share)
            np.testing.assert_allclose(np.ravel(got), mean + std * z.ravel(), rtol=1e-8)


SAMPLED = {
    "S1-lower": (Ancestral(0.0), DDPM, 999),
    "S1-upper": (Ancestral(1.0), DDPM, 999),
    "S4": (EulerMaruyama(), VP, 1000),
    "S5": (Heun(), COSINE, 100),
    "S6": (PredictorCorrector("reverse_diffusion", 0.1, 1), VP, 500),
    "O15": (StochasticHeun(0.02), COSINE, 200),
}


@pytest.mark.parametrize(
    ("step", "schedule", "num_steps"),
    [pytest.param(*row, id=name, marks=pytest.mark.feature(name.split("-")[0])) for name, row in SAMPLED.items()],
)
def test_samples_have_the_covariance_of_the_data(step, schedule, num_steps):
    """2048 clips drawn with the exact denoiser: every entry of the covariance within 4 standard errors of K."""
    video, num_clips = GaussianVideo(), 2048
    shape = (num_clips, *video.shape)

    @jax.jit
    def draw(key):
        noise = lambda index: jax.random.normal(jax.random.fold_in(key, index), shape)  # noqa: E731
        times = grids.uniform(schedule, num_steps, 1e-3)
        start = samplers.prior(schedule, times, noise(num_steps))
        return samplers.integrate(video.denoise_evenly, schedule, step, times, start, noise)

    x = np.asarray(draw(jax.random.key(0))).reshape(num_clips, -1)
    level = jax.tree.map(float, jax.tree.map(np.squeeze, schedules.level(schedule, jnp.full((1, 1), 1e-3))))
    wanted = level.alpha**2 * video.covariance + level.sigma**2 * np.eye(12)
    standard_error = np.sqrt((wanted**2 + np.outer(np.diag(wanted), np.diag(wanted))) / num_clips)
    assert np.abs((x.T @ x / num_clips - wanted) / standard_error).max() < 4.0
    assert np.abs(x.mean(axis=0) / np.sqrt(np.diag(wanted) / num_clips)).max() < 4.0


@pytest.mark.feature("S7")
@every_sampler
def test_evaluations_are_counted_exactly(step):
    calls = []

    def counting(xt, level):
        jax.debug.callback(lambda: calls.append(1))
        return exact(xt, level)

    times = grids.uniform(VP, 7, 1e-3)
    clip = jax.jit(lambda x: samplers.sample(counting, VP, step, times, x, silence))(silence(0) + 1.0)
    clip.block_until_ready()
    jax.effects_barrier()
    assert len(calls) == samplers.num_evaluations(step, times)


@pytest.mark.feature("S7")
def test_grids_of_a_chain_lie_on_its_levels():
    for times in (grids.uniform(DDPM, 32, 1e-3), grids.log_snr(DDPM, 32, 1e-3), grids.karras(DDPM, 32, 1e-3, 7.0)):
        times = np.asarray(times, np.float64) * 1000
        np.testing.assert_allclose(times, np.rint(times), atol=1e-3)
        assert (times[0], np.rint(times[-1])) == (1000, 1)
        assert np.all(np.diff(times) < 0)
    np.testing.assert_allclose(grids.uniform(DDPM, 999, 1e-3), np.arange(1000, 0, -1) / 1000, rtol=1e-6)


@pytest.mark.feature("S7")
def test_spacings_of_a_continuous_schedule():
    np.testing.assert_allclose(np.diff(grids.uniform(VP, 10, 1e-3)), -0.0999, rtol=1e-5)
    log_snr = jax.jit(schedules.log_snr)(VP, grids.log_snr(VP, 10, 1e-3))
    np.testing.assert_allclose(np.diff(log_snr), (log_snr[-1] - log_snr[0]) / 10, rtol=1e-3)


@pytest.mark.feature("S7")
def test_trailing_common_and_karras_spacings():
    trailing = np.asarray(grids.trailing(DDPM, 9)) * 1000
    np.testing.assert_allclose(trailing, np.arange(1000, 0, -100), rtol=1e-6)  # Lin et al. 2023, table 2, 10 steps
    shared = [np.asarray(jax.jit(schedules.log_snr)(s, grids.common(s, 8, -7.0, 7.0))) for s in (VP, COSINE, FLOW)]
    for log_snr in shared:
        np.testing.assert_allclose(log_snr, np.linspace(-7.0, 7.0, 9), atol=2e-3)
    t = grids.karras(VE, 17, 1e-3, 7.0)
    roots = np.asarray(VE.sigma(t), np.float64) ** (1 / 7)
    np.testing.assert_allclose(np.diff(roots), (roots[-1] - roots[0]) / 17, rtol=1e-3)


@pytest.mark.feature("O6")
@pytest.mark.parametrize("step", [Ancestral(), Ddim(0.5), Heun(), DpmSolver(2, False)], ids=lambda s: type(s).__name__)
def test_sampling_without_any_signal_at_the_start_is_exact(step):
    """From N(0, I) a zero-terminal-SNR process ends with the data's variance; where some signal A is left at t = 1 the
    flow map gives V / (A V + 1 - A) in each direction. A = 0.05, so that it shows.
    """
    leaky = schedules.vp_linear(0.1, 5.8)  # A = e^-2.95
    whole = schedules.zero_terminal(leaky)
    times = np.linspace(1.0, 5e-2, 801)
    with jax.enable_x64(True):
        ends = [final_variance(step, schedule, times, 1.0) for schedule in (whole, leaky)]
    kept = np.exp(-2.95)
    ratio = 1.0 if not isinstance(step, Heun | DpmSolver) else 1.0 / (kept * VARIANCES + 1.0 - kept)
    np.testing.assert_allclose(ends[0] / marginal(whole, 5e-2) ** 2, 1.0, atol=0.02)
    if isinstance(step, Heun | DpmSolver):
        np.testing.assert_allclose(ends[1] / marginal(leaky, 5e-2) ** 2, ratio, atol=0.01)


@pytest.mark.feature("S7")
def test_respaced_betas_reproduce_the_kept_marginals():
    """The chain made of the betas of every tenth level, 1 - A_{10 i}/A_{10 (i-1)}, has the marginals of the levels
    kept.
    """
    kept = np.cumprod(1.0 - DDPM.betas)[9::10]
    respaced = schedules.chain(1.0 - kept / np.concatenate([[1.0], kept[:-1]]))
    t = jnp.asarray((np.arange(1, 101) / 100).astype(np.float32))
    log_snr = jax.jit(schedules.log_snr)
    np.testing.assert_allclose(log_snr(respaced, t), log_snr(DDPM, t), atol=2e-5)


@every_sampler
def test_clips_do_not_depend_on_their_batch(step):
    """A clip sampled alone is the clip sampled beside another."""
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(2, 1, 1, 4, 1)), jnp.float32)
    noise = jnp.asarray(random.normal(size=(24, 2, 1, 1, 4, 1)), jnp.float32)
    times = grids.uniform(VP, 8, 1e-3)
    draw = jax.jit(lambda x, noise: samplers.sample(exact, VP, step, times, x, lambda index: noise[index]))
    np.testing.assert_allclose(draw(x, noise)[:1], draw(x[:1], noise[:, :1]), rtol=1e-5)


def test_clipping_touches_only_what_leaves_the_range():
    level = jax.jit(schedules.level)(VP, jnp.asarray(np.full((1, 1), 0.5, np.float32)))
    clip = guidance.static(-1.0, 1.0)
    clipped = clip(lambda xt, level: xt)
    x = jnp.asarray(np.float32([-1.5, -1.0, 0.3, 2.0])[None, None, None, :, None])
    np.testing.assert_array_equal(np.ravel(clipped(x, level)), np.float32([-1.0, -1.0, 0.3, 1.0]))
    np.testing.assert_array_equal(clip(clipped)(x, level), clipped(x, level))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: grids.uniform(DDPM, 1000, 1e-3), "1000-step chain twice"),
        (lambda: grids.uniform(DDPM, 2000, 1e-3), "take fewer"),
        (lambda: grids.uniform(VP, 0, 1e-3), "num_steps must be at least 1"),
        (lambda: grids.uniform(VP, 10, 0.0), r"t_min must be in \(0, 1\)"),
        (lambda: Ancestral(1.5), r"variance_interpolation must be in \[0, 1\]"),
        (lambda: Ddim(-0.1), r"eta must be in \[0, 1\]"),
        (lambda: grids.log_snr(FLOW, 10, 1e-3), "no signal at t = 1"),
        (lambda: grids.karras(VP, 10, 1e-3, -1.0), "rho must be positive"),
        (lambda: grids.common(VP, 10, 5.0, -5.0), "log_snr_min < log_snr_max"),
        (lambda: grids.common(VP, 10, -50.0, 5.0), "reaches -10.05"),
        (lambda: samplers.check_start(EulerMaruyama(), FLOW, jnp.ones(1)), "Flow has no signal left"),
        (lambda: samplers.check_start(PredictorCorrector("euler_maruyama", 0.1, 1), FLOW, jnp.ones(1)), "cannot start"),
        (lambda: StochasticHeun(0.5), "churn must be in"),
        (lambda: StochasticHeun(0.1, 2.0, 1.0), "churn_min < churn_max"),
        (lambda: AdaptiveFlow(0.0, 1e-3), "rtol > 0"),
        (lambda: PredictorCorrector("heun", 0.1, 1), "must be one of: ancestral, reverse_diffusion"),
        (lambda: PredictorCorrector("ancestral", 0.0, 1), "snr in"),
        (lambda: AnnealedLangevin(4.0, 1), "step_size in"),
        (lambda: DpmSolver(3), "order must be 1 or 2"),
    ],
)
def test_impossible_samplers_are_refused(build, said):
    with pytest.raises(ValueError, match=said):
        build()
