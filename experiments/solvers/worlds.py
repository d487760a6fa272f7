"""Clips whose every answer is known exactly: a Gaussian video and a mixture of a few clips.

All frames of a clip share one noise level here. Arrays are clips [batch, frames, height, width, 1]; the functions that
are given numpy arrays or no arrays at all answer in float64 on the host.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp

from vdm.diffusion import schedules
from vdm.diffusion.process import spread
from vdm.diffusion.schedules import Schedule
from vdm.types import Level, Video

Clips = Float[np.ndarray, "batch frames height width channels"]


class World(Protocol):
    """A distribution of clips with its exact denoiser."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of one clip: frames, height, width, channels."""
        ...

    @property
    def rms(self) -> float:
        """Root mean square of the clean pixels."""
        ...

    def draw(self, random: np.random.Generator, num_clips: int) -> Clips:
        """Independent clean clips."""
        ...

    def denoise(self, xt: Video, level: Level) -> Video:
        """E[x0 | xt]."""
        ...

    def log_prob(self, xt: Clips, alpha: float, sigma: float) -> Float[np.ndarray, "batch"]:
        """log density of xt = alpha x0 + sigma noise, nats."""
        ...


@dataclasses.dataclass(frozen=True)
class GaussianVideo:
    """x0 ~ N(0, K), K = AR(1) in time (x) AR(1) in height (x) AR(1) in width, times the variance of a pixel."""

    num_frames: int = 4
    height: int = 2
    width: int = 2
    variance: float = 0.3
    frame_correlation: float = 0.8
    pixel_correlation: float = 0.5
    name: str = "gaussian"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.num_frames, self.height, self.width, 1

    @property
    def rms(self) -> float:
        return float(np.sqrt(self.variance))

    @functools.cached_property
    def covariance(self) -> Float[np.ndarray, "size size"]:
        """K of the flattened clip."""
        space = np.kron(_ar1(self.height, self.pixel_correlation), _ar1(self.width, self.pixel_correlation))
        return self.variance * np.kron(_ar1(self.num_frames, self.frame_correlation), space)

    @functools.cached_property
    def modes(self) -> tuple[Float[np.ndarray, "size"], Float[np.ndarray, "size size"]]:
        """Eigenvalues of K, ascending, and its eigenvectors as columns."""
        return np.linalg.eigh(self.covariance)

    def draw(self, random: np.random.Generator, num_clips: int) -> Clips:
        values, vectors = self.modes
        return (random.normal(size=(num_clips, values.size)) * np.sqrt(values) @ vectors.T).reshape(-1, *self.shape)

    def denoise(self, xt: Video, level: Level) -> Video:
        """A gain per eigenvector of K: alpha k / (alpha^2 k + sigma^2)."""
        values, vectors = (jnp.asarray(part, xt.dtype) for part in self.modes)
        alpha, sigma = level.alpha[:, :1], level.sigma[:, :1]
        gains = alpha * values / (alpha**2 * values + sigma**2)
        return (((xt.reshape(xt.shape[0], -1) @ vectors) * gains) @ vectors.T).reshape(xt.shape)

    def log_prob(self, xt: Clips, alpha: float, sigma: float) -> Float[np.ndarray, "batch"]:
        values, vectors = self.modes
        variances = alpha**2 * values + sigma**2
        squares = (xt.reshape(xt.shape[0], -1) @ vectors) ** 2 / variances
        return -0.5 * np.sum(squares + np.log(2.0 * np.pi * variances), axis=1)

    def stretch(self, start: tuple[float, float], end: tuple[float, float]) -> Float[np.ndarray, "size"]:
        """What the probability-flow ODE makes of a unit state in each eigendirection, from one (alpha, sigma) to
        another: sqrt(variance at the end / variance at the start).
        """
        (alpha, sigma), (alpha_end, sigma_end) = start, end
        values, _ = self.modes
        return np.sqrt((alpha_end**2 * values + sigma_end**2) / (alpha**2 * values + sigma**2))

    def transport(self, xt: Clips, start: tuple[float, float], end: tuple[float, float]) -> Clips:
        """The exact solution of the probability-flow ODE."""
        _, vectors = self.modes
        in_modes = xt.reshape(xt.shape[0], -1) @ vectors
        return ((in_modes * self.stretch(start, end)) @ vectors.T).reshape(xt.shape)

    def moment_design(self) -> tuple[Clips, Clips]:
        """2D pairs (x0, noise) whose second moments are exactly those of data and noise: the mean over them of anything
        quadratic is its expectation.
        """
        values, vectors = self.modes
        size = values.size
        root = np.concatenate([np.sqrt(values)[:, None] * vectors.T, np.zeros((size, size))])
        white = np.concatenate([np.zeros((size, size)), np.eye(size)])
        factor = np.sqrt(2.0 * size)
        return (factor * root).reshape(-1, *self.shape), (factor * white).reshape(-1, *self.shape)

    def marginal_design(self, alpha: float, sigma: float) -> Clips:
        """D points with the second moments of xt = alpha x0 + sigma noise."""
        values, vectors = self.modes
        stds = np.sqrt(values.size * (alpha**2 * values + sigma**2))
        return (stds[:, None] * vectors.T).reshape(-1, *self.shape)

    def entropy(self) -> float:
        """E[-log p(x0)], nats."""
        values, _ = self.modes
        return float(0.5 * np.sum(np.log(2.0 * np.pi * np.e * values)))


