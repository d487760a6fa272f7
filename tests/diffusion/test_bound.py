"""The variational bound, discrete and continuous, against densities and integrals that are known."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracles.gaussian_video import GaussianVideo
from vdm.diffusion import bound, objectives, process, schedules, times
from vdm.diffusion.noise_priors import Independent
from vdm.types import Level

VIDEO = GaussianVideo(num_frames=2, height=1, width=2)  # 4 dimensions
DDPM = schedules.ddpm_linear(1000, 1e-4, 0.02)
COSINE = schedules.cosine(-14.0, 14.0)
VP = schedules.vp_linear(0.1, 20.0)
EVEN = schedules.ve(1e-3, 200.0)  # log-SNR is linear in t
INDEPENDENT = Independent()


def level(alpha, sigma):
    return Level(*(jnp.full((1, 1), number) for number in (alpha, sigma, 2 * np.log(alpha / sigma))))


@pytest.mark.feature("O3")
@pytest.mark.parametrize("half_width", [1 / 255, 1 / 256])
def test_the_decoder_is_a_distribution_over_256_values(half_width):
    """It sums to one whatever mean and width, also far outside of the range; and a bin holds its own mass."""
    values = np.arange(256) / 255 * 2 - 1 if half_width == 1 / 255 else (2 * np.arange(256) + 1) / 256 - 1
    with jax.enable_x64(True):
        x0 = jnp.asarray(values[:, None, None, None, None])
        decode = jax.jit(bound.discretised_gaussian(half_width))
        for mean, std in ((0.1, 0.01), (-0.99, 0.3), (3.0, 0.2), (0.5, 1e-3)):
            nats = np.asarray(decode(x0, jnp.full_like(x0, mean), jnp.full((1, 1, 1, 1, 1), std))).ravel()
            assert np.exp(-nats).sum() == pytest.approx(1.0, rel=1e-9)
        nearest = np.asarray(
            jax.jit(bound.nearest_level)(x0, jnp.full_like(x0, 0.1), jnp.full((256, 1, 1, 1, 1), 0.05))
        )
    if half_width == 1 / 255:
        assert np.exp(-nearest).sum() == pytest.approx(1.0, rel=1e-9)
        weights = np.exp(-0.5 * ((values - 0.1) / 0.05) ** 2)
        np.testing.assert_allclose(np.exp(-nearest).ravel(), weights / weights.sum(), rtol=1e-9, atol=1e-300)


@pytest.mark.feature("O3")
def test_the_decoder_stays_finite_in_float32_and_so_does_its_gradient():
    x0 = jnp.asarray([-1.0, -0.5, 0.5, 1.0]).reshape(1, 1, 1, 4, 1)
    decode = bound.discretised_gaussian(1 / 255)
    value, gradient = jax.jit(jax.value_and_grad(lambda mean: decode(x0, mean, jnp.full((1, 1, 1, 1, 1), 0.03)).sum()))(
        jnp.full_like(x0, 0.9)
    )
    assert np.isfinite(value) and np.isfinite(np.asarray(gradient)).all()
    mirrored = decode(-x0, jnp.full_like(x0, -0.9), jnp.full((1, 1, 1, 1, 1), 0.03)).sum()  # the other tail
    assert float(mirrored) == pytest.approx(float(value), rel=1e-6)
    # far in the tail the mass of a bin is that of its edge nearest to the mean
    edge = (-0.5 + 1 / 255 - 0.9) / 0.03
    assert float(gradient[0, 0, 0, 1, 0]) == pytest.approx(-edge / 0.03, rel=0.01)


@pytest.mark.feature("O3")
def test_step_kl_is_the_kl_of_two_gaussians():
    """Against Monte Carlo of the log ratio, and against the weight of Ho et al. where the variances agree."""
    s, t = level(0.8, 0.6), level(0.5, np.sqrt(0.75))
    x0, estimate = jnp.full((1, 1, 1, 1, 1), 0.7), jnp.full((1, 1, 1, 1, 1), 0.4)
    with jax.enable_x64(True):
        _, of_x0, lower = (float(number[0, 0]) for number in process.posterior(s, t))
        upper = float(process.transition(s, t)[1][0, 0])
        for share in (0.0, 0.4, 1.0):
            got = float(bound.step_kl(x0, estimate, s, t, jnp.asarray(share), INDEPENDENT)[0, 0])
            variance = lower ** (1 - share) * upper**share
            draws = of_x0 * 0.7 + np.sqrt(lower) * np.random.default_rng(0).normal(size=400_000)
            ratio = (draws - of_x0 * 0.4) ** 2 / (2 * variance) - (draws - of_x0 * 0.7) ** 2 / (2 * lower)
            expected = ratio.mean() + 0.5 * np.log(variance / lower)
            assert got == pytest.approx(expected, abs=4 * ratio.std() / np.sqrt(ratio.size))
        snr = [0.64 / 0.36, 0.25 / 0.75]
        assert float(bound.step_kl(x0, estimate, s, t, jnp.asarray(0.0), INDEPENDENT)[0, 0]) == pytest.approx(
            0.5 * (snr[0] - snr[1]) * 0.09, rel=1e-6
        )


@pytest.mark.feature("O3")
def test_what_the_prior_costs():
    """L_T of the DDPM chain is 2.9e-5 bits/dim at x0^2 = 1."""
    x0 = jnp.ones((2, *VIDEO.shape))
    nats = bound.prior_kl(DDPM, x0, INDEPENDENT)
    np.testing.assert_allclose(bound.bits_per_dim(nats, 4), 2.9e-5, rtol=0.01)
    random = np.random.default_rng(0).normal(size=1_000_000)
    kept = np.exp(-10.05)
    draws = np.sqrt(kept) * 30.0 + np.sqrt(1 - kept) * random  # far off, so that it shows
    ratio = 0.5 * draws**2 / (1 - kept) - 0.5 * random**2
    exact = float(bound.prior_kl(VP, 30.0 * x0, INDEPENDENT)[0]) / 4
    assert ratio.mean() == pytest.approx(exact, abs=4 * ratio.std() / 1000)


def moments(steps):
    """Clips and, for each step, noises whose second moments are exact: the bound of the exact denoiser, quadratic in
    them, has no sampling error.
    """
    x0, noise = VIDEO.moment_design()
    return x0, lambda index: noise


@functools.cache
def discrete_gap(steps, share=0.0):
    """Discrete bound of the exact denoiser minus the entropy of the data, nats per clip."""
    with jax.enable_x64(True):
        chain = schedules.discretised(EVEN, steps)
        x0, noise = moments(steps)

        @jax.jit
        def value(x0):
            parts = bound.discrete(
                VIDEO.denoise_evenly, chain, x0, noise, decoder=bound.gaussian, noise_prior=INDEPENDENT, share=share
            )
            return parts.total.mean()

        return float(value(jnp.asarray(x0))) - entropy()


def entropy():
    """-E log p(x0)."""
    return 0.5 * np.linalg.slogdet(2 * np.pi * np.e * VIDEO.covariance)[1]


@pytest.mark.feature("O3")
def test_the_discrete_bound_is_the_sum_of_its_steps():
    """Of the exact denoiser, with the lower variance: 1/2 (SNR_{i-1} - SNR_i) times the least error of x0, i = 2..T;
    the decoder at the first level; the prior at the last.
    """
    steps = 5
    with jax.enable_x64(True):
        x0, noise = moments(steps)
        chain = schedules.discretised(COSINE, steps)
        parts = jax.jit(
            lambda x0: bound.discrete(
                VIDEO.denoise_evenly, chain, x0, noise, decoder=bound.gaussian, noise_prior=INDEPENDENT
            )
        )(jnp.asarray(x0))
        parts = jax.tree.map(np.asarray, parts)
        log_snr = np.asarray(schedules.log_snr(chain, jnp.arange(1, steps + 1) / steps))
        std = float(chain.sigma(jnp.asarray(1 / steps)))
    snr = np.exp(log_snr)
    least = 4 * np.array([VIDEO.minimal_error(level) for level in log_snr])
    assert float(parts.diffusion.mean()) == pytest.approx(0.5 * np.sum((snr[:-1] - snr[1:]) * least[1:]), rel=1e-8)
    assert float(parts.prior.mean()) == pytest.approx(0.5 * snr[-1] * 4 * VIDEO.variance, rel=1e-8)
    decoder = 0.5 * least[0] / std**2 + 4 * np.log(std * np.sqrt(2 * np.pi))
    assert float(parts.decoder.mean()) == pytest.approx(decoder, rel=1e-8)


@pytest.mark.feature("O3")
def test_the_discrete_bound_bounds_and_approaches_the_entropy():
    """From above, at O(1/T), for the lower and the upper variance, until the ends' constant is left."""
    for share in (0.0, 1.0):
        gaps = np.array([discrete_gap(steps, share) for steps in (64, 128, 256)])
        assert np.all(gaps > 0.0)
        assert np.all(np.diff(gaps) < 0.0)
        differences = -np.diff(gaps)
        assert np.log2(differences[0] / differences[1]) == pytest.approx(1.0, abs=0.35)
    assert abs(2 * discrete_gap(256) - discrete_gap(128)) < 0.05 * discrete_gap(256)  # nothing is left at 1/T = 0


