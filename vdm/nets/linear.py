"""Dense layers and convolutions, in the type of their input, with float32 kernels and float32 gradients of them.

In bfloat16 the compiler would round a kernel's gradient before devices add theirs up; here the products of a gradient
are added in float32, over the batch and over devices. That rule is one of reverse mode: where forward mode is needed
(the likelihood of the flow), the network must compute in float32, and no kernel be split over `fsdp` (gathering one has
such a rule too).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from vdm.nets.fold import fold, unfold
from vdm.nets.remat import PRODUCT

Features = Float[Array, "batch frames _height _width _channels"]  # a leading underscore: not checked to stay the same
Rows = Float[Array, "rows _height _width _channels"]
Matrix = Float[Array, "channels_in channels_out"]
Kernel = Float[Array, "_size _size channels_in channels_out"]

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_INITIAL = jax.nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
_ZEROS = jax.nn.initializers.zeros


class Dense(nnx.Module):
    """`dense` with parameters. `zero`: starts at zero."""

    def __init__(self, channels_in: int, channels_out: int, rngs: nnx.Rngs, *, zero: bool = False, bias: bool = True):
        initial = _ZEROS if zero else _INITIAL
        self.kernel = nnx.Param(initial(rngs.params(), (channels_in, channels_out)))
        self.bias = nnx.Param(jnp.zeros(channels_out)) if bias else None

    def __call__(
        self, x: Float[Array, "batch frames *space channels_in"]
    ) -> Float[Array, "batch frames *space channels_out"]:
        return dense(x, self.kernel[...], self.bias)


class Conv(nnx.Module):
    """1 x size x size convolution, zero padding, as 2-D over (batch x frames), in its input's type.

    `zero`: starts at zero.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        rngs: nnx.Rngs,
        *,
        size: int = 3,
        stride: int = 1,
        zero: bool = False,
    ):
        self.stride = stride
        initial = _ZEROS if zero else _INITIAL
        self.kernel = nnx.Param(initial(rngs.params(), (size, size, channels_in, channels_out)))
        self.bias = nnx.Param(jnp.zeros(channels_out))

    def __call__(self, x: Features) -> Features:
        tiny = self.kernel.shape[0] == 3 and self.stride == 1 and max(x.shape[2:4]) <= 2
        kernel = self.kernel[...]
        rows = _convolve_tiny(fold(x), kernel) if tiny else convolve(fold(x), kernel, self.stride)
        return unfold(checkpoint_name(add_bias(rows, self.bias[...]), PRODUCT), x.shape[1])


class TransposedConv(nnx.Module):
    """The transpose of a 1x4x4 convolution with stride 2: doubles height and width."""

    def __init__(self, channels_in: int, channels_out: int, rngs: nnx.Rngs):
        self.kernel = nnx.Param(_INITIAL(rngs.params(), (4, 4, channels_in, channels_out)))
        self.bias = nnx.Param(jnp.zeros(channels_out))

    def __call__(self, x: Features) -> Features:
        rows = add_bias(_spread(fold(x), self.kernel[...]), self.bias[...])
        return unfold(checkpoint_name(rows, PRODUCT), x.shape[1])


def dense(
    x: Float[Array, "batch frames *space channels_in"], kernel: Matrix, bias: nnx.Param | None = None
) -> Float[Array, "batch frames *space channels_out"]:
    """Linear map of the last axis, in its input's type.

    Computed as one product of two matrices: with all axes kept, the gradient costs 1.6 to 3 times as much on CPUs.
    """
    rows = fold(x)
    y = multiply(rows.reshape(-1, x.shape[-1]), kernel)
    y = y if bias is None else add_bias(y, bias[...])
    return unfold(checkpoint_name(y.reshape(*rows.shape[:-1], -1), PRODUCT), x.shape[1])


def add_bias(y: Float[Array, "*rows channels"], bias: Float[Array, "channels"]) -> Float[Array, "*rows channels"]:
    """y + bias in the type of y; the gradient of the bias is summed up in its own."""
    return y + jnp.broadcast_to(bias, y.shape).astype(y.dtype)


def multiply(rows: Float[Array, "rows channels_in"], matrix: Matrix) -> Float[Array, "rows channels_out"]:
    """rows @ matrix in the type of `rows`; the gradient of the matrix is computed in float32."""
    return rows @ matrix if rows.dtype == matrix.dtype else _multiply(rows, matrix)


