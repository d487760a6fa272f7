"""Both attentions against one dense attention over all frames and pixels with the pattern as a mask."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from flax import nnx

from tests.nets import tiny
from vdm.nets import module
from vdm.nets.attention import LinearAttention, SpatialAttention, TemporalAttention, attention_weights

FRAMES, HEIGHT, WIDTH, CHANNELS, HEADS = 3, 2, 3, 8, 2
KINDS = {
    "spatial": functools.partial(SpatialAttention, CHANNELS, HEADS, norm="rms", groups=1),
    "temporal": functools.partial(TemporalAttention, CHANNELS, HEADS, norm="rms", groups=1, position="bucket"),
}
# heads narrower than the channels mix their values, others what values are made of
SIZES = pytest.mark.parametrize("head_dim", [4, 9])
FRAME_INDEX = jnp.array([[4, 5, 9], [0, 30, 31]])


@functools.cache
def part_of(kind, head_dim=4):
    """The jitted call of a part, and parameters for it."""
    part = module.split(kind, lambda rngs: KINDS[kind](head_dim, rngs=rngs))
    return jax.jit(part.call), tiny.randomised(jax.eval_shape(part.init, jax.random.key(0)))


def call(kind, params, x, is_image=None):
    jitted, _ = part_of(kind, params["heads"]["value"]["kernel"].shape[1] // HEADS)
    return jitted(params, x) if kind == "spatial" else jitted(params, x, FRAME_INDEX, is_image)


def clip():
    return jax.random.normal(jax.random.key(1), (2, FRAMES, HEIGHT, WIDTH, CHANNELS))


def dense_attention(params, x, mask, bias):
    """Numpy, float64, every token with every token: mask [tokens, tokens], bias [batch, tokens, tokens, heads]."""
    x = np.asarray(x, np.float64)
    tokens = rearrange(x, "b f h w c -> b (f h w) c")
    normed = tokens / np.sqrt((tokens**2).mean(-1, keepdims=True) + 1e-6) * np.asarray(params["norm"]["scale"])
    query, key, value = (
        (normed @ np.asarray(params["heads"][name]["kernel"], np.float64)).reshape(*tokens.shape[:2], HEADS, -1)
        for name in ("query", "key", "value")
    )
    logits = np.einsum("bihd,bjhd->bijh", query, key) / np.sqrt(query.shape[-1]) + bias
    weights = np.exp(logits) * mask[None, :, :, None]
    weights /= weights.sum(axis=2, keepdims=True)
    mixed = np.einsum("bijh,bjhd->bihd", weights, value).reshape(*tokens.shape[:2], -1)
    return x + (mixed @ np.asarray(params["heads"]["out"]["kernel"], np.float64)).reshape(x.shape)


def pattern(kind):
    """Row: query; column: key. Same frame, or same place (field's table of key sets)."""
    frame, place = np.divmod(np.arange(FRAMES * HEIGHT * WIDTH), HEIGHT * WIDTH)
    same = {"spatial": frame, "temporal": place}[kind]
    return same[:, None] == same[None, :]


@pytest.mark.feature("T1")
@SIZES
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_dense_attention_with_a_mask(kind, head_dim):
    _, params = part_of(kind, head_dim)
    bias = 0.0
    if (
        kind == "temporal"
    ):  # distance of key from query -> bucket, by hand: up to 7 frames one each, 16 + for later ones
        by_hand = {0: 0, 1: 17, -1: 1, 4: 20, -4: 4, 5: 21, -5: 5, 30: 16 + 11, -30: 11, 31: 16 + 11, -31: 11}
        frame = np.repeat(np.asarray(FRAME_INDEX), HEIGHT * WIDTH, axis=1)
        bucket = np.vectorize(by_hand.get)(frame[:, None, :] - frame[:, :, None])
        bias = np.asarray(params["position"]["bias"])[bucket]
    expected = dense_attention(params, clip(), pattern(kind), bias)
    assert np.abs(expected - np.asarray(clip())).max() > 0.1
    np.testing.assert_allclose(call(kind, params, clip()), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.feature("T1")
@SIZES
@pytest.mark.parametrize("kind", KINDS)
def test_the_jacobian_has_the_pattern_of_the_key_set(kind, head_dim):
    _, params = part_of(kind, head_dim)
    jacobian = jax.jit(jax.jacobian(lambda x: call(kind, params, x).sum(axis=-1)))(clip())
    first = jnp.abs(jacobian[0, :, :, :, 0]).max(axis=-1)  # of the first clip with respect to itself
    tokens = FRAMES * HEIGHT * WIDTH
    np.testing.assert_array_equal(np.asarray(first).reshape(tokens, tokens) > 0, pattern(kind))
    assert not jacobian[0, :, :, :, 1].any()  # clips do not see each other


@pytest.mark.feature("T5")
@SIZES
def test_image_mode_adds_the_value_through_the_output_map(head_dim):
    _, params = part_of("temporal", head_dim)
    value_and_out = params["heads"]["value"]["kernel"] @ params["heads"]["out"]["kernel"]
    x = clip()
    normed = x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6) * params["norm"]["scale"]
    both = call("temporal", params, x, jnp.array([True, False]))
    np.testing.assert_allclose(both[0], (x + normed @ value_and_out)[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(both[1], call("temporal", params, x)[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(2, 3), (8, 4)])  # fewer pixels than four to a channel, and as many
def test_linear_attention_is_a_matrix_of_weights_of_rank_head_dim(height, width):
    """The weights written out, in numpy: what efficient attention is there not to compute. More heads than fit."""
    part = module.split("linear", lambda rngs: LinearAttention(CHANNELS, 3, 4, rngs, norm="rms", groups=1))
    params = tiny.randomised(jax.eval_shape(part.init, jax.random.key(0)))
    clips = jax.random.normal(jax.random.key(1), (2, FRAMES, height, width, CHANNELS))
    x = np.asarray(clips, np.float64)
    pixels = rearrange(x, "b f h w c -> (b f) (h w) c")
    normed = pixels / np.sqrt((pixels**2).mean(-1, keepdims=True) + 1e-6) * np.asarray(params["norm"]["scale"])
    query, key, value = (
        (normed @ np.asarray(params["heads"][name]["kernel"], np.float64)).reshape(*pixels.shape[:2], 3, 4)
        for name in ("query", "key", "value")
    )
    query, key = np.exp(query) / np.exp(query).sum(-1, keepdims=True), np.exp(key) / np.exp(key).sum(1, keepdims=True)
    weights = np.einsum("bihd,bjhd->bhij", query, key) / np.sqrt(4)
    mixed = np.einsum("bhij,bjhd->bihd", weights, value).reshape(*pixels.shape[:2], -1)
    expected = x + (mixed @ params["heads"]["out"]["kernel"] + params["heads"]["out"]["bias"]).reshape(x.shape)
    np.testing.assert_allclose(jax.jit(part.call)(params, clips), expected, rtol=1e-5, atol=1e-5)


def test_softmax_is_in_float32_under_bfloat16_inputs():
    """Logits 256 and 257 are one number in bfloat16 (8 bits), and two in float32: weights 0.269 and 0.731."""
    query = jnp.ones((2, 4), jnp.bfloat16)
    key = jnp.array([[512.0, 0.0, 0.0, 0.0], [512.0, 2.0, 0.0, 0.0]], jnp.bfloat16)
    weights = attention_weights(query, key)[0]
    np.testing.assert_allclose(weights, [1 / (1 + np.e), np.e / (1 + np.e)], rtol=1e-6)


def test_a_module_holds_nothing_but_parameters():
    for kind in KINDS:
        leaves = jax.tree.leaves(
            nnx.split(KINDS[kind](4, rngs=nnx.Rngs(params=0)))[1], is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)
        )
        assert {type(leaf) for leaf in leaves} == {nnx.Param}
