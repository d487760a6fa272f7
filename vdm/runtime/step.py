"""One step of training as a pure function, and what is summed up on the device between two lines of the log."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from vdm.diffusion.objectives import Losses
from vdm.runtime.optimizer import Optimizer
from vdm.runtime.state import TrainState, apply_gradients
from vdm.types import LogSnr, Params, register_tree

LOG_SNR_EDGES = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # between the buckets that the loss is reported in
NO_STEP = np.iinfo(np.int32).max

LossFn = Callable[[Params, PyTree[Any]], tuple[Losses, LogSnr]]


@register_tree
@dataclasses.dataclass(frozen=True)
class Window:
    """Sums over the steps since the last line of the log.

    Attributes:
      num_steps: summed over.
      mean_loss: sum over steps of the batch's mean, which the gradient is of.
      loss: sum over examples by log-SNR bucket, `count` of the examples in it.
      gradient_norm: sum over steps.
      clipped_share: of all steps of the run so far; learning_rate: of the last step.
      first_bad_step: the first step whose loss or gradient was not finite; `NO_STEP` if there was none.
    """

    num_steps: Int[Array, ""]
    mean_loss: Float[Array, ""]
    loss: Float[Array, "buckets"]
    count: Float[Array, "buckets"]
    gradient_norm: Float[Array, ""]
    clipped_share: Float[Array, ""]
    learning_rate: Float[Array, ""]
    first_bad_step: Int[Array, ""]

    @classmethod
    def empty(cls) -> Window:
        """A window of no steps."""
        buckets = jnp.zeros(len(LOG_SNR_EDGES) + 1)
        return cls(
            num_steps=jnp.zeros((), jnp.int32),
            mean_loss=jnp.zeros(()),
            loss=buckets,
            count=jnp.copy(buckets),
            gradient_norm=jnp.zeros(()),
            clipped_share=jnp.zeros(()),
            learning_rate=jnp.zeros(()),
            first_bad_step=jnp.full((), NO_STEP, jnp.int32),
        )

    def scalars(self) -> dict[str, float]:
        """The means, by name; a bucket that no example fell into is left out."""
        loss, count = np.asarray(self.loss, np.float64), np.asarray(self.count, np.float64)
        steps = float(self.num_steps)
        scalars = {
            "train/loss": float(self.mean_loss) / steps,
            "train/gradient_norm": float(self.gradient_norm) / steps,
            "train/clipped_share": float(self.clipped_share),
            "train/learning_rate": float(self.learning_rate),
        }
        names = bucket_names()
        return scalars | {f"train/loss {names[i]}": float(loss[i] / count[i]) for i in np.flatnonzero(count)}


def bucket_names() -> tuple[str, ...]:
    """What the buckets are called, from the noisiest on: "log_snr -6 to -4"."""
    edges = [f"{edge:g}" for edge in LOG_SNR_EDGES]
    inner = (f"{low} to {high}" for low, high in itertools.pairwise(edges))
    return tuple(f"log_snr {name}" for name in (f"below {edges[0]}", *inner, f"above {edges[-1]}"))


def train_step(
    state: TrainState,
    window: Window,
    losses_of: LossFn,
    examples: PyTree[Any],
    optimizer: Optimizer,
    *,
    importance: Float[Array, "batch"],
    observe: Callable[[PyTree[Any], Float[Array, "batch"]], PyTree[Any]] = lambda memory, losses: memory,
    num_microbatches: int = 1,
) -> tuple[TrainState, Window]:
    """Gradient of the batch's mean loss, one step of the optimiser, and the window with this step added.

    Args:
      losses_of: parameters and examples to the losses of each and its frames' log-SNR. An example's must not depend on
        the others.
      examples: arrays [batch, ...].
      importance: of every example in the mean, where a proposal drew levels unevenly. The window's mean has it too; the
        losses of its buckets are those of the levels themselves.
      observe: the proposal's memory and the losses to its memory after the step.
      num_microbatches: parts of the batch that are done one after the other, their gradients added: the memory of one
        part's activations, and the same step but for rounding. It divides the batch.
    """
    loss, slopes, losses, log_snr = gradients(state.params, losses_of, examples, importance, num_microbatches)
    after, scalars = apply_gradients(state, slopes, optimizer)
    after = dataclasses.replace(after, proposal=observe(state.proposal, losses.loss))
    # frames of one clip share a bucket: that of their mean level
    bucket = jnp.searchsorted(jnp.array(LOG_SNR_EDGES), log_snr.mean(axis=1))
    finite = jnp.isfinite(loss) & jnp.isfinite(scalars["gradient_norm"])
    window = Window(
        num_steps=window.num_steps + 1,
        mean_loss=window.mean_loss + loss,
        loss=window.loss.at[bucket].add(losses.loss),
        count=window.count.at[bucket].add(1.0),
        gradient_norm=window.gradient_norm + scalars["gradient_norm"],
        clipped_share=scalars["clipped_share"],
        learning_rate=scalars["learning_rate"],
        first_bad_step=jnp.minimum(window.first_bad_step, jnp.where(finite, NO_STEP, state.step)),
    )
    return after, window


def gradients(
    params: Params, losses_of: LossFn, examples: PyTree[Any], importance: Float[Array, "batch"], num_microbatches: int
) -> tuple[Float[Array, ""], Params, Losses, LogSnr]:
    """The mean loss, its gradient, and the losses and log-SNR of every example."""

    def mean_loss(
        params: Params, part: PyTree[Any], importance: Float[Array, "batch"]
    ) -> tuple[Float[Array, ""], tuple[Losses, LogSnr]]:
        losses, log_snr = losses_of(params, part)
        return (importance * losses.loss).mean(), (losses, log_snr)

    gradient = jax.value_and_grad(mean_loss, has_aux=True)
    if num_microbatches == 1:
        (loss, (losses, log_snr)), gradients = gradient(params, examples, importance)
        return loss, gradients, losses, log_snr

    def add(sums: PyTree[Any], part: PyTree[Any]) -> tuple[PyTree[Any], tuple[Losses, LogSnr]]:
        (loss, of_examples), gradients = gradient(params, *part)
        return jax.tree.map(jnp.add, sums, (loss, gradients)), of_examples

    none = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
    sums, parts = jax.lax.scan(add, none, microbatches((examples, importance), num_microbatches))
    loss, gradients = jax.tree.map(lambda total: total / num_microbatches, sums)
    losses, log_snr = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:]), parts)
    return loss, gradients, losses, log_snr


def microbatches(batch: PyTree[Array], count: int) -> PyTree[Array]:
    """[batch, ...] to [count, batch / count, ...]; part i has the rows i, i + count, ..., so every device keeps its
    share of each part and no row moves between devices.
    """
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf.reshape(-1, count, *leaf.shape[1:]), 0, 1), batch)
