"""The optimiser: Adam or AdamW with warm-up, gradients clipped by their global norm, and the average of parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from vdm.nets.sharding import path_of
from vdm.types import Params


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """What one step does with the gradients.

    Attributes:
      transform: gradients to updates, with the learning rate and its sign inside.
      learning_rate: the schedule inside `transform`, to be reported: index of the step, from 0, to the rate.
      clip_norm: Euclidean norm over all parameters above which the gradients are scaled down to it.
      ema_decay: of the exponential moving average, in [0, 1).
      ema_decay_short: of a second average, below the first's; 0: there is none.
    """

    transform: optax.GradientTransformation
    learning_rate: optax.Schedule
    clip_norm: float
    ema_decay: float
    ema_decay_short: float = 0.0

    def __post_init__(self) -> None:
        if self.clip_norm <= 0:
            raise ValueError(f"clip_norm is {self.clip_norm}; it must be positive (a very large number never clips)")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must lie in [0, 1); 0 means no averaging")
        if self.ema_decay_short and not 0 < self.ema_decay_short < self.ema_decay:
            raise ValueError(
                f"ema_decay_short is {self.ema_decay_short} and ema_decay {self.ema_decay}; the short average forgets "
                "sooner: its decay must lie between 0, which means none, and the other"
            )


def warmup_cosine(peak: float, *, warmup_steps: int, decay_steps: int) -> optax.Schedule:
    """Linear warm-up, then constant or a cosine to zero (Loshchilov & Hutter 2017).

    Step k, counted from 0, is made with peak (k + 1) / warmup_steps while k < warmup_steps, so the first step already
    moves and step warmup_steps - 1 is the first at the peak; n steps after that one the rate is
    peak (1 + cos(pi n / decay_steps)) / 2, and 0 from n = decay_steps on.

    Args:
      peak: the highest learning rate.
      warmup_steps: 0 means none.
      decay_steps: length of the cosine; 0 means constant.

    Raises:
      ValueError: if a number is negative or the peak is not positive.
    """
    if peak <= 0 or warmup_steps < 0 or decay_steps < 0:
        raise ValueError(
            f"the learning rate is {peak} with warmup_steps {warmup_steps} and decay_steps {decay_steps}; "
            "the rate must be positive and the steps at least 0"
        )

    def rate(step: Int[Array, ""] | int) -> Float[Array, ""]:
        done = jnp.asarray(step, jnp.float32) + 1
        warmup = jnp.minimum(done / max(warmup_steps, 1), 1)
        if not decay_steps:
            return peak * warmup
        decayed = jnp.clip((done - max(warmup_steps, 1)) / decay_steps, 0, 1)
        return peak * warmup * (1 + jnp.cos(jnp.pi * decayed)) / 2

    return rate  # pyright: ignore[reportReturnType]  # optax's own alias for an array is wider


def adam(learning_rate: optax.Schedule, *, beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015)."""
    return optax.adam(learning_rate, b1=beta1, b2=beta2, eps=epsilon)


def adamw(
    learning_rate: optax.Schedule, *, beta1: float, beta2: float, epsilon: float, weight_decay: float
) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019); only what is named kernel decays, by rate x weight_decay."""

    def is_kernel(params: Params) -> Params:
        return jax.tree_util.tree_map_with_path(lambda path, leaf: path_of(path).endswith("kernel"), params)

    return optax.adamw(learning_rate, b1=beta1, b2=beta2, eps=epsilon, weight_decay=weight_decay, mask=is_kernel)


def clip_by_norm(gradients: Params, max_norm: float) -> tuple[Params, Float[Array, ""]]:
    """Scales the gradients down to a global norm (Pascanu et al. 2013).

    Returns:
      The gradients times min(1, max_norm / norm), and the norm that they came with. What is not finite stays so.
    """
    norm = optax.tree.norm(gradients)
    factor = jnp.where(norm > max_norm, max_norm / norm, 1.0)
    return jax.tree.map(lambda gradient: gradient * factor, gradients), norm


def average(ema: Params, params: Params, decay: float) -> Params:
    """One step of the exponential moving average, ema <- decay ema + (1 - decay) params.

    After n steps at constant parameters p it is p + decay^n (start - p).
    """
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, params)
