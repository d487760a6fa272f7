"""Folds and networks under a mesh of eight devices; see tests/eight_devices.py."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.nets import tiny
from vdm.nets import video_diffusion_pytorch
from vdm.nets.linear import Conv
from vdm.nets.module import split
from vdm.nets.sharding import UNET_RULES, path_of, shardings, spec_of
from vdm.nets.unet3d import UNet3DConfig, unet3d
from vdm.types import BATCH_AXES, FRAME_AXES, MESH_AXES, Condition

CLIPS = PartitionSpec(BATCH_AXES, FRAME_AXES)
COLLECTIVES = re.compile(r"all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter")


def mesh(*shape):
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 4)


def place(here, array):
    return jax.device_put(array, NamedSharding(here, PartitionSpec(*CLIPS[: min(array.ndim, 2)])))


def compiled_text(function, *args):
    return jax.jit(function).lower(*args).compile().as_text()


def fold_moves_nothing():
    x = jax.random.normal(jax.random.key(0), (8, 4, 4, 4, 8))  # two clips a device: with one, any merge is local
    part = split("conv", lambda rngs: Conv(8, 8, rngs))
    params = part.init(jax.random.key(1))
    alone = part.apply(params, (x,))
    for here in (mesh(4, 1, 1, 2), mesh(2, 1, 1, 4)):
        with jax.set_mesh(here):
            given = jax.device_put(params, NamedSharding(here, PartitionSpec())), place(here, x)
            convolve = jax.jit(lambda params, x: part.apply(params, (x,)))
            convolved = convolve(*given)
            np.testing.assert_allclose(convolved, alone, rtol=1e-5, atol=1e-5)
            assert convolved.sharding.is_equivalent_to(NamedSharding(here, CLIPS), 5), convolved.sharding
            assert not COLLECTIVES.search(convolve.lower(*given).compile().as_text())
    here = mesh(2, 2, 1, 2)
    naive = compiled_text(convolve_merged, params, place(here, x))
    assert COLLECTIVES.search(naive), "a global reshape moves nothing either: this check shows nothing"


def convolve_merged(params, x):
    """What `fold` is there to avoid: batch and frames merged by a reshape of the global array."""
    rows = x.reshape(-1, *x.shape[2:])
    layout = ("NHWC", "HWIO", "NHWC")
    rows = jax.lax.conv_general_dilated(rows, params["kernel"], (1, 1), "SAME", dimension_numbers=layout)
    return rows.reshape(x.shape)


def a_split_network_is_the_network():
    """With three equal blocks on either way, which are scanned."""
    config = dataclasses.replace(tiny.SMALL, num_classes=3, num_blocks=3)
    condition = tiny.images(True, False, False, True, label=jnp.array([0, 1, 3, 1]))
    assert split_and_alone(config, condition) == 4, "no scan, forwards and backwards, of the two ways"


def a_split_network_of_other_parts_is_the_network():
    """Those of video-diffusion-pytorch, of which one table of biases is for all blocks."""
    parts = video_diffusion_pytorch.PARTS | {"num_blocks": 1, "num_heads": 2, "head_dim": 8}
    split_and_alone(UNet3DConfig(3, 3, 8, (1, 2), attention_levels=(0, 1), **parts), Condition())


def split_and_alone(config, condition):
    """Compares outputs and gradients of one device and of a mesh; returns how many loops the latter's program has."""
    net, _ = tiny.network(config)
    inputs = tiny.inputs(batch=4)

    def value_and_gradient(params, xt, log_snr, frame_index):
        def loss(params):
            value = net.apply(params, xt, log_snr, frame_index, condition).value
            return jnp.mean(jnp.sin(value)), value

        (_, value), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return value, gradient

    alone = jax.jit(value_and_gradient)(tiny.params(config), *inputs)
    here = mesh(1, 2, 2, 2)
    with jax.set_mesh(here):
        params = tiny.params(config)
        params = jax.device_put(params, shardings(params, UNET_RULES, here))
        placed = params, *(place(here, each) for each in inputs)
        lowered = jax.jit(value_and_gradient).lower(*placed)
        given = lowered.compile()(*placed)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(alone[1]))
    np.testing.assert_allclose(given[0], alone[0], rtol=1e-4, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * scale), given[1], alone[1])
    return lowered.as_text().count("stablehlo.while")


def what_the_mesh_does_not_divide_is_refused():
    part = split("conv", lambda rngs: Conv(8, 8, rngs))
    params = part.init(jax.random.key(1))
    with jax.set_mesh(mesh(2, 2, 1, 2)):
        for shape in ((6, 4, 2, 2, 8), (4, 3, 2, 2, 8)):
            try:
                part.apply(params, (jnp.zeros(shape),))
            except ValueError as error:
                assert f"{shape[0]} clips of {shape[1]} frames" in str(error), error
            else:
                raise AssertionError(f"{shape} was split")


def kernels_are_gathered_in_the_compute_type_and_gradients_scattered_in_float32():
    inputs, condition = tiny.inputs(batch=8), tiny.images(*[False] * 8)
    with jax.set_mesh(mesh(2, 4, 1, 1)):
        params = tiny.params(tiny.SMALL)
        split = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if is_split(path, leaf)]
        for remat, gathers in (("none", 1), ("kernels", 2), ("products", 2), ("blocks", 2)):
            net = unet3d(dataclasses.replace(tiny.SMALL, compute_dtype="bfloat16", remat=remat))
            gradient = jax.grad(lambda params, net=net: jnp.sum(net.apply(params, *inputs, condition).value))
            text = jax.jit(gradient).lower(params).as_text()
            gathered = re.findall(r"stablehlo.all_gather.*-> tensor<\S*x(\w+)>", text)
            in_float32 = gathered.count("f32")  # the two layers of the level's embedding
            assert in_float32 <= 2 * gathers and in_float32 + gathered.count("bf16") == len(gathered), gathered
            # the embedding's kernels are kept, and no gradient asks for those that follow the input or zeros
            assert 0 <= gathers * len(split) - len(gathered) <= 4 * (gathers - 1), (remat, len(gathered), len(split))
            scattered = re.findall(r"reduce_scatter(?s:.*?)\}\) : \(tensor<\S*x(\w+)>\)", text)
            assert scattered == ["f32"] * len(split), (scattered, len(split))


def is_split(path, leaf):
    spec = spec_of(path_of(path), leaf.shape, UNET_RULES, jax.sharding.get_abstract_mesh())
    return "fsdp" in spec


CHECKS = (
    fold_moves_nothing,
    a_split_network_is_the_network,
    a_split_network_of_other_parts_is_the_network,
    what_the_mesh_does_not_divide_is_refused,
    kernels_are_gathered_in_the_compute_type_and_gradients_scattered_in_float32,
)
