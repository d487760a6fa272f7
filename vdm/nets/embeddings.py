"""What the network is told besides the clip: noise level of a frame, class of a clip, distances between frames."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from vdm.nets.linear import Dense
from vdm.types import FrameIndex, Key, LogSnr

LOG_SNR_SCALE = 10.0  # the bounded level is tanh(log_snr / 10): nearly linear where the loss lives, finite at both ends
NUM_FREQUENCIES = 16
LAG_LOGIT = 2.0  # exp(2) = 7.4 times the weight of any other distance
MAX_FREQUENCY = 64.0  # half periods over the range [-1, 1] of the bounded level


def bounded_level(log_snr: LogSnr) -> Float[Array, "batch frames"]:
    """Noise level in [-1, 1], 1 at no noise; infinite log-SNRs are allowed (a given frame has +inf)."""
    return jnp.tanh(log_snr / LOG_SNR_SCALE)


def level_features(log_snr: LogSnr) -> Float[Array, "batch frames features"]:
    """Sines and cosines of the bounded level at geometrically spaced frequencies."""
    frequencies = 0.5 * math.pi * jnp.geomspace(0.5, MAX_FREQUENCY, NUM_FREQUENCIES)
    angles = bounded_level(log_snr.astype(jnp.float32))[..., None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class LevelEmbedding(nnx.Module):
    """Noise level of every frame -> vector: Fourier features, then two dense layers (Ho et al. 2020)."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.dense_1 = Dense(2 * NUM_FREQUENCIES, channels, rngs)
        self.dense_2 = Dense(channels, channels, rngs)

    def __call__(self, log_snr: LogSnr) -> Float[Array, "batch frames embedding"]:
        return self.dense_2(jax.nn.silu(self.dense_1(level_features(log_snr))))


class LabelEmbedding(nnx.Module):
    """Class of every clip -> vector; the last row is the null class. A label out of range gives NaN."""

    def __init__(self, num_classes: int, channels: int, rngs: nnx.Rngs):
        self.num_classes = num_classes
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (num_classes + 1, channels)))

    def __call__(self, label: Int[Array, "batch"]) -> Float[Array, "batch 1 embedding"]:
        label = jnp.where(label < 0, self.num_classes + 1, label)
        return jnp.take(self.kernel[...], label, axis=0, mode="fill", fill_value=jnp.nan)[:, None]


class BucketBias(nnx.Module):
    """Bias on attention logits by the distance between frames, in the buckets of T5 (Raffel et al. 2020, section 2.1).

    Half of the buckets are for frames before, half for frames after. Of each half, the first half has one bucket per
    frame of distance; the rest are spaced logarithmically up to `MAX_DISTANCE`, and all that is farther falls into the
    last one, so that clips may be longer than in training.
    """

    NUM_BUCKETS = 32
    MAX_DISTANCE = 128  # frames

    def __init__(
        self, num_heads: int, rngs: nnx.Rngs, initial: Callable[[Key, tuple[int, int]], Array] = jax.random.normal
    ):
        self.bias = nnx.Param(initial(rngs.params(), (self.NUM_BUCKETS, num_heads)))

    def __call__(self, frame_index: FrameIndex) -> Float[Array, "batch heads frames frames"]:
        distance = frame_index[:, None, :] - frame_index[:, :, None]
        return jnp.moveaxis(self.bias[...][self.bucket(distance)], -1, 1)

    @classmethod
    def bucket(cls, distance: Int[Array, "..."]) -> Int[Array, "..."]:
        """Bucket in [0, NUM_BUCKETS) of a signed distance in frames (key minus query)."""
        half = cls.NUM_BUCKETS // 2
        exact = half // 2
        size = jnp.abs(distance)
        ratio = jnp.log(jnp.maximum(size, exact) / exact) / math.log(cls.MAX_DISTANCE / exact)
        coarse = jnp.minimum(exact + (ratio * (half - exact)).astype(size.dtype), half - 1)
        return jnp.where(distance > 0, half, 0) + jnp.where(size < exact, size, coarse)


def lag_bias(num_heads: int, rngs: nnx.Rngs) -> BucketBias:
    """A bucket bias whose heads start by looking at one distance each: -1, 1, -2, 2, ... frames.

    With random biases a small network has to find out first which frames are neighbours; motion is learned later.
    """

    def initial(key: Key, shape: tuple[int, int]) -> Float[Array, "buckets heads"]:
        head = jnp.arange(shape[1])
        distance = jnp.where(head % 2, 1, -1) * (head // 2 + 1)
        return jnp.zeros(shape).at[BucketBias.bucket(distance), head].set(LAG_LOGIT)

    return BucketBias(num_heads, rngs, initial)


POSITIONS = {"bucket": BucketBias, "lag": lag_bias}
