"""The unified objective: its weights, its minimiser, and DDPM and the VP SDE as two configurations of it.

Most expectations are exact: the loss of a linear network is quadratic, and `moment_design` has exact second moments.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracles.gaussian_video import GaussianVideo
from vdm.diffusion import objectives, process, schedules, targets
from vdm.diffusion.objectives import Objective
from vdm.diffusion.targets import TARGETS
from vdm.diffusion.times import Grid, LogitNormal, LogNormalSigma, LogSnrUniform, Uniform
from vdm.diffusion.weightings import WEIGHTINGS, Weighting
from vdm.types import Level, Prediction, register_tree

VIDEO = GaussianVideo()
STD = 0.5
DDPM = schedules.ddpm_linear(1000, 1e-4, 0.02)
VP = schedules.vp_linear(0.1, 20.0)
COSINE = schedules.cosine(-20.0, 20.0)
OPTIONS = {
    "min_snr": {"gamma": 3.0, "power": 0.5},
    "p2": {"k": 1.0, "gamma": 0.5},
    "sigmoid": {"bias": 1.0},
}  # of the weightings that have some


FLOW = schedules.flow()
ZERO_CHAIN = schedules.zero_terminal(schedules.ddpm_linear(10, 0.01, 0.5))
EVEN = Uniform(1e-3)


@register_tree
@dataclasses.dataclass(frozen=True)
class Rising:
    """No schedule: its signal comes back."""

    num_steps = None

    def alpha(self, t):
        return jnp.ones_like(t)

    def sigma(self, t):
        return 0.1 + t * (1.0 - t)


def made(weighting, **options):
    return WEIGHTINGS[weighting](STD, **(options or OPTIONS.get(weighting, {})))


def of(target):
    return TARGETS[target](STD)


def objective(schedule=VP, target="noise", weighting="simple", times=None):
    return Objective(schedule, of(target), made(weighting), times or Uniform(1e-3), STD)


def network(target, denoise):
    """The network whose x0 estimate is the given denoiser's, for a variance-preserving schedule."""

    def predict(scaled_xt, log_snr):
        alpha, sigma = (jnp.sqrt(jax.nn.sigmoid(sign * log_snr)) for sign in (1, -1))
        level = Level(alpha, sigma, log_snr)
        xt = scaled_xt * process.spread(jnp.sqrt((STD * alpha) ** 2 + sigma**2))
        x0 = denoise(xt, level)
        return Prediction(targets.value_of(of(target), x0, process.noise_from(x0, xt, level), level))

    return predict


def blend(xt, level, weight=0.7):
    """Some nonlinear denoiser, for what must hold of any."""
    return weight * jnp.tanh(xt + 0.3 * jnp.roll(xt, 1, axis=1)) * process.spread(level.alpha)


log_snr_of = jax.jit(schedules.log_snr)


def design_losses(built, predict, times):
    """Mean losses over the design at each time: [num_times, frames], or [num_times] where all frames share it."""
    x0, noise = VIDEO.moment_design()
    levels = np.broadcast_to(
        np.asarray(times)[:, None, None] if np.ndim(times) == 1 else times[:, None], (len(times), 24, 3)
    )
    losses = jax.jit(jax.vmap(lambda t: objectives.loss(built, predict, x0, noise, t)))(jnp.asarray(levels))
    return jax.tree.map(lambda values: np.asarray(values).mean(axis=1), losses)


def everywhere(t):
    return np.full((24, 3), t)


SOME = network("v", blend)


@pytest.mark.feature("O2")
def test_a_network_that_says_zero_has_loss_one():
    built = objective(DDPM, times=Grid(1000))
    silent = lambda xt, log_snr: Prediction(0.0 * xt)  # noqa: E731
    random = np.random.default_rng(0)
    x0, noise = (jnp.asarray(random.normal(size=(512, *VIDEO.shape)), jnp.float32) for _ in range(2))
    t = objectives.times_of(built, jnp.asarray(random.random(512), jnp.float32), VIDEO.num_frames)
    losses = np.asarray(jax.jit(lambda *clips: objectives.loss(built, silent, *clips).loss)(x0, noise, t))
    assert abs(losses.mean() - 1.0) < 4 * np.sqrt(2 / noise.size)
    with jax.enable_x64(True):
        np.testing.assert_allclose(design_losses(built, silent, np.array([0.3, 0.9])).loss, 1.0, atol=1e-12)