def continuous_value(schedule, measure, num=4000):
    """The bound by quadrature over u, with exact moments of clips and noise."""
    with jax.enable_x64(True):
        x0, noise = (jnp.asarray(clips) for clips in VIDEO.moment_design())
        u = jnp.broadcast_to(((jnp.arange(num) + 0.5) / num)[:, None], (num, x0.shape[0]))
        parts = jax.jit(
            lambda x0, u: bound.continuous(
                VIDEO.denoise_evenly,
                schedule,
                measure,
                x0,
                u,
                lambda index: noise,
                decoder=bound.gaussian,
                noise_prior=INDEPENDENT,
            )
        )(x0, u)
        return {field.name: float(getattr(parts, field.name).mean()) for field in dataclasses.fields(parts)}


@pytest.mark.feature("O13")
def test_the_continuous_bound_does_not_depend_on_the_schedule():
    """Four schedules between the same two log-SNRs, and three measures, give one number; its integral is the entropy by
    I-MMSE up to the parts of the two ends.
    """
    measure = times.LogSnrUniform(-10.0, 10.0)
    rows = {
        "cosine": (COSINE, measure),
        "vp": (VP, measure),
        "flow": (schedules.flow(), measure),
        "learned": (schedules.learned(8, -12.0, 12.0), measure),
        "cosine_normal": (schedules.cosine(-10.0, 10.0), times.LogNormalSigma(0.0, 3.0)),
        "cosine_uniform": (schedules.cosine(-10.0, 10.0), times.Uniform(0.0)),
    }
    values = {name: continuous_value(*row)["diffusion"] for name, row in rows.items()}
    levels = np.linspace(-10.0, 10.0, 20001)
    error = np.array([VIDEO.minimal_error(log_snr) for log_snr in levels]) * 4
    integral = np.trapezoid(0.5 * np.exp(levels) * error, levels)
    for name, value in values.items():
        assert value == pytest.approx(integral, rel=2e-3), name
    # information gained between the two levels, 1/2 log det(I + SNR K), is that integral's closed form
    gained = [0.5 * np.sum(np.log1p(np.exp(end) * VIDEO.eigenvalues)) for end in (-10.0, 10.0)]
    assert integral == pytest.approx(gained[1] - gained[0], rel=1e-5)


