"""Noise levels are bounded and told apart; distances fall into T5's buckets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vdm.nets.embeddings import BucketBias, bounded_level, lag_bias, level_features


def test_the_level_is_bounded_monotone_and_finite_at_both_ends():
    log_snr = jnp.array([[-jnp.inf, -40.0, -20.0, -8.0, -0.1, 0.0, 0.1, 8.0, 20.0, 40.0, jnp.inf]])
    level = bounded_level(log_snr)[0]
    assert (jnp.diff(level) > 0).all()
    np.testing.assert_array_equal(level[jnp.array([0, 5, -1])], [-1.0, 0.0, 1.0])
    assert jnp.isfinite(level_features(log_snr)).all()


def test_no_two_levels_look_alike_and_near_ones_look_near():
    log_snr = jnp.linspace(-14.0, 14.0, 281)[None]  # steps of 0.1
    features = level_features(log_snr)[0]
    distance = jnp.linalg.norm(features[:, None] - features[None], axis=-1)
    apart = jnp.abs(log_snr[0][:, None] - log_snr[0][None])
    assert distance[apart > 0.95].min() > 0.3  # of at most 2 sqrt(16) = 8
    assert distance[(apart > 0) & (apart < 0.15)].max() < 3.0


@pytest.mark.feature("A1")
def test_buckets_of_distances():
    """Raffel et al. 2020: half of the buckets a side, one a distance below 8, then logarithmic up to 128."""
    distance = jnp.arange(-600, 601)
    bucket = np.asarray(BucketBias.bucket(distance))
    before, after = bucket[:600][::-1], bucket[601:]  # by distance from 1 to 600
    np.testing.assert_array_equal(after, before + 16)
    np.testing.assert_array_equal(bucket[600:608], [0, *range(17, 24)])
    assert (np.diff(before) >= 0).all()
    edges = [int(np.searchsorted(before, k)) + 1 for k in range(9, 16)]  # the first distance of every coarse bucket
    np.testing.assert_array_equal(edges, np.ceil(8 * 16.0 ** (np.arange(1, 8) / 8)))
    assert before[-1] == 15


def test_the_bias_of_a_pair_depends_on_its_distance_alone():
    position = BucketBias(2, nnx.Rngs(params=0))
    bias = position(jnp.array([[0, 1, 2, 9], [100, 101, 102, 1000]]))
    assert bias.shape == (2, 2, 4, 4)
    np.testing.assert_array_equal(bias[0, :, :3, :3], bias[1, :, :3, :3])
    np.testing.assert_array_equal(bias[:, :, 0, 1], bias[:, :, 1, 2])
    assert jnp.abs(bias[0, :, 0, 1] - bias[0, :, 1, 0]).min() > 0  # before is not after
    assert jax.tree.leaves(position.bias)[0].shape == (32, 2)


def test_heads_that_start_at_a_lag_look_there_most():
    bias = np.asarray(lag_bias(4, nnx.Rngs(params=0))(jnp.arange(8)[None])[0])
    for head, lag in enumerate((-1, 1, -2, 2)):
        inside = [frame for frame in range(8) if 0 <= frame + lag < 8]
        assert all(bias[head, frame].argmax() == frame + lag for frame in inside)
        assert (np.sort(bias[head][inside], axis=-1)[:, :-1] == 0).all()
