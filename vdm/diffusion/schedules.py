"""Noise schedules: alpha(t) and sigma(t) for t in [0, 1], from data (0) to noise (1).

A schedule is a value that knows two functions, log alpha and log sigma; each is accurate at both ends of the range,
because neither is computed from the other by a difference of numbers near one. Everything else is derived here, once,
for any schedule:

    log_snr = 2 (log alpha - log sigma)
    f       = d log alpha / dt              the drift of the SDE is f(t) x
    g^2     = -sigma^2 d log_snr / dt       its squared diffusion

(Song et al. 2021, arXiv 2011.13456; Kingma et al. 2021, arXiv 2107.00630). The DDPM chain of T steps is the VP SDE with
beta(t) constant on each ((i - 1)/T, i/T]: the two have the same marginals at every t = i/T, so discrete and continuous
objectives share all code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vdm.types import Level, Time, register_tree

_BISECTIONS = 64  # halvings of [0, 1] in `time_of`: more than float64 can tell apart


@runtime_checkable
class Schedule(Protocol):
    """alpha(t) and sigma(t) by their logarithms, elementwise in t.

    To add a schedule, write these three in a dataclass that is registered with JAX
    (`vdm.types.register_tree`): compiled functions take it as an argument.
    """

    @property
    def num_steps(self) -> int | None:
        """Steps T of the discrete chain whose times are i/T; None for a schedule that is continuous."""
        ...

    def log_alpha(self, t: Float[Array, "..."]) -> Float[Array, "..."]: ...

    def log_sigma(self, t: Float[Array, "..."]) -> Float[Array, "..."]: ...


def level(schedule: Schedule, t: Time) -> Level:
    """The noise level of every frame at its time t in [0, 1]."""
    log_alpha, log_sigma = schedule.log_alpha(t), schedule.log_sigma(t)
    return Level(alpha=jnp.exp(log_alpha), sigma=jnp.exp(log_sigma), log_snr=2.0 * (log_alpha - log_sigma))


def log_snr(schedule: Schedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(alpha^2 / sigma^2), falling in t."""
    return 2.0 * (schedule.log_alpha(t) - schedule.log_sigma(t))


def log_snr_rate(schedule: Schedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """d log_snr / dt, negative."""
    return _derivative(lambda time: log_snr(schedule, time), t)


def drift(schedule: Schedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """f(t) of the forward SDE dx = f(t) x dt + g(t) dw; -beta(t)/2 for a variance-preserving schedule."""
    return _derivative(schedule.log_alpha, t)


def diffusion_squared(schedule: Schedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """g(t)^2 of the forward SDE dx = f(t) x dt + g(t) dw; beta(t) for a variance-preserving one. Needs sigma(t) > 0."""
    return -jnp.exp(2.0 * schedule.log_sigma(t)) * log_snr_rate(schedule, t)


def time_of(schedule: Schedule, log_snrs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The time at which the schedule reaches each log-SNR: the inverse of `log_snr`, by bisection.

    The schedule and the levels must be known when the program is traced.

    Raises:
      ValueError: a log-SNR lies outside of what the schedule reaches on [0, 1].
    """
    with jax.ensure_compile_time_eval():
        ends = np.asarray(log_snr(schedule, jnp.array([1.0, 0.0])))
        wanted = np.asarray(log_snrs)
        if not np.all((wanted >= ends[0]) & (wanted <= ends[1])):
            raise ValueError(
                f"log-SNR {wanted.min():g} to {wanted.max():g} was asked for, but {type(schedule).__name__} reaches"
                f" {ends[0]:g} (t = 1) to {ends[1]:g} (t = 0) only: choose levels inside, or another schedule"
            )
        return _bisected(schedule, log_snrs)


@jax.jit
def _bisected(schedule: Schedule, log_snrs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    def halve(_: Int[Array, ""], bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        too_clean = log_snr(schedule, middle) > log_snrs
        return jnp.where(too_clean, middle, low), jnp.where(too_clean, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(log_snrs), jnp.ones_like(log_snrs)))
    return 0.5 * (low + high)


@register_tree
@dataclasses.dataclass(frozen=True)
class VPLinear:
    """The variance-preserving SDE with beta(t) = beta_min + t (beta_max - beta_min) (Song et al. 2021, appendix C)."""

    beta_min: float
    beta_max: float

    @property
    def num_steps(self) -> None:
        return None

    def log_alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return -0.5 * self._integral(t)

    def log_sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 0.5 * _log1mexp(self._integral(t))

    def _integral(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))


@register_tree
@dataclasses.dataclass(frozen=True)
class Chain:
    """A DDPM chain of T steps as the VP SDE with beta(t) = -T log(1 - beta_i) on ((i - 1)/T, i/T].

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

    def log_alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return -0.5 * self._interpolate(t)

    def log_sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 0.5 * _log1mexp(self._interpolate(t))

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
class Cosine:
    """alpha = cos(u), sigma = sin(u), u linear in t between the given log-SNRs (Ho et al. 2022, arXiv 2204.03458)."""

    log_snr_min: float
    log_snr_max: float

    @property
    def num_steps(self) -> None:
        return None

    def log_alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 0.5 * jax.nn.log_sigmoid(self._log_snr(t))

    def log_sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 0.5 * jax.nn.log_sigmoid(-self._log_snr(t))

    def _log_snr(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        clean = jnp.arctan(jnp.exp(jnp.asarray(-0.5 * self.log_snr_max, t.dtype)))  # the angle at t = 0
        noisy = jnp.arctan(jnp.exp(jnp.asarray(0.5 * self.log_snr_min, t.dtype)))  # pi/2 minus the angle at t = 1
        slope = 0.5 * jnp.pi - clean - noisy
        near_data = t < 0.5
        # each half measures its angle from its own end, where a small angle is exact
        angle = jnp.where(near_data, clean + slope * t, noisy + slope * (1.0 - t))
        return jnp.where(near_data, -2.0, 2.0) * jnp.log(jnp.tan(angle))


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


def vp_linear(beta_min: float, beta_max: float) -> VPLinear:
    """Song et al. 2021 take 0.1 and 20.

    Raises:
      ValueError: not 0 < beta_min <= beta_max.
    """
    if not 0.0 < beta_min <= beta_max:
        raise ValueError(f"vp_linear needs 0 < beta_min <= beta_max, got {beta_min:g} and {beta_max:g}")
    return VPLinear(float(beta_min), float(beta_max))


def cosine(log_snr_min: float, log_snr_max: float) -> Cosine:
    """Ho et al. 2022 take -20 and 20.

    Raises:
      ValueError: not -inf < log_snr_min < log_snr_max < inf.
    """
    if not -np.inf < log_snr_min < log_snr_max < np.inf:
        raise ValueError(f"cosine needs finite log_snr_min < log_snr_max, got {log_snr_min:g} and {log_snr_max:g}")
    return Cosine(float(log_snr_min), float(log_snr_max))


def _derivative(function: Callable[[Array], Array], t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jax.jvp(function, (t,), (jnp.ones_like(t),))[1]


def _log1mexp(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(1 - exp(-x)) for x >= 0, without cancellation at either end (Maechler 2012); -inf at 0."""
    small = x < jnp.log(2.0)
    # both branches see an argument that is fine for them, so that the gradient of the other one is finite
    return jnp.where(
        small,
        jnp.log(-jnp.expm1(-jnp.where(small, x, 1.0))),
        jnp.log1p(-jnp.exp(-jnp.where(small, 1.0, x))),
    )