@pytest.mark.feature("O13")
def test_the_whole_continuous_bound_is_the_entropy():
    """0.81695 = 1/2 log(2 pi e 0.3) nats for one pixel of variance 0.3 (times 4 for independent ones), from above."""
    single = GaussianVideo(num_frames=2, height=1, width=2, frame_correlation=0.0, pixel_correlation=0.0)
    with jax.enable_x64(True):
        x0, noise = (jnp.asarray(clips) for clips in single.moment_design())
        u = jnp.broadcast_to(((jnp.arange(2000) + 0.5) / 2000)[:, None], (2000, x0.shape[0]))
        total = jax.jit(
            lambda: bound.continuous(
                single.denoise_evenly,
                COSINE,
                times.LogSnrUniform(-14.0, 14.0),
                x0,
                u,
                lambda index: noise,
                decoder=bound.gaussian,
                noise_prior=INDEPENDENT,
            ).total.mean()
        )()
    assert float(total) + 1e-4 > 4 * 0.81695
    assert float(total) == pytest.approx(4 * 0.81695, abs=5e-3)


@pytest.mark.feature("O13")
@pytest.mark.parametrize("end", [0.0, 3.0, 8.0])
def test_decoding_at_the_estimate_loses_less(end):
    """Independent pixels of variance 0.3, decoded at log-SNR `end`, s^2 = exp(-end). Above the entropy are: around the
    noisy pixel 1/2 log(1 + s^2 / 0.3); around the exact estimate, whose error is the share r = 1 / (1 + s^2 / 0.3) of
    s^2, 1/2 (r - 1 - log r).
    """
    single = GaussianVideo(num_frames=2, height=1, width=2, frame_correlation=0.0, pixel_correlation=0.0)
    with jax.enable_x64(True):
        x0, noise = (jnp.asarray(clips) for clips in single.moment_design())
        u = jnp.broadcast_to(((jnp.arange(2000) + 0.5) / 2000)[:, None], (2000, x0.shape[0]))
        above = {}
        for decode_at in ("noisy", "estimate"):
            parts = jax.jit(
                lambda decode_at=decode_at: bound.continuous(
                    single.denoise_evenly,
                    COSINE,
                    times.LogSnrUniform(-14.0, end),
                    x0,
                    u,
                    lambda index: noise,
                    decoder=bound.gaussian,
                    noise_prior=INDEPENDENT,
                    decode_at=decode_at,
                )
            )()
            above[decode_at] = float(parts.total.mean()) / 4 - 0.5 * np.log(2 * np.pi * np.e * 0.3)
    ratio = np.exp(-end) / 0.3
    share = 1 / (1 + ratio)
    assert above["noisy"] == pytest.approx(0.5 * np.log1p(ratio), abs=2e-3)
    assert above["estimate"] == pytest.approx(0.5 * (share - 1 - np.log(share)), abs=2e-3)


