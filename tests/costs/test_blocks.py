"""Work of a compiled program by block and phase, on a program whose work is known by hand."""

import jax
import jax.numpy as jnp
import pytest

from vdm.costs import blocks, hlo, program

PARAMS = {"one": {"kernel": jnp.zeros((8, 8))}, "two": {"block_1": {"dense": {"kernel": jnp.zeros((8, 8))}}}}
TOKENS = 16


@pytest.fixture(scope="module")
def kernels():
    def loss(params, x):
        with jax.named_scope("one"):
            x = jnp.sin(x @ params["one"]["kernel"])
        with jax.named_scope("two/block_1"):
            x = jnp.sin(x @ params["two"]["block_1"]["dense"]["kernel"])
        return jnp.sum(x**2)

    step = jax.jit(lambda params, x: jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params, x)))
    text = step.lower(PARAMS, jnp.zeros((TOKENS, 8))).compile().as_text()
    return program.program(hlo.parse(text)).kernels


def test_every_branch_of_the_parameters_is_a_block():
    assert blocks.names(PARAMS) == ["one", "two", "two/block_1", "two/block_1/dense"]


@pytest.mark.parametrize(
    ("op_name", "block", "phase"),
    [
        ("jit(step)/jvp(one)/dot_general", "one", "forward"),
        ("jit(step)/transpose(jvp(two/block_1))/dot_general", "two/block_1", "backward"),
        ("jit(step)/transpose(jvp(two/block_1))/remat/dot", "two/block_1", "recomputed"),
        ("jit(step)/jvp(two/block_10)/dot_general", "two", "forward"),  # another block, which is not in the list
        ("jit(step)/someone/add", blocks.REST, "rest"),
        ("", blocks.REST, "rest"),
    ],
)
def test_a_name_tells_block_and_phase(op_name, block, phase):
    assert (blocks.block_of(op_name, blocks.names(PARAMS)), blocks.phase_of(op_name)) == (block, phase)


def test_products_are_counted_where_they_belong(kernels):
    """Forward one product a block; backward two, of which the first block's by its input is not needed."""
    works = blocks.by_block(((kernel, kernel.flops) for kernel in kernels), blocks.names(PARAMS))
    found = {(work.block, work.phase): work.flops for work in works if work.flops}
    product = 2 * TOKENS * 8 * 8
    assert found == {
        ("one", "forward"): product,
        ("one", "backward"): product,
        ("two/block_1", "forward"): product,
        ("two/block_1", "backward"): 2 * product,
    }
    assert next(work.block for work in works if work.flops) == "two/block_1"  # the longest first
    assert sum(work.seconds for work in works) == 5 * product


def test_a_table_has_a_line_a_block_and_their_sum(kernels):
    works = blocks.by_block(((kernel, 0.001) for kernel in kernels), blocks.names(PARAMS))
    header, *lines = blocks.table(works).splitlines()
    assert "forward" in header and "recomputed" not in header
    assert {line[:28].strip() for line in lines} >= {"one", "two/block_1", "all"}
    assert "100.0%" in lines[-1] and f"{10 * TOKENS * 8 * 8 / 1e9:.4g}" in lines[-1]
