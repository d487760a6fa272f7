"""Training, sampling and validation of a whole experiment on eight devices; see eight_devices.py."""

import dataclasses

import jax
import numpy as np

from tests import tiny
from tests.nets.tiny import randomised
from vdm import build, evaluate, sample, train
from vdm.runtime import mesh as meshes
from vdm.runtime import random, sharding, state
from vdm.runtime.random import Purpose
from vdm.runtime.step import Window

ONE = meshes.make_mesh(devices=jax.devices()[:1])
MESHES = ({"data": 8}, {"fsdp": 4, "tensor": 2}, {"fsdp": 2, "tensor": 4}, {"data": 2, "tensor": 2, "frames": 2})


def one_step(mesh, num_microbatches=1):
    """The first step of training, with dropout, from parameters at which no gradient is zero."""
    config = tiny.get_config()
    config.network.unet3d.dropout = 0.1
    experiment = dataclasses.replace(build.experiment(config), mesh=mesh)
    config.run.num_microbatches = num_microbatches  # after the checks, which are for a mesh of all eight
    parts = experiment.init, experiment.optimizer
    with jax.set_mesh(mesh):
        begun = state.init_state(
            *parts, random.key(0, Purpose.INIT), mesh, experiment.rules, experiment.proposal.first()
        )
        places = jax.tree.map(lambda leaf: leaf.sharding, begun.params)
        begun = dataclasses.replace(begun, params=jax.device_put(randomised(begun.params), places))
        batches = train.device_batches(experiment, 0)
        window = jax.device_put(Window.empty(), meshes.replicated(mesh))
        after, window = train.make_step(experiment)(begun, window, next(batches))
        batches.close()
    return after, window.scalars()


def the_train_step_is_the_same_on_every_mesh():
    alone, scalars = one_step(ONE)
    # Adam's first moment after one step is (1 - beta1) times the clipped gradient
    gradient = jax.tree.map(np.asarray, alone.opt_state[0].mu)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient))
    compared = [leaf for leaf in jax.tree.leaves(gradient) if np.abs(leaf).max() > 1e-3 * largest]
    assert len(compared) > 30, "few gradients to compare"
    for axes in MESHES:
        here = meshes.make_mesh(**axes)
        split, split_scalars = one_step(here, num_microbatches=2 if axes == MESHES[2] else 1)
        for name, value in scalars.items():
            np.testing.assert_allclose(split_scalars[name], value, rtol=1e-5, err_msg=f"{axes}: {name}")
        jax.tree.map(
            lambda given, wanted: np.testing.assert_allclose(given, wanted, atol=1e-5 * largest),
            split.opt_state[0].mu,
            gradient,
        )
        kernel = split.params["down_0"]["block_0"]["conv_1"]["kernel"]
        *_, rows, columns = kernel.shape
        share = (3, 3, rows // here.shape["fsdp"], columns // here.shape["tensor"])
        assert {shard.data.shape for shard in kernel.addressable_shards} == {share}, axes


def samples_and_validation_are_the_same_on_every_mesh():
    experiment = build.experiment(tiny.get_config())
    params = randomised(jax.eval_shape(experiment.init, jax.random.key(0)))
    clips, losses = [], []
    for axes in ({}, MESHES[-1]):
        here = dataclasses.replace(experiment, mesh=meshes.make_mesh(**axes) if axes else ONE)
        with jax.set_mesh(here.mesh):
            placed = jax.device_put(params, sharding.shardings(params, experiment.rules, here.mesh))
            clips.append(np.asarray(sample.make_sampler(here)(placed, np.arange(8))))
            losses.append(evaluate.make_validation(here)(placed))
    assert np.ptp(clips[0]) > 0.5
    np.testing.assert_allclose(clips[1], clips[0], atol=1e-4 * np.abs(clips[0]).max())
    for name, row in losses[0].items():
        np.testing.assert_allclose(losses[1][name], row, rtol=1e-5)


CHECKS = (the_train_step_is_the_same_on_every_mesh, samples_and_validation_are_the_same_on_every_mesh)
