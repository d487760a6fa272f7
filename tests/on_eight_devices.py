"""Training, sampling and validation of a whole experiment on eight devices; see eight_devices.py."""

import collections
import dataclasses
import re
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from tests import tiny
from tests.nets.tiny import randomised
from vdm import build, check, sample, scoring, steps, validation
from vdm.metrics.features.extractor import Extractor
from vdm.nets import sharding
from vdm.runtime import mesh as meshes
from vdm.runtime import random, state
from vdm.runtime.random import Purpose
from vdm.runtime.step import Window

ONE = meshes.make_mesh(devices=jax.devices()[:1])
MESHES = (
    {"data": 8},
    {"data": 4, "fsdp": 2},
    {"data": 2, "fsdp": 2, "tensor": 2},
    {"data": 2, "tensor": 2, "frames": 2},
    {"data": 2, "frames": 4},
    {"frames": 8},
)
IN_PARTS = {"data": 2, "fsdp": 2, "tensor": 2}  # the batch in two parts, blocks computed again
EXCHANGE = re.compile(r" (all-to-all|collective-permute)(?:-start)?\(")
OF_FRAMES = re.compile(r' all-to-all\(.*op_name="[^"]*all_to_all"')
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # compiled, not run


def get_config():
    config = tiny.get_config()
    config.data.num_frames = 8
    config.network.unet3d.dropout = 0.1
    config.network.update(class_conditional=True, label_dropout=0.5)
    config.sampler.guidance.name = "classifier_free"
    return config


def one_step(mesh, num_microbatches=1, remat="none"):
    """The first step of training, with dropout, from parameters at which no gradient is zero; and its program."""
    config = get_config()
    config.run.remat = remat
    experiment = dataclasses.replace(build.experiment(config), mesh=mesh)
    config.run.num_microbatches = num_microbatches  # after the checks, which are for a mesh of all eight
    parts = experiment.init, experiment.optimizer
    with jax.set_mesh(mesh):
        begun = state.init_state(
            *parts, random.key(0, Purpose.INIT), mesh, experiment.rules, experiment.proposal.first()
        )
        places = jax.tree.map(lambda leaf: leaf.sharding, begun.params)
        begun = dataclasses.replace(begun, params=jax.device_put(randomised(begun.params), places))
        batches = steps.device_batches(experiment, 0)
        window = jax.device_put(Window.empty(), meshes.replicated(mesh))
        batch = next(batches)
        batches.close()
        program = steps.make_step(experiment).lower(begun, window, batch).compile(QUICKLY)
        after, window = program(begun, window, batch)
    return after, window.scalars(), program.as_text()