@pytest.mark.feature("O2")
def test_exact_denoiser_reaches_the_analytic_minimum():
    steps = np.array([1, 30, 500, 1000])
    with jax.enable_x64(True):
        losses = design_losses(objective(DDPM, times=Grid(1000)), network("noise", VIDEO.denoise), steps / 1000)
    kept = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))[steps - 1]
    snr = kept / (1.0 - kept)
    minimum = np.array([VIDEO.minimal_error(np.log(ratio)) for ratio in snr])
    np.testing.assert_allclose(losses.x0_error, minimum, rtol=1e-6)
    np.testing.assert_allclose(losses.noise_error, snr * minimum, rtol=1e-6)
    np.testing.assert_array_equal(losses.loss, losses.noise_error)


@pytest.mark.feature("O2")
def test_levels_may_differ_between_frames():
    """Trace of the exact posterior covariance with its own level in each frame, by dense algebra."""
    t = np.array([0.05, 0.4, 0.9])
    decay = np.repeat(np.exp(-0.1 * t - 9.95 * t**2), 4)
    mix = np.sqrt(decay)[:, None] * VIDEO.covariance
    posterior = VIDEO.covariance - mix.T @ np.linalg.solve(mix * np.sqrt(decay) + np.diag(1.0 - decay), mix)
    with jax.enable_x64(True):
        losses = design_losses(objective(target="x0", weighting="unit"), network("x0", VIDEO.denoise), t[None])
    assert losses.loss[0] == losses.x0_error[0] == pytest.approx(np.trace(posterior) / 12, rel=1e-9)
    assert losses.noise_error[0] == pytest.approx(np.mean(np.diag(posterior) * decay / (1.0 - decay)), rel=1e-9)


@pytest.mark.feature("O2")
def test_gradient_is_the_finite_difference():
    built = objective(DDPM, times=Grid(1000))
    with jax.enable_x64(True):
        x0, noise = VIDEO.moment_design()
        t = jnp.asarray(np.tile([0.01, 0.3, 1.0], (24, 1)))

        @jax.jit
        def mean_loss(weight):
            denoise = lambda xt, level: blend(xt, level, weight)  # noqa: E731
            return objectives.loss(built, network("noise", denoise), x0, noise, t).loss.mean()

        slope = (mean_loss(0.7 + 1e-5) - mean_loss(0.7 - 1e-5)) / 2e-5
        assert float(jax.jit(jax.grad(mean_loss))(0.7)) == pytest.approx(float(slope), rel=1e-7)


@pytest.mark.feature("O10")
@pytest.mark.parametrize("weighting", [name for name in WEIGHTINGS if name != "vlb"])
@pytest.mark.parametrize("t", [0.05, 0.6])
def test_normal_equations_of_every_weighting_give_the_exact_score(weighting, t):
    """The best linear network of a weighted loss, found from its own gradient and Hessian, is the score; its loss is
    known.
    """
    built = objective(target="score", weighting=weighting)
    with jax.enable_x64(True):
        x0, noise = VIDEO.moment_design()

        def mean_loss(matrix):
            def predict(xt, log_snr):
                return Prediction((xt.reshape(24, 12) @ matrix.T).reshape(xt.shape))

            return objectives.loss(built, predict, x0, noise, jnp.asarray(everywhere(t))).loss.mean()

        zero = jnp.asarray(np.zeros((12, 12)))
        value, gradient, hessian = jax.jit(
            lambda at: (mean_loss(at), jax.grad(mean_loss)(at), jax.hessian(mean_loss)(at))
        )(zero)
    gradient, hessian = np.asarray(gradient).ravel(), np.asarray(hessian).reshape(144, 144)
    best = np.linalg.solve(hessian, -gradient)
    decay = np.exp(-0.1 * t - 9.95 * t**2)
    noisy = decay * VIDEO.covariance + (1.0 - decay) * np.eye(12)
    score = -best.reshape(12, 12) / np.sqrt(decay * STD**2 + 1.0 - decay) / np.sqrt(1.0 - decay)
    np.testing.assert_allclose(score, -np.linalg.inv(noisy), rtol=1e-7, atol=1e-9)
    # g^2/(2 std^2) with beta(t) = 0.1 + 19.9 t is Song's; unit and simple are 1 on the noise
    weight = {"unit": 1.0, **published_weights(VP, np.float32(t))[1]}[weighting]
    minimum = weight * decay / (1.0 - decay) * VIDEO.minimal_error(np.log(decay / (1.0 - decay)))
    assert float(value) + 0.5 * gradient @ best == pytest.approx(float(minimum), rel=1e-5)  # float32 published weights


