"""A schedule that is trained: the monotone log-SNR of Kingma et al. 2021 (arXiv 2107.00630, appendix H).

Its numbers are parameters. The continuous-time bound does not depend on them but for the two ends, so everything
between is trained to lower the variance of the bound's estimate (`objectives.spread`). Its ends stay where the config
puts them: where they are trained too (Kingma et al.), the decoder's term must be part of the loss.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdm.types import register_tree


@register_tree
@dataclasses.dataclass(frozen=True)
class Learned:
    """alpha^2 = sigmoid(log_snr), sigma^2 = sigmoid(-log_snr); log_snr falls from log_snr_max to log_snr_min along a
    rising function of t with positive weights, scaled to go from 0 to 1.

    Attributes:
      linear, inner, outer: pass through softplus, which keeps the function monotone.
      bias: of the sigmoids.
    """

    log_snr_max: Float[Array, ""]
    log_snr_min: Float[Array, ""]
    linear: Float[Array, ""]
    inner: Float[Array, "hidden"]
    bias: Float[Array, "hidden"]
    outer: Float[Array, "hidden"]

    @property
    def num_steps(self) -> None:
        return None

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.sqrt(jax.nn.sigmoid(self._log_snr(t)))

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.sqrt(jax.nn.sigmoid(-self._log_snr(t)))

    def _log_snr(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        first, last = self._rising(jnp.zeros((), t.dtype)), self._rising(jnp.ones((), t.dtype))
        share = (self._rising(t) - first) / (last - first)
        return self.log_snr_max + share * (self.log_snr_min - self.log_snr_max)

    def _rising(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        inner, outer = jax.nn.softplus(self.inner), jax.nn.softplus(self.outer)
        bends = jax.nn.sigmoid(inner * t[..., None] + self.bias) @ outer
        return jax.nn.softplus(self.linear) * t + bends


def between_fixed_ends(schedule: Learned) -> Learned:
    """The same schedule, through whose two ends no gradient passes."""
    low, high = jax.lax.stop_gradient((schedule.log_snr_min, schedule.log_snr_max))
    return dataclasses.replace(schedule, log_snr_min=low, log_snr_max=high)


def learned(hidden: int, log_snr_min: float, log_snr_max: float) -> Learned:
    """Before training: about linear in t between the given ends.

    Raises:
      ValueError: no hidden unit, or not -inf < log_snr_min < log_snr_max < inf.
    """
    if hidden < 1 or not -np.inf < log_snr_min < log_snr_max < np.inf:
        raise ValueError(
            f"learned needs hidden >= 1 and finite log_snr_min < log_snr_max, got {hidden}, {log_snr_min:g} and"
            f" {log_snr_max:g}"
        )
    return Learned(
        log_snr_max=jnp.asarray(float(log_snr_max)),
        log_snr_min=jnp.asarray(float(log_snr_min)),
        linear=jnp.asarray(1.0),
        inner=jnp.full(hidden, 2.0),
        bias=jnp.linspace(-2.0, 0.0, hidden),  # bends at different times
        outer=jnp.full(hidden, -2.0),
    )
