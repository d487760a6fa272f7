"""Completion against Gaussian video, whose conditional distributions are known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracles.gaussian_video import GaussianVideo
from vdm.diffusion import objectives, samplers, schedules
from vdm.diffusion.objectives import Objective
from vdm.diffusion.samplers import Ancestral, Heun, grids
from vdm.diffusion.targets import TARGETS
from vdm.diffusion.times import Uniform
from vdm.diffusion.weightings import WEIGHTINGS
from vdm.tasks import completion
from vdm.tasks.completion import Task, completed
from vdm.types import Prediction

VIDEO = GaussianVideo(num_frames=5, height=1, width=2)
FRAMES, PIXELS = 5, 2
COSINE = schedules.cosine(-20.0, 20.0)
TASKS = {
    "generation": completion.generation(FRAMES),
    "prediction": completion.prediction(2, FRAMES),
    "animation": completion.prediction(1, FRAMES),
    "back-prediction": completion.back_prediction(2, FRAMES),
    "infilling": completion.infilling(1, 1, FRAMES),
    "interpolation": completion.interpolation(2, FRAMES),
    "any": completion.chosen((1, 4), FRAMES),
}


def of_pixels(frames):
    return [frame * PIXELS + pixel for frame in frames for pixel in range(PIXELS)]


def exact_conditional(task):
    """(the matrix from given pixels to the mean of wanted ones, the covariance of these)."""
    a, b, k = of_pixels(task.given), of_pixels(task.wanted), VIDEO.covariance
    gain = k[np.ix_(b, a)] @ np.linalg.inv(k[np.ix_(a, a)])
    return gain, k[np.ix_(b, b)] - gain @ k[np.ix_(a, b)]


@jax.jit
def response(given):
    """What the flow makes of every unit start, and of every unit given pixel from a start of zeros; it is linear."""
    size = FRAMES * PIXELS
    unit = jnp.concatenate([jnp.eye(size), jnp.zeros((size, size))]).reshape(2 * size, *VIDEO.shape)
    start, x0 = unit, unit[::-1]
    denoise = completed(VIDEO.denoise, jnp.tile(given, (2 * size, 1)), x0)
    times = grids.uniform(COSINE, 200, 1e-3)
    clips = samplers.sample(denoise, COSINE, Heun(), times, start, lambda index: jnp.zeros_like(start))
    of_start, of_x0 = jnp.split(clips.reshape(2 * size, size), 2)
    return of_start.T, of_x0[::-1].T


@pytest.mark.feature("X2")
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_task_is_sampled_from_its_exact_conditional(task):
    of_start, of_x0 = (np.asarray(matrix, np.float64) for matrix in response(task.is_given(1)[0]))
    a, b = of_pixels(task.given), of_pixels(task.wanted)
    gain, covariance = exact_conditional(task)
    np.testing.assert_allclose(of_x0[np.ix_(b, a)], gain, atol=2e-3)
    np.testing.assert_allclose(of_start[b] @ of_start[b].T, covariance, atol=2e-3)
    np.testing.assert_array_equal(of_x0[a], np.eye(FRAMES * PIXELS)[a])  # given pixels come back as they are
    np.testing.assert_array_equal(of_start[a], 0.0)
    assert not of_x0[:, b].any()  # wanted frames of x0 are not read


@pytest.mark.feature("X1")
def test_given_frames_come_back_unchanged_from_a_sampler_with_noise():
    x0 = VIDEO.sample(jax.random.key(0), 3)
    given = jnp.array([[True, False, False, True, False], [False] * 5, [True, True, True, True, False]])
    denoise = completed(VIDEO.denoise, given, x0)
    times = grids.uniform(COSINE, 7, 1e-3)

    @jax.jit
    def draw(key):
        noise = lambda index: jax.random.normal(jax.random.fold_in(key, index), x0.shape)  # noqa: E731
        return samplers.sample(denoise, COSINE, Ancestral(0.0), times, noise(100), noise)

    clips = draw(jax.random.key(1))
    np.testing.assert_array_equal(clips[given], x0[given])
    assert (np.abs(clips[~given] - x0[~given]) > 1e-3).all()


def objective(target, weighting="unit"):
    return Objective(COSINE, TARGETS[target](0.5), WEIGHTINGS[weighting](0.5), Uniform(1e-3), data_std=0.5)


@pytest.mark.feature("X1")
@pytest.mark.parametrize("target", TARGETS)
def test_the_loss_is_that_of_the_wanted_frames_alone(target):
    """For a network that looks at single frames it is the loss of clips that consist of the wanted frames."""
    random = np.random.default_rng(0)
    x0, noise = (jnp.asarray(random.normal(size=(3, *VIDEO.shape)), jnp.float32) for _ in range(2))
    given = jnp.array([[True, False, False, True, False]] * 3)
    t = jnp.asarray(random.uniform(0.01, 1.0, (3, FRAMES)), jnp.float32)
    seen = {}

    def predict(gain, xt, log_snr):
        seen.update(xt=xt, log_snr=log_snr)
        return Prediction(gain * jnp.tanh(xt + 0.1 * jnp.tanh(log_snr)[..., None, None, None]))

    def loss(gain, *of):
        return objectives.loss(objective(target), lambda *shown: predict(gain, *shown), *of)

    whole = loss(0.7, x0, noise, t, given)
    np.testing.assert_allclose(np.asarray(seen["xt"])[given], x0[given] / 0.5, rtol=1e-6)
    assert (np.asarray(seen["log_snr"])[given] == np.inf).all() and np.isfinite(
        np.asarray(seen["log_snr"])[~given]
    ).all()
    wanted = [leaf[:, np.array([1, 2, 4])] for leaf in (x0, noise, t)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, loss(0.7, *wanted))

    def total(gain):
        return loss(gain, x0, noise, t, given).loss.sum()

    gradient = jax.grad(total)(jnp.full((3, FRAMES, 1, 1, 1), 0.7))
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(np.asarray(gradient)[given], 0.0)
    assert np.all(np.asarray(gradient)[~given] != 0.0)


@pytest.mark.feature("X1")
def test_a_linear_network_learns_the_exact_conditional_mean():
    """The mean loss over exact second moments is least at the mean of x0 given both the noisy and the given frames."""
    x0, noise = VIDEO.moment_design()
    task, t = TASKS["any"], 0.4
    given = task.is_given(len(x0))
    with jax.enable_x64(True):
        t = jnp.full((1, 1), t)
        level = schedules.level(COSINE, t)
        alpha, sigma = float(level.alpha[0, 0]), float(level.sigma[0, 0])
    b = of_pixels(task.wanted)
    scale = np.ones(FRAMES * PIXELS)
    scale[b] = alpha
    noisy = scale[:, None] * VIDEO.covariance * scale + np.diag(
        [sigma**2 if i in b else 0.0 for i in range(scale.size)]
    )
    best = VIDEO.covariance * scale @ np.linalg.inv(noisy)
    shown = np.full(scale.size, 1.0 / 0.5)  # how the network's input is scaled: data_std 0.5
    shown[b] = 1.0 / np.hypot(0.5 * alpha, sigma)

    def loss(matrix):
        def predict(xt, log_snr):
            flat = xt.reshape(len(xt), -1) / shown
            return Prediction((flat @ matrix.T).reshape(xt.shape))

        times = jnp.full(x0.shape[:2], 0.4)
        return objectives.loss(objective("x0"), predict, x0, noise, times, given).loss.mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(best, jnp.float32))
    assert np.abs(gradient).max() < 1e-5
    smaller = VIDEO.covariance[np.ix_(b, b)] - (best @ (scale[:, None] * VIDEO.covariance))[np.ix_(b, b)]
    assert float(value) == pytest.approx(np.trace(smaller) / len(b), rel=1e-4)
    off = jax.grad(loss)(jnp.asarray(0.9 * best, jnp.float32))
    assert np.abs(off).max() > 1e-3


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Task((0, 1), (), (0, 1)), "wants nothing"),
        (lambda: Task((0, 1), (1, 2), (0, 1, 2)), "names a frame twice"),
        (lambda: Task((0,), (1, 3), (0, 1, 2)), "has frames 0 to 2 alone"),
        (lambda: Task((0,), (1,), (0, 1, 2)), "leaves frames out"),
        (lambda: Task((0,), (1, 2), (0, 5, 3)), "needs positions that rise"),
        (lambda: Task((0,), (1, 2), (-1, 0, 3)), "from 0 or more"),
        (lambda: completion.prediction(0, 4), "num_given is 0; give 1 frame or more, or ask for generation"),
        (lambda: completion.prediction(4, 4), "wants nothing"),
        (lambda: completion.infilling(1, 0, 4), "num_future is 0"),
        (lambda: completion.back_prediction(5, 4), "alone"),
        (lambda: completion.interpolation(1, 4), "a stride of 2 frames or more, got 1"),
    ],
)
def test_impossible_tasks_are_refused(build, said):
    with pytest.raises(ValueError, match=said):
        build()
