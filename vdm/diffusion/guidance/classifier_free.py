"""Guidance by linear combinations of denoisers (of scores, at the same xt).

Published in two conventions: eps = (1 + w) eps(c) - w eps(null) (Ho and Salimans 2022, arXiv 2207.12598; Imagen Video)
and eps = eps(null) + s (eps(c) - eps(null)), s = 1 + w (DiT, Stable Diffusion). Here `weight` is w: 0 changes nothing;
`weight_of` makes it from s. Each member costs an evaluation of the network. To add guidance by a label, write it and
add it to the table.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from vdm.diffusion.process import spread
from vdm.types import Denoiser, Level, Video

_ANY = 1e9  # a log-SNR beyond all that are meant by a finite bound
Guide = Callable[[Denoiser, Denoiser], Denoiser]  # told the condition, told none -> guided


def weight_of(scale: float) -> float:
    """w of the other convention's s."""
    return scale - 1.0


def classifier_free(
    conditional: Denoiser,
    unconditional: Denoiser,
    weight: float,
    *,
    log_snr_min: float = -_ANY,
    log_snr_max: float = _ANY,
    rescale: float = 0.0,
) -> Denoiser:
    """x0(c) + w (x0(c) - x0(null)). It costs two evaluations at every level, guided or not.

    Args:
      weight: w >= 0; s = 1 + w in the other convention.
      log_snr_min, log_snr_max: guided between these levels only (Kynkaanniemi et al. 2024, arXiv 2404.07724); -1e9 and
        1e9, the defaults, hold every level, those without signal or noise too.
      rescale: how far the standard deviation of each clip's estimate is brought back to that of the conditional one
        (phi of Lin et al. 2023, section 3.4: 0.7), in [0, 1].

    Raises:
      ValueError: an option out of its range.
    """
    if not (weight >= 0.0 and 0.0 <= rescale <= 1.0 and log_snr_min < log_snr_max):
        raise ValueError(
            "guidance needs weight >= 0, rescale in [0, 1] and log_snr_min < log_snr_max, got"
            f" {weight:g}, {rescale:g}, {log_snr_min:g} and {log_snr_max:g}"
        )

    def denoise(xt: Video, level: Level) -> Video:
        with_condition = conditional(xt, level)
        log_snr = jnp.clip(level.log_snr, -_ANY, _ANY)  # without any signal it is minus infinity, and guided as well
        inside = (log_snr >= log_snr_min) & (log_snr <= log_snr_max)
        weights = spread(jnp.where(inside, weight, 0.0).astype(xt.dtype))
        guided = with_condition + weights * (with_condition - unconditional(xt, level))
        if not rescale:
            return guided
        ratio = _std(with_condition) / _std(guided)
        return guided * (rescale * ratio + (1.0 - rescale))

    return denoise


def ordered(denoisers: Sequence[Denoiser], weights: Sequence[float]) -> Denoiser:
    """x0(null) + sum of s_i (x0(c_1..c_i) - x0(c_1..c_{i-1})): several conditions, each beside those before it (Girdhar
    et al. 2023, Emu Video, arXiv 2311.10709).

    Args:
      denoisers: told nothing, the first condition, the first two, ...
      weights: s_1, s_2, ..., one fewer; all 1: the last denoiser.

    Raises:
      ValueError: the numbers do not match.
    """
    if len(denoisers) != len(weights) + 1 or not weights:
        raise ValueError(f"{len(weights)} weights order {len(weights) + 1} denoisers, got {len(denoisers)}")

    def denoise(xt: Video, level: Level) -> Video:
        before = denoisers[0](xt, level)
        x0 = before
        for denoiser, weight in zip(denoisers[1:], weights, strict=True):
            here = denoiser(xt, level)
            x0, before = x0 + weight * (here - before), here
        return x0

    return denoise


def composition(denoisers: Sequence[Denoiser], weights: Sequence[float]) -> Denoiser:
    """The score sum of w_k score_k: a product of experts at each level (Du et al. 2023, arXiv 2302.11552; Video
    Adapter). Needs alpha > 0 unless the weights sum to 1.

    Raises:
      ValueError: the numbers do not match.
    """
    if len(denoisers) != len(weights) or not weights:
        raise ValueError(f"every denoiser needs one weight, got {len(denoisers)} and {len(weights)}")
    total = math.fsum(weights)
    rest = 0.0 if math.isclose(total, 1.0) else 1.0 - total

    def denoise(xt: Video, level: Level) -> Video:
        x0 = jnp.zeros_like(xt)
        for denoiser, weight in zip(denoisers, weights, strict=True):
            x0 += weight * denoiser(xt, level)
        return x0 if rest == 0.0 else x0 + rest * xt / spread(level.alpha)

    return denoise


def _std(video: Video) -> Float[Array, "batch 1 1 1 1"]:
    return jnp.std(video, axis=(1, 2, 3, 4), keepdims=True)


def _classifier_free(**options: float) -> Guide:
    return functools.partial(classifier_free, **options)


GUIDANCE: dict[str, Callable[..., Guide | None]] = {"none": lambda: None, "classifier_free": _classifier_free}
