"""Products in bfloat16 whose kernels have float32 gradients, against automatic differentiation in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.nets import linear


def rounded(key, *shape):
    """Numbers that bfloat16 holds exactly, as float32."""
    return jax.random.normal(jax.random.key(key), shape).astype(jnp.bfloat16).astype(jnp.float32)


@pytest.mark.feature("R8")
@pytest.mark.parametrize(
    ("operation", "kernel"),
    [
        (linear.multiply, (6, 5)),
        (lambda x, kernel: linear.convolve(x.reshape(4, 7, 6, 6), kernel, 1), (3, 3, 6, 5)),
        (lambda x, kernel: linear.convolve(x.reshape(4, 7, 6, 6), kernel, 2), (3, 3, 6, 5)),
        (lambda x, kernel: linear.convolve(x.reshape(3, 8, 7, 6), kernel, 2), (3, 3, 6, 5)),
        (lambda x, kernel: linear.convolve(x.reshape(3, 8, 7, 6), kernel, 2), (4, 4, 6, 5)),
    ],
    ids=["multiply", "convolve", "odd by even at stride 2", "even by odd at stride 2", "4x4 at stride 2"],
)
def test_gradients_of_kernels_are_those_of_float32(operation, kernel):
    """On numbers that bfloat16 holds, products are exact: only the results of the low precision are rounded."""
    kernel = rounded(1, *kernel)
    x = rounded(0, 168, 6)
    exact, pull = jax.vjp(operation, x, kernel)
    given, pull_low = jax.vjp(operation, x.astype(jnp.bfloat16), kernel)
    assert given.dtype == jnp.bfloat16
    np.testing.assert_allclose(given.astype(jnp.float32), exact, rtol=2**-8, atol=1e-6)
    cotangent = rounded(2, *exact.shape)
    of_x, of_kernel = pull(cotangent)
    of_x_low, of_kernel_low = pull_low(cotangent.astype(jnp.bfloat16))
    assert of_kernel_low.dtype == jnp.float32
    np.testing.assert_allclose(of_kernel_low, of_kernel, rtol=1e-5, atol=1e-4)  # 168 terms, no rounding to 8 bits
    np.testing.assert_allclose(of_x_low.astype(jnp.float32), of_x, rtol=2**-7, atol=1e-2)


def test_the_gradient_of_a_spread_kernel_is_that_of_float32():
    """A cotangent's taps are numbers of it, so nothing is rounded before the products are summed up."""
    x, kernel = rounded(0, 12, 3, 5, 6), rounded(1, 4, 4, 6, 5)
    exact, pull = jax.vjp(linear._spread, x, kernel)
    given, pull_low = jax.vjp(linear._spread, x.astype(jnp.bfloat16), kernel)
    assert given.dtype == jnp.bfloat16
    cotangent = rounded(2, *exact.shape)
    of_kernel, of_kernel_low = pull(cotangent)[1], pull_low(cotangent.astype(jnp.bfloat16))[1]
    assert of_kernel_low.dtype == jnp.float32
    np.testing.assert_allclose(of_kernel_low, of_kernel, rtol=1e-5, atol=1e-4)


def test_the_gradient_of_a_bias_is_summed_up_in_float32():
    ones = jnp.ones((999, 3), jnp.bfloat16)
    gradient = jax.grad(lambda bias: linear.add_bias(ones, bias).astype(jnp.float32).sum())(jnp.zeros(3))
    np.testing.assert_array_equal(gradient, 999.0)  # bfloat16 has 996 and 1000
