"""Static thresholding: the estimate of x0 held inside the range of the data (Ho et al. 2020)."""

from __future__ import annotations

import jax.numpy as jnp

from vdm.types import Denoiser, Level, Video


def clipped(denoiser: Denoiser, low: float = -1.0, high: float = 1.0) -> Denoiser:
    """The denoiser whose estimates are clipped to [low, high], pixel by pixel."""

    def denoise(xt: Video, level: Level) -> Video:
        return jnp.clip(denoiser(xt, level), low, high)

    return denoise
