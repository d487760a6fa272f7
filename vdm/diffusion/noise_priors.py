"""Noise that is correlated between the frames of a clip: N(0, S), S [frames, frames] with ones on its diagonal.

Each frame alone keeps its marginals, so schedules, targets and networks do not change. The score of q(xt | x0) is
-S^-1 noise / sigma and the reverse drift uses g^2 S score, in which S cancels: step rules that are written with the
estimate of x0 need no change either, they are only handed correlated noise, as the prior is. Errors of a bound are
taken in the norm of S^-1. To add a prior, write its covariance and add it to the table of build.py.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from einops import einsum
from jaxtyping import Float

from vdm.types import Video

Covariance = Float[np.ndarray, "frames frames"]


@runtime_checkable
class NoisePrior(Protocol):
    """S of a clip, float64 on the host."""

    def covariance(self, num_frames: int) -> Covariance: ...


@dataclasses.dataclass(frozen=True)
class Independent:
    """S = I."""

    def covariance(self, num_frames: int) -> Covariance:
        return np.eye(num_frames)


@dataclasses.dataclass(frozen=True)
class Shared:
    """The same noise in all frames. S is singular: no likelihood, no bound and no Langevin step. Differences between
    frames are never masked, and sampling starts without any: the exact denoiser would not make them.
    """

    def covariance(self, num_frames: int) -> Covariance:
        return np.ones((num_frames, num_frames))


@dataclasses.dataclass(frozen=True)
class Mixed:
    """A part that all frames share, of a times the standard deviation of the rest: correlation a^2 / (1 + a^2) of all
    pairs (PYoCo, Ge et al. 2023, arXiv 2305.10474).
    """

    a: float

    def __post_init__(self) -> None:
        _check("mixed", self.a)

    def covariance(self, num_frames: int) -> Covariance:
        shared = self.a**2 / (1.0 + self.a**2)
        return shared * np.ones((num_frames, num_frames)) + (1.0 - shared) * np.eye(num_frames)


@dataclasses.dataclass(frozen=True)
class Progressive:
    """Each frame's noise goes on from the last one's: correlation (a / sqrt(1 + a^2))^|i - j| (PYoCo)."""

    a: float

    def __post_init__(self) -> None:
        _check("progressive", self.a)

    def covariance(self, num_frames: int) -> Covariance:
        index = np.arange(num_frames)
        return (self.a / np.hypot(1.0, self.a)) ** np.abs(index[:, None] - index[None, :])


@dataclasses.dataclass(frozen=True)
class BaseResidual:
    """sqrt(l_i) base + sqrt(1 - l_i) residual_i, l_i falling from `share` at the centre frame by the factor `decay` per
    frame (VideoFusion, Luo et al. 2023, arXiv 2303.08320): correlation sqrt(l_i l_j).
    """

    share: float
    decay: float

    def __post_init__(self) -> None:
        if not (0.0 <= self.share < 1.0 and 0.0 < self.decay <= 1.0):
            raise ValueError(
                f"noise_prior.base_residual needs share in [0, 1) and decay in (0, 1], got {self.share:g} and"
                f" {self.decay:g}"
            )

    def covariance(self, num_frames: int) -> Covariance:
        from_centre = np.abs(np.arange(num_frames) - num_frames // 2)
        root = np.sqrt(self.share * self.decay**from_centre)
        return np.outer(root, root) + np.diag(1.0 - root**2)


def correlate(prior: NoisePrior, noise: Video) -> Video:
    """Noise of the prior from standard normal noise: the symmetric root of S over the frames."""
    return _apply(prior, noise, 0.5)


def covary(prior: NoisePrior, video: Video) -> Video:
    """S over the frames: turns a gradient in xt into the step that it stands for."""
    return _apply(prior, video, 1.0)


def whiten(prior: NoisePrior, video: Video) -> Video:
    """S^-1/2 over the frames: undoes `correlate`, and turns the norm of S^-1 into the plain one. S must be regular."""
    return _apply(prior, video, -0.5)


def log_determinant(prior: NoisePrior, num_frames: int) -> float:
    """log det S; minus infinity where S is singular."""
    return float(np.sum(np.log(np.maximum(np.linalg.eigvalsh(prior.covariance(num_frames)), 0.0))))


def require_regular(prior: NoisePrior, num_frames: int, what: str) -> None:
    """Raises ValueError where S is singular, so that `what` does not exist."""
    smallest = float(np.linalg.eigvalsh(prior.covariance(num_frames))[0])
    if smallest < 1e-9:
        raise ValueError(
            f"{what} needs the inverse covariance of the noise, but {type(prior).__name__} noise is singular over"
            f" {num_frames} frames: take noise_prior mixed or progressive, or independent noise"
        )


def _apply(prior: NoisePrior, video: Video, power: float) -> Video:
    if isinstance(prior, Independent):
        return video
    values, vectors = np.linalg.eigh(prior.covariance(video.shape[1]))
    root = (vectors * np.maximum(values, 0.0) ** power) @ vectors.T
    return einsum(jnp.asarray(root, video.dtype), video, "f g, b g h w c -> b f h w c")


def _check(name: str, a: float) -> None:
    if not 0.0 <= a < np.inf:
        raise ValueError(f"noise_prior.{name}.a must be at least 0, got {a:g}")
