"""The tracker on patterns whose motion is known, and what the counts of motion tell apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.metrics import frechet, moments, motion

SIZE, NUM_FRAMES = 24, 9


def drifting(positions, seed):
    """A smooth random texture, drawn at the given (row, column) displacements [frames, 2]."""
    rng = np.random.default_rng(seed)
    waves, phases = rng.normal(size=(6, 2)) * 0.35, rng.uniform(0, 2 * np.pi, 6)
    pixels = np.stack(np.mgrid[0:SIZE, 0:SIZE], -1)
    phase = np.einsum("wd,fijd->fijw", waves, pixels - np.asarray(positions)[:, None, None]) + phases
    return np.cos(phase).mean(-1)[..., None].astype(np.float32)


tracks = jax.jit(motion.Tracker().tracks)
features = jax.jit(functools.partial(motion.features))


@pytest.mark.feature("M8")
@pytest.mark.parametrize("velocity", [(0.5, 0.25), (1.0, -1.0), (2.0, 0.5), (0.0, 0.0)])
def test_tracks_a_known_velocity(velocity):
    found = np.asarray(tracks(drifting(np.arange(NUM_FRAMES)[:, None] * velocity, seed=1)))
    inside = ((found[:-1] > 3) & (found[:-1] < SIZE - 4)).all(-1)
    np.testing.assert_allclose(np.median(np.diff(found, axis=0)[inside], axis=0), velocity, atol=0.05)


def test_counts_are_by_place_and_direction():
    """One point of sixteen moves one pixel to the right in every frame, then turns and moves three up."""
    path = np.zeros((9, 16, 2))
    path[:, 5] = [[0, min(f, 4)] for f in range(9)]
    path[5:, 5, 0] = -3 * np.arange(1, 5)
    counts = jax.jit(motion.Histograms(frames=4, cells=2).of)(jnp.asarray(path, jnp.float32))
    velocity, acceleration = counts[: 2 * 4 * 8].reshape(2, 4, 8), counts[2 * 4 * 8 :].reshape(1, 4, 8)
    np.testing.assert_allclose(velocity[0, 0], [4, 0, 0, 0, 0, 0, 0, 0])  # log2(1 + 1), four times, to the right
    np.testing.assert_allclose(velocity[1, 0], [0, 0, 0, 0, 0, 0, 8, 0])  # log2(1 + 3), four times, up
    assert not velocity[:, 1:].any()
    turn = np.log2(1 + np.hypot(1, 3))  # to the left and up, once: in the fourth difference
    np.testing.assert_allclose(acceleration[0, 0].sum(), turn, rtol=1e-6)
    np.testing.assert_allclose(acceleration[0, 0, 5] + acceleration[0, 0, 6], turn, rtol=1e-6)


@pytest.mark.feature("M8")
def test_jitter_is_told_from_smooth_motion_with_the_same_frames():
    """Both sets show the same textures at the same places; in one the places come in order, in the other they jump."""
    rng = np.random.default_rng(2)

    def clips(seeds, jitter):
        turned = []
        for seed in seeds:
            velocity = rng.normal(size=2)
            steps = np.arange(NUM_FRAMES) if not jitter else np.array([0, 2, 1, 3, 5, 4, 6, 8, 7])
            turned.append(drifting(steps[:, None] * velocity / np.linalg.norm(velocity), seed))
        return moments.of(np.asarray(features(np.stack(turned))))

    smooth, other_smooth, jittery = clips(range(24), False), clips(range(24, 48), False), clips(range(48, 72), True)
    floor = frechet.distance(smooth, other_smooth)
    assert frechet.distance(smooth, jittery) > 2 * floor


def test_too_few_frames_are_refused():
    with pytest.raises(ValueError, match=r"clips of 5 frames cannot be counted.* need 6"):
        motion.features(jnp.zeros((1, 5, 8, 8, 1)))