def half_rate(schedule, t):
    """-1/2 d log_snr/dt from each schedule's own textbook formula."""
    if schedule is VP:
        return (0.1 + 19.9 * t) / (2.0 * -np.expm1(-0.1 * t - 9.95 * t**2))
    if schedule is DDPM:
        betas, step = np.linspace(1e-4, 0.02, 1000), np.rint(1000 * t).astype(int) - 1
        return -1000.0 * np.log1p(-betas[step]) / (2.0 * (1.0 - np.cumprod(1.0 - betas)[step]))
    clean = np.arctan(np.exp(-10.0))
    slope = np.pi / 2 - 2 * clean
    return 2.0 * slope / np.sin(2.0 * (slope * t + clean))


def published_weights(schedule, t):
    """Weighting -> weight on the noise error, from the field's formulas; `unit` by target."""
    snr = np.exp(np.asarray(log_snr_of(schedule, jnp.asarray(t)), np.float64))
    rate = half_rate(schedule, t)
    by_target = {
        "noise": 1.0,
        "score": 1.0,
        "x0": 1.0 / snr,
        "v": 1.0 + 1.0 / snr,
        "flow": (1.0 + snr**-0.5) ** 2,
        "edm": 1.0 + 1.0 / (STD**2 * snr),
    }
    density = 1.0 / (1.0 - 1e-3) / (2.0 * rate)  # of log-SNR
    return by_target, {
        "simple": 1.0,
        "likelihood": rate,
        "v": by_target["v"],
        "edm": by_target["edm"],
        "flow": by_target["flow"],
        "min_snr": np.sqrt(np.minimum(snr, 3.0)) / snr,
        "p2": (1.0 + snr) ** -0.5,
        "sigmoid": 1.0 / (1.0 + np.exp(np.log(snr) - 1.0)) / density,
    }


@pytest.mark.feature("O11", "O18")
@pytest.mark.parametrize("schedule", [DDPM, VP, COSINE], ids=["ddpm", "vp", "cosine"])
def test_every_row_has_its_published_weight_on_the_noise_error(schedule):
    """The table of weights: loss over noise error, for some network (one that says zero), at levels of three
    schedules, of every target with every weighting.
    """
    t = np.array([0.002, 0.5, 1.0], np.float32)
    some = TARGETS if schedule is VP else ("noise", "flow")  # the conversion does not depend on the schedule
    rows = [row for row in itertools.product(some, WEIGHTINGS) if row[1] != "vlb"]
    builds = [objective(schedule, *row) for row in rows]
    x0, noise = VIDEO.moment_design()
    silent = lambda xt, log_snr: Prediction(0.0 * xt)  # noqa: E731

    @jax.jit
    @jax.vmap
    def ratios(t):
        times = jnp.broadcast_to(t, (24, 3))
        losses = [objectives.loss(built, silent, x0, noise, times) for built in builds]
        return jnp.stack([one.loss.mean() / one.noise_error.mean() for one in losses])

    by_target, by_weighting = published_weights(schedule, t)
    for (target, weighting), ratio in zip(rows, np.asarray(ratios(jnp.asarray(t))).T, strict=True):
        expected = by_target[target] if weighting == "unit" else by_weighting[weighting]
        np.testing.assert_allclose(ratio, expected * np.ones(3), rtol=1e-3, err_msg=f"{target} {weighting}")


