"""Losses of a network on held-out clips at fixed noise levels, and what a clean clip is to a network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Float, UInt8

from data import pipeline
from vdm import build
from vdm.diffusion import bound, objectives
from vdm.diffusion.objectives import Losses
from vdm.runtime import mesh as meshes
from vdm.runtime import random
from vdm.runtime.random import Purpose
from vdm.types import Condition, Key, Params, Video


def make_validation(
    experiment: build.Experiment,
    beat: Callable[[], None] = lambda: None,
    log_snrs: Sequence[float] | None = None,
    num_clips: int = 0,
) -> Callable[[Params], dict[str, list[tuple[float, float]]]]:
    """The function from parameters to the mean losses at every fixed level: name -> [(log_snr, loss)]; calls `beat`
    after each batch.

    Clips, noise and levels are the same in every call, for every network and every objective. Levels and the number of
    clips of the validation split are those of `config.evaluation` unless others are given; 0 clips there are all.
    """
    config, mesh = experiment.config, experiment.mesh
    levels = tuple(config.evaluation.log_snrs if log_snrs is None else log_snrs)
    size = config.evaluation.batch_size
    count = num_clips or config.evaluation.num_validation or len(experiment.splits.validation)

    @functools.partial(jax.jit, out_shardings=meshes.replicated(mesh))
    def losses_at(params: Params, batch: Mapping[str, Array]) -> Losses:
        x0 = clean_clips(experiment, batch, random.key(config.seed, Purpose.VALIDATION_DEQUANTISATION))
        noise_key = random.key(config.seed, Purpose.VALIDATION_NOISE)
        noise = random.example_noise(noise_key, batch["index"], config.data.num_frames, experiment.frame_shape)
        label = None if experiment.num_classes is None else batch["label"]
        predict = experiment.predict(params, Condition(label))

        def at(t: Float[Array, ""]) -> Losses:
            t = jnp.broadcast_to(t, x0.shape[:2])
            return objectives.loss(experiment.objective_of(params), predict, x0, noise, t)

        return jax.lax.map(at, experiment.times_of(params, levels))

    rows = meshes.batch_rows(mesh, size)
    if not count:
        return lambda params: {}  # a folder may keep all its videos for training

    def validate(params: Params) -> dict[str, list[tuple[float, float]]]:
        parts: dict[str, list[np.ndarray]] = {"loss": [], "x0_error": [], "noise_error": []}
        for batch in pipeline.fixed(experiment.splits.validation, count, size):
            held = len(batch["index"])
            padded = {name: leaf[np.arange(size) % held][rows] for name, leaf in batch.items()}
            padded["index"] = padded["index"].astype(np.int32)
            losses = losses_at(params, meshes.global_batch(padded, mesh, size))
            for name, part in parts.items():
                part.append(np.asarray(getattr(losses, name), np.float64)[:, :held])
            beat()
        means = {name: np.concatenate(part, axis=1).mean(axis=1).tolist() for name, part in parts.items()}
        return {f"validation/{name}": list(zip(levels, mean, strict=True)) for name, mean in means.items()}

    return validate


def clean_clips(experiment: build.Model, batch: Mapping[str, Array], key: Key) -> Video:
    """x0 of a batch, laid out over the mesh: the 8-bit video in [-1, 1], with `config.objective.dequantise` at a random
    point of each pixel's bin.
    """
    config, video = experiment.config, batch["video"]
    if not config.objective.dequantise:
        x0 = to_float(video)
    else:
        shape = config.data.num_frames, experiment.frame_shape
        uniform = ndtr(random.example_noise(key, batch["index"], *shape))
        x0 = bound.dequantised(video.astype(jnp.float32), uniform)
    return jax.lax.with_sharding_constraint(x0, meshes.video_sharding(experiment.mesh))


def to_float(video: UInt8[Array, "batch frames height width channels"]) -> Video:
    """8-bit video as float32 in [-1, 1], on the device."""
    return video.astype(jnp.float32) / 127.5 - 1.0
