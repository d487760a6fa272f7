"""A step of training: what it learns from, its losses, and the batches that it is given."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from data import pipeline
from vdm import build, validation
from vdm.diffusion import objectives, schedules
from vdm.diffusion.objectives import Losses, Objective
from vdm.runtime import mesh as meshes
from vdm.runtime import random
from vdm.runtime.random import Purpose
from vdm.runtime.state import TrainState
from vdm.runtime.step import Window, train_step
from vdm.types import Condition, Key, LogSnr, Params

Batch = Mapping[str, Array]
Examples = tuple[Batch, Float[Array, "batch"], Int[Array, "batch"] | None]

# XLA takes barriers out of a CPU's program before it orders it; what the backward pass computes again would then be
# computed as soon as it can be, and held from there on, as if nothing were.
_KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def make_step(experiment: build.Model) -> Callable[[TrainState, Window, Batch], tuple[TrainState, Window]]:
    """The compiled step; the state and the window are donated."""

    def step(train_state: TrainState, window: Window, batch: Batch) -> tuple[TrainState, Window]:
        examples, importance = drawn(experiment, train_state, batch)
        _, u, _ = examples
        return train_step(
            train_state,
            window,
            functools.partial(losses_of, experiment, train_state.step),
            examples,
            experiment.optimizer,
            importance=importance,
            observe=lambda memory, losses: experiment.proposal.observe(memory, u, losses),
            num_microbatches=experiment.config.run.num_microbatches,
        )

    places = jax.tree.map(lambda leaf: leaf.sharding, experiment.abstract_state())
    return jax.jit(
        step,
        donate_argnums=(0, 1),
        out_shardings=(places, meshes.replicated(experiment.mesh)),
        compiler_options=_KEEP_BARRIERS if experiment.mesh.devices.flat[0].platform == "cpu" else None,
    )


def make_window(mesh: Mesh) -> Callable[[], Window]:
    """The function that gives a window of no steps, laid out as the step returns it, lest it be compiled for both."""
    return jax.jit(Window.empty, out_shardings=meshes.replicated(mesh))


def drawn(experiment: build.Model, train_state: TrainState, batch: Batch) -> tuple[Examples, Float[Array, "batch"]]:
    """What a step learns from: the batch, where in the measure of levels its clips are, and the labels that the network
    is told; and the importance of every clip.
    """
    index = batch["index"]
    time_key, label_key = (
        experiment.key(purpose, train_state.step) for purpose in (Purpose.TIME, Purpose.LABEL_DROPOUT)
    )
    row = index % experiment.config.data.batch_size
    u, importance = experiment.proposal.draw(train_state.proposal, random.example_uniform(time_key, index), row)
    label = drop_labels(experiment, batch, random.example_uniform(label_key, index))
    return (batch, u, label), importance


def losses_of(
    experiment: build.Model, step: Int[Array, ""], params: Params, examples: Examples
) -> tuple[Losses, LogSnr]:
    """The losses of the examples in a step, and the log-SNR of their frames."""
    batch, u, label = examples

    def key(purpose: Purpose) -> Key:
        return experiment.key(purpose, step)

    clean = validation.clean_clips(experiment, batch, key(Purpose.DEQUANTISATION))
    shown = validation.shown(experiment, experiment.tasks, clean, key(Purpose.TASK), batch["index"])
    num_frames = shown.x0.shape[1]
    noise = random.example_noise(key(Purpose.NOISE), batch["index"], num_frames, experiment.frame_shape)
    dropout = random.example_keys(key(Purpose.DROPOUT), batch["index"])

    def losses_on(objective: Objective, params: Params) -> tuple[Losses, LogSnr]:
        predict = experiment.predict(params, Condition(label), dropout, shown.frame_index)
        t = objectives.times_of(objective, u, num_frames)
        losses = objectives.loss(objective, predict, shown.x0, noise, t, shown.given)
        return losses, schedules.log_snr(objective.schedule, t)

    losses, log_snr = losses_on(experiment.objective_of(jax.lax.stop_gradient(params)), params)
    if experiment.learns_schedule:
        of_schedule, _ = losses_on(experiment.objective_of(params), jax.lax.stop_gradient(params))
        spread = objectives.spread(of_schedule.loss)  # it has a gradient and no value
        losses = dataclasses.replace(losses, loss=losses.loss + spread - jax.lax.stop_gradient(spread))
    return losses, log_snr


def drop_labels(experiment: build.Model, batch: Batch, u: Float[Array, "batch"]) -> Int[Array, "batch"] | None:
    """The labels, each replaced by the null class with the configured probability; None if the network is told none."""
    if experiment.num_classes is None:
        return None
    return jnp.where(u < experiment.config.network.label_dropout, experiment.num_classes, batch["label"])


def device_batches(experiment: build.Experiment, first_step: int) -> Generator[Batch]:
    """The batches of step `first_step` and on, laid out over the mesh: "video" uint8, "index" and perhaps "label"."""
    config, mesh = experiment.config, experiment.mesh
    host = pipeline.batches(
        experiment.splits.train,
        seed=experiment.seed_of("train"),
        batch_size=config.data.batch_size,
        start_step=first_step,
        rows=meshes.batch_rows(mesh, config.data.batch_size),
        num_workers=config.run.num_workers,
        overfit=config.data.overfit,
    )
    with contextlib.closing(host):
        for rows in host:
            # 32 bits on the device: from example 2^31 on the index is negative, and still its own
            yield meshes.global_batch(rows | {"index": rows["index"].astype(np.int32)}, mesh, config.data.batch_size)