@pytest.mark.feature("O3")
def test_the_weight_of_a_step_is_the_published_one_in_three_forms():
    """Ho et al. 2020, equation 12 with the lower variance; 1/2 (SNR_{t-1} - SNR_t) on the x0 error; and the number that
    both are at index 500 of 0..999, to 13 digits: 0.0055144619596.
    """
    betas = np.linspace(1e-4, 0.02, 1000)
    kept = np.cumprod(1.0 - betas)
    index = np.array([1, 100, 500, 999])
    lower = betas[index] * (1 - kept[index - 1]) / (1 - kept[index])
    published = betas[index] ** 2 / (2 * lower * (1 - betas[index]) * (1 - kept[index]))
    snr = kept / (1 - kept)
    of_x0 = 0.5 * (snr[index - 1] - snr[index]) / snr[index]
    with jax.enable_x64(True):
        t = jnp.asarray(np.append(index + 1, 1) / 1000)[None]
        weights = np.exp(jax.jit(lambda t: made("vlb").log_weight(DDPM, t))(t))[0] / 1000  # on the x0 error
    got, first = weights[:-1] / snr[index], weights[-1] / snr[0]
    np.testing.assert_allclose(got, published, rtol=1e-9)
    np.testing.assert_allclose(got, of_x0, rtol=1e-9)
    assert got[2] == pytest.approx(0.0055144619596, abs=5e-14)
    np.testing.assert_allclose(first, 1 / (2 * (1 - betas[0])), rtol=1e-9)


@pytest.mark.parametrize("target", ["x0", "v", "noise"])
def test_min_snr_is_the_published_weight(target):
    """Hang et al. 2023, section 3.4, gamma 5: min(SNR, 5) on the x0 error, min(SNR, 5)/SNR on the noise error, and
    min(SNR, 5)/(SNR + 1) on the v error, of a network that says zero, whose error of each target is known.
    """
    t = np.array([0.02, 0.3, 0.9], np.float32)
    built = dataclasses.replace(objective(VP, target), weighting=made("min_snr", gamma=5.0, power=1.0))
    losses = design_losses(built, lambda xt, log_snr: Prediction(0.0 * xt), t)
    snr = 1.0 / np.expm1(0.1 * t + 9.95 * t**2)
    assert snr[0] > 5 > snr[1]
    signal = snr / (1.0 + snr)  # alpha^2
    error = {"x0": VIDEO.variance, "noise": 1.0, "v": signal + (1.0 - signal) * VIDEO.variance}[target]
    weight = np.minimum(snr, 5.0) / {"x0": 1.0, "noise": snr, "v": snr + 1.0}[target]
    np.testing.assert_allclose(losses.loss, weight * error, rtol=5e-4)


@pytest.mark.feature("O11")
def test_discrete_loss_is_the_sde_loss_at_matched_log_snr():
    discrete, continuous = (objective(schedule, "v", "simple") for schedule in (DDPM, VP))
    with jax.enable_x64(True):
        t = np.array([2, 100, 500, 900]) / 1000
        matched = np.asarray(schedules.time_of(VP, log_snr_of(DDPM, jnp.asarray(t))))
        losses = [design_losses(*pair).loss for pair in ((discrete, SOME, t), (continuous, SOME, matched))]
    np.testing.assert_allclose(*losses, rtol=1e-10)


@pytest.mark.feature("O11")
def test_discrete_loss_approaches_the_sde_loss_at_first_order():
    """At matched t the chain with betas b(i/T)/T differs from VP-linear by O(1/T): the measured rate is 1."""
    sizes = np.array([125, 500, 2000])
    with jax.enable_x64(True):
        continuous = design_losses(objective(VP), SOME, np.array([0.4])).loss[0]
        gaps = []
        for size in sizes:
            chain = schedules.ddpm_linear(int(size), 0.1 / size, 20.0 / size)
            gaps.append(design_losses(objective(chain), SOME, np.array([0.4])).loss[0] - continuous)
    rate = np.polyfit(np.log(sizes), np.log(np.abs(gaps)), 1)[0]
    assert rate == pytest.approx(-1.0, abs=0.05)


@pytest.mark.feature("O11")
@pytest.mark.parametrize("target", ["noise", "v"])
def test_gradients_of_ddpm_and_the_sde_point_the_same_way(target):
    """Same seed and network, the two demonstration configurations: cosine of the gradients above 0.999."""
    random = np.random.default_rng(0)
    x0 = VIDEO.sample(jax.random.key(0), 64)
    noise = jnp.asarray(random.normal(size=x0.shape), jnp.float32)
    u = jnp.asarray(random.random(64), jnp.float32)
    hidden = {"in": random.normal(size=(14, 32)) / 3, "out": random.normal(size=(32, 12)) / 5}

    def gradient(built):
        def mean_loss(weights):
            def predict(xt, log_snr):
                told = jnp.tanh(log_snr[:, :2] / 8)
                features = jnp.concatenate([xt.reshape(64, 12), told], axis=1)
                return Prediction((jnp.tanh(features @ weights["in"]) @ weights["out"]).reshape(xt.shape))

            t = objectives.times_of(built, u, 3)
            return objectives.loss(built, predict, x0, noise, t).loss.mean()

        gradients = jax.jit(jax.grad(mean_loss))(jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), hidden))
        return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(gradients)])

    discrete = gradient(objective(DDPM, target, "unit", Grid(1000)))
    continuous = gradient(objective(VP, target, "unit", Uniform(1e-3)))
    assert discrete @ continuous / np.linalg.norm(discrete) / np.linalg.norm(continuous) > 0.999