@pytest.mark.feature("O3", "O13")
def test_the_discrete_bound_goes_to_the_continuous_one():
    """At a measured rate of 1/T."""
    schedule = EVEN
    limit = sum(continuous_value(schedule, times.Uniform(0.0), num=8000)[part] for part in ("prior", "diffusion"))
    sizes, gaps = (64, 128, 256), []
    for steps in sizes:
        with jax.enable_x64(True):
            chain = schedules.discretised(schedule, steps)
            x0, noise = moments(steps)
            first = schedules.log_snr(chain, jnp.asarray([1 / steps, 0.0]))
            parts = jax.jit(
                lambda x0, chain=chain, noise=noise: bound.discrete(
                    VIDEO.denoise_evenly, chain, x0, noise, decoder=bound.gaussian, noise_prior=INDEPENDENT
                )
            )(jnp.asarray(x0))
            # what is left of the integral between the first level and t = 0, in closed form
            ends = [0.5 * np.sum(np.log1p(np.exp(float(end)) * VIDEO.eigenvalues)) for end in first]
            gaps.append(float((parts.prior + parts.diffusion).mean()) + ends[1] - ends[0] - limit)
    rate = np.polyfit(np.log(sizes), np.log(np.abs(gaps)), 1)[0]
    assert rate == pytest.approx(-1.0, abs=0.2), gaps