@jax.custom_vjp
def _multiply(rows: jax.Array, matrix: jax.Array) -> jax.Array:
    return rows @ matrix.astype(rows.dtype)


def _multiply_forward(rows: jax.Array, matrix: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _multiply(rows, matrix), (rows, matrix)


def _multiply_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    rows, matrix = kept
    return gradient @ matrix.astype(rows.dtype).T, jnp.matmul(rows.T, gradient, preferred_element_type=matrix.dtype)


_multiply.defvjp(_multiply_forward, _multiply_backward)


def convolve(rows: Rows, kernel: Kernel, stride: int) -> Rows:
    """Convolution with zero padding in the type of `rows`; the gradient of the kernel is computed in float32."""
    return _convolution(rows, kernel, stride) if rows.dtype == kernel.dtype else _convolve(rows, kernel, stride)


def _convolution(rows: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return jax.lax.conv_general_dilated(rows, kernel, (stride, stride), "SAME", dimension_numbers=_LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(rows: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return _convolution(rows, kernel.astype(rows.dtype), stride)


def _convolve_forward(rows: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(rows, kernel, stride), (rows, kernel)


def _convolve_backward(
    stride: int, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    rows, kernel = kept
    of_rows = jax.linear_transpose(lambda rows: _convolution(rows, kernel.astype(rows.dtype), stride), rows)
    # d kernel[k] = sum over positions o of rows[o stride + k - low] gradient[o]: a convolution of the rows with the
    # gradient, its pixels `stride` apart; channels take the part of the batch, the batch that of the channels summed
    shape, size = np.array(rows.shape[1:3]), np.array(kernel.shape[:2])
    low = np.array(jax.lax.padtype_to_pads(shape, size, (stride, stride), "SAME"))[:, 0]
    extent = (np.array(gradient.shape[1:3]) - 1) * stride + 1
    of_kernel = jax.lax.conv_general_dilated(
        rows,
        gradient,
        window_strides=(1, 1),
        padding=list(zip(low.tolist(), (extent + size - 1 - shape - low).tolist(), strict=True)),
        rhs_dilation=(stride, stride),
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        preferred_element_type=kernel.dtype,
    )
    return of_rows(gradient)[0], of_kernel


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _convolve_tiny(rows: Rows, kernel: Kernel) -> Rows:
    """`convolve` at stride 1 of at most 2x2 pixels, where all are neighbours of all: one product of two matrices.

    The convolution spends more than half of its multiplications on the padding; on CPUs it takes ten times as long.
    """
    _, height, width, _ = rows.shape
    above, left = (np.arange(size)[:, None] - np.arange(size) + 1 for size in (height, width))  # tap [from, to]
    taps = kernel[above[:, None, :, None], left[None, :, None, :]]
    matrix = rearrange(taps, "h w y x c d -> (h w c) (y x d)")
    y = multiply(rearrange(rows, "n h w c -> n (h w c)"), matrix)
    return rearrange(y, "n (y x d) -> n y x d", y=height, x=width)


def _spread(rows: Rows, kernel: Kernel) -> Rows:
    """Every pixel times the 4x4 kernel, added up at twice its place, from one before to two after: one product of two
    matrices, where a convolution of spread pixels would multiply three zeros for every number."""
    taps = multiply(rows.reshape(-1, rows.shape[-1]), rearrange(kernel, "y x c d -> c (y x d)"))
    taps = rearrange(taps, "(n h w) (y x d) -> n h w y x d", h=rows.shape[1], w=rows.shape[2], y=4, x=4)
    for axis in (1, 2):  # the taps of what is left of them stand at axis 3
        first, second, third, fourth = jnp.unstack(taps, axis=3)
        even, odd = second + _shifted(fourth, axis, 1), third + _shifted(first, axis, -1)
        taps = jnp.stack([even, odd], axis=axis + 1).reshape(*even.shape[:axis], -1, *even.shape[axis + 1 :])
    return taps


def _shifted(x: Float[Array, "..."], axis: int, by: int) -> Float[Array, "..."]:
    """`x` moved along an axis by one place, zeros behind it."""
    before, after = max(by, 0), max(-by, 0)
    moved = jax.lax.slice_in_dim(x, after, x.shape[axis] - before, axis=axis)
    return jnp.pad(moved, [(before, after) if each == axis else (0, 0) for each in range(x.ndim)])
