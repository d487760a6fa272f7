"""Overlapping windows on AR(1) video, of which a window knows all but what lies beyond it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracles.gaussian_video import GaussianVideo
from vdm.diffusion import samplers, schedules
from vdm.diffusion.samplers import Heun, grids
from vdm.tasks.codenoising import codenoised

WINDOW = GaussianVideo(num_frames=6, height=1, width=1)
COSINE = schedules.cosine(-20.0, 20.0)
LENGTH = 18


def covariance_of(denoise, num_frames):
    """Of the clips that the flow makes: it is linear, so that unit starts tell it."""

    @jax.jit
    def response():
        start = jnp.eye(num_frames).reshape(num_frames, num_frames, 1, 1, 1)
        times = grids.uniform(COSINE, 100, 1e-3)
        return samplers.sample(denoise, COSINE, Heun(), times, start, lambda index: jnp.zeros_like(start))

    made = np.asarray(response(), np.float64).reshape(num_frames, num_frames)
    return made.T @ made


@pytest.mark.feature("X6")
def test_the_mean_is_the_least_squares_solution_of_all_windows():
    """By numpy's solver: one unknown for every frame, an equation for every frame of every window."""
    weights = [1.0, 2.0, 3.0, 3.0, 2.0, 1.0]
    xt = jax.random.normal(jax.random.key(0), (2, 11, 1, 1, 1))
    t = jnp.full((2, 11), 0.5)
    level = schedules.level(COSINE, t)
    merged = codenoised(WINDOW.denoise, 6, 4, weights)(xt, level)
    starts = [0, 4, 5]  # and one that ends with the clip
    rows, values = [], []
    for start in starts:
        frames = jnp.arange(start, start + 6)
        part = WINDOW.denoise(xt[:, frames], schedules.level(COSINE, t[:, frames]))
        rows.append(np.sqrt(weights)[:, None] * np.eye(11)[frames])
        values.append(np.sqrt(weights)[:, None] * np.asarray(part)[..., 0, 0, 0].T)
    solved = np.linalg.lstsq(np.concatenate(rows), np.concatenate(values), rcond=None)[0]
    np.testing.assert_allclose(np.asarray(merged)[..., 0, 0, 0].T, solved, rtol=1e-4, atol=1e-5)


@pytest.mark.feature("X6")
def test_it_can_be_made_where_parameters_are_traced():
    xt = jax.random.normal(jax.random.key(0), (2, 9, 1, 1, 1))

    @jax.jit
    def scaled(scale, xt):
        denoise = codenoised(lambda x, level: scale * x, 4, 2)
        return denoise(xt, schedules.level(COSINE, jnp.full((2, 9), 0.5)))

    np.testing.assert_allclose(scaled(2.0, xt), 2 * xt, rtol=1e-6)


@pytest.mark.feature("X6")
def test_one_window_is_the_plain_sampler():
    exact = WINDOW.covariance
    np.testing.assert_allclose(covariance_of(codenoised(WINDOW.denoise, 6, 3), 6), exact, atol=2e-3)


@pytest.mark.feature("X6")
def test_seams_are_seen_without_overlap_and_fall_with_it():
    """The variance of the step between neighbours: 2 (1 - rho) K within a window, and 2 K where nothing joins two."""

    def jumps(stride):
        made = covariance_of(codenoised(WINDOW.denoise, 6, stride), LENGTH)
        return np.array([made[i, i] + made[i + 1, i + 1] - 2 * made[i, i + 1] for i in range(LENGTH - 1)])

    variance, within = WINDOW.variance, 2 * (1 - WINDOW.frame_correlation) * WINDOW.variance
    apart = jumps(6)
    np.testing.assert_allclose(apart[[5, 11]], 2 * variance, atol=5e-3)
    np.testing.assert_allclose(np.delete(apart, [5, 11]), within, atol=5e-3)
    joined, more = jumps(3), jumps(1)
    assert joined.max() < 0.6 * apart.max() and more.max() < joined.max()


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: codenoised(WINDOW.denoise, 6, 7), "6 frames that are 7 apart; give a stride in \\[1, 6\\]"),
        (lambda: codenoised(WINDOW.denoise, 6, 0), "give a stride"),
        (lambda: codenoised(WINDOW.denoise, 6, 3, [1.0] * 5), "give as many, all above 0"),
        (lambda: codenoised(WINDOW.denoise, 3, 3, [1.0, 0.0, 1.0]), "give as many, all above 0"),
    ],
)
def test_impossible_windows_are_refused(build, said):
    with pytest.raises(ValueError, match=said):
        build()


def test_a_clip_shorter_than_a_window_is_refused():
    xt = jnp.zeros((1, 4, 1, 1, 1))
    with pytest.raises(ValueError, match="a clip of 4 frames is shorter than a window of 6"):
        codenoised(WINDOW.denoise, 6, 3)(xt, schedules.level(COSINE, jnp.full((1, 4), 0.5)))
