"""Thresholds: the estimate of x0 held inside the range of the data. To add one, write it and add it to the table."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from einops import rearrange

from vdm.types import Denoiser, Level, Video

Threshold = Callable[[Denoiser], Denoiser]


def none() -> Threshold:
    """The denoiser itself."""
    return lambda denoiser: denoiser


def static(low: float, high: float) -> Threshold:
    """The estimates clipped to [low, high], pixel by pixel (Ho et al. 2020).

    Raises:
      ValueError: not low < high.
    """
    if not low < high:
        raise ValueError(f"threshold.static needs low < high, got {low:g} and {high:g}")

    def thresholded(denoiser: Denoiser) -> Denoiser:
        def denoise(xt: Video, level: Level) -> Video:
            return jnp.clip(denoiser(xt, level), low, high)

        return denoise

    return thresholded


def dynamic(percentile: float) -> Threshold:
    """Clipped to [-s, s] and divided by s, the larger of 1 and the percentile of |x0| in the clip (Saharia et al. 2022,
    arXiv 2205.11487, appendix A: 99.5).

    Raises:
      ValueError: percentile outside of (0, 100].
    """
    if not 0.0 < percentile <= 100.0:
        raise ValueError(f"threshold.dynamic.percentile must be in (0, 100], got {percentile:g}")

    def thresholded(denoiser: Denoiser) -> Denoiser:
        def denoise(xt: Video, level: Level) -> Video:
            x0 = denoiser(xt, level)
            sizes = rearrange(jnp.abs(x0), "batch frames height width channels -> batch (frames height width channels)")
            bound = jnp.maximum(jnp.percentile(sizes, percentile, axis=1), 1.0)[:, None, None, None, None]
            return jnp.clip(x0, -bound, bound) / bound

        return denoise

    return thresholded


THRESHOLDS: dict[str, Callable[..., Threshold]] = {"none": none, "static": static, "dynamic": dynamic}
