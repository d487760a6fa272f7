"""Products of many small matrices, and a softmax, with gradients that CPUs are fast at.

Of the three forms a b, a b^T and a^T b XLA has kernels for the first two on CPUs; the third, which a product's gradient
by its second factor takes, it computes many times slower (experiments/speed/changes.md). So there the gradient's other
factor is turned first. A compiler that moves the turning into the product would bring the slow form back, which the
barriers prevent. The rules are of forward mode, and reverse mode is their transpose: both work, and under `vmap`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Pair = tuple[jax.Array, jax.Array]


@jax.custom_jvp
def dots(
    a: Float[Array, "*batch rows inner"], b: Float[Array, "*batch columns inner"]
) -> Float[Array, "*batch rows columns"]:
    """a b^T in float32."""
    return jnp.einsum("...nd,...md->...nm", a, b, preferred_element_type=jnp.float32)


@dots.defjvp
def _dots_tangent(factors: Pair, tangents: Pair) -> Pair:
    (a, b), (of_a, of_b) = factors, tangents
    by_b = jax.lax.platform_dependent(a, of_b, cpu=lambda a, of_b: _turned_late(dots(of_b, a)), default=dots)
    return dots(a, b), dots(of_a, b) + by_b


@jax.custom_jvp
def times(
    a: Float[Array, "*batch rows inner"], b: Float[Array, "*batch inner columns"]
) -> Float[Array, "*batch rows columns"]:
    """a b in the type of both."""
    return a @ b


@times.defjvp
def _times_tangent(factors: Pair, tangents: Pair) -> Pair:
    (a, b), (of_a, of_b) = factors, tangents
    by_b = jax.lax.platform_dependent(a, of_b, cpu=_times_turned, default=jnp.matmul)
    return times(a, b), of_a @ b + by_b


def _times_turned(a: jax.Array, b: jax.Array) -> jax.Array:
    """a b as (b^T a^T)^T."""
    turned = jax.lax.optimization_barrier(jnp.swapaxes(b, -1, -2))
    return _turned_late(jnp.einsum("...dm,...nm->...dn", turned, a))


def _turned_late(product: jax.Array) -> jax.Array:
    return jnp.swapaxes(jax.lax.optimization_barrier(product), -1, -2)


@jax.custom_jvp
def softmax(x: Float[Array, "*rows n"]) -> Float[Array, "*rows n"]:
    """exp(x) over its sum in the last axis, in float32.

    The gradient is that of its result, y (g - sum(y g)): half the time of the gradient of exponential, sum and division
    one by one, which `jax.nn.softmax` has unless `jax_softmax_custom_jvp` is set.
    """
    x = x.astype(jnp.float32)
    powers = jnp.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@softmax.defjvp
def _softmax_tangent(given: tuple[jax.Array], tangents: tuple[jax.Array]) -> Pair:
    y, of_x = softmax(*given), tangents[0].astype(jnp.float32)
    return y, y * (of_x - (y * of_x).sum(axis=-1, keepdims=True))
