"""Convolution, norms, patches: each against a form that does not share its code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.nets import tiny
from vdm.nets import module
from vdm.nets.blocks import NORMS, RESAMPLINGS, ResidualBlock, depth_to_space, space_to_depth
from vdm.nets.linear import Conv, TransposedConv


def video(height, width, channels=4, frames=3, seed=0):
    return jax.random.normal(jax.random.key(seed), (2, frames, height, width, channels))


def part_of(build):
    """The jitted call of a part, and parameters for it."""
    part = module.split("part", build)
    return jax.jit(part.call), tiny.randomised(jax.eval_shape(part.init, jax.random.key(0)))


def value_and_pullback(function):
    @jax.jit
    def both(params, x):
        value, pullback = jax.vjp(function, params, x)
        return value, pullback(jnp.cos(value))

    return both


@pytest.mark.feature("A1")
@pytest.mark.parametrize(("height", "width", "stride"), [(5, 4, 1), (4, 6, 2), (2, 2, 1), (2, 1, 1), (1, 1, 1)])
def test_the_folded_convolution_is_the_1x3x3_convolution(height, width, stride):
    call, params = part_of(lambda rngs: Conv(4, 6, rngs, stride=stride))
    x = video(height, width)

    def three_dimensional(params, x):
        layout = ("NDHWC", "DHWIO", "NDHWC")
        kernel = params["kernel"][None]
        y = jax.lax.conv_general_dilated(x, kernel, (1, stride, stride), "SAME", dimension_numbers=layout)
        return y + params["bias"]

    given, expected = value_and_pullback(call)(params, x), value_and_pullback(three_dimensional)(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), given, expected)


def test_the_transposed_convolution_is_the_transpose():
    """Of the 4x4 convolution with stride 2, as `jax.linear_transpose` gives it; with its gradients."""
    call, params = part_of(lambda rngs: TransposedConv(4, 6, rngs))
    x = video(3, 5)

    def transposed(params, x):
        kernel = jnp.swapaxes(params["kernel"], 2, 3)  # of the convolution: from 6 channels to 4

        def convolve(wide):
            layout = ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(wide, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=layout)

        wide = jax.ShapeDtypeStruct((6, 6, 10, 6), jnp.float32)
        (y,) = jax.linear_transpose(convolve, wide)(x.reshape(6, 3, 5, 4))
        return y.reshape(2, 3, 6, 10, 6) + params["bias"]

    given, expected = value_and_pullback(call)(params, x), value_and_pullback(transposed)(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), given, expected)


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_group_norm_in_float64(offset):
    """With the offset, the mean of squares minus the square of the mean would keep two digits in float32."""
    call, params = part_of(lambda _: NORMS["group"](8, 4))
    x = np.asarray(video(5, 4, channels=8) + offset, np.float64)
    grouped = x.reshape(2, 3, 5, 4, 4, 2)
    mean, variance = (moment(axis=(2, 3, 5), keepdims=True) for moment in (grouped.mean, grouped.var))
    expected = ((grouped - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape)
    expected = expected * np.asarray(params["scale"]) + np.asarray(params["bias"])
    np.testing.assert_allclose(call(params, jnp.asarray(x, jnp.float32)), expected, atol=1e-5 + 1e-6 * offset)


def test_rms_norm_gives_unit_mean_square_in_every_pixel():
    call, params = part_of(lambda _: NORMS["rms"](8, 1))
    y = call(params, 50 * video(5, 4, channels=8)) / params["scale"]
    np.testing.assert_allclose(jnp.mean(y**2, axis=-1), 1.0, rtol=1e-5)


def test_layer_norm_gives_mean_zero_and_variance_one_in_every_pixel():
    call, params = part_of(lambda _: NORMS["layer"](8, 1))
    y = call(params, 50 * video(5, 4, channels=8) + 7) / params["scale"]
    np.testing.assert_allclose(jnp.mean(y, axis=-1), 0.0, atol=1e-5)
    np.testing.assert_allclose(jnp.var(y, axis=-1), 1.0, rtol=1e-4)


@pytest.mark.parametrize("name", NORMS)
def test_norms_compute_in_float32_and_look_at_one_frame(name):
    call, params = part_of(lambda _: NORMS[name](8, 4))
    x = video(4, 4, channels=8).astype(jnp.bfloat16)
    y = call(params, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, call(params, x.astype(jnp.float32)).astype(jnp.bfloat16))
    other = call(params, x.at[:, 1].multiply(3).at[:, 1, 0].add(1))
    np.testing.assert_array_equal(np.asarray(y == other).all(axis=(0, 2, 3, 4)), [True, False, True])


def test_patches_go_back_where_they_came_from():
    x = video(6, 4)
    patches = space_to_depth(x, 2)
    assert patches.shape == (2, 3, 3, 2, 16)
    np.testing.assert_array_equal(depth_to_space(patches, 2), x)
    np.testing.assert_array_equal(patches[:, :, 1, 0], x[:, :, 2:4, 0:2].reshape(2, 3, 16))


@pytest.mark.parametrize("name", RESAMPLINGS)
def test_resampling_keeps_places(name):
    """One pixel is felt at its own place of the other resolution, and no further than a 3x3 kernel reaches."""
    down, up = RESAMPLINGS[name]
    for direction, size in ((down, 8), (up, 4)):
        call, params = part_of(lambda rngs, direction=direction: direction(4, rngs))
        x = video(size, size)
        changed = call(params, x) != call(params, x.at[0, 1, 2, 2].add(1.0))
        assert changed.shape[2:4] == ((4, 4) if direction is down else (8, 8))
        assert not changed[1].any() and not changed[0, [0, 2]].any()
        rows, columns = (set(np.unique(axis).tolist()) for axis in np.nonzero(changed[0, 1].any(axis=-1)))
        own = {1} if direction is down else {4, 5}
        assert rows == columns
        assert own <= rows <= set(range(min(own) - 1, max(own) + 2))


def test_kernels_keep_the_variance_at_init():
    rngs = nnx.Rngs(params=0)
    x = video(16, 16, channels=32)
    assert abs(float(jnp.std(Conv(32, 32, rngs)(x)[:, :, 1:-1, 1:-1])) - 1) < 0.1


def test_dropout_keeps_the_mean():
    """What follows it in the block is linear, so over many keys the block's output has the mean that it has without."""
    build = functools.partial(ResidualBlock, 4, 4, 2, norm="rms", groups=1, embedding="add", dropout=0.5)
    call, params = part_of(lambda rngs: build(rngs=rngs))
    x, embedding = video(3, 3), jnp.ones((2, 3, 2))
    expected = call(params, x, embedding, None) - x
    keys = jax.random.split(jax.random.key(0), (500, 2, 3))
    mean = jax.vmap(call, (None, None, None, 0))(params, x, embedding, keys).mean(axis=0) - x
    assert abs(float(jnp.vdot(mean, expected) / jnp.vdot(expected, expected)) - 1) < 0.03
