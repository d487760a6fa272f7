"""Products of small matrices, and softmax: derivatives of every kind, and the forms that the compiler is handed."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.nets.products import dots, softmax, times

PLAIN = {dots: lambda a, b: jnp.einsum("...nd,...md->...nm", a, b), times: jnp.matmul}
SHAPES = {dots: ((2, 3, 5, 4), (2, 3, 6, 4)), times: ((2, 3, 5, 6), (2, 3, 6, 4))}
BOTH = pytest.mark.parametrize("product", [dots, times])


def factors(product, seed):
    keys = jax.random.split(jax.random.key(seed))
    return tuple(jax.random.normal(key, shape) for key, shape in zip(keys, SHAPES[product], strict=True))


def close(found, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, wanted)


@BOTH
def test_derivatives_are_those_of_the_plain_product(product):
    given, tangents = factors(product, 0), factors(product, 1)
    plain = PLAIN[product]
    close(jax.jvp(product, given, tangents), jax.jvp(plain, given, tangents))
    value, pull = jax.vjp(product, *given)
    close(pull(jnp.sin(value)), jax.vjp(plain, *given)[1](jnp.sin(value)))
    of_all = jax.vmap(lambda tangents: jax.jvp(product, given, tangents)[1])
    many = jax.tree.map(lambda each: jnp.stack([each, 2 * each]), tangents)
    close(of_all(many)[1], 2 * jax.jvp(plain, given, tangents)[1])


@BOTH
def test_types_are_those_of_the_factors(product):
    """In bfloat16 `dots` sums up in float32 and `times` gives the factors' type; gradients have the factors' type."""
    given = tuple(each.astype(jnp.bfloat16) for each in factors(product, 0))
    value, pull = jax.vjp(product, *given)
    assert value.dtype == (jnp.float32 if product is dots else jnp.bfloat16)
    exact = PLAIN[product](*(each.astype(jnp.float32) for each in given))
    np.testing.assert_allclose(value.astype(jnp.float32), exact, rtol=1e-6 if product is dots else 1e-2, atol=1e-2)
    assert [each.dtype for each in pull(value)] == [jnp.bfloat16, jnp.bfloat16]


def gradient_of(product):
    """Of both factors, read by what takes their columns for rows, as the rows of a layer do with heads."""

    def gradient(a, b, cotangent):
        return [jnp.sin(each).swapaxes(1, 2) for each in jax.vjp(product, a, b)[1](cotangent)]

    return gradient


@BOTH
def test_a_gradient_on_a_cpu_sums_over_no_rows_of_both_factors(product):
    """Those products are the slow ones; XLA makes them of the plain product."""

    def slow(product, plain):
        a, b = (jnp.zeros((*shape[:2], 16, 16)) for shape in SHAPES[product])
        text = jax.jit(gradient_of(plain)).lower(a, b, a).compile().as_text()
        contracted = re.findall(r"lhs_contracting_dims=\{(\d)\}, .*?rhs_contracting_dims=\{(\d)\}", text)
        assert len(contracted) == 2, text  # one of each gradient
        return ("2", "2") in contracted

    assert slow(product, PLAIN[product])
    assert not slow(product, product)


@BOTH
def test_other_platforms_get_the_plain_gradient(product):
    given = factors(product, 0)
    traced = jax.jit(gradient_of(product)).trace(*given, PLAIN[product](*given))
    barriers = {kind: traced.lower(lowering_platforms=(kind,)).as_text().count("barrier") for kind in ("cpu", "tpu")}
    assert barriers["cpu"] > 0 and barriers["tpu"] == 0, barriers


def test_softmax_and_its_derivatives_are_those_of_jax():
    """Large numbers too, whose exponentials would overflow."""
    x, tangent = (jax.random.normal(jax.random.key(seed), (3, 4, 5)) for seed in (0, 1))
    x = x.at[0].multiply(1000.0)
    close(jax.jvp(softmax, (x,), (tangent,)), jax.jvp(jax.nn.softmax, (x,), (tangent,)))
    value, pull = jax.vjp(softmax, x)
    close(pull(jnp.sin(value)), jax.vjp(jax.nn.softmax, x)[1](jnp.sin(value)))
    half = x[1:].astype(jnp.bfloat16)
    assert softmax(half).dtype == jnp.float32
    of_half = jax.grad(lambda x: jnp.sum(softmax(x) ** 2))(half)
    assert of_half.dtype == jnp.bfloat16
    exact = jax.grad(lambda x: jnp.sum(jax.nn.softmax(x) ** 2))(half.astype(jnp.float32))
    np.testing.assert_allclose(of_half.astype(jnp.float32), exact, atol=4e-3)
