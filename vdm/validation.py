"""Losses of a network on held-out clips at fixed noise levels, and what a clean clip is to a network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Bool, Float, Int

from data import pipeline
from data.sources import Source
from vdm import build
from vdm.diffusion import bound, objectives, process
from vdm.diffusion.objectives import Losses, Predict
from vdm.runtime import mesh as meshes
from vdm.runtime import random
from vdm.runtime.random import Purpose
from vdm.tasks.training import TaskDistribution
from vdm.types import Condition, FrameIndex, Key, Params, Video


def make_validation(
    experiment: build.Experiment,
    beat: Callable[[], None] = lambda: None,
    log_snrs: Sequence[float] | None = None,
    num_clips: int = 0,
    tasks: TaskDistribution | None = None,
) -> Callable[[Params], dict[str, list[tuple[float, float]]]]:
    """The function from parameters to the mean losses at every fixed level: name -> [(log_snr, loss)]; calls `beat`
    after each batch.

    Clips, noise and levels are the same in every call, for every network and every objective, and so are the given
    frames for all that were trained with the same tasks; others' losses are named by their tasks. Levels and the number
    of clips of the validation split are those of `config.evaluation` unless others are given; 0 clips there are all.

    Args:
      tasks: which frames are given; None: as in training.
    """
    tasks = experiment.tasks if tasks is None else tasks
    config, mesh = experiment.config, experiment.mesh
    levels = tuple(config.evaluation.log_snrs if log_snrs is None else log_snrs)
    count = num_clips or config.evaluation.num_validation or len(experiment.splits.validation)

    @functools.partial(jax.jit, out_shardings=meshes.replicated(mesh))
    def losses_at(params: Params, batch: Mapping[str, Array]) -> Losses:
        clean = clean_clips(experiment, batch, experiment.key(Purpose.VALIDATION_DEQUANTISATION))
        seen = shown(experiment, tasks, clean, experiment.key(Purpose.VALIDATION_TASK), batch["index"])
        noise_key = experiment.key(Purpose.VALIDATION_NOISE)
        noise = random.example_noise(noise_key, batch["index"], seen.x0.shape[1], experiment.frame_shape)
        predict = predict_labelled(experiment, params, batch, seen.frame_index)

        def at(t: Float[Array, ""]) -> Losses:
            t = jnp.broadcast_to(t, seen.x0.shape[:2])
            return objectives.loss(experiment.objective_of(params), predict, seen.x0, noise, t, seen.given)

        return jax.lax.map(at, experiment.times_of(params, levels))

    if not count:
        return lambda params: {}  # a folder may keep all its videos for training

    def validate(params: Params) -> dict[str, list[tuple[float, float]]]:
        losses = over_clips(experiment, losses_at, params, experiment.splits.validation, count, beat)
        means = {name: getattr(losses, name).mean(axis=1).tolist() for name in ("loss", "x0_error", "noise_error")}
        of = f", {tasks}" if tasks.gives else ""
        return {f"validation/{name}{of}": list(zip(levels, mean, strict=True)) for name, mean in means.items()}

    return validate


def make_own_loss(
    experiment: build.Experiment, source: Source, num_levels: int, beat: Callable[[], None] = lambda: None
) -> Callable[[Params], float]:
    """The function from parameters to the loss that training minimises, over all clips of a split: each is seen at
    `num_levels` levels, spread evenly over the objective's measure. Calls `beat` after each batch.
    """

    @functools.partial(jax.jit, out_shardings=meshes.replicated(experiment.mesh))
    def losses_of(params: Params, batch: Mapping[str, Array]) -> Float[Array, "levels batch"]:
        index, objective = batch["index"], experiment.objective_of(params)
        clean = clean_clips(experiment, batch, experiment.key(Purpose.SELECTION_DEQUANTISATION))
        seen = shown(experiment, experiment.tasks, clean, experiment.key(Purpose.SELECTION_TASK), index)
        predict = predict_labelled(experiment, params, batch, seen.frame_index)

        def at(i: Int[Array, ""]) -> Float[Array, "batch"]:
            u = (i + random.example_uniform(experiment.key(Purpose.SELECTION_LEVEL, i), index)) / num_levels
            noise_key = experiment.key(Purpose.SELECTION_NOISE, i)
            noise = random.example_noise(noise_key, index, seen.x0.shape[1], experiment.frame_shape)
            t = objectives.times_of(objective, u, seen.x0.shape[1])
            return objectives.loss(objective, predict, seen.x0, noise, t, seen.given).loss

        return jax.lax.map(at, jnp.arange(num_levels))

    return lambda params: float(over_clips(experiment, losses_of, params, source, len(source), beat).mean())


def over_clips(
    experiment: build.Experiment,
    of_batch: Callable[[Params, Mapping[str, Array]], Any],
    params: Params,
    source: Source,
    count: int,
    beat: Callable[[], None] = lambda: None,
) -> Any:
    """What a compiled function gives for the first `count` clips of a split, as float64 on the host: arrays, or a tree
    of them, whose last axis is the batch's. Calls `beat` after each batch.
    """
    parts = []
    with jax.set_mesh(experiment.mesh):
        for batch, held in device_batches(experiment, source, count):
            found = of_batch(params, batch)
            parts.append(jax.tree.map(lambda leaf, held=held: np.asarray(leaf, np.float64)[..., :held], found))
            beat()
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=-1), *parts)


def device_batches(
    experiment: build.Experiment, source: Source, count: int
) -> Iterator[tuple[Mapping[str, Array], int]]:
    """The first `count` clips of a split in batches as for evaluation, laid out over the mesh, and how many of each are
    clips of their own: the last batch is filled up with clips that it has already.
    """
    mesh, size = experiment.mesh, experiment.config.evaluation.batch_size
    rows = meshes.batch_rows(mesh, size)
    for batch in pipeline.fixed(source, count, size):
        held = len(batch["index"])
        padded = {name: leaf[np.arange(size) % held][rows] for name, leaf in batch.items()}
        padded["index"] = padded["index"].astype(np.int32)
        yield meshes.global_batch(padded, mesh, size), held


def predict_labelled(
    experiment: build.Model, params: Params, batch: Mapping[str, Array], frame_index: FrameIndex | None = None
) -> Predict:
    """The network with its parameters bound, told the labels of the batch if it is told any."""
    label = None if experiment.num_classes is None else batch["label"]
    return experiment.predict(params, Condition(label), frame_index=frame_index)


class Shown(NamedTuple):
    """The frames of a batch of clips that the network sees, where they are in the clips, and which it is given; None
    where it sees all and is given none.
    """

    x0: Video
    frame_index: FrameIndex | None
    given: Bool[Array, "batch frames"] | None


def shown(experiment: build.Model, tasks: TaskDistribution, x0: Video, key: Key, index: Int[Array, "batch"]) -> Shown:
    """Clean clips with a task drawn for each, which depends on (key, index) alone."""
    if not tasks.gives:
        return Shown(x0, None, None)
    frame_index, given = jax.vmap(lambda key: tasks.draw(key, x0.shape[1]))(random.example_keys(key, index))
    if tasks.seen(x0.shape[1]) == x0.shape[1]:
        return Shown(x0, None, given)
    frames = jnp.take_along_axis(x0, process.spread(frame_index), axis=1)
    return Shown(jax.lax.with_sharding_constraint(frames, meshes.video_sharding(experiment.mesh)), frame_index, given)


def clean_clips(experiment: build.Model, batch: Mapping[str, Array], key: Key) -> Video:
    """x0 of a batch, laid out over the mesh: the 8-bit video in [-1, 1], with `config.objective.dequantise` at a random
    point of each pixel's bin.
    """
    is_continuous = experiment.config.objective.dequantise
    x0 = dequantised(experiment, batch, key) if is_continuous else bound.to_float(batch["video"])
    return jax.lax.with_sharding_constraint(x0, meshes.video_sharding(experiment.mesh))


def dequantised(experiment: build.Model, batch: Mapping[str, Array], key: Key) -> Video:
    """The 8-bit video of a batch with each pixel at a random point of its bin, in [-1, 1]."""
    shape = experiment.config.data.num_frames, experiment.frame_shape
    uniform = ndtr(random.example_noise(key, batch["index"], *shape))
    return bound.dequantised(batch["video"].astype(jnp.float32), uniform)
