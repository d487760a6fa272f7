"""How near clips are to the ones they should equal, frame by frame, for prediction and restoration."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, UInt8

Clips = UInt8[np.ndarray, "clips frames height width channels"]


def psnr(first: Clips, second: Clips) -> Float64[np.ndarray, "clips"]:
    """Peak signal-to-noise ratio in dB of 8-bit frames, averaged over the frames; infinite where a frame is equal."""
    error = np.mean((first.astype(np.float64) - second) ** 2, axis=(2, 3, 4))
    with np.errstate(divide="ignore"):
        return np.mean(10 * np.log10(255**2 / error), axis=1)


def ssim(first: Clips, second: Clips) -> Float64[np.ndarray, "clips"]:
    """Structural similarity (Wang et al. 2004: a Gaussian window of 11 pixels and 1.5 standard deviation), averaged
    over channels and frames; 1: equal. Frames must be at least 11 pixels high and wide.
    """
    from skimage.metrics import structural_similarity  # of requirements/metrics.txt

    def of_frame(one: np.ndarray, two: np.ndarray) -> float:
        window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        return float(np.mean(structural_similarity(one, two, channel_axis=-1, data_range=255, **window)))

    return np.array(
        [
            np.mean([of_frame(*frames) for frames in zip(one, two, strict=True)])
            for one, two in zip(first, second, strict=True)
        ]
    )


def best_of(scores: Float[np.ndarray, "samples clips"], higher_is_better: bool) -> Float[np.ndarray, "clips"]:
    """The score of each clip's best sample: it improves with the number of samples, which is part of the protocol."""
    return scores.max(axis=0) if higher_is_better else scores.min(axis=0)
