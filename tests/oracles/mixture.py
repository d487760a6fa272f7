"""Mixtures of Gaussian clips: p(x0) = sum of w_k N(m_k, spread^2 I), whose score is exact and not linear.

With xt = alpha x0 + sigma noise the components stay Gaussian, N(alpha m_k, (alpha^2 spread^2 + sigma^2) I), so
responsibilities, denoiser, score, densities and the class of a clip are closed forms.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vdm.types import Level, Video


@dataclasses.dataclass(frozen=True)
class Mixture:
    """All frames of a clip share one level.

    Attributes:
      means: [components, frames, height, width, channels].
      weights: of the components, summing to 1.
      spread: standard deviation of every component in every pixel.
    """

    means: np.ndarray
    weights: Sequence[float]
    spread: float

    def sample(self, key: jax.Array, num_clips: int) -> tuple[Video, jax.Array]:
        """(clips, the component of each)."""
        of_class, of_noise = jax.random.split(key)
        component = jax.random.choice(of_class, len(self.weights), (num_clips,), p=jnp.asarray(self.weights))
        means = jnp.asarray(self.means)[component]
        return means + self.spread * jax.random.normal(of_noise, means.shape), component

    def log_joint(self, xt: Video, level: Level) -> jax.Array:
        """log p(xt, component) [batch, components]."""
        alpha, sigma = level.alpha[:, 0], level.sigma[:, 0]
        means = jnp.asarray(self.means, xt.dtype)
        variance = (alpha * self.spread) ** 2 + sigma**2
        distance = xt[:, None] - alpha[:, None, None, None, None, None] * means
        squares = jnp.sum(distance**2, axis=(2, 3, 4, 5))
        size = means[0].size
        return (
            jnp.log(jnp.asarray(self.weights, xt.dtype))
            - 0.5 * squares / variance[:, None]
            - 0.5 * size * jnp.log(2 * jnp.pi * variance)[:, None]
        )

    def log_prob(self, xt: Video, level: Level) -> jax.Array:
        """log p(xt) [batch]."""
        return jax.scipy.special.logsumexp(self.log_joint(xt, level), axis=1)

    def log_class(self, xt: Video, level: Level, component: int) -> jax.Array:
        """log p(component | xt) [batch]."""
        return jax.nn.log_softmax(self.log_joint(xt, level), axis=1)[:, component]

    def denoise(self, xt: Video, level: Level) -> Video:
        """E[x0 | xt]."""
        responsibility = jax.nn.softmax(self.log_joint(xt, level), axis=1)
        return jnp.einsum("bk,bkfhwc->bfhwc", responsibility, self._of_component(xt, level))

    def denoise_class(self, xt: Video, level: Level, component: int) -> Video:
        """E[x0 | xt, component]."""
        return self._of_component(xt, level)[:, component]

    def _of_component(self, xt: Video, level: Level) -> jax.Array:
        alpha, sigma = (number[:, :1, None, None, None, None] for number in (level.alpha, level.sigma))
        means = jnp.asarray(self.means, xt.dtype)
        gain = alpha * self.spread**2 / ((alpha * self.spread) ** 2 + sigma**2)
        return means + gain * (xt[:, None] - alpha * means)


def two_clips() -> Mixture:
    """Two clips of three frames and two pixels, far apart, with weights 0.3 and 0.7."""
    rising = np.linspace(-1.0, 1.0, 3)[:, None] * np.ones(2)
    return Mixture(np.stack([rising, 0.6 - 0.5 * rising])[:, :, None, :, None], (0.3, 0.7), 0.2)
