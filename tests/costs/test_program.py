"""The reader of compiled programs: on programs that XLA compiles here, on a short text of the TPU compiler, and on
texts that are cut off."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from vdm.costs import hlo, program

# Written by the TPU compiler (libtpu 0.0.42.1, jax 0.10.2, v5e:2x4, data=2 fsdp=4) for six layers of
# tanh(x @ w) in a scan with w gathered in bfloat16, and its gradient; configurations of the backend left out.
TPU = (pathlib.Path(__file__).parent / "scan_of_six_layers.v5e_2x4.hlo.txt").read_text()


def _program(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    compiled = jax.jit(function).lower(*arguments).compile()
    return program.program(hlo.parse(compiled.as_text())), compiled


def _flops(found):
    return sum(each.flops * each.count for each in found.kernels)


def test_products_and_convolutions_of_a_compiled_program():
    def function(x, kernel, w):
        y = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return y.reshape(8, -1) @ w

    found, _ = _program(function, (8, 8, 8, 4), (3, 3, 4, 6), (96, 10))
    along = 11  # 4 places, 3 taps, of which the last at the last place falls on padding
    assert _flops(found) == 2 * 8 * along**2 * 4 * 6 + 2 * 8 * 96 * 10


def test_a_loop_is_counted_by_its_length():
    def function(x, w):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, length=7)[0]

    found, _ = _program(function, (64, 64), (64, 64))
    assert _flops(found) == 7 * 2 * 64**3
    assert found.num_unknown_loops == 0


def test_a_loop_of_unknown_length_is_counted_once_and_named():
    def function(x, w):
        return jax.lax.while_loop(lambda c: c.sum() < 10, lambda c: c @ w, x)

    found, _ = _program(function, (64, 64), (64, 64))
    assert found.num_unknown_loops == 1
    assert _flops(found) == 2 * 64**3


def test_an_elementwise_program_moves_what_it_reads_and_writes():
    found, _ = _program(lambda a, b: jnp.sin(a) * b + 1, (100, 100), (100, 100))
    assert sum(each.bytes for each in found.kernels) == 3 * 4 * 100 * 100


def test_a_slice_reads_the_slice_alone():
    found, _ = _program(lambda a: jax.lax.dynamic_slice(a, (3, 0), (2, 100)) * 2, (10_000, 100))
    assert sum(each.bytes for each in found.kernels) == 2 * 4 * 2 * 100


def test_the_lines_of_source_are_found():
    found, _ = _program(lambda a, b: a @ b, (64, 64), (64, 64))
    (product,) = (each for each in found.kernels if each.flops)
    assert product.where.startswith("costs/test_program.py:")


COLLECTIVES = """
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
def place(*spec):
    return NamedSharding(mesh, P(*spec))
def function(x, w):
    whole = jax.lax.with_sharding_constraint(w, place())
    moved = jax.lax.with_sharding_constraint(x, place(None, "b"))
    return (x @ whole).sum(), moved
x = jax.ShapeDtypeStruct((64, 128), jnp.float32, sharding=place("b", None))
w = jax.ShapeDtypeStruct((128, 256), jnp.float32, sharding=place("b", None))
with jax.set_mesh(mesh):
    text = jax.jit(function, out_shardings=(place(), place(None, "b"))).lower(x, w).compile().as_text()
print(text)
"""


def test_exchanges_between_eight_devices():
    """A gather of w over 4 sends 3/4 of it; a number summed; and x moved from rows to columns, 3/4 of a shard."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    text = subprocess.run(
        [sys.executable, "-c", COLLECTIVES], env=environment, capture_output=True, text=True, check=True
    ).stdout
    found = program.program(hlo.parse(text)).collectives
    sent = {each.kind: each.sent_bytes * each.count for each in found}
    assert {each.group_size for each in found} == {4}
    assert sent == {
        "all-gather": 128 * 256 * 4 * 3 / 4,
        "all-to-all": 64 * 128 * 4 / 4 * 3 / 4,
        "all-reduce": 4 * 2 * 3 / 4,
    }


