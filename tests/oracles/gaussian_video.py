"""Gaussian video: clips x0 ~ N(0, K), K = K_time (x) K_height (x) K_width, whose every answer is known exactly.

Each factor is an AR(1) covariance rho^|i - j|; channels are independent. With xt = alpha x0 + sigma noise the posterior
mean is linear, E[x0 | xt] = K A (A K A + S)^-1 xt with A = diag(alpha), S = diag(sigma^2), so denoiser, score and error
are closed forms.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from einops import einsum, rearrange

from vdm.types import Level, Video


@dataclasses.dataclass(frozen=True)
class GaussianVideo:
    """AR(1) in time, height and width; `variance` is that of every pixel."""

    num_frames: int = 3
    height: int = 2
    width: int = 2
    channels: int = 1
    variance: float = 0.3
    frame_correlation: float = 0.8
    pixel_correlation: float = 0.5

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of one clip."""
        return self.num_frames, self.height, self.width, self.channels

    @functools.cached_property
    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """(K_time [frames, frames], the covariance of a frame [pixels, pixels] with pixels = height width channels)."""
        space = np.kron(_ar1(self.height, self.pixel_correlation), _ar1(self.width, self.pixel_correlation))
        return _ar1(self.num_frames, self.frame_correlation), self.variance * np.kron(space, np.eye(self.channels))

    @functools.cached_property
    def covariance(self) -> np.ndarray:
        """K [D, D] of the flattened clip, float64."""
        return np.kron(*self.factors)

    @functools.cached_property
    def eigenvalues(self) -> np.ndarray:
        """Of K, ascending, float64 [D]."""
        return np.linalg.eigvalsh(self.covariance)

    def sample(self, key: jax.Array, num_clips: int) -> Video:
        """Independent clips."""
        root = jnp.asarray(np.linalg.cholesky(self.covariance))
        return (jax.random.normal(key, (num_clips, root.shape[0])) @ root.T).reshape(num_clips, *self.shape)

    def moment_design(self) -> tuple[Video, Video]:
        """2D pairs (x0, noise) whose second moments are exactly those of x0 ~ N(0, K) and noise ~ N(0, I).

        So the mean over them of anything quadratic, such as the loss of a linear network, is its expectation, without
        sampling error.
        """
        size = self.covariance.shape[0]
        root = np.sqrt(2.0 * size) * np.concatenate([np.linalg.cholesky(self.covariance).T, np.zeros((size, size))])
        white = np.sqrt(2.0 * size) * np.concatenate([np.zeros((size, size)), np.eye(size)])
        return jnp.asarray(root.reshape(-1, *self.shape)), jnp.asarray(white.reshape(-1, *self.shape))

    def denoise(self, xt: Video, level: Level) -> Video:
        """E[x0 | xt], each frame at its own level: a solve over frames for every spatial eigenvector."""
        time, space = self.factors
        gains, vectors = np.linalg.eigh(space)
        in_modes = einsum(
            rearrange(xt, "b f h w c -> b f (h w c)"),
            jnp.asarray(vectors, xt.dtype),
            "b f pixel, pixel mode -> b mode f",
        )
        prior = jnp.asarray(gains[:, None, None] * time, xt.dtype)  # mode, frame, frame
        alpha, sigma = level.alpha[:, None, :], level.sigma[:, None, :]
        noisy = alpha[..., :, None] * prior * alpha[..., None, :] + (sigma**2)[..., None] * jnp.eye(self.num_frames)
        x0 = einsum(
            prior, alpha * jnp.linalg.solve(noisy, in_modes[..., None])[..., 0], "mode f g, b mode g -> b mode f"
        )
        flat = einsum(x0, jnp.asarray(vectors, xt.dtype), "b mode f, pixel mode -> b f pixel")
        return flat.reshape(xt.shape)

    def denoise_evenly(self, xt: Video, level: Level) -> Video:
        """E[x0 | xt] where all frames of all clips share one level: a gain per eigenvector of K, cheap inside long
        loops.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        alpha, sigma = level.alpha[0, 0], level.sigma[0, 0]
        gains = jnp.asarray(values, xt.dtype)
        gains = alpha * gains / (alpha**2 * gains + sigma**2)
        basis = jnp.asarray(vectors, xt.dtype)
        return (((xt.reshape(xt.shape[0], -1) @ basis) * gains) @ basis.T).reshape(xt.shape)

    def score(self, xt: Video, level: Level) -> Video:
        """grad log p(xt) = -(A K A + S)^-1 xt, by a dense solve; the independent route to the denoiser."""
        repeated = self.height * self.width * self.channels
        alpha, sigma = (jnp.repeat(number, repeated, axis=1) for number in (level.alpha, level.sigma))
        noisy = alpha[:, :, None] * jnp.asarray(self.covariance, xt.dtype) * alpha[:, None, :]
        noisy += (sigma**2)[:, None, :] * jnp.eye(alpha.shape[1], dtype=xt.dtype)
        return -jnp.linalg.solve(noisy, xt.reshape(xt.shape[0], -1)[..., None])[..., 0].reshape(xt.shape)

    def log_prob(self, x: Video, alpha: float = 1.0, sigma: float = 0.0) -> np.ndarray:
        """log N(x; 0, alpha^2 K + sigma^2 I) of every clip, float64 on the host."""
        covariance = alpha**2 * self.covariance + sigma**2 * np.eye(len(self.covariance))
        flat = np.asarray(x, np.float64).reshape(len(x), -1)
        squares = np.einsum("bi,ij,bj->b", flat, np.linalg.inv(covariance), flat)
        return -0.5 * (squares + np.linalg.slogdet(2 * np.pi * covariance)[1])

    def flow_map(self, x: Video, start: tuple[float, float], end: tuple[float, float]) -> np.ndarray:
        """Where the probability-flow ODE carries x from one (alpha, sigma) to another: every eigendirection is scaled
        by the ratio of its standard deviations.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        before, after = (np.sqrt(alpha**2 * values + sigma**2) for alpha, sigma in (start, end))
        flat = np.asarray(x, np.float64).reshape(len(x), -1)
        return (((flat @ vectors) * after / before) @ vectors.T).reshape(x.shape)

    def minimal_error(self, log_snr: float) -> float:
        """Smallest possible E||x0 - x^||^2 / D at one level shared by all frames; SNR times it is that of the noise."""
        return float(np.mean(self.eigenvalues / (1.0 + np.exp(log_snr) * self.eigenvalues)))


def _ar1(size: int, correlation: float) -> np.ndarray:
    index = np.arange(size)
    return correlation ** np.abs(index[:, None] - index[None, :])
