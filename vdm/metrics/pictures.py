"""How near clips are to the ones they should equal, frame by frame, for prediction and restoration."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Shaped

Clips = Shaped[np.ndarray, "_ _ _ _ _"]  # uint8 [clips, frames, height, width, channels]


def psnr(first: Clips, second: Clips) -> Float64[np.ndarray, "clips"]:
    """Peak signal-to-noise ratio in dB of 8-bit frames, averaged over the frames; infinite where a frame is equal.

    ValueError for other types than uint8, and for clips of unlike shapes.
    """
    _require_alike(first, second)
    error = np.mean((first.astype(np.float64) - second) ** 2, axis=(2, 3, 4))
    with np.errstate(divide="ignore"):
        return np.mean(10 * np.log10(255**2 / error), axis=1)


def ssim(first: Clips, second: Clips) -> Float64[np.ndarray, "clips"]:
    """Structural similarity (Wang et al. 2004: a Gaussian window of 11 pixels and 1.5 standard deviation), averaged
    over channels and frames; 1: equal. Frames must be at least 11 pixels high and wide.

    ValueError for smaller ones, other types than uint8, and clips of unlike shapes.
    """
    _require_alike(first, second)
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


def _require_alike(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape != second.shape or first.dtype != np.uint8 or second.dtype != np.uint8:
        raise ValueError(
            f"PSNR and SSIM compare clips of uint8 in two arrays of one shape; given {first.dtype} {first.shape} and "
            f"{second.dtype} {second.shape}. Turn floats into 8 bits (data.video_io.to_uint8), and repeat what is "
            "compared more than once"
        )


def best_of(scores: Float[np.ndarray, "samples clips"], higher_is_better: bool) -> Float[np.ndarray, "clips"]:
    """The score of each clip's best sample: it improves with the number of samples, which is part of the protocol."""
    return scores.max(axis=0) if higher_is_better else scores.min(axis=0)
