"""Correlated noise: its covariance, and what it changes in processes, samplers, losses and likelihoods."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracles.gaussian_video import GaussianVideo
from vdm.diffusion import bound, guidance, likelihood, noise_priors, objectives, samplers, schedules
from vdm.diffusion.noise_priors import BaseResidual, Independent, Mixed, Progressive, Shared
from vdm.diffusion.objectives import Objective
from vdm.diffusion.samplers import Ancestral, Ddim, EulerMaruyama, PredictorCorrector
from vdm.diffusion.targets import NOISE
from vdm.diffusion.times import Uniform
from vdm.diffusion.weightings import WEIGHTINGS
from vdm.types import Prediction

COSINE = schedules.cosine(-20.0, 20.0)
VP = schedules.vp_linear(0.1, 20.0)
PRIORS = {
    "independent": Independent(),
    "shared": Shared(),
    "mixed": Mixed(2.0),
    "progressive": Progressive(2.0),
    "base_residual": BaseResidual(0.6, 0.5),
}
REGULAR = [name for name in PRIORS if name != "shared"]
VIDEO = GaussianVideo(num_frames=4, height=1, width=2)


def denoiser_for(prior, video=VIDEO):
    """E[x0 | xt] where the noise has the covariance S over frames: a dense solve, all frames at one level."""
    space = np.eye(video.covariance.shape[0] // video.num_frames)
    correlation = np.kron(prior.covariance(video.num_frames), space)

    def denoise(xt, level):
        alpha, sigma = level.alpha[0, 0], level.sigma[0, 0]
        data = jnp.asarray(video.covariance, xt.dtype)
        gain = alpha * jnp.linalg.solve(alpha**2 * data + sigma**2 * jnp.asarray(correlation, xt.dtype), data)
        return (xt.reshape(xt.shape[0], -1) @ gain).reshape(xt.shape)

    return denoise, correlation


@pytest.mark.feature("T7")
def test_covariances_are_the_published_ones():
    """a = 2: 0.8 between all pairs, or 0.894, 0.8, 0.716 with the distance (PYoCo); sqrt(l_i l_j) (VideoFusion)."""
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(PRIORS["mixed"].covariance(4)[off], 0.8)
    np.testing.assert_allclose(PRIORS["progressive"].covariance(4)[0], [1.0, 0.894, 0.8, 0.716], atol=5e-4)
    share = 0.6 * 0.5 ** np.array([2, 1, 0, 1])
    np.testing.assert_allclose(
        PRIORS["base_residual"].covariance(4)[off], np.sqrt(np.outer(share, share))[off], rtol=1e-12
    )
    for prior in PRIORS.values():
        np.testing.assert_allclose(np.diag(prior.covariance(4)), 1.0)


@pytest.mark.feature("T7")
@pytest.mark.parametrize("name", PRIORS)
def test_noise_has_its_covariance_and_whitening_undoes_it(name):
    """Exactly: the response to unit noise in each frame. Pixels of a frame stay independent."""
    prior = PRIORS[name]
    units = jnp.eye(4)[:, :, None, None, None] * jnp.ones((1, 1, 1, 2, 1))
    root = np.asarray(noise_priors.correlate(prior, units))[:, :, 0, 0, 0]
    np.testing.assert_allclose(root.T @ root, prior.covariance(4), atol=1e-6)
    if name in REGULAR:
        noise = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 1, 2, 1)), jnp.float32)
        back = noise_priors.whiten(prior, noise_priors.correlate(prior, noise))
        np.testing.assert_allclose(back, noise, atol=1e-5)
        sign, log_determinant = np.linalg.slogdet(prior.covariance(4))
        assert noise_priors.log_determinant(prior, 4) == pytest.approx(sign * log_determinant, abs=1e-9)


@pytest.mark.feature("T7")
@pytest.mark.parametrize("name", PRIORS)
def test_paths_of_the_forward_process_keep_the_marginals_of_every_frame(name):
    """alpha x0 + sigma noise of one frame has the variance that independent noise gives."""
    noise = np.asarray(
        noise_priors.correlate(PRIORS[name], jax.random.normal(jax.random.key(0), (20_000, 4, 1, 1, 1)))
    ).reshape(-1, 4)
    np.testing.assert_allclose(noise.var(axis=0), 1.0, atol=4 * np.sqrt(2 / 20_000))


@pytest.mark.feature("T7")
@pytest.mark.parametrize("name", REGULAR)
@pytest.mark.parametrize(
    "step", [Ancestral(), EulerMaruyama(), PredictorCorrector("ancestral", 0.1, 1)], ids=lambda s: type(s).__name__
)
def test_samplers_end_with_the_data_whatever_the_noise(name, step):
    """Exact covariance of the whole affine sampler that is handed correlated noise, against K."""
    prior, steps = PRIORS[name], 400
    denoise, correlation = denoiser_for(prior)
    times, shape = jnp.linspace(1.0, 1e-2, steps + 1), (1, *VIDEO.shape)

    def end(x, noises):
        draw = lambda i: noise_priors.correlate(prior, noises[i])  # noqa: E731
        start = samplers.prior(VP, times, noise_priors.correlate(prior, x))
        return samplers.integrate(denoise, VP, step, times, start, draw).ravel()

    zeros = jnp.zeros(shape), jnp.zeros((2 * steps, *shape))
    of_x, of_noise = jax.jit(jax.jacrev(end, argnums=(0, 1)))(*zeros)
    size = of_x.shape[0]
    responses = np.concatenate([np.reshape(of_x, (size, -1)), np.reshape(of_noise, (size, -1))], axis=1)
    alpha, sigma = (float(part(jnp.asarray(1e-2))) for part in (VP.alpha, VP.sigma))
    wanted = alpha**2 * VIDEO.covariance + sigma**2 * correlation
    assert np.abs(responses @ responses.T - wanted).max() < 0.06 * VIDEO.variance


@pytest.mark.feature("T7")
def test_the_right_prior_needs_fewer_steps():
    """DDIM on strongly correlated clips: with noise as correlated as the data half the error at the same steps."""
    video = GaussianVideo(num_frames=4, height=1, width=2, frame_correlation=0.9, pixel_correlation=0.0)
    times = jnp.asarray(np.linspace(0.999, 1e-3, 13))
    errors = []
    with jax.enable_x64(True):
        for prior in (Independent(), Progressive(2.0)):
            denoise, correlation = denoiser_for(prior, video)
            linear = jax.jit(
                jax.jacfwd(
                    lambda x, denoise=denoise: samplers.integrate(
                        denoise, COSINE, Ddim(0.0), times, x, lambda i: jnp.zeros_like(x)
                    ).ravel()
                )
            )(jnp.zeros((1, *video.shape)))
            linear = np.reshape(linear, (8, 8))
            (a0, s0), (a1, s1) = ((float(COSINE.alpha(t)), float(COSINE.sigma(t))) for t in (times[0], times[-1]))
            start = a0**2 * video.covariance + s0**2 * correlation
            wanted = a1**2 * video.covariance + s1**2 * correlation
            white = np.linalg.inv(np.linalg.cholesky(wanted))  # so that every direction counts by its own variance
            errors.append(np.linalg.norm(white @ linear @ start @ linear.T @ white.T - np.eye(8), 2))
    assert errors[1] < 0.5 * errors[0], errors


@pytest.mark.feature("T7")
@pytest.mark.parametrize("name", REGULAR)
def test_likelihood_weighting_takes_the_norm_of_the_inverse_covariance(name):
    """E of the whitened noise error of the exact denoiser, from the posterior's covariance; the other weightings take
    the plain norm.
    """
    prior, t = PRIORS[name], 0.4
    denoise, correlation = denoiser_for(prior)
    size = len(correlation)
    with jax.enable_x64(True):
        alpha, sigma = (float(part(jnp.asarray(t))) for part in (VP.alpha, VP.sigma))
        root = np.linalg.cholesky(VIDEO.covariance)
        x0 = jnp.asarray(
            (np.sqrt(2.0 * size) * np.concatenate([root.T, np.zeros((size, size))])).reshape(-1, *VIDEO.shape)
        )
        white = np.sqrt(2.0 * size) * np.concatenate([np.zeros((size, size)), np.eye(size)])

        def predict(scaled_xt, log_snr):
            xt = scaled_xt * np.hypot(0.5 * alpha, sigma)
            level = schedules.level(VP, jnp.full(xt.shape[:2], t))
            return Prediction((xt - alpha * denoise(xt, level)) / sigma)

        def mean_loss(weighting):
            built = Objective(VP, NOISE, WEIGHTINGS[weighting](0.5), Uniform(1e-3), 0.5, prior)
            noise, times = jnp.asarray(white.reshape(-1, *VIDEO.shape)), jnp.full(x0.shape[:2], t)
            return float(objectives.loss(built, predict, x0, noise, times).loss.mean())

        got = {weighting: mean_loss(weighting) for weighting in ("likelihood", "simple")}
        rate = -0.5 * float(schedules.log_snr_rate(VP, jnp.asarray(t)))
    noisy = alpha**2 * VIDEO.covariance + sigma**2 * correlation
    posterior = VIDEO.covariance - alpha**2 * VIDEO.covariance @ np.linalg.solve(noisy, VIDEO.covariance)
    snr = (alpha / sigma) ** 2
    assert got["simple"] == pytest.approx(snr * np.trace(posterior) / size, rel=1e-8)
    expected = rate * snr * np.trace(np.linalg.solve(correlation, posterior)) / size
    assert got["likelihood"] == pytest.approx(expected, rel=1e-8)


@pytest.mark.feature("T7", "O14")
def test_likelihood_and_bound_with_correlated_noise_are_those_of_the_data():
    prior, t_min = Progressive(1.0), 1e-3
    denoise, correlation = denoiser_for(prior)
    with jax.enable_x64(True):
        alpha, sigma = (float(part(jnp.asarray(t_min))) for part in (COSINE.alpha, COSINE.sigma))
        x = VIDEO.sample(jax.random.key(0), 3)
        got = likelihood.log_prob(
            denoise, COSINE, jnp.asarray(x, jnp.float64), t_min=t_min, rtol=1e-8, atol=1e-8, noise_prior=prior
        ).log_prob
    covariance = alpha**2 * VIDEO.covariance + sigma**2 * correlation
    flat = np.asarray(x, np.float64).reshape(3, -1)
    exact = -0.5 * (
        np.einsum("bi,ij,bj->b", flat, np.linalg.inv(covariance), flat) + np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
    np.testing.assert_allclose(got, exact, atol=1e-4)
    # KL of q(x_1 | x0) to the prior, in the norm of S^-1
    kl = bound.prior_kl(VP, jnp.asarray(x), prior)
    snr = 1 / np.expm1(10.05)
    np.testing.assert_allclose(
        kl, 0.5 * snr * np.einsum("bi,ij,bj->b", flat, np.linalg.inv(correlation), flat), rtol=1e-4
    )


@pytest.mark.feature("T7", "G4", "G8")
def test_gradient_guidance_takes_the_noises_covariance():
    """y = the first frame's pixels + N(0, 0.2 I): the guided estimate of E[x0 | xt] is E[x0 | xt, y], by Bayes' rule on
    the joint Gaussian. Reconstruction guidance is the same step, but for the width that it assumes.
    """
    prior, y = Progressive(2.0), np.array([0.9, -0.4])
    denoise, correlation = denoiser_for(prior)
    with jax.enable_x64(True):
        level = schedules.level(VP, jnp.full((1, 4), 0.3))
        alpha, sigma = float(level.alpha[0, 0]), float(level.sigma[0, 0])
        xt = jnp.asarray(np.random.default_rng(0).normal(size=(1, *VIDEO.shape)))
        noisy = alpha**2 * VIDEO.covariance + sigma**2 * correlation
        posterior = VIDEO.covariance - alpha**2 * VIDEO.covariance @ np.linalg.solve(noisy, VIDEO.covariance)
        observe = np.eye(8)[:2]
        width = observe @ posterior @ observe.T + 0.2 * np.eye(2)

        def log_prob(xt, at):
            off = y - denoise(xt, at)[:, 0].reshape(1, 2)
            return -0.5 * jnp.einsum("bi,ij,bj->b", off, jnp.asarray(np.linalg.inv(width)), off)

        got = np.asarray(guidance.classifier(denoise, log_prob, 1.0, noise_prior=prior)(xt, level)).ravel()
        plain = np.asarray(denoise(xt, level)).ravel()
        expected = plain + posterior @ observe.T @ np.linalg.solve(width, y - plain[:2])
        np.testing.assert_allclose(got, expected, rtol=1e-9)

        given = jnp.asarray([[True, False, False, False]])
        x0 = jnp.zeros((1, *VIDEO.shape)).at[0, 0, 0, :, 0].set(jnp.asarray(y))
        rebuilt = np.asarray(guidance.reconstruction(denoise, given, x0, 1.0, noise_prior=prior)(xt, level)).ravel()
    toward = posterior @ observe.T @ (y - plain[:2]) * (alpha / sigma) ** 2
    np.testing.assert_allclose(rebuilt[2:], (plain + toward)[2:], rtol=1e-9)


@pytest.mark.feature("T7", "O3", "O13")
def test_the_bounds_with_correlated_noise_are_their_sums():
    """Discrete and continuous diffusion terms, in the norm of S^-1, from the posterior's covariance at every level."""
    prior, steps = Progressive(1.0), 6
    denoise, correlation = denoiser_for(prior)
    size = len(correlation)
    zero = np.zeros((size, size))
    root = np.sqrt(2.0 * size) * np.concatenate([np.linalg.cholesky(VIDEO.covariance).T, zero])
    white = np.sqrt(2.0 * size) * np.concatenate([zero, np.eye(size)])

    def least(log_snr):  # E |x0 - E[x0 | xt]|^2 in the norm of S^-1
        data, snr = VIDEO.covariance, np.exp(log_snr)
        posterior = data - snr * data @ np.linalg.solve(snr * data + correlation, data)
        return np.trace(np.linalg.solve(correlation, posterior))

    with jax.enable_x64(True):
        x0, noise = (jnp.asarray(rows.reshape(-1, *VIDEO.shape)) for rows in (root, white))
        chain = schedules.discretised(COSINE, steps)
        options = {"decoder": bound.gaussian, "noise_prior": prior}
        discrete = jax.jit(lambda x0: bound.discrete(denoise, chain, x0, lambda i: noise, **options).diffusion)(x0)
        u = jnp.broadcast_to(jnp.asarray([0.0, 0.3, 0.8])[:, None], (3, 2 * size))
        flow = schedules.flow()
        continuous = jax.jit(
            lambda x0: bound.continuous(denoise, flow, Uniform(0.05), x0, u, lambda i: noise, **options).diffusion
        )(x0)
        discrete, continuous = (np.asarray(values).mean() for values in (discrete, continuous))
        log_snr = np.asarray(schedules.log_snr(chain, jnp.arange(1, steps + 1) / steps))
    snr = np.exp(log_snr)
    expected = sum(0.5 * (snr[i - 1] - snr[i]) * least(log_snr[i]) for i in range(1, steps))
    assert discrete == pytest.approx(expected, rel=1e-8)
    # u = 0 is t = 1, where flow has no signal: no error there counts, and nothing is infinite
    t = 1.0 - 0.95 * np.array([0.3, 0.8])
    rate = (1 - t) / t**3  # -1/2 dSNR/dt of SNR = (1 - t)^2 / t^2
    terms = [r * least(2 * np.log((1 - time) / time)) * 0.95 for r, time in zip(rate, t, strict=True)]
    assert continuous == pytest.approx(sum(terms) / 3, rel=1e-8)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: bound.prior_kl(VP, jnp.zeros((1, 2, 1, 1, 1)), Shared()), "a bound needs the inverse covariance"),
        (
            lambda: Objective(VP, NOISE, WEIGHTINGS["likelihood"](0.5), Uniform(1e-3), 0.5, Shared()),
            "weighting likelihood needs the inverse covariance",
        ),
        (lambda: Mixed(-1.0), "mixed.a must be at least 0"),
        (lambda: Progressive(float("inf")), "progressive.a"),
        (lambda: BaseResidual(1.0, 0.5), r"share in \[0, 1\)"),
        (
            lambda: noise_priors.require_regular(Shared(), 4, "a likelihood"),
            "a likelihood needs the inverse covariance",
        ),
        (
            lambda: likelihood.log_prob(
                lambda xt, level: xt,
                VP,
                jnp.zeros((1, 2, 1, 1, 1)),
                t_min=1e-3,
                rtol=1e-3,
                atol=1e-3,
                noise_prior=Shared(),
            ),
            "Shared noise is singular",
        ),
    ],
)
def test_impossible_priors_are_refused(build, said):
    with pytest.raises(ValueError, match=said):
        build()
