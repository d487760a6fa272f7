"""What training gives has the distribution that it is called by."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.tasks.training import DISTRIBUTIONS, AnySubset, Blocks, Generation, Prediction, RandomFrames

FRAMES, DRAWS = 7, 20_000


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def drawn(distribution, num_frames=FRAMES, draws=DRAWS):
    keys = jax.random.split(jax.random.key(0), draws)
    return jax.vmap(lambda key: distribution.draw(key, num_frames))(keys)


def given_of(distribution):
    positions, given = drawn(distribution)
    np.testing.assert_array_equal(positions, np.tile(np.arange(FRAMES), (DRAWS, 1)))
    assert not np.asarray(given).all(axis=1).any()  # something is wanted
    return np.asarray(given)


def assert_share(found, share):
    """Within five standard errors."""
    np.testing.assert_allclose(np.mean(found, axis=0), share, atol=5 * np.sqrt(0.25 / DRAWS))


@pytest.mark.feature("X1")
def test_generation_and_prediction():
    assert not given_of(Generation()).any()
    np.testing.assert_array_equal(given_of(Prediction(2)), np.arange(FRAMES)[None] < np.full((DRAWS, 1), 2))


@pytest.mark.feature("X1")
def test_blocks_are_given_by_themselves():
    given = given_of(Blocks(num_past=2, num_future=1, probability=0.3))
    past, future = given[:, 0], given[:, -1]
    np.testing.assert_array_equal(given[:, 1], past)
    assert not given[:, 2:-1].any()
    assert_share(past, 0.3)
    assert_share(future, 0.3)
    assert_share(past & future, 0.09)


@pytest.mark.feature("X1")
def test_random_frames_are_none_or_any_number_of_any():
    given = given_of(RandomFrames(most=4, unconditional=0.25))
    counts = given.sum(axis=1)
    assert_share(counts[:, None] == np.arange(6), [0.25, 0.1875, 0.1875, 0.1875, 0.1875, 0.0])
    assert_share(given, 0.75 * 2.5 / FRAMES)
    assert_share(
        given[:, 0] & given[:, 5], 0.75 * np.mean([k * (k - 1) for k in range(1, 5)]) / (FRAMES * (FRAMES - 1))
    )


def harvey(random, num_frames, num_seen):
    """A clip's (seen frames, given ones), as sets, by the published recipe in plain Python."""
    seen, given = set(), set()
    while len(seen) < num_seen:
        count = random.integers(1, num_seen + 1)
        step = np.exp(random.uniform() * np.log(num_frames / (count - 1))) if count > 1 else 0.0
        first = random.uniform() * (num_frames - step * (count - 1))
        is_given = bool(seen) and random.uniform() < 0.5
        for frame in (int(first + step * i) for i in range(count)):
            if frame not in seen and len(seen) < num_seen:
                seen.add(frame)
                given |= {frame} if is_given else set()
    return seen, given


@pytest.mark.feature("X1")
def test_any_subset_has_the_frequencies_of_the_published_recipe():
    num_frames, num_seen = 12, 5
    positions, given = (np.asarray(leaf) for leaf in drawn(AnySubset(num_seen), num_frames))
    assert (np.diff(positions, axis=1) > 0).all() and positions.min() >= 0 and positions.max() < num_frames
    assert not given.all(axis=1).any()
    random = np.random.default_rng(1)
    recipe = [harvey(random, num_frames, num_seen) for _ in range(DRAWS)]
    for which, sets in zip((np.ones_like(given), given), zip(*recipe, strict=True), strict=True):
        ours = np.zeros((DRAWS, num_frames), bool)
        np.put_along_axis(ours, positions, which.astype(bool), axis=1)
        theirs = np.array([[frame in one for frame in range(num_frames)] for one in sets])
        tolerance = 5 * np.sqrt(0.5 / DRAWS)
        np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=tolerance)
        for lag in (1, 3):
            pairs = [(rows[:, lag:] & rows[:, :-lag]).mean(axis=0) for rows in (ours, theirs)]
            np.testing.assert_allclose(*pairs, atol=tolerance)


@pytest.mark.parametrize("distribution", [RandomFrames(3, 0.1), Blocks(1, 2, 0.5), AnySubset(4)])
def test_a_draw_depends_on_its_key_alone(distribution):
    draw = jax.jit(jax.vmap(lambda key: distribution.draw(key, FRAMES)))
    keys = jax.random.split(jax.random.key(3), 6)
    whole, part = draw(keys), draw(keys[4:])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[4:], b), whole, part)
    assert jax.tree.map(jnp.shape, whole) == ((6, distribution.seen(FRAMES)),) * 2


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("prediction", {"num_given": 0}, "num_given is 0; of clips of 7 frames give 1 to 6"),
        ("prediction", {"num_given": 7}, "give 1 to 6"),
        ("blocks", {"num_past": 4, "num_future": 3, "probability": 0.5}, "num_past [+] num_future is 7"),
        ("blocks", {"num_past": -1, "num_future": 3, "probability": 0.5}, "num_past -1"),
        ("blocks", {"num_past": 1, "num_future": 3, "probability": 1.5}, "probability is 1.5"),
        ("random_frames", {"most": 7, "unconditional": 0.5}, "most is 7"),
        ("random_frames", {"most": 2, "unconditional": -0.5}, "unconditional is -0.5"),
        ("any_subset", {"num_seen": 8}, "num_seen is 8"),
    ],
)
def test_impossible_distributions_are_refused(name, options, said):
    with pytest.raises(ValueError, match=said):
        DISTRIBUTIONS[name](**options).check(FRAMES)
