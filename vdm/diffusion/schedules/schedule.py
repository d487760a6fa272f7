"""What a noise schedule is: alpha(t) and sigma(t) for t in [0, 1], from data (0) to noise (1).

A schedule is a value that knows two functions, each accurate at both ends of the range, because neither is computed
from the other by a difference of numbers near one. Everything else is derived here, once, for any schedule:

    log_snr = 2 log(alpha / sigma)
    f       = d log alpha / dt              the drift of the SDE is f(t) x
    g^2     = -sigma^2 d log_snr / dt       its squared diffusion

(Song et al. 2021, arXiv 2011.13456; Kingma et al. 2021, arXiv 2107.00630). Discrete and continuous processes share all
code: a chain of T steps is a schedule that training and its own samplers ask for the times i/T only.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vdm.types import Level, Time

_BISECTIONS = 64  # halvings of [0, 1] in `time_of`: more than float64 can tell apart
_ROUNDING = 1e-5  # by which a log-SNR may miss an end of the schedule, relative to 1 + |log_snr|


@runtime_checkable
class Schedule(Protocol):
    """alpha(t) and sigma(t), elementwise in t; alpha / sigma falls.

    To add a schedule, write these three in a dataclass that is registered with JAX (`vdm.types.register_tree`):
    compiled functions take it as an argument.
    """

    @property
    def num_steps(self) -> int | None:
        """Steps T of the discrete chain whose times are i/T; None for a schedule that is continuous."""
        ...

    def alpha(self, t: Float[Array, "..."]) -> Float[Array, "..."]: ...

    def sigma(self, t: Float[Array, "..."]) -> Float[Array, "..."]: ...


def level(schedule: Schedule, t: Time) -> Level:
    """The noise level of every frame at its time t in [0, 1]."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return Level(alpha=alpha, sigma=sigma, log_snr=2.0 * (jnp.log(alpha) - jnp.log(sigma)))


def log_snr(schedule: Schedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(alpha^2 / sigma^2), falling in t; infinite where there is no noise, minus infinity where no signal."""
    return 2.0 * (jnp.log(schedule.alpha(t)) - jnp.log(schedule.sigma(t)))


def rates(
    schedule: Schedule, t: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"], Float[Array, "*shape"], Float[Array, "*shape"]]:
    """(alpha, sigma, d alpha/dt, d sigma/dt), finite without any signal too."""
    one = jnp.ones_like(t)
    alpha, alpha_rate = jax.jvp(schedule.alpha, (t,), (one,))
    sigma, sigma_rate = jax.jvp(schedule.sigma, (t,), (one,))
    return alpha, sigma, alpha_rate, sigma_rate


def log_snr_rate(schedule: Schedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """d log_snr / dt, negative."""
    alpha, sigma, alpha_rate, sigma_rate = rates(schedule, t)
    return 2.0 * (alpha_rate / alpha - sigma_rate / sigma)


def drift(schedule: Schedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """f(t) of the forward SDE dx = f(t) x dt + g(t) dw; -beta(t)/2 for a variance-preserving schedule."""
    alpha, _, alpha_rate, _ = rates(schedule, t)
    return alpha_rate / alpha


def diffusion_squared(schedule: Schedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """g(t)^2 of the forward SDE dx = f(t) x dt + g(t) dw; beta(t) for a variance-preserving one. Needs sigma(t) > 0."""
    return -(schedule.sigma(t) ** 2) * log_snr_rate(schedule, t)


def prior_std(schedule: Schedule) -> Float[Array, ""]:
    """sigma(1): sampling starts from N(0, sigma(1)^2 I), and the bounds count the KL divergence to it. It is 1 within
    1e-4 for the variance-preserving schedules and sigma_max for the exploding ones.
    """
    return schedule.sigma(jnp.ones(()))


def time_of(schedule: Schedule, log_snrs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The time at which the schedule reaches each log-SNR: the inverse of `log_snr`, by bisection.

    The schedule and the levels must be known when the program is traced.

    Raises:
      ValueError: a log-SNR lies outside of what the schedule reaches on [0, 1].
    """
    with jax.ensure_compile_time_eval():
        ends = np.asarray(log_snr(schedule, jnp.array([1.0, 0.0])))
        wanted = np.asarray(log_snrs)
        slack = _ROUNDING * (1.0 + np.abs(np.where(np.isfinite(ends), ends, 0.0)))
        if not np.all((wanted >= ends[0] - slack[0]) & (wanted <= ends[1] + slack[1])):
            raise ValueError(
                f"log-SNR {wanted.min():g} to {wanted.max():g} was asked for, but {type(schedule).__name__} reaches"
                f" {ends[0]:g} (t = 1) to {ends[1]:g} (t = 0) only: choose levels inside, or another schedule"
            )
        return time_of_unchecked(schedule, log_snrs)


@jax.jit
def time_of_unchecked(schedule: Schedule, log_snrs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """As `time_of`, inside a compiled function; a log-SNR outside of the schedule's range gives the nearest end."""

    def halve(_: Int[Array, ""], bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        too_clean = log_snr(schedule, middle) > log_snrs
        return jnp.where(too_clean, middle, low), jnp.where(too_clean, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(log_snrs), jnp.ones_like(log_snrs)))
    return 0.5 * (low + high)
