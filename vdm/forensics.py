"""What is left of a step whose loss or gradient was not finite: which examples, at which levels, and in which layers.

Everything that a step sees is a function of (config, seed, step) and of the state before it, so the step is done again
from the newest checkpoint before it. `failure.json` in the work directory holds what it showed.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array

from data import pipeline
from vdm import build, steps
from vdm.nets.sharding import path_of
from vdm.records import identity, schema
from vdm.records.record import write_whole
from vdm.runtime import checkpoints, distributed
from vdm.runtime import mesh as meshes
from vdm.runtime import step as runtime_step
from vdm.runtime.state import TrainState
from vdm.types import Params

FILE_NAME = "failure.json"


class NotFiniteError(FloatingPointError):
    """A loss, gradient or parameter that is not finite; `step` is the first one, counted from 0."""

    def __init__(self, step: int, message: str):
        super().__init__(message)
        self.step = step


def replay(experiment: build.Experiment, folder: epath.Path, step: int) -> dict[str, Any]:
    """Does the steps from the newest checkpoint up to `step` on again, or from the first parameters, and tells what
    `step` (counted from 0) sees.

    Raises:
      ValueError: a step that the config's run does not have.
    """
    if not 0 <= step < experiment.config.run.num_steps:
        raise ValueError(f"there is no step {step}: the run has 0 to {experiment.config.run.num_steps - 1}")
    with jax.set_mesh(experiment.mesh):
        before = _state_before(experiment, folder, step)
        first = int(before.step)
        advance, window = steps.make_step(experiment), steps.make_window(experiment.mesh)()
        with contextlib.closing(steps.device_batches(experiment, first)) as batches:
            for _ in range(first, step):
                before, window = advance(before, window, next(batches))
            batch = next(batches)
        examples, layers = _examine(experiment, before, batch)
    return {
        "step": step,
        "replayed_from": first,
        "identity_hash": identity.identity_hash(experiment.config),
        "seed": experiment.seed_of("train"),
        "examples": _examples(experiment, step, examples),
        "layers": layers,
    }


def leave(experiment: build.Experiment, folder: epath.Path, step: int) -> epath.Path:
    """Writes what `replay` finds into the work directory, and returns where."""
    found = replay(experiment, folder, step)
    path = folder / FILE_NAME
    if distributed.is_writer():
        write_whole(path, schema.dumps(found, FILE_NAME).encode())
    return path


def _state_before(experiment: build.Experiment, folder: epath.Path, step: int) -> TrainState:
    directory = folder / "checkpoints"
    saved = [done for done in checkpoints.agreed_steps(directory) if done <= step]
    if saved:
        return checkpoints.restore(directory, experiment.abstract_state(), step=saved[-1])
    return experiment.first_state()


def _examine(
    experiment: build.Experiment, before: TrainState, batch: steps.Batch
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Of every example its level, loss and importance; of every layer the extremes of parameters and gradients."""

    @functools.partial(jax.jit, out_shardings=meshes.replicated(experiment.mesh))
    def seen(before: TrainState, batch: steps.Batch) -> tuple[dict[str, Array], Params, Params]:
        examples, importance = steps.drawn(experiment, before, batch)
        losses_of = functools.partial(steps.losses_of, experiment, before.step)
        parts = experiment.config.run.num_microbatches
        _, gradients, losses, log_snr = runtime_step.gradients(before.params, losses_of, examples, importance, parts)
        told = {"loss": losses.loss, "log_snr": log_snr.mean(axis=1), "importance": importance}
        return told, jax.tree.map(_extremes, before.params), jax.tree.map(_extremes, gradients)

    told, params, gradients = jax.tree.map(np.asarray, seen(before, batch))
    layers = [
        {"layer": layer, "parameters": own, "gradient": slope}
        for (layer, own), (_, slope) in zip(_by_layer(params), _by_layer(gradients), strict=True)
    ]
    return told, sorted(layers, key=lambda row: not (row["parameters"]["not_finite"] or row["gradient"]["not_finite"]))


def _extremes(leaf: Array) -> tuple[Array, Array, Array]:
    finite = jnp.isfinite(leaf)
    low, high = jnp.min(jnp.where(finite, leaf, jnp.inf)), jnp.max(jnp.where(finite, leaf, -jnp.inf))
    return low, high, jnp.sum(~finite)


def _by_layer(tree: Params) -> list[tuple[str, dict[str, Any]]]:
    return [
        (path_of(path), _told(*(number.item() for number in extremes)))
        for path, extremes in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda part: isinstance(part, tuple))
    ]


def _told(low: float, high: float, not_finite: int) -> dict[str, Any]:
    """None where no value of the layer is finite."""
    return {"min": _number(low), "max": _number(high), "not_finite": not_finite}


def _examples(experiment: build.Experiment, step: int, told: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row an example of the batch, those whose loss is not finite first, then the largest losses."""
    config, source = experiment.config, experiment.splits.train
    first = step * config.data.batch_size
    rows = [
        {
            "example": number,
            "clip": pipeline.clip_of(source, experiment.seed_of("train"), number, config.data.overfit),
            "log_snr": _number(log_snr),
            "loss": _number(loss),
            "importance": _number(importance),
        }
        for number, (log_snr, loss, importance) in enumerate(
            zip(told["log_snr"], told["loss"], told["importance"], strict=True), first
        )
    ]
    return sorted(rows, key=lambda row: (row["loss"] is not None, -(row["loss"] or 0.0)))


def _number(value: Any) -> float | None:
    """As strict JSON holds it: None for what is not finite."""
    return float(value) if np.isfinite(value) else None
