"""One objective: discrete and continuous bit by bit, equal effective weights, and a map that is one for all dtypes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion.affine import VARIANCES, every_sampler, exact
from tests.oracles.gaussian_video import GaussianVideo
from vdm.diffusion import objectives, process, samplers, schedules, targets
from vdm.diffusion.objectives import Objective
from vdm.diffusion.samplers import Ddim, grids
from vdm.diffusion.targets import TARGETS
from vdm.diffusion.times import Grid, LogNormalSigma, LogSnrUniform, Uniform
from vdm.diffusion.weightings import WEIGHTINGS
from vdm.types import Prediction

VIDEO = GaussianVideo(num_frames=2, height=1, width=2)
STD = 0.5
VP = schedules.vp_linear(0.1, 20.0)
COSINE = schedules.cosine(-20.0, 20.0)
DDPM = schedules.ddpm_linear(1000, 1e-4, 0.02)


def made(schedule, target, weighting, times, **options):
    return Objective(schedule, TARGETS[target](STD), WEIGHTINGS[weighting](STD, **options), times, STD)


def wrapped(objective, weight):
    """The network of this objective's target whose x0 estimate is one common predictor's, on any schedule."""
    schedule = objective.schedule

    def predict(scaled_xt, log_snr):
        t = schedules.time_of_unchecked(schedule, log_snr)
        level = schedules.level(schedule, t)
        xt = scaled_xt * process.spread(jnp.hypot(STD * level.alpha, level.sigma))
        # as a function of x0 + s noise and s alone, which all schedules share
        s = process.spread(level.sigma / level.alpha)
        noisy = xt / process.spread(level.alpha)
        bent = jnp.tanh(jnp.roll(noisy, 1, axis=1) / (1.0 + s))
        x0 = noisy / (1.0 + weight * s**2) + 0.3 * s / (1.0 + s**2) * bent  # as clean as xt where there is little noise
        noise = process.noise_from(x0, xt, level)
        return Prediction(targets.value_of(objective.target, x0, noise, level))

    return predict


def expected(objective, num=400):
    """(loss, gradient) of the common predictor in the mean over levels: quadrature in u, fixed clips and noises."""
    random = np.random.default_rng(0)
    x0, noise = (jnp.asarray(random.normal(size=(64, *VIDEO.shape)) * scale) for scale in (STD, 1.0))
    u = jnp.asarray((np.arange(num) + 0.5) / num)

    def mean_loss(weight):
        def at(u):
            t = objectives.times_of(objective, jnp.full(64, u), VIDEO.num_frames)
            return objectives.loss(objective, wrapped(objective, weight), x0, noise, t).loss.mean()

        return jax.lax.map(at, u).mean()

    return np.array(jax.jit(jax.value_and_grad(mean_loss))(0.7))


@pytest.mark.feature("O11")
def test_discrete_and_continuous_are_one_bit_by_bit():
    """Loss and gradient at index i, of the chain with its grid and of the same (alpha, sigma) with another measure."""
    random = np.random.default_rng(1)
    x0, noise = (jnp.asarray(random.normal(size=(8, *VIDEO.shape)), jnp.float32) for _ in range(2))
    t = jnp.asarray(np.repeat(np.array([1, 2, 77, 400, 500, 900, 999, 1000])[:, None], 2, axis=1) / 1000, jnp.float32)

    def value_and_gradient(objective):
        def mean_loss(weight):
            def predict(xt, log_snr):
                return Prediction(jnp.tanh(weight * xt) + process.spread(weight * log_snr / 20))

            return objectives.loss(objective, predict, x0, noise, t).loss.mean()

        return jax.jit(jax.value_and_grad(mean_loss))(jnp.float32(0.7))

    for target, weighting in (("noise", "simple"), ("v", "unit"), ("x0", "likelihood")):
        chain = made(schedules.discretised(VP, 1000), target, weighting, Grid(1000))
        np.testing.assert_array_equal(
            value_and_gradient(chain), value_and_gradient(made(VP, target, weighting, Uniform(1e-3)))
        )
        own = [made(DDPM, target, weighting, times) for times in (Grid(1000), Uniform(1e-3))]
        np.testing.assert_array_equal(*map(value_and_gradient, own))


@pytest.mark.feature("O11")
def test_equal_effective_weights_have_equal_losses_and_gradients_whatever_the_target():
    """sigmoid(1 - log_snr) between log-SNR -8 and 8: three schedules, three measures, five targets, one number."""
    inside = LogSnrUniform(-8.0, 8.0)
    short = schedules.cosine(-8.0, 8.0)
    rows = [
        (COSINE, "v", inside),
        (VP, "noise", inside),
        (schedules.flow(), "flow", inside),
        (short, "x0", Uniform(0.0)),
    ]
    rows += [(short, "edm", LogNormalSigma(-0.4, 2.0)), (schedules.ve(1e-2, 60.0), "edm", inside)]
    with jax.enable_x64(True):
        got = [expected(made(schedule, target, "sigmoid", times, bias=1.0)) for schedule, target, times in rows]
    for row, pair in zip(rows, got, strict=True):
        np.testing.assert_allclose(pair, got[0], rtol=3e-3, err_msg=str(row))


@pytest.mark.feature("O11", "O19")
def test_flow_and_v_on_the_cosine_differ_by_half_pi():
    """Their effective weights are both e^{-log_snr/2}, so losses and gradients of any predictor are in that ratio."""
    with jax.enable_x64(True):
        flow = expected(made(schedules.flow(), "flow", "unit", Uniform(1e-6)), num=4000)
        cosine = expected(made(COSINE, "v", "unit", Uniform(0.0)), num=4000)
    np.testing.assert_allclose(flow / cosine, np.pi / 2, rtol=2e-3)


@pytest.mark.feature("O19")
def test_the_flow_odes_velocity_is_the_flow_target():
    """dx/dt of the probability-flow ODE is E[noise - x0 | xt], and straight for a point."""
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1, 1, 4, 1)))
        t = jnp.full((1, 1), 0.3)
        level = schedules.level(schedules.flow(), t)
        x0 = exact(x, level)
        velocity = samplers.flow.velocity(exact, schedules.flow(), x, t)
        np.testing.assert_allclose(velocity, (x - 0.7 * x0) / 0.3 - x0, rtol=1e-12)
        # one Euler step from noise to a point
        point = lambda xt, level: jnp.full_like(xt, 0.25)  # noqa: E731
        times = jnp.asarray([1.0, 0.2])
        end = samplers.integrate(point, schedules.flow(), samplers.Euler(), times, x, lambda i: x)
        np.testing.assert_allclose(end, 0.8 * 0.25 + 0.2 * x, rtol=1e-12)


@pytest.mark.feature("O12")
@pytest.mark.parametrize("log_snr", [-20.0, -10.0, 0.0, 10.0, 20.0])
def test_conversions_lose_what_float32_must(log_snr):
    """Float32 against float64 for log-SNR in [-20, 20], from every target to every other: within 4 eps e^(|log_snr|/2)
    of the largest number involved.
    """
    random = np.random.default_rng(0)
    x0, noise = random.normal(size=(2, 16, *VIDEO.shape))
    alpha, sigma = np.sqrt(1 / (1 + np.exp([-log_snr, log_snr])))
    # both sides start from the same float32 numbers
    xt = np.float32(alpha * x0 + sigma * noise)
    level = [np.full((16, 2), number, np.float32) for number in (alpha, sigma, log_snr)]
    pairs = list(itertools.product(TARGETS, repeat=2))

    def converted(dtype):
        at = schedules.schedule.Level(*(jnp.asarray(number, dtype) for number in level))
        values = {
            name: np.float32(targets.value_of(TARGETS[name](STD), *map(jnp.asarray, (x0, noise)), at))
            for name in TARGETS
        }
        return [
            np.asarray(
                targets.convert(
                    TARGETS[a](STD), jnp.asarray(values[a], dtype), TARGETS[b](STD), jnp.asarray(xt, dtype), at
                )
            )
            for a, b in pairs
        ], values

    with jax.enable_x64(True):
        double, values = converted(np.float64)
        single = [
            np.asarray(
                targets.convert(
                    TARGETS[a](STD),
                    jnp.asarray(values[a], jnp.float32),
                    TARGETS[b](STD),
                    jnp.asarray(xt, jnp.float32),
                    schedules.schedule.Level(*(jnp.asarray(number, jnp.float32) for number in level)),
                )
            )
            for a, b in pairs
        ]
    allowed = 4 * 2.0**-23 * np.exp(abs(log_snr) / 2)
    for pair, one, two in zip(pairs, single, double, strict=True):
        scale = max(np.abs(two).max(), np.abs(values[pair[0]]).max(), np.abs(xt).max())
        assert np.abs(one - two).max() <= allowed * scale, pair


@every_sampler
def test_samplers_compile_differentiate_and_take_a_level_per_frame(step):
    """The gradient of an end with respect to its start by central differences; frames at levels of their own are each
    what they are alone.
    """
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(random.normal(size=(1, 1, 1, VARIANCES.size, 1)))
        times = grids.uniform(VP, 6, 1e-2)
        end = lambda x: samplers.sample(exact, VP, step, times, x, lambda i: jnp.ones_like(x)).sum()  # noqa: E731
        slope = jax.jit(jax.grad(end))(x)
        nudge = jnp.zeros_like(x).at[0, 0, 0, 1, 0].set(1e-5)
        assert float(slope[0, 0, 0, 1, 0]) == pytest.approx(float((end(x + nudge) - end(x - nudge)) / 2e-5), rel=1e-6)

        def one_step(x, t, s):
            draw = lambda i: jnp.ones_like(x)  # noqa: E731
            if isinstance(step, samplers.Multistep):
                return step.advance(exact, VP, step.first(x), x, t, s, draw)[0]
            return step(exact, VP, x, t, s, draw)

        both = jnp.concatenate([x, 2 * x], axis=1)
        t, s = jnp.asarray([[0.7, 0.4]]), jnp.asarray([[0.5, 0.1]])
        together = one_step(both, t, s)
        for i in (0, 1):
            alone = one_step(both[:, i : i + 1], t[:, i : i + 1], s[:, i : i + 1])
            np.testing.assert_allclose(together[:, i : i + 1], alone, rtol=1e-12)
        over_batch = jax.vmap(lambda x: one_step(x[None], t, s)[0])(jnp.concatenate([both, -both]))
        np.testing.assert_allclose(over_batch[0], together[0], rtol=1e-12)


def test_a_network_in_bfloat16_has_float32_mathematics():
    """What it says is rounded; nothing around it is."""
    built = made(COSINE, "v", "unit", Uniform(1e-3))
    x0 = VIDEO.sample(jax.random.key(0), 32)
    noise = jax.random.normal(jax.random.key(1), x0.shape)
    t = jnp.broadcast_to(jnp.linspace(0.01, 1.0, 32)[:, None], (32, 2))

    def network(dtype):
        return lambda xt, log_snr: Prediction(jnp.tanh(xt.astype(dtype)))

    def results(dtype):
        predict = network(dtype)
        denoise = objectives.denoiser(built, predict)
        clip = samplers.sample(denoise, COSINE, Ddim(0.0), grids.uniform(COSINE, 8, 1e-2), noise, lambda i: noise)
        return objectives.loss(built, predict, x0, noise, t).loss, clip

    rounded, full = jax.jit(lambda: results(jnp.bfloat16))(), jax.jit(lambda: results(jnp.float32))()
    for one, two in zip(rounded, full, strict=True):
        assert one.dtype == jnp.float32
        assert 0.0 < np.abs(np.asarray(one - two)).max() < 0.05
    # a clean frame is xt up to sigma, however coarse the network is
    level = schedules.level(COSINE, jnp.full((32, 2), 1e-4))
    estimate = objectives.denoiser(built, network(jnp.bfloat16))(x0, level)
    assert np.abs(np.asarray(estimate - x0)).max() < 4 * float(level.sigma[0, 0])
