"""Known answers of the generator, the law of the draws, and what each of them depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vdm.runtime import random
from vdm.runtime.random import Purpose

SHAPE = (8, 8, 3)
draw = jax.jit(random.example_noise, static_argnums=(2, 3))


@pytest.mark.smoke  # with the newest jax too
def test_words_are_the_published_threefry_vectors():
    # Random123 1.14, tests/kat_vectors: threefry2x32, 20 rounds, key 0, counter 0.
    words = random._words(jax.random.key(0, impl="threefry2x32"), 2)
    np.testing.assert_array_equal(words, np.array([0x6B200159, 0x99BA4EFE], np.uint32))


def test_noise_is_standard_normal_and_white():
    noise = np.asarray(draw(random.key(0, Purpose.NOISE, 5), jnp.arange(256), 4, SHAPE))
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    for moved in (noise[1:] * noise[:-1], noise[:, 1:] * noise[:, :-1], noise[..., 1:] * noise[..., :-1]):
        assert abs(moved.mean()) < 4 / np.sqrt(moved.size)


def test_keys_of_examples_differ_by_example_and_step_alone():
    def words(step, indices):
        keys = random.example_keys(random.key(0, random.Purpose.DROPOUT, step), jnp.asarray(indices))
        return np.asarray(jax.random.key_data(keys))

    first, swapped, later = words(3, [7, 8]), words(3, [8, 7]), words(4, [7, 8])
    np.testing.assert_array_equal(first, swapped[::-1])
    assert len(np.unique(np.concatenate([first, later]), axis=0)) == 4


def test_uniform_is_uniform_and_never_at_an_end():
    draws = np.asarray(random.example_uniform(random.key(0, Purpose.TIME), jnp.arange(20_000)))
    assert stats.kstest(draws, "uniform").pvalue > 1e-3
    ends = random._open_unit(jnp.array([0, 2**32 - 1], jnp.uint32))
    np.testing.assert_array_equal(ends, [2.0**-24, 1 - 2.0**-24])
    assert np.isfinite(random._normal(jnp.array([0, 2**32 - 1], jnp.uint32))).all()


def test_a_frame_depends_on_example_and_frame_only():
    key = random.key(3, Purpose.NOISE, 7)
    whole = draw(key, jnp.arange(6), 5, SHAPE)
    picked = jnp.array([4, 1])
    np.testing.assert_array_equal(draw(key, picked, 3, SHAPE), whole[picked, :3])


@pytest.mark.parametrize("other", [(4, Purpose.NOISE, 7), (3, Purpose.SAMPLE_NOISE, 7), (3, Purpose.NOISE, 8)])
def test_seed_purpose_and_step_all_change_the_noise(other):
    indices = jnp.arange(2)
    noise = draw(random.key(3, Purpose.NOISE, 7), indices, 2, SHAPE)
    changed = draw(random.key(*other), indices, 2, SHAPE)
    assert abs(np.corrcoef(noise.ravel(), changed.ravel())[0, 1]) < 4 / np.sqrt(noise.size)


def test_the_step_may_be_traced():
    traced = jax.jit(lambda step: random.key(1, Purpose.TIME, step))(jnp.int32(9))
    assert jax.random.key_data(traced).tolist() == jax.random.key_data(random.key(1, Purpose.TIME, 9)).tolist()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range_is_an_error(seed):
    with pytest.raises(ValueError, match="seed"):
        random.key(seed, Purpose.INIT)