def test_a_program_of_the_tpu_compiler():
    """Three products a layer of (128, 1024) by (1024, 1024) on a device; the gather and the sum of w, in bfloat16."""
    found = program.program(hlo.parse(TPU))
    assert found.num_unknown_loops == 0
    assert _flops(found) == 6 * 3 * 2 * 128 * 1024 * 1024
    matrix = 1024 * 1024 * 2
    counted = {(each.kind, each.group_size, each.count, each.sent_bytes) for each in found.collectives}
    assert counted == {
        ("all-gather", 4, 6, matrix * 3 / 4),
        ("all-reduce", 8, 6, 2 * matrix * 7 / 8),
        ("all-reduce", 8, 1, 2 * 4 * 7 / 8),
    }
    (gather,) = (each for each in found.collectives if each.kind == "all-gather")
    assert gather.where == "layers.py:11 < layers.py:16"


def test_vector_memory_costs_nothing_and_copies_into_it_do():
    """The state's six f32 (256, 1024) shards come in once, in three slices, and go out once."""
    found = program.program(hlo.parse(TPU))
    started = [each for each in found.kernels if each.name.startswith(("slice-start", "copy-start"))]
    state = 6 * 256 * 1024 * 4
    moved = sum(each.bytes for each in started)
    assert moved == pytest.approx(2 * state, rel=0.1)
    assert sum(each.bytes * each.count for each in found.kernels) < 4 * state


def test_tiles_pad_the_last_two_dimensions_of_a_layout():
    (plain,) = hlo._buffers("f32[16,64,3]{2,1,0}")
    (tiled,) = hlo._buffers("f32[16,64,3]{2,1,0:T(8,128)}")
    (turned,) = hlo._buffers("bf16[16,64,3]{1,2,0:T(8,128)(2,1)S(1)}")
    assert plain.padded_bytes == plain.bytes == tiled.bytes == 16 * 64 * 3 * 4
    assert tiled.padded_bytes == 16 * 64 * 128 * 4
    assert turned.padded_bytes == 16 * 8 * 128 * 2
    assert (plain.is_main, tiled.is_main, turned.is_main) == (True, True, False)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ("replica_groups={{0,1,2},{3,4,5}}, x", 3),
        ("replica_groups=[8,4]<=[2,4,4]T(1,0,2), x", 4),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, x", 4),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}, x", 8),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=4], device_ids=([2,4]T(1,0)) {'axis_0':(1)2}, x", 2),
        ("source_target_pairs={{0,1},{1,0}}", 2),
    ],
)
def test_groups_in_every_form_that_xla_writes(attributes, size):
    assert program._group_size(attributes) == size


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: "nothing of the kind", "no ENTRY computation"),
        (lambda text: text[: text.index("\n", text.index("ENTRY") + 2000)], "cut off inside the computation main"),
        (lambda text: text.replace("body=%wide.region_0.1_spmd.sunk", "body=%gone"), "calls gone"),
        (lambda text: text.replace(" all-gather(%", " all-gather %"), "has no operation|cut off"),
        (lambda text: text.replace("  %all-gather.7 = ", "  all gather "), "is no instruction"),
    ],
)
def test_a_text_that_is_no_program_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        hlo.parse(change(TPU))


def test_a_sum_that_is_sliced_at_once_is_a_scattered_sum():
    """As the TPU compiler fuses it; every device sends (n-1)/n of the whole, half of what the sum alone would take."""
    scatter = """HloModule m
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}
%all-reduce-scatter (input: f32[64,8]) -> f32[16,8] {
  %input = f32[64,8]{1,0} parameter(0)
  %zero = u32[] constant(0)
  %all-reduce = f32[64,8]{1,0} all-reduce(%input), replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %slice = f32[16,8]{1,0} dynamic-slice(%all-reduce, %zero, %zero), dynamic_slice_sizes={16,8}
}
ENTRY %main (x: f32[64,8]) -> f32[16,8] {
  %x = f32[64,8]{1,0} parameter(0)
  ROOT %fusion = f32[16,8]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter
}
"""
    (found,) = program.program(hlo.parse(scatter)).collectives
    assert dataclasses.astuple(found)[:4] == ("reduce-scatter", 1, 64 * 8 * 4 * 3 / 4, 4)


