"""Exact log-likelihood by the probability-flow ODE (Song et al. 2021, appendix D.2).

    log p(x) = log N(x_1; 0, sigma(1)^2 S) + integral from t_min to 1 of div dx/dt

The ODE is solved by diffrax, each example with its own steps, so no result depends on its batch. The divergence is
exact (a Jacobian, for small clips) or Hutchinson's estimate with m probes. What is measured is the density at t_min,
where the data carry noise of sigma(t_min).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vdm.diffusion import noise_priors, schedules
from vdm.diffusion.noise_priors import NoisePrior
from vdm.diffusion.samplers.flow import velocity
from vdm.diffusion.schedules import Schedule
from vdm.types import Denoiser, Video, register_tree

_STAGES = 6  # evaluations of the velocity per step of Dormand and Prince's method, after the first


@register_tree
@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Per example.

    Attributes:
      log_prob: nats.
      standard_error: of log_prob over the probes; zero for the exact divergence, NaN for one probe.
      latent: x at t = 1.
      num_evaluations: of the velocity and its divergence; the slowest example decides how long a batch takes.
    """

    log_prob: Float[Array, "batch"]
    standard_error: Float[Array, "batch"]
    latent: Video
    num_evaluations: Int[Array, "batch"]


def log_prob(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Video,
    *,
    t_min: float,
    rtol: float,
    atol: float,
    noise_prior: NoisePrior,
    probes: Float[Array, "probes batch frames height width channels"] | None = None,
    max_steps: int = 4096,
) -> Likelihood:
    """The log density of every clip.

    Args:
      x: at t_min; 8-bit clips are made continuous by `bound.dequantised`.
      rtol, atol: relative and absolute error of the solver's step, in x and in log p alike.
      probes: m independent draws of mean zero and unit covariance for each example, signs (Rademacher) have the lowest
        variance; None: the exact divergence, which costs one derivative per pixel.
      max_steps: of the solver; more are an error when the program runs.

    Raises:
      ValueError: t_min outside of (0, 1), or a noise prior whose covariance is singular.
    """
    if not 0.0 < t_min < 1.0:
        raise ValueError(f"t_min must be in (0, 1), got {t_min:g}")
    noise_priors.require_regular(noise_prior, x.shape[1], "a likelihood")
    dtype = x.dtype

    def flow(x: Float[Array, "frames height width channels"], t: Float[Array, ""]) -> Float[Array, "..."]:
        return velocity(denoiser, schedule, x[None], jnp.full((1, x.shape[0]), t, dtype))[0]

    def solve(x: Float[Array, "frames height width channels"], probe: Array | None) -> tuple[Array, Array, Array]:
        def field(t: Float[Array, ""], state: tuple[Array, Array], args: Array | None) -> tuple[Array, Array]:
            at = lambda x: flow(x, t)  # noqa: E731
            return _exact(at, state[0]) if args is None else _hutchinson(at, state[0], args)

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),  # pyright: ignore[reportArgumentType]  # it takes any function
            diffrax.Dopri5(),
            jnp.asarray(t_min, dtype),
            jnp.ones((), dtype),
            None,
            (x, jnp.zeros(1 if probe is None else probe.shape[0], dtype)),
            probe,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
            max_steps=max_steps,
        )
        assert solution.ys is not None
        latent, change = jax.tree.map(lambda leaf: leaf[-1], solution.ys)
        return latent, change, 1 + _STAGES * solution.stats["num_steps"]

    by_example = None if probes is None else jnp.moveaxis(probes, 0, 1)
    latent, change, count = jax.vmap(solve)(x, by_example)
    m = change.shape[1]
    error = jnp.zeros(x.shape[0], dtype) if probes is None else change.std(axis=1, ddof=1) / np.sqrt(m)
    return Likelihood(
        log_prob=_prior_log_prob(schedule, noise_prior, latent) + change.mean(axis=1),
        standard_error=error,
        latent=latent,
        num_evaluations=count,
    )


def _prior_log_prob(schedule: Schedule, noise_prior: NoisePrior, latent: Video) -> Float[Array, "batch"]:
    std = schedules.prior_std(schedule)
    size = latent[0].size
    pixels_per_frame = size // latent.shape[1]
    log_determinant = pixels_per_frame * noise_priors.log_determinant(noise_prior, latent.shape[1])
    white = noise_priors.whiten(noise_prior, latent) / std
    squares = jnp.sum(white**2, axis=(1, 2, 3, 4))
    return -0.5 * (squares + size * jnp.log(2.0 * jnp.pi) + log_determinant) - size * jnp.log(std)


def _exact(flow: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
    jacobian = jax.jacfwd(lambda flat: flow(flat.reshape(x.shape)).ravel())(x.ravel())
    return flow(x), jnp.trace(jacobian)[None]


def _hutchinson(flow: Callable[[Array], Array], x: Array, probe: Array) -> tuple[Array, Array]:
    value, push = jax.linearize(flow, x)
    return value, jax.vmap(lambda z: jnp.vdot(z, push(z)))(probe)