def the_train_step_is_the_same_on_every_mesh():
    alone, scalars, _ = one_step(ONE)
    # Adam's first moment after one step is (1 - beta1) times the clipped gradient
    gradient = jax.tree.map(np.asarray, alone.opt_state[0].mu)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient))
    compared = [leaf for leaf in jax.tree.leaves(gradient) if np.abs(leaf).max() > 1e-3 * largest]
    assert len(compared) > 30, "few gradients to compare"
    for axes in MESHES:
        here = meshes.make_mesh(**axes)
        options = {"num_microbatches": 2, "remat": "blocks"} if axes == IN_PARTS else {}
        split, split_scalars, program = one_step(here, **options)
        for name, value in scalars.items():
            np.testing.assert_allclose(split_scalars[name], value, rtol=1e-5, err_msg=f"{axes}: {name}")
        jax.tree.map(
            lambda given, wanted: np.testing.assert_allclose(given, wanted, atol=1e-5 * largest),
            split.opt_state[0].mu,
            gradient,
        )
        *_, rows, columns = alone.params["down_0"]["block_0"]["conv_1"]["kernel"].shape
        share = (3, 3, rows // here.shape["fsdp"], columns // here.shape["tensor"])
        for tree in (split.params, split.ema, split.opt_state[0].mu, split.opt_state[0].nu):
            kernel = tree["down_0"]["block_0"]["conv_1"]["kernel"]
            assert {shard.data.shape for shard in kernel.addressable_shards} == {share}, axes
        # frames for pixels and back, forwards and backwards, in one block; otherwise no activation changes its device
        exchanges = collections.Counter(EXCHANGE.findall(program))
        assert len(OF_FRAMES.findall(program)) == (4 if "frames" in axes else 0), (axes, exchanges)
        if "tensor" not in axes:  # which the compiler splits gradients of kernels over as it likes
            assert exchanges["all-to-all"] == len(OF_FRAMES.findall(program)), (axes, exchanges)
            assert not exchanges["collective-permute"], (axes, exchanges)


def samples_and_validation_are_the_same_on_every_mesh():
    experiment = build.experiment(get_config())
    params = randomised(jax.eval_shape(experiment.init, jax.random.key(0)))
    clips, losses = [], []
    for axes in ({}, {"data": 2, "tensor": 2, "frames": 2}):
        here = dataclasses.replace(experiment, mesh=meshes.make_mesh(**axes) if axes else ONE)
        with jax.set_mesh(here.mesh):
            placed = jax.device_put(params, sharding.shardings(params, experiment.rules, here.mesh))
            clips.append(np.asarray(sample.make_sampler(here)(placed, np.arange(8))))
            losses.append(validation.make_validation(here)(placed))
    assert np.ptp(clips[0]) > 0.5
    np.testing.assert_allclose(clips[1], clips[0], atol=1e-4 * np.abs(clips[0]).max())
    for name, row in losses[0].items():
        np.testing.assert_allclose(losses[1][name], row, rtol=1e-5)


def scores_are_the_same_on_every_mesh():
    config = get_config()
    shape = config.data.num_frames, config.data.height, config.data.width, 3
    clips = np.random.default_rng(0).integers(0, 256, (21, *shape), np.uint8)

    def apply(weights, video):
        return jnp.tanh(video.reshape(len(video), -1) @ weights)

    weights = np.random.default_rng(1).normal(size=(np.prod(shape), 5)).astype(np.float32) / 100
    extractor = Extractor("random", "", "clips", 0, 1, 3, weights, apply)
    split = meshes.make_mesh(data=2, fsdp=2, frames=2)
    seen = [scoring.make_features(mesh, extractor, batch_size=8)(clips) for mesh in (ONE, split)]
    np.testing.assert_allclose(seen[0][:, 0], np.tanh((clips / 127.5 - 1).reshape(21, -1) @ weights), atol=1e-5)
    np.testing.assert_allclose(seen[1], seen[0], atol=1e-6)


def kernels_put_together_in_the_wrong_order(gathered):
    return lambda leaf, dtype, axis: jnp.roll(gathered(leaf, dtype, axis), leaf.shape[axis], axis)


def the_check_of_a_machine_passes_on_a_mesh_and_sees_a_wrong_one():
    """Its comparison with one device, alone: the other ways of a step are compared in tests/test_check.py."""
    config = tiny.get_config()
    config.network.unet3d.update(attention="temporal", norm="rms")  # less to compile; what splits frames is left
    mesh = meshes.make_mesh(data=2, fsdp=2, frames=2)
    twin = check.narrowed(config, mesh)
    params = check.first_params(twin)
    on_mesh = check.gradient(twin, mesh, params)
    with mock.patch.object(sharding, "_gathered", kernels_put_together_in_the_wrong_order(sharding._gathered)):
        wrong = check.gradient(twin, mesh, params)
    one = check.gradient(twin, ONE, params)
    same, other = (check.of_mesh(each, one) for each in (on_mesh, wrong))
    assert same.passed, same
    assert not other.passed, other


CHECKS = (
    the_train_step_is_the_same_on_every_mesh,
    samples_and_validation_are_the_same_on_every_mesh,
    scores_are_the_same_on_every_mesh,
    the_check_of_a_machine_passes_on_a_mesh_and_sees_a_wrong_one,
)