def test_an_exchange_that_goes_on_beside_kernels_is_counted_once_and_they_are_counted():
    """As the TPU compiler (libtpu 0.0.42.1) writes it: started by one fusion, carried along by another that computes a
    product meanwhile, ended by a third; each of the three names the gather."""
    beside = """HloModule m
%start (p: f32[16,32]) -> (f32[16,32], f32[32,32], u32[]) {
  %p = f32[16,32]{1,0:T(8,128)} parameter(0)
  %g = f32[32,32]{1,0:T(8,128)} all-gather(%p), channel_id=6, replica_groups={{0,1}}, dimensions={0}
  ROOT %c = (f32[16,32]{1,0:T(8,128)}, f32[32,32]{1,0:T(8,128)}, u32[]{:S(2)}) custom-call(%g), \
custom_call_target="AsyncCollectiveStart"
}
%beside (p: f32[16,32], w: f32[32,32], s: u32[], a: f32[8,64], b: f32[64,8]) -> (f32[8,8], f32[16,32], u32[]) {
  %p = f32[16,32]{1,0:T(8,128)} parameter(0)
  %w = f32[32,32]{1,0:T(8,128)} parameter(1)
  %s = u32[]{:S(2)} parameter(2)
  %a = f32[8,64]{1,0} parameter(3)
  %b = f32[64,8]{1,0} parameter(4)
  %d = f32[8,8]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %g = f32[32,32]{1,0:T(8,128)} all-gather(%p), channel_id=6, replica_groups={{0,1}}, dimensions={0}
  ROOT %t = (f32[8,8]{1,0}, f32[16,32]{1,0:T(8,128)}, u32[]{:S(2)}) tuple(%d, %p, %s)
}
%end (p: f32[16,32], w: f32[32,32], s: u32[]) -> f32[32,32] {
  %p = f32[16,32]{1,0:T(8,128)} parameter(0)
  %w = f32[32,32]{1,0:T(8,128)} parameter(1)
  %s = u32[]{:S(2)} parameter(2)
  %g = f32[32,32]{1,0:T(8,128)} all-gather(%p), channel_id=6, replica_groups={{0,1}}, dimensions={0}
  ROOT %c = f32[32,32]{1,0:T(8,128)} custom-call(%p, %w, %g, %s), custom_call_target="AsyncCollectiveDone"
}
ENTRY %main (x: f32[16,32], a: f32[8,64], b: f32[64,8]) -> f32[32,32] {
  %x = f32[16,32]{1,0:T(8,128)} parameter(0)
  %a = f32[8,64]{1,0} parameter(1)
  %b = f32[64,8]{1,0} parameter(2)
  %f1 = (f32[16,32]{1,0:T(8,128)}, f32[32,32]{1,0:T(8,128)}, u32[]{:S(2)}) fusion(%x), kind=kCustom, calls=%start
  %e0 = f32[16,32]{1,0:T(8,128)} get-tuple-element(%f1), index=0
  %e1 = f32[32,32]{1,0:T(8,128)} get-tuple-element(%f1), index=1
  %e2 = u32[]{:S(2)} get-tuple-element(%f1), index=2
  %f2 = (f32[8,8]{1,0}, f32[16,32]{1,0:T(8,128)}, u32[]{:S(2)}) fusion(%e0, %e1, %e2, %a, %b), kind=kCustom, \
calls=%beside
  %e3 = u32[]{:S(2)} get-tuple-element(%f2), index=2
  ROOT %f3 = f32[32,32]{1,0:T(8,128)} fusion(%e0, %e1, %e3), kind=kCustom, calls=%end
}
""".replace("\\\n", "")
    found = program.program(hlo.parse(beside))
    assert [(each.kind, each.count, each.sent_bytes) for each in found.collectives] == [
        ("all-gather", 1, 32 * 32 * 4 / 2)
    ]
    (product,) = found.kernels
    assert (product.flops, product.bytes) == (2 * 8 * 8 * 64, 4 * (8 * 64 + 64 * 8 + 8 * 8))