@pytest.mark.feature("O13")
def test_training_the_schedule_lowers_the_variance_and_leaves_the_mean():
    """Descent along `objectives.spread` with the exact denoiser: the estimate's mean stays the bound, its variance over
    u falls, the ends stay.
    """
    x0, noise = VIDEO.moment_design()
    start = schedules.learned(8, -8.0, 8.0)
    spread = lambda size: (jnp.arange(size) + 0.5) / size  # noqa: E731

    def estimate(schedule, u):  # [batch]; every clip at its own u, moments exact for each
        def at(u):
            row = jnp.broadcast_to(u, (1, x0.shape[0]))
            parts = bound.continuous(
                VIDEO.denoise,
                schedule,
                times.Uniform(0.0),
                x0,
                row,
                lambda index: noise,
                decoder=bound.gaussian,
                noise_prior=INDEPENDENT,
            )
            return parts.diffusion.mean()

        return jax.vmap(at)(u)

    @jax.jit
    def advance(schedule, _):
        def loss(schedule):
            return objectives.spread(estimate(schedules.between_fixed_ends(schedule), spread(32))).mean()

        gradient = jax.grad(loss)(schedule)
        return jax.tree.map(lambda number, slope: number - 1.0 * slope, schedule, gradient), None

    before = np.asarray(jax.jit(estimate)(start, spread(256)))
    end = jax.jit(lambda start: jax.lax.scan(advance, start, length=500)[0])(start)
    after = np.asarray(jax.jit(estimate)(end, spread(256)))
    assert (float(end.log_snr_min), float(end.log_snr_max)) == (-8.0, 8.0)
    assert after.mean() == pytest.approx(before.mean(), rel=5e-3)
    assert after.var() < 0.6 * before.var()


@pytest.mark.feature("O13")
def test_the_spread_has_the_gradient_of_the_variance():
    """Of losses whose mean stays: d Var = d E[l^2], over the mean squared; the size of the losses drops out."""
    losses = lambda a: jnp.asarray([3.0, 5.0]) + a * jnp.asarray([1.0, -1.0])  # noqa: E731
    of_spread = float(jax.grad(lambda a: objectives.spread(losses(a)).mean())(0.3))
    of_variance = float(jax.grad(lambda a: losses(a).var())(0.3))
    assert of_spread == pytest.approx(0.5 * of_variance / 16.0, rel=1e-6)
    assert float(jax.grad(lambda a: objectives.spread(7.0 * losses(a)).mean())(0.3)) == pytest.approx(
        of_spread, rel=1e-6
    )


@pytest.mark.feature("O14")
def test_bits_per_dim_of_dequantised_pixels():
    """Uniform density on [-1, 1]^D is 2^-D: exactly 8 bits a pixel; bins have equal width and no gap between them."""
    assert float(bound.bits_per_dim_of_density(jnp.asarray(-10 * np.log(2.0)), 10)) == pytest.approx(8.0)
    levels = jnp.asarray(np.arange(256))
    left, right = bound.dequantised(levels, jnp.zeros(256)), bound.dequantised(levels, jnp.ones(256))
    np.testing.assert_array_equal(left[1:], right[:-1])
    assert (float(left[0]), float(right[-1])) == (-1.0, 1.0)
    np.testing.assert_allclose(right - left, 2 / 256)


def test_a_continuous_schedule_has_no_discrete_bound():
    x0 = jnp.zeros((1, *VIDEO.shape))
    with pytest.raises(ValueError, match="VPLinear has no steps: discretise it"):
        bound.discrete(VIDEO.denoise, VP, x0, lambda i: x0, decoder=bound.gaussian, noise_prior=INDEPENDENT)
