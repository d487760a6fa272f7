"""The variational bound on -log p(x0), discrete (Ho et al. 2020) and continuous (Kingma et al. 2021), in nats.

    discrete(...)    L_T + sum over i = 2..T of L_{i-1} + L_0, one evaluation a step
    continuous(...)  L_1 + the integral over t of -1/2 d SNR/dt |x0 - x^|^2 + L_0, at given times

L_0 is a decoder: a probability of 8-bit pixels, or a density where data are continuous. `bits_per_dim` turns any of
them into the unit that is published.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from einops import reduce
from jax.scipy.special import log_ndtr
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int, Num, UInt8

from vdm.diffusion import noise_priors, process, schedules
from vdm.diffusion.noise_priors import NoisePrior
from vdm.diffusion.schedules import Schedule
from vdm.diffusion.times import Times
from vdm.types import Denoiser, Level, Time, Video, register_tree

PerExample = Float[Array, "batch"]
_LEVELS = 256  # of an 8-bit pixel


@register_tree
@dataclasses.dataclass(frozen=True)
class Bound:
    """The three parts, nats of each example."""

    prior: PerExample
    diffusion: PerExample
    decoder: PerExample

    @property
    def total(self) -> PerExample:
        return self.prior + self.diffusion + self.decoder


# -log p(x0) by N(mean, std^2), summed over the pixels of each frame: (x0, mean, std) to nats
Decoder = Callable[[Video, Video, Float[Array, "..."]], Time]


def bits_per_dim(nats: Float[Array, "*shape"], num_dims: int) -> Float[Array, "*shape"]:
    """Nats of 8-bit pixels (from a decoder of probabilities) per pixel and channel, in bits."""
    return nats / (num_dims * jnp.log(2.0))


def bits_per_dim_of_density(log_prob: Float[Array, "*shape"], num_dims: int) -> Float[Array, "*shape"]:
    """From the log density at `dequantised` clips: -log2 p / D + 7, for 256 levels are 2 wide. In the mean over u it
    bounds the code length of the 8-bit clips from above (Theis et al. 2016, arXiv 1511.01844).
    """
    return bits_per_dim(-log_prob, num_dims) + 7.0


def dequantised(levels: Num[Array, "*shape"], u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """2 (k + u)/256 - 1 for k in 0..255 and u uniform in [0, 1): likelihoods are trained and evaluated there."""
    return 2.0 * (levels + u) / _LEVELS - 1.0


def to_float(levels: UInt8[Array, "*shape"]) -> Float[Array, "*shape"]:
    """2 k/255 - 1 for k in 0..255, in float32: where 8-bit video is trained on."""
    return levels.astype(jnp.float32) / 127.5 - 1.0


def discretised_gaussian(half_width: float) -> Decoder:
    """The mass of each pixel's bin x +- half_width; the first and the last bin go on to infinity.

    1/255 for pixels at 2k/255 - 1 (Ho et al. 2020), 1/256 for bins whose middles are (2k + 1)/256 - 1.
    """

    def decode(x0: Video, mean: Video, std: Float[Array, "..."]) -> Time:
        outermost = 1.0 - 1.5 * half_width  # no pixel but the first and last lies beyond
        upper = jnp.where(x0 > outermost, jnp.inf, (x0 + half_width - mean) / std)
        lower = jnp.where(x0 < -outermost, -jnp.inf, (x0 - half_width - mean) / std)
        flip = lower + upper > 0.0  # the tail in which both are far from one
        lower, upper = jnp.where(flip, -upper, lower), jnp.where(flip, -lower, upper)
        log_upper, log_lower = log_ndtr(upper), log_ndtr(lower)
        return -_sum(log_upper + jnp.log(-jnp.expm1(log_lower - log_upper)))

    return decode


def gaussian(x0: Video, mean: Video, std: Float[Array, "..."]) -> Time:
    """A density, for data that are continuous."""
    return -_sum(norm.logpdf(x0, mean, std))


def nearest_level(x0: Video, mean: Video, std: Float[Array, "..."]) -> Time:
    """p(x0 | z0) proportional to N(x0; mean, std^2) over the 256 values of a pixel at 2k/255 - 1, with mean = z0/alpha
    and std = sigma/alpha (Kingma et al. 2021, equation 14): it needs no network.
    """
    values = 2.0 * jnp.arange(_LEVELS, dtype=x0.dtype) / (_LEVELS - 1) - 1.0
    of_all = jax.scipy.special.logsumexp(-0.5 * ((values - mean[..., None]) / std[..., None]) ** 2, axis=-1)
    return _sum(of_all + 0.5 * ((x0 - mean) / std) ** 2)


def prior_kl(schedule: Schedule, x0: Video, noise_prior: NoisePrior, t: float = 1.0) -> PerExample:
    """KL(q(x_t | x0) || N(0, sigma(t)^2 S)): to where sampling starts. Raises ValueError where S is singular."""
    noise_priors.require_regular(noise_prior, x0.shape[1], "a bound")
    log_snr = schedules.log_snr(schedule, jnp.full((), t, x0.dtype))
    return 0.5 * jnp.exp(log_snr) * _sum(noise_priors.whiten(noise_prior, x0) ** 2).sum(axis=1)


def step_kl(
    x0: Video, estimate: Video, s: Level, t: Level, share: Float[Array, "..."], noise_prior: NoisePrior
) -> Time:
    """KL(q(x_s | x_t, x0) || p(x_s | x_t)), p with x0 replaced by its estimate; s has noise.

    Args:
      share: of p's variance, beta tilde^(1 - share) beta^share: 0 the lower, 1 the upper one. A number, one per frame
        [batch, frames, 1, 1, 1], or one per pixel (learned).
    """
    _, of_x0, lower = (process.spread(number) for number in process.posterior(s, t))
    log_ratio = share * (2.0 * jnp.log(process.spread(t.sigma / s.sigma)))  # log variance of p over the lower one
    error = noise_priors.whiten(noise_prior, of_x0 * (x0 - estimate)) ** 2 / lower
    return 0.5 * _sum(log_ratio + jnp.expm1(-log_ratio) + jnp.exp(-log_ratio) * error)


def learned_step(schedule: Schedule, t: Time, x0: Video, estimate: Video, share: Video, decoder: Decoder) -> Time:
    """The term of the discrete bound at t = i/T with a learned variance: L_{i-1}, or L_0 where i = 1 (Nichol and
    Dhariwal 2021, equations 14 to 16). Beta tilde is 0 at i = 1; its value at i = 2 stands in, as there.

    Args:
      share: of every pixel, as in `step_kl`: the network's second output.
    """
    steps = schedule.num_steps
    assert steps is not None
    is_first = t * steps < 1.5
    later = jnp.where(is_first, 2.0 / steps, t)  # i = 1 has no step of its own
    here, there = schedules.level(schedule, later), schedules.level(schedule, later - 1.0 / steps)
    step = step_kl(x0, estimate, there, here, share, noise_priors.Independent())
    lower, upper = there.sigma**2 * process.lost_share(there, here), there.sigma**2  # of i = 1, whose level is `there`
    log_variance = share * process.spread(jnp.log(upper)) + (1.0 - share) * process.spread(jnp.log(lower))
    return jnp.where(is_first, decoder(x0, estimate, jnp.exp(0.5 * log_variance)), step)


def discrete(
    denoiser: Denoiser,
    schedule: Schedule,
    x0: Video,
    noise: Callable[[Int[Array, ""]], Video],
    *,
    decoder: Decoder,
    noise_prior: NoisePrior,
    share: float = 0.0,
) -> Bound:
    """The bound of a chain of T steps, every step evaluated once.

    Args:
      noise: i = 0..T-1 to standard normal noise.
      decoder: of L_0, at the estimate from the first level with its standard deviation (beta_1 of Ho et al. 2020).
      share: of the steps' variance, as in `step_kl`.

    Raises:
      ValueError: the schedule is no chain, or S is singular.
    """
    steps = schedule.num_steps
    if steps is None:
        raise ValueError(f"{type(schedule).__name__} has no steps: discretise it, or take the continuous bound")

    def at(i: Int[Array, ""]) -> Level:
        return schedules.level(schedule, jnp.broadcast_to(i / steps, x0.shape[:2]).astype(x0.dtype))

    def estimate(i: Int[Array, ""]) -> Video:
        return denoiser(process.diffuse(x0, noise_priors.correlate(noise_prior, noise(i - 1)), at(i)), at(i))

    def add(total: PerExample, i: Int[Array, ""]) -> tuple[PerExample, None]:
        share_of_all = jnp.asarray(share, x0.dtype)
        return total + step_kl(x0, estimate(i), at(i - 1), at(i), share_of_all, noise_prior).sum(axis=1), None

    diffusion, _ = jax.lax.scan(add, jnp.zeros(x0.shape[0], x0.dtype), jnp.arange(2, steps + 1))
    first = jnp.asarray(1)
    of_x0 = decoder(x0, estimate(first), process.spread(at(first).sigma))
    return Bound(prior_kl(schedule, x0, noise_prior), diffusion, of_x0.sum(axis=1))


def continuous(
    denoiser: Denoiser,
    schedule: Schedule,
    times: Times,
    x0: Video,
    u: Float[Array, "levels batch"],
    noise: Callable[[Int[Array, ""]], Video],
    *,
    decoder: Decoder,
    noise_prior: NoisePrior,
    decode_at: Literal["noisy", "estimate"] = "noisy",
) -> Bound:
    """An unbiased estimate of the bound between the two ends of the measure: sampling starts at the largest time, and
    the smallest is decoded.

    It depends on the schedule and the measure by their ends alone; `times.LogSnrUniform` has the lowest variance where
    the errors of the noise are even.

    Args:
      u: in [0, 1), to which the measure gives times, one for all frames; every example is evaluated at `levels` times.
      noise: index 0..levels to standard normal noise; the last one is for the decoder.
      decoder: of x0 from N(x_s / alpha_s, (sigma_s / alpha_s)^2) at the smallest time s: `nearest_level`, or
        `gaussian` for continuous data.
      decode_at: estimate: the decoder's mean is the network's there, as in `discrete`; of data that are smooth at that
        level (sensor noise of standard deviation tau) `noisy` loses log(1 + std^2 / tau^2) / 2 a pixel.
    """

    def at(t: Float[Array, "batch"]) -> tuple[Time, Level]:
        frames = jnp.broadcast_to(t[:, None], x0.shape[:2])
        return frames, schedules.level(schedule, frames)

    def term(row: tuple[Int[Array, ""], Float[Array, "batch"]]) -> PerExample:
        index, u = row
        t, level = at(times.time(schedule, u))
        xt = process.diffuse(x0, noise_priors.correlate(noise_prior, noise(index)), level)
        error = _sum(noise_priors.whiten(noise_prior, x0 - denoiser(xt, level)) ** 2).sum(axis=1)
        alpha, sigma, alpha_rate, sigma_rate = schedules.rates(schedule, t)
        rate = alpha * (alpha * sigma_rate - alpha_rate * sigma) / sigma**3  # -1/2 d SNR/dt, also without any signal
        return rate[:, 0] / times.density(schedule, t)[:, 0] * error

    levels = u.shape[0]
    diffusion = jax.lax.map(term, (jnp.arange(levels), u)).mean(axis=0)
    cleanest, noisiest = times.ends(schedule)
    smallest = jnp.full(x0.shape[0], cleanest, x0.dtype)
    _, level = at(smallest)
    z0 = process.diffuse(x0, noise_priors.correlate(noise_prior, noise(jnp.asarray(levels))), level)
    mean = denoiser(z0, level) if decode_at == "estimate" else z0 / process.spread(level.alpha)
    of_x0 = decoder(x0, mean, process.spread(level.sigma / level.alpha))
    return Bound(prior_kl(schedule, x0, noise_prior, noisiest), diffusion, of_x0.sum(axis=1))


def _sum(per_pixel: Video) -> Time:
    return reduce(per_pixel, "batch frames height width channels -> batch frames", "sum")
