"""Clips longer than what a network sees, all at once: overlapping windows that agree in every step."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from vdm.types import Denoiser, Level, Video


def codenoised(denoiser: Denoiser, window: int, stride: int, weights: Sequence[float] | None = None) -> Denoiser:
    """The denoiser of clips of any length, which looks at `window` frames at a time and takes the weighted mean where
    windows overlap: the estimate with the least weighted squares of its distance to theirs (Gen-L-Video: Wang et al.
    2023, arXiv 2305.18264; MultiDiffusion: Bar-Tal et al. 2023, arXiv 2302.08113).

    Windows are `stride` frames apart, and one more ends with the clip where these do not. They are looked at one after
    the other: the memory is that of the network on one window and of some clips.

    Args:
      denoiser: of clips of `window` frames.
      weights: of the frames of a window, positive; None: all the same.

    Raises:
      ValueError: a stride that is not in [1, window], or other weights; when called, a clip shorter than a window.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"windows of {window} frames that are {stride} apart; give a stride in [1, {window}]")
    shares = np.ones(window) if weights is None else np.asarray(weights, np.float64)
    if shares.shape != (window,) or not (shares > 0).all():
        raise ValueError(f"weights {weights} for windows of {window} frames; give as many, all above 0")

    def denoise(xt: Video, level: Level) -> Video:
        num_frames = xt.shape[1]
        if num_frames < window:
            raise ValueError(f"a clip of {num_frames} frames is shorter than a window of {window}")
        starts = sorted({*range(0, num_frames - window + 1, stride), num_frames - window})
        frames = np.asarray(starts)[:, None] + np.arange(window)  # [windows, window]
        weight = np.bincount(frames.ravel(), np.tile(shares, len(starts)))

        def add(total: Video, index: Int[Array, "window"]) -> tuple[Video, None]:
            estimate = denoiser(xt[:, index], jax.tree.map(lambda each: each[:, index], level))
            share = jnp.asarray(shares, xt.dtype)
            return total.at[:, index].add(estimate * share[:, None, None, None]), None

        total, _ = jax.lax.scan(add, jnp.zeros_like(xt), jnp.asarray(frames))
        return total / jnp.asarray(weight, xt.dtype)[:, None, None, None]

    return denoise
