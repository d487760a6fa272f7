"""The forward process and its exact conditionals, for any alpha and sigma.

xt = alpha x0 + sigma noise at every level; between two levels s (cleaner) and t (noisier) the process is Gaussian and
Markov. All coefficients are formed from the levels' log-SNRs with expm1, so that close levels lose nothing (Kingma et
al. 2021, appendix A).
"""

from __future__ import annotations

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Shaped

from vdm.types import Level, Time, Video

PerFrame = Shaped[Array, "batch frames 1 1 1"]


def spread(values: Shaped[Array, "batch frames"]) -> PerFrame:
    """One number per frame, shaped to be multiplied with video."""
    return rearrange(values, "batch frames -> batch frames 1 1 1")


def diffuse(x0: Video, noise: Video, level: Level) -> Video:
    """A draw from q(xt | x0) = N(alpha x0, sigma^2 I), made of a given standard normal noise."""
    return spread(level.alpha) * x0 + spread(level.sigma) * noise


def without_noise(level: Level, given: Bool[Array, "batch frames"]) -> Level:
    """The level with alpha 1, sigma 0 and log-SNR +inf at the given frames, which are x0 itself."""
    return Level(
        alpha=jnp.where(given, 1.0, level.alpha),
        sigma=jnp.where(given, 0.0, level.sigma),
        log_snr=jnp.where(given, jnp.inf, level.log_snr),
    )


def noise_from(x0: Video, xt: Video, level: Level) -> Video:
    """The noise that leads from x0 to xt. Float32 loses accuracy like exp(log_snr / 2) times its epsilon; sigma must
    not be 0.
    """
    return (xt - spread(level.alpha) * x0) / spread(level.sigma)


def score_from(x0: Video, xt: Video, level: Level) -> Video:
    """grad log q(xt | x0), or of the marginal where x0 is E[x0 | xt] (Tweedie); sigma must not be 0. Where noise has
    the covariance S it is S times that gradient, which is what steps are made of.
    """
    return -noise_from(x0, xt, level) / spread(level.sigma)


def transition(s: Level, t: Level) -> tuple[Time, Time]:
    """The kernel q(x_t | x_s) = N(scale x_s, variance I).

    Returns:
      (scale, variance): sqrt(1 - beta) and beta for neighbouring levels of a DDPM chain.
    """
    return t.alpha / s.alpha, t.sigma**2 * lost_share(s, t)


def posterior(s: Level, t: Level) -> tuple[Time, Time, Time]:
    """The exact step back, q(x_s | x_t, x0) = N(of_xt x_t + of_x0 x0, variance I); s is cleaner than t.

    Finite at zero SNR (alpha_t = 0).

    Returns:
      (of_xt, of_x0, variance): the variance is the lower one, beta tilde of Ho et al. 2020 (equation 7).
    """
    share = lost_share(s, t)
    of_xt = (t.alpha / s.alpha) * (s.sigma / t.sigma) ** 2
    return of_xt, s.alpha * share, s.sigma**2 * share


def lost_share(s: Level, t: Level) -> Time:
    """1 - SNR_t / SNR_s: the share of the cleaner level's SNR that is lost on the way to the noisier one."""
    return -jnp.expm1(t.log_snr - s.log_snr)
