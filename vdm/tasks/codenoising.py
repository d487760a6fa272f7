"""Clips longer than what a network sees, all at once: overlapping windows that agree in every step."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vdm.types import Denoiser, Level, Video


def codenoised(denoiser: Denoiser, window: int, stride: int, weights: Sequence[float] | None = None) -> Denoiser:
    """The denoiser of clips of any length, which looks at `window` frames at a time and takes the weighted mean where
    windows overlap: the estimate with the least weighted squares of its distance to theirs (Gen-L-Video: Wang et al.
    2023, arXiv 2305.18264; MultiDiffusion: Bar-Tal et al. 2023, arXiv 2302.08113).

    Windows are `stride` frames apart, and one more ends with the clip where these do not. They are looked at one after
    the other, so that the network's memory is that of one; the clip is held as a whole.

    Args:
      denoiser: of clips of `window` frames.
      weights: of the frames of a window, positive; None: all the same.

    Raises:
      ValueError: a stride that is not in [1, window], or other weights; when called, a clip shorter than a window.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"windows of {window} frames that are {stride} apart; give a stride in [1, {window}]")
    shares = jnp.ones(window) if weights is None else jnp.asarray(weights, jnp.float32)
    if shares.shape != (window,) or not bool((shares > 0).all()):
        raise ValueError(f"weights {weights} for windows of {window} frames; give as many, all above 0")

    def denoise(xt: Video, level: Level) -> Video:
        num_frames = xt.shape[1]
        if num_frames < window:
            raise ValueError(f"a clip of {num_frames} frames is shorter than a window of {window}")
        starts = sorted({*range(0, num_frames - window + 1, stride), num_frames - window})
        frames = jnp.asarray(starts)[:, None] + jnp.arange(window)  # [windows, window]

        def estimate(index: Int[Array, "window"]) -> Video:
            return denoiser(xt[:, index], jax.tree.map(lambda each: each[:, index], level))

        estimates = jnp.moveaxis(jax.lax.map(estimate, frames), 0, 1)  # [batch, windows, window, ...]
        weighted = estimates * shares[:, None, None, None]
        total = jnp.zeros_like(xt).at[:, frames].add(weighted)
        return total / jnp.zeros(num_frames).at[frames].add(shares)[:, None, None, None]

    return denoise