@dataclasses.dataclass(frozen=True)
class MixtureVideo:
    """Equal parts of three clips, each with Gaussian noise of `std` on every pixel: a bright pixel that walks round a
    ring of height * width pixels forwards, backwards, or stands still.

    Attributes:
      bright, dark: of the pixels, in units of [-1, 1].
    """

    num_frames: int = 4
    height: int = 2
    width: int = 2
    std: float = 0.1
    bright: float = 0.8
    dark: float = -0.4
    name: str = "mixture"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.num_frames, self.height, self.width, 1

    @property
    def rms(self) -> float:
        return float(np.sqrt(np.mean(self.means**2) + self.std**2))

    @functools.cached_property
    def means(self) -> Float[np.ndarray, "components frames height width channels"]:
        """The three clips."""
        ring = [*((0, i) for i in range(self.width)), *((1, i) for i in reversed(range(self.width)))]
        ring = ring[: self.width] if self.height == 1 else ring
        clips = np.full((3, *self.shape), self.dark)
        for component, pace in enumerate((1, -1, 0)):
            for frame in range(self.num_frames):
                clips[(component, frame, *ring[(1 + pace * frame) % len(ring)], 0)] = self.bright
        return clips

    def draw(self, random: np.random.Generator, num_clips: int) -> Clips:
        which = random.integers(len(self.means), size=num_clips)
        return self.means[which] + self.std * random.normal(size=(num_clips, *self.shape))

    def denoise(self, xt: Video, level: Level) -> Video:
        """The posterior means of the components in proportion to their responsibilities."""
        means = jnp.asarray(self.means, xt.dtype)[:, None]
        alpha, sigma = spread(level.alpha), spread(level.sigma)
        variance = (alpha * self.std) ** 2 + sigma**2
        logits = -0.5 * jnp.sum((xt - alpha * means) ** 2 / variance, axis=(2, 3, 4, 5))
        share = jax.nn.softmax(logits, axis=0)
        mean = jnp.einsum("kb,kfhwc->bfhwc", share, means[:, 0])
        return (sigma**2 * mean + alpha * self.std**2 * xt) / variance

    def log_prob(self, xt: Clips, alpha: float, sigma: float) -> Float[np.ndarray, "batch"]:
        variance = (alpha * self.std) ** 2 + sigma**2
        squares = np.sum((xt - alpha * self.means[:, None]) ** 2, axis=(2, 3, 4, 5)) / variance
        constant = -0.5 * np.prod(self.shape) * np.log(2.0 * np.pi * variance) - np.log(len(self.means))
        return logsumexp(-0.5 * squares, axis=0) + constant


def level_at(schedule: Schedule, t: float | Array) -> tuple[float, float]:
    """(alpha, sigma) at one time, as numbers."""
    with jax.ensure_compile_time_eval():
        return float(schedule.alpha(jnp.asarray(t))), float(schedule.sigma(jnp.asarray(t)))


def time_at(schedule: Schedule, log_snr: float) -> float:
    """Where the schedule reaches a log-SNR."""
    with jax.ensure_compile_time_eval():
        return float(schedules.time_of(schedule, jnp.asarray(log_snr)))


def noisy(world: World, random: np.random.Generator, num_clips: int, alpha: float, sigma: float) -> Clips:
    """Draws of xt = alpha x0 + sigma noise."""
    return alpha * world.draw(random, num_clips) + sigma * random.normal(size=(num_clips, *world.shape))


def _ar1(size: int, correlation: float) -> Float[np.ndarray, "size size"]:
    index = np.arange(size)
    return correlation ** np.abs(index[:, None] - index[None, :])