@pytest.mark.feature("O20")
@pytest.mark.parametrize(
    ("schedule", "target", "weighting", "times"),
    [
        (VP, "v", "unit", Uniform(1e-3)),
        (COSINE, "noise", "min_snr", Uniform(1e-3)),
        (schedules.edm(0.002, 80.0, 7.0), "edm", "unit", LogNormalSigma(-1.2, 1.2)),
        (COSINE, "x0", "sigmoid", LogSnrUniform(-10.0, 10.0)),
    ],
)
def test_a_normalised_objective_has_an_effective_weight_that_integrates_to_one(schedule, target, weighting, times):
    plain = objective(schedule, target, weighting, times)
    scaled = objectives.normalised(plain)
    u = (jnp.arange(2**20) + 0.5) / 2**20  # the integral over log-SNR is the mean over the measure
    weights = jax.jit(lambda t: objectives._weight_on_noise(scaled, t))(objectives.times_of(scaled, u, 1))
    assert np.asarray(weights, np.float64).mean() == pytest.approx(1.0, rel=0.01)
    chain = objective(DDPM, "noise", "min_snr", Grid(1000))
    every = jnp.arange(1, 1001)[:, None] / 1000
    weights = np.asarray(objectives._weight_on_noise(objectives.normalised(chain), every), np.float64)
    assert weights.mean() == pytest.approx(1.0, rel=1e-5)  # over the steps of a chain it is a sum
    x0, noise = jnp.ones((2, 1, 2, 2, 1)), jnp.full((2, 1, 2, 2, 1), -0.5)
    t = objectives.times_of(plain, jnp.array([0.3, 0.6]), 1)
    predict = lambda xt, log_snr: Prediction(0.1 * xt)  # noqa: E731
    losses = [objectives.loss(each, predict, x0, noise, t) for each in (scaled, plain)]
    np.testing.assert_allclose(losses[0].loss, scaled.scale * losses[1].loss, rtol=1e-6)
    np.testing.assert_array_equal(losses[0].x0_error, losses[1].x0_error)


def test_an_effective_weight_without_an_integral_cannot_be_normalised():
    """1 on the error of the velocity is 1/(1 - t)^2 on that of the noise."""
    with pytest.raises(ValueError, match="integral of the effective weight over log-SNR is not finite"):
        objectives.normalised(objective(FLOW, "flow", "unit", Uniform(1e-3)))


@pytest.mark.feature("O11")
def test_effective_weight_closed_forms():
    levels = jnp.asarray(np.linspace(-6.0, 6.0, 25), jnp.float32)
    # -1/2 d log_snr/dt times dt/d log_snr: the likelihood weighs all log-SNRs alike, whatever the schedule
    for schedule in (DDPM, VP, COSINE):
        flat = objectives.effective_weight(objective(schedule, "v", "likelihood", Uniform(1e-4)), levels)
        np.testing.assert_allclose(flat, 0.5 / (1 - 1e-4), rtol=2e-3)
    slope = np.pi / 2 - 2 * np.arctan(np.exp(-10.0))
    unit_v = objectives.effective_weight(objective(COSINE, "v", "unit", Uniform(0.0)), levels)
    np.testing.assert_allclose(unit_v, np.exp(-levels / 2) / (2 * slope), rtol=1e-4)


MEASURES = {
    "vp": (VP, Uniform(1e-3)),
    "chain": (DDPM, Grid(1000)),
    "cosine": (COSINE, Uniform(0.1)),
    "logit_normal": (COSINE, LogitNormal(0.3, 1.0, 0.3)),
    "log_snr_uniform": (VP, LogSnrUniform(-12.0, 4.0)),
    "log_normal_sigma": (COSINE, LogNormalSigma(-1.2, 1.2)),
}


