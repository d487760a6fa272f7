"""What a proposal of levels does to the noise of the gradient, at one network for all proposals."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from vdm import build, steps
from vdm.arms import Cell
from vdm.runtime import checkpoints, step
from vdm.runtime.state import TrainState
from vdm.types import Params

NUM_BATCHES = 128


def variance(cell: Cell, params: Params) -> float:
    """Of the gradient over batches, summed over all parameters.

    Args:
      cell: a run that is trained: its proposal, with what it remembers at the end, draws the levels. The clips are
        those that would have come next.
      params: at which the gradient is taken.
    """
    experiment = build.experiment(cell.config)
    state = checkpoints.restore(cell.folder / "checkpoints", experiment.abstract_state())
    gradient = make_gradient(experiment, dataclasses.replace(state, params=params))
    batches = steps.device_batches(experiment, int(state.step))
    with jax.set_mesh(experiment.mesh):
        found = [np.asarray(gradient(i, batch)) for i, batch in enumerate(itertools.islice(batches, NUM_BATCHES))]
    batches.close()
    return float(np.sum(np.var(np.stack(found), axis=0, ddof=1, dtype=np.float64)))


def make_gradient(
    experiment: build.Experiment, state: TrainState
) -> Callable[[int, steps.Batch], Float[Array, "parameters"]]:
    """The function from the number of a batch, counted from the state's step, and the batch to the gradient."""
    first = state.step

    @jax.jit
    def gradient(i: Array, batch: steps.Batch) -> Float[Array, "parameters"]:
        here = dataclasses.replace(state, step=first + i)
        examples, importance = steps.drawn(experiment, here, batch)
        losses_of = functools.partial(steps.losses_of, experiment, here.step)
        _, slopes, _, _ = step.gradients(here.params, losses_of, examples, importance, 1)
        return ravel_pytree(slopes)[0]

    return lambda i, batch: gradient(jnp.asarray(i), batch)
