"""Chains: schedules of T steps, at the times i/T.

The DDPM chain is the VP SDE with beta(t) = -T log(1 - beta_i), constant on each ((i - 1)/T, i/T]: the two have the same
marginals at every t = i/T, so discrete and continuous objectives are one piece of code.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdm.diffusion.schedules.families import VE, ve
from vdm.diffusion.schedules.schedule import Schedule
from vdm.types import register_tree, static


@register_tree
@dataclasses.dataclass(frozen=True)
class Chain:
    """A DDPM chain of T steps.

    Attributes:
      integral: of beta(t) over [0, i/T] for i = 0..T, which is -log prod_{s <= i} (1 - beta_s); float64 on the host.
    """

    integral: Float[Array | np.ndarray, "knots"]

    @property
    def num_steps(self) -> int:
        return self.integral.shape[0] - 1

    @property
    def betas(self) -> Float[np.ndarray, "num_steps"]:
        """beta_1 .. beta_T of the chain."""
        return -np.expm1(-np.diff(np.asarray(self.integral)))

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.exp(-0.5 * self._interpolate(t))

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.sqrt(-jnp.expm1(-self._interpolate(t)))

    def _interpolate(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        knots = jnp.asarray(self.integral, t.dtype)
        # i/T rounded up must still fall into the piece that ends at i/T, whose beta is beta_i
        slack = 1.0 - 4.0 * jnp.finfo(t.dtype).eps
        piece = jnp.clip(jnp.ceil(t * self.num_steps * slack).astype(jnp.int32), 1, self.num_steps)
        left, right = knots[piece - 1], knots[piece]
        from_start = t * self.num_steps - (piece - 1)
        from_end = (self.num_steps - piece + 1) - (1.0 - t) * self.num_steps  # exact near t = 1, where beta is largest
        return left + jnp.where(t < 0.5, from_start, from_end) * (right - left)


@register_tree
@dataclasses.dataclass(frozen=True)
class Discretised:
    """Another schedule at the times i/T only: the chain that has its marginals."""

    schedule: Schedule
    num_steps: int = static()

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.schedule.alpha(t)

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.schedule.sigma(t)


def discretised(schedule: Schedule, num_steps: int) -> Discretised:
    """The chain of num_steps >= 1 levels of a continuous schedule.

    Raises:
      ValueError: no step at all, or a chain already.
    """
    if num_steps < 1 or schedule.num_steps is not None:
        raise ValueError(
            f"a continuous schedule is discretised in at least 1 step, got {num_steps} steps and "
            + ("a continuous one" if schedule.num_steps is None else f"a chain of {schedule.num_steps}")
        )
    return Discretised(schedule, int(num_steps))


def ddpm_linear(num_steps: int, beta_start: float, beta_end: float) -> Chain:
    """beta_i equally spaced from beta_start to beta_end (Ho, Jain and Abbeel 2020, arXiv 2006.11239: 1000, 1e-4,
    0.02).
    """
    return chain(np.linspace(beta_start, beta_end, num_steps, dtype=np.float64))


def ddpm_cosine(num_steps: int, offset: float, max_beta: float) -> Chain:
    """prod (1 - beta) follows cos^2 in i/T, beta_i at most max_beta (Nichol and Dhariwal 2021, arXiv 2102.09672:
    0.008, 0.999).
    """
    angle = (np.arange(num_steps + 1, dtype=np.float64) / num_steps + offset) / (1.0 + offset) * (0.5 * np.pi)
    kept = np.cos(angle) ** 2
    return chain(np.minimum(1.0 - kept[1:] / kept[:-1], max_beta))


def smld(num_steps: int, sigma_min: float, sigma_max: float) -> Discretised:
    """num_steps geometric levels from sigma_min to sigma_max, both included (Song and Ermon 2019, arXiv 1907.05600: 10
    from 0.01 to 1; Song et al. 2021: 1000 from 0.01 to 50).

    Raises:
      ValueError: fewer than 2 levels, or not 0 < sigma_min < sigma_max.
    """
    if num_steps < 2:
        raise ValueError(f"smld needs at least 2 levels, got {num_steps}")
    whole: VE = ve(sigma_min, sigma_max)
    before = sigma_min * (sigma_min / sigma_max) ** (1.0 / (num_steps - 1))  # one level more, at t = 0
    return discretised(dataclasses.replace(whole, sigma_min=before), num_steps)


def chain(betas: Float[np.ndarray, "num_steps"]) -> Chain:
    """The schedule of a DDPM chain given by its betas.

    Raises:
      ValueError: no beta at all, or one outside of (0, 1).
    """
    if not (betas.size and np.all((betas > 0.0) & (betas < 1.0))):
        raise ValueError(
            f"a chain needs at least one step and every beta in (0, 1), got {betas.size} betas"
            + (f" from {betas.min():g} to {betas.max():g}" if betas.size else "")
        )
    return Chain(integral=np.concatenate([[0.0], np.cumsum(-np.log1p(-betas))]))
