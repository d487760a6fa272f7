"""Noise levels are bounded and told apart; distances fall into T5's buckets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vdm.nets.embeddings import (
    MAX_DISTANCE,
    BucketBias,
    bounded_level,
    bucket,
    lag_bias,
    level_features,
    rotated,
    step_of_cosine_chain,
)


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
    buckets = np.asarray(bucket(distance, MAX_DISTANCE))
    before, after = buckets[:600][::-1], buckets[601:]  # by distance from 1 to 600
    np.testing.assert_array_equal(after, before + 16)
    np.testing.assert_array_equal(buckets[600:608], [0, *range(17, 24)])
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


def test_rotated_pairs_are_products_with_unit_complex_numbers():
    """Su et al. 2021, equation 15, of a head with more numbers than are turned; products know the distance alone."""
    x = np.random.default_rng(0).standard_normal((1, 1, 1, 3, 40)).astype(np.float32)
    index = jnp.array([[5, 6, 21]])
    pairs = x[..., :16] + 1j * x[..., 16:32]
    turned = pairs * np.exp(1j * np.array([5, 6, 21])[:, None] * 10_000.0 ** (-np.arange(16) / 16))
    found = np.asarray(rotated(jnp.asarray(x), index))
    np.testing.assert_allclose(found[..., :16] + 1j * found[..., 16:32], turned, atol=2e-6)
    np.testing.assert_array_equal(found[..., 32:], x[..., 32:])
    later = np.asarray(rotated(jnp.asarray(x), index + 30))
    np.testing.assert_allclose(*(np.einsum("...id,...jd->...ij", each, each) for each in (found, later)), atol=2e-5)


def test_steps_of_the_cosine_chain():
    """Between steps cos^2 of the angle is that of the schedule; beyond the ends the first and the last."""
    step = np.array([0.0, 3.0, 250.0, 500.5, 990.0])
    signal = (np.cos((step / 1000 + 0.009) / 1.008 * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2)) ** 2
    log_snr = jnp.asarray(np.log(signal / (1 - signal)), jnp.float32)[None]
    np.testing.assert_allclose(step_of_cosine_chain(log_snr)[0], step, atol=2e-3)
    np.testing.assert_array_equal(step_of_cosine_chain(jnp.array([[jnp.inf, 30.0, -jnp.inf]]))[0], [0.0, 0.0, 999.0])
