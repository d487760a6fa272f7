"""FLOPs on the jaxpr against formulas by hand, and against XLA's analysis of single operations, where it is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.costs import jaxpr


def _ones(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _convolution(strides=(1, 1), padding="SAME", holes=None, spread=None, groups=1, batch_groups=1):
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            strides,
            padding,
            lhs_dilation=holes,
            rhs_dilation=spread,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
            batch_group_count=batch_groups,
        )

    return convolve


def test_a_product_is_two_flops_a_pair_and_its_gradient_two_products_more():
    def loss(a, b):
        return (a @ b).sum()

    arguments = _ones(4, 5), _ones(5, 6)
    assert jaxpr.work(lambda a, b: a @ b, *arguments).flops == 2 * 4 * 5 * 6
    assert jaxpr.work(jax.value_and_grad(loss, (0, 1)), *arguments).flops == 3 * 2 * 4 * 5 * 6


def test_batched_products_count_their_batch():
    work = jaxpr.work(lambda a, b: jnp.einsum("bhnd,bhmd->bhnm", a, b), _ones(2, 3, 7, 8), _ones(2, 3, 9, 8))
    assert work.flops == 2 * 2 * 3 * 7 * 9 * 8


def test_a_convolution_counts_the_taps_that_meet_the_input():
    """Along 4 pixels a kernel of 3 meets 2 + 3 + 3 + 2 = 10 of them."""
    assert jaxpr.work(_convolution(), _ones(2, 4, 4, 5), _ones(3, 3, 5, 6)).flops == 2 * 2 * 10 * 10 * 5 * 6
    valid = jaxpr.work(_convolution(padding="VALID"), _ones(2, 4, 4, 5), _ones(3, 3, 5, 6))
    assert valid.flops == 2 * 2 * (2 * 3) * (2 * 3) * 5 * 6


CONVOLUTIONS = {
    "plain": (_convolution(), (2, 8, 8, 4), (3, 3, 4, 6)),
    "strided": (_convolution((2, 2)), (2, 8, 8, 4), (3, 3, 4, 6)),
    "grouped": (_convolution(groups=2), (2, 8, 8, 4), (3, 3, 2, 6)),
    "depthwise": (_convolution((2, 1), groups=4), (2, 8, 8, 4), (3, 3, 1, 8)),
    "kernel dilated": (_convolution(spread=(2, 3)), (2, 9, 8, 4), (3, 3, 4, 6)),
    "input dilated": (_convolution(padding=((1, 1), (2, 0)), holes=(2, 3)), (2, 5, 4, 4), (3, 3, 4, 6)),
    "batch groups": (_convolution(batch_groups=2), (4, 8, 8, 4), (3, 3, 4, 6)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_and_their_gradients_agree_with_xla(name):
    """XLA's analysis of the lowered program counts taps as we do, and the squares of the loss besides."""
    convolve, *shapes = CONVOLUTIONS[name]
    arguments = [_ones(*shape) for shape in shapes]

    def of_xla(function):
        return jax.jit(function).lower(*arguments).cost_analysis()["flops"]

    assert jaxpr.work(convolve, *arguments).flops == of_xla(convolve)

    def pullback(x, kernel):
        out, back = jax.vjp(convolve, x, kernel)
        return back(out)

    work = jaxpr.work(pullback, *arguments).flops
    assert work == of_xla(pullback)
    if name == "plain":
        assert work == 3 * of_xla(convolve)


def test_loops_are_multiplied_where_xla_counts_their_body_once():
    def function(x, w):
        return jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=7)[0]

    arguments = _ones(4, 4), _ones(4, 4)
    assert jaxpr.work(function, *arguments).flops == 7 * 2 * 4**3
    compiled = jax.jit(function).lower(*arguments).compile().cost_analysis()
    assert compiled["flops"] < 2 * 2 * 4**3


def test_a_loop_of_unknown_length_is_named():
    def function(x, w):
        return jax.lax.while_loop(lambda c: c.sum() < 10, lambda c: c @ w, x)

    work = jaxpr.work(function, _ones(4, 4), _ones(4, 4))
    assert (work.flops, work.num_unbounded_loops) == (2 * 4**3, 1)


def test_what_is_recomputed_is_counted_again():
    """Two products forward and four backward; a block that is recomputed does its two once more."""

    def loss(remat, x, w):
        def block(x):
            return jnp.tanh(jnp.tanh(x @ w) @ w)

        return (jax.checkpoint(block)(x) if remat else block(x)).sum()

    arguments = _ones(4, 4), _ones(4, 4)
    plain, again = (
        jaxpr.work(jax.value_and_grad(lambda x, w, r=r: loss(r, x, w), (0, 1)), *arguments).flops for r in (False, True)
    )
    assert plain == 6 * 2 * 4**3
    assert again == 8 * 2 * 4**3


def test_what_no_result_needs_is_not_counted():
    assert jaxpr.work(lambda a, b: (a @ b, a + 1)[1], _ones(4, 4), _ones(4, 4)).flops == 0
    work = jaxpr.work(lambda a, b: jax.jit(lambda a, b: (a @ b, a @ a))(a, b)[0], _ones(4, 4), _ones(4, 4))
    assert work.flops == 2 * 4**3


def test_a_branch_costs_what_the_dearer_one_does():
    def function(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ w @ w, lambda x: x @ w, x)

    assert jaxpr.work(function, _ones(4, 4), _ones(4, 4)).flops == 2 * 2 * 4**3


def test_a_shard_map_counts_the_block_of_every_device():
    mesh = jax.sharding.AbstractMesh((4,), ("x",))
    spec = jax.sharding.PartitionSpec("x")

    def function(a, b):
        return jax.shard_map(lambda a, b: a @ b, mesh=mesh, in_specs=(spec, jax.P()), out_specs=spec)(a, b)

    assert jaxpr.work(function, _ones(8, 4), _ones(4, 4)).flops == 2 * 8 * 4 * 4


def test_the_peak_is_what_lives_at_once():
    def chain(x):
        for _ in range(10):
            x = jnp.sin(x)
        return x

    def kept(x):
        waves = [jnp.sin(x * k) for k in range(10)]
        return sum(waves[1:], waves[0])

    size = 1000 * 4
    assert jaxpr.peak_bytes(jax.make_jaxpr(chain)(np.ones(1000, np.float32))) == 2 * size
    assert 10 * size <= jaxpr.peak_bytes(jax.make_jaxpr(kept)(np.ones(1000, np.float32))) <= 12 * size
