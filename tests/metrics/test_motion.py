"""The tracker on patterns whose motion is known, and what the counts of motion tell apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.metrics import frechet, moments, motion
from vdm.metrics.features import extractor

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
    """The frames of some clips in order, and the very same frames out of order, both against other clips in order."""
    rng = np.random.default_rng(2)

    def smooth(seeds):
        velocity = rng.normal(size=(len(seeds), 2))
        velocity /= np.linalg.norm(velocity, axis=1, keepdims=True)
        steps = np.arange(NUM_FRAMES)[:, None]
        return np.stack([drifting(steps * way, seed) for way, seed in zip(velocity, seeds, strict=True)])

    clips, others = smooth(range(24)), smooth(range(24, 48))
    jittery = clips[:, [0, 2, 1, 3, 5, 4, 6, 8, 7]]
    for one, two in zip(clips, jittery, strict=True):
        assert sorted(frame.tobytes() for frame in one) == sorted(frame.tobytes() for frame in two)

    def apart(see, number=24):
        seen = [moments.of(np.asarray(see(some[:number]))) for some in (clips, jittery, others)]
        return [frechet.distance(each, seen[2]) for each in seen[:2]]

    floor, of_motion = apart(features)
    assert of_motion > 2 * floor
    vgg16 = extractor.vgg16_frames()
    floor, of_frames = apart(jax.jit(lambda video: vgg16.features(vgg16.weights, video, "centres")), number=4)
    assert of_frames == pytest.approx(floor, rel=1e-5) and floor > 0


def test_another_tracker_is_another_extractor(monkeypatch):
    """Its settings stand in protocols where a network has the hash of its file."""
    known = extractor.tracked_motion().sha256
    assert len(known) == 64 and known == extractor.tracked_motion().sha256
    for name, change in (("Tracker", {"points": 8}), ("Histograms", {"cells": 4})):
        with monkeypatch.context() as patch:
            patch.setattr(motion, name, functools.partial(getattr(motion, name), **change))
            assert extractor.tracked_motion().sha256 != known


def test_too_few_frames_are_refused():
    with pytest.raises(ValueError, match=r"clips of 5 frames cannot be counted.* need 6"):
        motion.features(jnp.zeros((1, 5, 8, 8, 1)))
