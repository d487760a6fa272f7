"""Guidance by the gradient of a log-likelihood with respect to the noisy clip."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vdm.diffusion import noise_priors
from vdm.diffusion.noise_priors import Independent, NoisePrior
from vdm.diffusion.process import spread
from vdm.types import Denoiser, Level, Video

INDEPENDENT = Independent()
LogProb = Callable[[Video, Level], Float[Array, "batch"]]


def classifier(
    denoiser: Denoiser, log_prob: LogProb, scale: float, *, noise_prior: NoisePrior = INDEPENDENT
) -> Denoiser:
    """x0 + scale sigma^2/alpha S grad log p(c | xt), which is eps - scale sigma S grad log p (Dhariwal and Nichol 2021,
    arXiv 2105.05233, with S = I). With the exact classifier and scale 1 it is the exact conditional. Needs alpha > 0.

    Args:
      log_prob: log p(c | xt) of every example, at its noise level.
      noise_prior: of the noise in xt, whose covariance is S.
    """

    def denoise(xt: Video, level: Level) -> Video:
        gradient = jax.grad(lambda xt: log_prob(xt, level).sum())(xt)
        towards = noise_priors.covary(noise_prior, gradient)
        return denoiser(xt, level) + scale * spread(level.sigma**2 / level.alpha) * towards

    return denoise


def reconstruction(
    denoiser: Denoiser,
    given: Bool[Array, "batch frames"],
    x0: Video,
    weight: float,
    *,
    noise_prior: NoisePrior = INDEPENDENT,
) -> Denoiser:
    """x0^ - weight alpha/2 S grad |x_a - x_a^(xt)|^2 in the wanted frames, the given x_a in the given ones (Ho et al.
    2022, arXiv 2204.03458, equation 7).

    The sum of squares runs over all pixels of the given frames and the gradient through the denoiser, which costs a
    backward pass. It takes q(x_a | xt) for N(x_a^, sigma^2/alpha^2 I), which is too wide: weights above 1 make up for
    it in part. Sample with `Replacement`, which holds the given frames at their level.

    Args:
      given: True for frames whose x0 is known.
      x0: the clean clip; only its given frames are read.
      weight: w_r.
      noise_prior: of the noise in xt, whose covariance is S.

    Raises:
      ValueError: weight is negative.
    """
    if weight < 0.0:
        raise ValueError(f"the weight of reconstruction guidance must be at least 0, got {weight:g}")

    def denoise(xt: Video, level: Level) -> Video:
        mask = spread(given)

        def mismatch(xt: Video) -> tuple[Float[Array, ""], Video]:
            estimate = denoiser(xt, level)
            return jnp.sum(jnp.where(mask, x0 - estimate, 0.0) ** 2), estimate

        gradient, estimate = jax.grad(mismatch, has_aux=True)(xt)
        towards = noise_priors.covary(noise_prior, gradient)
        return jnp.where(mask, x0, estimate - 0.5 * weight * spread(level.alpha) * towards)

    return denoise
