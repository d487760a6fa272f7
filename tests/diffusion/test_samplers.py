"""Samplers on Gaussian video with the exact denoiser: exact maps, orders of convergence, and covariances.

Every step is linear there, so a sampler's variance in each eigendirection of K follows exactly from two probes of the
real step rule: what it makes of a unit state, and of a unit noise. Only the tests of whole samples draw random numbers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracles.gaussian_video import GaussianVideo
from vdm.diffusion import guidance, samplers, schedules
from vdm.diffusion.process import spread
from vdm.diffusion.samplers import Ancestral, Ddim, Euler, EulerMaruyama, Heun, grids

DDPM = schedules.ddpm_linear(1000, 1e-4, 0.02)
VP = schedules.vp_linear(0.1, 20.0)
COSINE = schedules.cosine(-20.0, 20.0)
VARIANCES = np.array([0.02, 0.3, 0.7, 2.5])  # of the data in independent directions; the pixels of the probes


def exact(xt, level):
    """E[x0 | xt] for independent pixels with the above variances."""
    prior = jnp.asarray(VARIANCES, xt.dtype)
    alpha, sigma = spread(level.alpha), spread(level.sigma)
    return alpha * prior[:, None] * xt / (alpha**2 * prior[:, None] + sigma**2)


def silence(index):
    return jnp.zeros((1, 1, 1, VARIANCES.size, 1))


def marginal(schedule, t):
    """Standard deviations of xt."""
    level = jax.jit(schedules.level)(schedule, jnp.asarray(np.full((1, 1), t)))
    return np.sqrt(float(level.alpha[0, 0]) ** 2 * VARIANCES + float(level.sigma[0, 0]) ** 2)


def variance_at_the_end(step, schedule, times, start):
    """Exact variances [direction] that a sampler ends with, from those it starts with; by probing the step rule."""

    def advance(variance, interval):
        t, s = (jnp.full((2, 1), time) for time in interval)
        ones, zeros = jnp.ones((1, 1, 1, VARIANCES.size, 1)), jnp.zeros((1, 1, 1, VARIANCES.size, 1))
        probes = step(
            exact, schedule, jnp.concatenate([ones, zeros]), t, s, lambda draw: jnp.concatenate([zeros, ones])
        )
        return (probes[0] ** 2 * variance + probes[1] ** 2), None

    start = jnp.asarray(np.asarray(start)[None, None, :, None])
    return jax.jit(lambda start: jax.lax.scan(advance, start, (times[:-1], times[1:]))[0])(start).ravel()


def slope(sizes, errors):
    """Order of convergence per direction, from the errors [size, direction]."""
    return -np.polyfit(np.log(sizes), np.log(np.abs(errors)), 1)[0]


def flow_error(step, schedule, sizes, t_min=0.05, grid=np.linspace):
    """Relative error of the deterministic map from t = 1 to t_min against the exact one, sqrt(var(t_min)/var(1))
    [size, direction].
    """
    exact_map = marginal(schedule, t_min) / marginal(schedule, 1.0)
    carry = jax.jit(lambda times: samplers.integrate(exact, schedule, step, times, silence(0) + 1.0, silence))
    return np.array([carry(jnp.asarray(grid(1.0, t_min, size + 1))).ravel() / exact_map - 1.0 for size in sizes])


@pytest.mark.feature("S5")
@pytest.mark.parametrize(("step", "order", "sizes"), [(Euler(), 1, (400, 800)), (Heun(), 2, (100, 200))])
def test_flow_ode_converges_at_its_order(step, order, sizes):
    with jax.enable_x64(True):
        errors = flow_error(step, VP, sizes)
    np.testing.assert_allclose(slope(sizes, errors), order, atol=0.12)


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
def test_deterministic_ddim_converges_to_the_flow_at_order_one():
    sizes = (250, 500)
    with jax.enable_x64(True):
        errors = flow_error(Ddim(0.0), VP, sizes)
        np.testing.assert_allclose(slope(sizes, errors), 1.0, atol=0.1)
        # the full chain, and every tenth level of it
        chain = np.abs(flow_error(Ddim(0.0), DDPM, (95, 950)))
    assert chain[1].max() < 2e-3
    np.testing.assert_allclose(chain[0] / chain[1], 10.0, rtol=0.3)


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


@pytest.mark.feature("S1")
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_every_ancestral_variance_converges(share):
    """The variance it ends with goes to the data's as steps are added, at order one, for the lower, upper and middle
    variance.
    """
    sizes, ends = (200, 400, 800), []
    with jax.enable_x64(True):
        wanted = marginal(VP, 1e-2) ** 2
        for size in sizes:
            times = jnp.asarray(np.linspace(1.0, 1e-2, size + 1))
            ends.append(variance_at_the_end(Ancestral(share), VP, times, marginal(VP, 1.0) ** 2))
    errors = np.asarray(ends) / wanted - 1.0
    assert np.abs(errors[-1]).max() < 0.06
    np.testing.assert_allclose(slope(sizes, errors), 1.0, atol=0.2)


@pytest.mark.feature("S4")
def test_euler_maruyama_has_weak_order_one():
    sizes, ends = (1000, 2000), []
    with jax.enable_x64(True):
        for size in sizes:
            times = jnp.asarray(np.linspace(1.0, 1e-2, size + 1))
            ends.append(variance_at_the_end(EulerMaruyama(), VP, times, marginal(VP, 1.0) ** 2))
        errors = np.asarray(ends) / marginal(VP, 1e-2) ** 2 - 1.0
    assert np.abs(errors[-1]).max() < 0.05
    np.testing.assert_allclose(slope(sizes, errors), 1.0, atol=0.15)


SAMPLED = {
    "S1-lower": (Ancestral(0.0), DDPM, 999),
    "S1-upper": (Ancestral(1.0), DDPM, 999),
    "S4": (EulerMaruyama(), VP, 1000),
    "S5": (Heun(), COSINE, 100),
}


@pytest.mark.parametrize(
    ("step", "schedule", "num_steps"),
    [pytest.param(*row, id=name, marks=pytest.mark.feature(name[:2])) for name, row in SAMPLED.items()],
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
@pytest.mark.parametrize(
    "step", [Ancestral(), Ddim(), EulerMaruyama(), Euler(), Heun()], ids=lambda step: type(step).__name__
)
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
def test_respaced_betas_reproduce_the_kept_marginals():
    """The chain made of the betas of every tenth level, 1 - A_{10 i}/A_{10 (i-1)}, has the marginals of the levels
    kept.
    """
    kept = np.cumprod(1.0 - DDPM.betas)[9::10]
    respaced = schedules.chain(1.0 - kept / np.concatenate([[1.0], kept[:-1]]))
    t = jnp.asarray((np.arange(1, 101) / 100).astype(np.float32))
    log_snr = jax.jit(schedules.log_snr)
    np.testing.assert_allclose(log_snr(respaced, t), log_snr(DDPM, t), atol=2e-5)


@pytest.mark.parametrize(
    "step", [Ancestral(), Ddim(), EulerMaruyama(), Euler(), Heun()], ids=lambda step: type(step).__name__
)
def test_clips_do_not_depend_on_their_batch(step):
    """A clip sampled alone is the clip sampled beside another."""
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(2, 1, 1, 4, 1)), jnp.float32)
    noise = jnp.asarray(random.normal(size=(8, 2, 1, 1, 4, 1)), jnp.float32)
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
    ],
)
def test_impossible_samplers_are_refused(build, said):
    with pytest.raises(ValueError, match=said):
        build()