@pytest.mark.feature("O11")
@pytest.mark.parametrize(("schedule", "times"), MEASURES.values(), ids=MEASURES)
def test_expected_loss_is_the_integral_of_the_effective_weight(schedule, times):
    """Two routes to the expected loss of the exact denoiser: over u through the measure, and over log-SNR through
    w_eff.
    """
    built = objective(schedule, "v", "unit", times)
    num = 2000
    u = jnp.asarray((np.arange(num) + 0.5) / num, jnp.float32)
    t = jax.jit(lambda u: times.time(schedule, u))(u)
    visited = np.asarray(log_snr_of(schedule, t), np.float64)

    def v_error(log_snr):  # 1 + SNR times that of x0, whose smallest value is known
        return (1.0 + np.exp(log_snr)) * np.array([VIDEO.minimal_error(level) for level in log_snr])

    ends = np.asarray(log_snr_of(schedule, jnp.asarray(np.float32(times.ends(schedule)))), np.float64)
    log_snrs = np.linspace(ends[1] + 1e-3, ends[0] - 1e-3, 4001)
    weight = np.asarray(objectives.effective_weight(built, jnp.asarray(log_snrs, jnp.float32)), np.float64)
    on_noise = np.exp(log_snrs) * np.array([VIDEO.minimal_error(level) for level in log_snrs])
    assert v_error(visited).mean() == pytest.approx(np.trapezoid(weight * on_noise, log_snrs), rel=5e-3)


@pytest.mark.feature("O12")
@pytest.mark.parametrize("log_snr", [-4.0, 0.0, 3.0])
def test_every_target_converts_to_every_other_and_back(log_snr):
    random = np.random.default_rng(3)
    x0, noise = (jnp.asarray(random.normal(size=(2, *VIDEO.shape)), jnp.float32) for _ in range(2))
    numbers = np.sqrt(1 / (1 + np.exp(-log_snr))), np.sqrt(1 / (1 + np.exp(log_snr))), log_snr
    level = Level(*(jnp.asarray(np.full((2, 3), number), jnp.float32) for number in numbers))
    alpha, sigma = numbers[:2]
    xt = alpha * x0 + sigma * noise
    s = sigma / alpha
    noisy = x0 + s * noise  # EDM's own x, c_skip and c_out
    edm = (x0 - STD**2 / (s**2 + STD**2) * noisy) * np.sqrt(s**2 + STD**2) / (s * STD)
    v = alpha * noise - sigma * x0
    known = {"x0": x0, "noise": noise, "score": noise, "v": v, "flow": noise - x0, "edm": edm}

    @jax.jit
    def there_and_back():
        table = {}
        for source, to in itertools.product(map(of, TARGETS), repeat=2):
            there = targets.convert(source, known[source.name], to, xt, level)
            table[source.name, to.name] = there, targets.convert(to, there, source, xt, level)
        return table, process.score_from(x0, xt, level)

    table, score = there_and_back()
    worst = np.exp(abs(log_snr) / 2)  # what float32 must lose
    for (source, to), (there, back) in table.items():
        np.testing.assert_allclose(there, known[to], atol=4e-6 * worst)
        np.testing.assert_allclose(back, known[source], atol=4e-6 * worst)
    np.testing.assert_allclose(score, -noise / sigma, atol=2e-6 * worst / sigma)


@pytest.mark.feature("O12")
@pytest.mark.parametrize("target", TARGETS)
def test_error_identities(target):
    """At one xt: noise error = SNR x0 error, v error = (1 + SNR) x0 error (variance preserving), from the values
    themselves.
    """
    t, snr = np.array([0.3]), 1.0 / np.expm1(0.1 * 0.3 + 9.95 * 0.09)
    of_flow, of_edm = (1.0 + snr**0.5) ** 2, snr + 1.0 / STD**2
    ratio = {"x0": 1.0, "noise": snr, "score": snr, "v": 1.0 + snr, "flow": of_flow, "edm": of_edm}[target]
    predict, built = network(target, blend), objective(target=target, weighting="unit")
    x0, noise = VIDEO.moment_design()

    @jax.jit
    def through_the_denoiser(t):
        level = schedules.level(VP, t)
        estimate = objectives.denoiser(built, predict)(process.diffuse(x0, noise, level), level)
        return ((estimate - x0) ** 2).mean()

    with jax.enable_x64(True):
        losses = jax.tree.map(float, jax.tree.map(np.squeeze, design_losses(built, predict, t)))
        x0_error = float(through_the_denoiser(jnp.asarray(everywhere(0.3))))
    assert losses.loss / losses.x0_error == pytest.approx(ratio, rel=1e-6)
    assert losses.noise_error / losses.x0_error == pytest.approx(snr, rel=1e-6)
    assert losses.x0_error == pytest.approx(x0_error, rel=1e-6)


@pytest.mark.feature("O12")
@pytest.mark.parametrize("weighting", ["simple", "likelihood", "min_snr"])
def test_gradients_are_equal_where_weights_are_matched(weighting):
    with jax.enable_x64(True):
        x0, noise = VIDEO.moment_design()
        t = jnp.asarray(np.tile([0.01, 0.3, 1.0], (24, 1)))

        def gradient(target):
            def mean_loss(weight):
                denoise = lambda xt, level: blend(xt, level, weight)  # noqa: E731
                return objectives.loss(
                    objective(VP, target, weighting), network(target, denoise), x0, noise, t
                ).loss.mean()

            return float(jax.jit(jax.grad(mean_loss))(0.7))

        gradients = [gradient(target) for target in TARGETS]
    np.testing.assert_allclose(gradients, gradients[0], rtol=1e-9)


def test_input_has_unit_variance_at_every_level():
    """With data of variance data_std^2 the network's input has variance 1, also where alpha^2 + sigma^2 is not 1."""
    white = GaussianVideo(variance=STD**2, frame_correlation=0.0, pixel_correlation=0.0)
    x0, noise = white.moment_design()
    for schedule in (VP, FLOW):
        level = schedules.level(schedule, jnp.asarray(np.tile(np.float32([0.01, 0.5, 1.0]), (24, 1))))
        shown = np.asarray(objectives.scaled(process.diffuse(x0, noise, level), level, STD)).reshape(24, -1)
        np.testing.assert_allclose(shown.T @ shown / 24, np.eye(12), atol=1e-5)


@pytest.mark.parametrize("target", ["v", "x0"])
@pytest.mark.parametrize(("weighting", "factor"), [("unit", 1.0), ("simple", 0.0)])
def test_no_signal_at_all_is_fine_for_v_and_x0(target, weighting, factor):
    """At t = 1 of the flow schedule xt is the noise and v = -x0, so a network that says zero errs by the data's
    variance.
    """
    losses = design_losses(
        objective(FLOW, target, weighting), lambda xt, log_snr: Prediction(0.0 * xt), np.float32([1.0])
    )
    assert losses.loss[0] == pytest.approx(factor * VIDEO.variance, rel=1e-5)


@pytest.mark.feature("O6", "O18")
def test_weights_of_the_bound_stay_finite_without_any_signal():
    """On the v error, for which a level without signal is one like others: on the x0 error the likelihood has -1/2
    dSNR/dt, (1 - t)/t^3 on the flow schedule, the sigmoid twice that by its own, and a chain T/2 of its fall of SNR.
    """
    t = np.float32([0.5, 0.99, 1.0])
    share = 1.0 / (1.0 + np.exp(2.0 * np.log((1.0 - t[:2].astype(float)) / t[:2]) - 1.0))
    rate = (1.0 - t) / t**3
    for weighting, weight in (("likelihood", rate), ("sigmoid", 2.0 * rate * np.append(share, 1.0) * (1.0 - 1e-3))):
        losses = design_losses(objective(FLOW, "v", weighting), SOME, t)
        np.testing.assert_allclose(losses.loss, weight * losses.x0_error, rtol=1e-4)
    steps, ends = 10, np.array([9, 10]) / 10
    alpha = np.cos(np.pi / 2 * np.arange(1, 11) / 10)  # of the cosine, whose last is zero already
    snr = alpha**2 / (1.0 - alpha**2)
    chain = schedules.discretised(schedules.cosine(-40.0, 40.0), steps)
    losses = design_losses(objective(schedules.zero_terminal(chain), "v", "vlb", Grid(steps)), SOME, np.float32(ends))
    np.testing.assert_allclose(losses.loss, steps / 2 * (snr[-3:-1] - snr[-2:]) * losses.x0_error, rtol=1e-4)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: objective(VP, times=Uniform(0.0)), "no noise .*raise times.uniform.min"),
        (lambda: objective(FLOW, "noise"), "at t = 1 noise does not determine x0; predict v or x0"),
        (lambda: objective(DDPM, times=Grid(500)), "num_steps is 500, but the schedule is a chain of 1000"),
        (lambda: Objective(VP, of("v"), made("unit"), Uniform(1e-3), 0.0), "data_std must be positive"),
        (
            lambda: Objective(VP, of("v"), Weighting("endless", None, lambda schedule, t: -jnp.log(1 - t)), EVEN, STD),
            "at t = 1 weighting endless is not finite on the error of v; take another",
        ),
        *(
            (
                functools.partial(objective, ZERO_CHAIN, "v", name, Grid(10)),
                f"at t = 1 weighting {name} gives no weight",
            )
            for name in ("simple", "likelihood", "min_snr", "p2", "sigmoid")
        ),
        (lambda: objective(FLOW, "v", "min_snr"), "at t = 1 weighting min_snr gives no weight"),
        *(
            (functools.partial(made, "min_snr", gamma=gamma, power=power), r"gamma > 0 and power in \(0, 1\]")
            for gamma, power in ((0.0, 1.0), (-1.0, 1.0), (5.0, 0.0), (5.0, -0.5), (5.0, 2.0))
        ),
        (lambda: objective(VP, "v", "vlb"), "VPLinear has none: set schedule.discretise"),
        (lambda: objective(Rising()), "log-SNR rises"),
        (lambda: objective(schedules.zero_terminal(VP), "noise"), "noise does not determine x0; predict v or x0"),
        (lambda: objective(schedules.zero_terminal(VP), "v", "min_snr"), "min_snr gives no weight"),
        (lambda: objective(COSINE, "v", times=LogSnrUniform(30.0, 40.0)), "leaves no level"),
        (lambda: LogitNormal(0.0, -1.0, 0.1), "logit_normal needs std > 0"),
        (lambda: LogSnrUniform(1.0, 0.0), "log_snr_uniform needs finite min < max"),
        (lambda: LogNormalSigma(0.0, 0.0), "log_normal_sigma needs std > 0"),
        (lambda: made("p2", k=0.0, gamma=1.0), "p2 needs k > 0"),
        (lambda: Uniform(1.0), r"times.uniform.min must be in \[0, 1\)"),
        (lambda: Grid(0), "at least 1"),
    ],
)
def test_impossible_objectives_are_refused(build, said):
    with pytest.raises(ValueError, match=said):
        build()


@pytest.mark.parametrize("name", ["unit", "v", "edm", "flow", "vlb"])
def test_these_weigh_the_last_step_of_a_chain_without_signal(name):
    objective(ZERO_CHAIN, "v", name, Grid(10))


@pytest.mark.parametrize("times", [times for _, times in MEASURES.values()], ids=MEASURES)
def test_every_number_from_zero_on_is_a_level_with_a_density(times):
    """Also u = 0, the noisy end, and the largest float32 below 1; inside of the ends that were checked."""
    schedule = DDPM if isinstance(times, Grid) else schedules.cosine(-9.0, 9.0)
    u = jnp.asarray(np.float32([0.0, 1e-7, 0.5, 1.0 - 2.0**-24]))
    t = np.asarray(jax.jit(lambda u: times.time(schedule, u))(u))
    smallest, largest = times.ends(schedule)
    assert smallest - 1e-6 <= t.min() and t.max() <= largest + 1e-6
    density = jax.jit(lambda t: times.density(schedule, t))(jnp.asarray(t))
    assert np.all(np.isfinite(density)) and np.all(np.asarray(density) > 0.0)


@pytest.mark.feature("O2")
def test_measures_visit_what_they_say():
    u = jnp.asarray(np.arange(2**16) / 2**16, jnp.float32)
    continuous, discrete = np.asarray(Uniform(1e-3).time(VP, u)), np.asarray(Grid(64).time(VP, u))
    assert continuous.min() > 1e-3
    assert continuous.max() == 1.0
    np.testing.assert_array_equal(np.unique(discrete * 64, return_counts=True), [np.arange(1, 65), np.full(64, 1024)])
    assert np.abs(discrete - continuous).max() <= 1 / 64 + 1e-3
