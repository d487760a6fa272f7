"""What the network is told besides the clip: noise level of a frame, class of a clip, distances between frames."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from vdm.nets.linear import Dense
from vdm.types import FrameIndex, Key, LogSnr

LOG_SNR_SCALE = 10.0  # the bounded level is tanh(log_snr / 10): nearly linear where the loss lives, finite at both ends
NUM_FREQUENCIES = 16
LAG_LOGIT = 2.0  # exp(2) = 7.4 times the weight of any other distance
MAX_FREQUENCY = 64.0  # half periods over the range [-1, 1] of the bounded level
NUM_BUCKETS, MAX_DISTANCE = 32, 128  # of distances; frames
ROTARY_BASE, ROTARY_DIM = 10_000.0, 32  # Su et al. 2021; numbers of a head that are turned, the rest stay


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

    def __init__(self, embedding: int, channels: int, rngs: nnx.Rngs):
        del channels  # of the network
        self.dense_1 = Dense(2 * NUM_FREQUENCIES, embedding, rngs)
        self.dense_2 = Dense(embedding, embedding, rngs)

    def __call__(self, log_snr: LogSnr) -> Float[Array, "batch frames embedding"]:
        return self.dense_2(jax.nn.silu(self.dense_1(level_features(log_snr))))


def step_of_cosine_chain(log_snr: LogSnr) -> Float[Array, "batch frames"]:
    """The step, from 0, of 1,000 of Nichol & Dhariwal's cosine schedule (arXiv:2102.09672, betas up to 0.9999) that has
    this log-SNR; between steps by straight lines, beyond the first and last these.
    """
    signal = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    signal = np.cumprod(1 - np.minimum(1 - signal[1:] / signal[:-1], 0.9999))
    levels = jnp.asarray((np.log(signal) - np.log1p(-signal))[::-1], jnp.float32)
    log_snr = log_snr.astype(jnp.float32)
    above = jnp.clip(jnp.sum(log_snr[..., None] >= levels, axis=-1), 1, 999)  # jnp.interp fails under shard_map
    share = (log_snr - levels[above - 1]) / (levels[above] - levels[above - 1])
    return 1000.0 - above - jnp.clip(share, 0.0, 1.0)


class StepEmbedding(nnx.Module):
    """Step of a cosine chain, see `step_of_cosine_chain` -> vector: the sines and cosines of Vaswani et al. 2017, a
    dense layer, GELU, a dense layer.
    """

    def __init__(self, embedding: int, channels: int, rngs: nnx.Rngs):
        self.frequencies = channels // 2
        self.dense_1 = Dense(2 * self.frequencies, embedding, rngs)
        self.dense_2 = Dense(embedding, embedding, rngs)

    def __call__(self, log_snr: LogSnr) -> Float[Array, "batch frames embedding"]:
        frequencies = 10_000.0 ** -jnp.linspace(0.0, 1.0, self.frequencies)
        angles = step_of_cosine_chain(log_snr)[..., None] * frequencies
        features = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        return self.dense_2(jax.nn.gelu(self.dense_1(features), approximate=False))


class LabelEmbedding(nnx.Module):
    """Class of every clip -> vector; the last row is the null class. A label out of range gives NaN."""

    def __init__(self, num_classes: int, channels: int, rngs: nnx.Rngs):
        self.num_classes = num_classes
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (num_classes + 1, channels)))

    def __call__(self, label: Int[Array, "batch"]) -> Float[Array, "batch 1 embedding"]:
        label = jnp.where(label < 0, self.num_classes + 1, label)
        return jnp.take(self.kernel[...], label, axis=0, mode="fill", fill_value=jnp.nan)[:, None]


def bucket(distance: Int[Array, "..."], max_distance: int) -> Int[Array, "..."]:
    """Bucket in [0, NUM_BUCKETS) of a signed distance in frames (key minus query): Raffel et al. 2020, section 2.1.

    Half of the buckets are for frames before, half for frames after. Of each half, the first half has one bucket per
    frame of distance; the rest are spaced logarithmically up to `max_distance` frames, and all that is farther falls
    into the last one, so that clips may be longer than in training.
    """
    half = NUM_BUCKETS // 2
    exact = half // 2
    size = jnp.abs(distance)
    ratio = jnp.log(jnp.maximum(size, exact) / exact) / math.log(max_distance / exact)
    coarse = jnp.minimum(exact + (ratio * (half - exact)).astype(size.dtype), half - 1)
    return jnp.where(distance > 0, half, 0) + jnp.where(size < exact, size, coarse)


class BucketBias(nnx.Module):
    """Bias on attention logits by the distance between frames, in `bucket`s."""

    def __init__(
        self,
        num_heads: int,
        rngs: nnx.Rngs,
        initial: Callable[[Key, tuple[int, int]], Array] = jax.random.normal,
        max_distance: int = MAX_DISTANCE,
    ):
        self.max_distance = max_distance
        self.bias = nnx.Param(initial(rngs.params(), (NUM_BUCKETS, num_heads)))

    def __call__(self, frame_index: FrameIndex) -> Float[Array, "batch heads frames frames"]:
        distance = frame_index[:, None, :] - frame_index[:, :, None]
        return jnp.moveaxis(self.bias[...][bucket(distance, self.max_distance)], -1, 1)


def lag_bias(num_heads: int, rngs: nnx.Rngs) -> BucketBias:
    """A bucket bias whose heads start by looking at one distance each: -1, 1, -2, 2, ... frames.

    With random biases a small network has to find out first which frames are neighbours; motion is learned later.
    """

    def initial(key: Key, shape: tuple[int, int]) -> Float[Array, "buckets heads"]:
        head = jnp.arange(shape[1])
        distance = jnp.where(head % 2, 1, -1) * (head // 2 + 1)
        return jnp.zeros(shape).at[bucket(distance, MAX_DISTANCE), head].set(LAG_LOGIT)

    return BucketBias(num_heads, rngs, initial)


def rotary_frequencies(head_dim: int) -> Float[Array, "pairs"]:
    """Angle per frame of every pair of numbers of a head, in radians (Su et al. 2021)."""
    size = min(ROTARY_DIM, head_dim)
    return ROTARY_BASE ** (-jnp.arange(0, size, 2) / size)


def rotated(
    x: Float[Array, "batch pixels heads frames head_dim"], frame_index: FrameIndex
) -> Float[Array, "batch pixels heads frames head_dim"]:
    """Pairs of numbers of a query or key, turned by an angle that grows with the frame's position (Su et al. 2021):
    products of the two know their distance. Numbers beyond `ROTARY_DIM` stay as they are.

    A pair is a number of the first half and its place in the second, which are slices; neighbours, as in the paper,
    would have to be gathered, and the order of a head's numbers means nothing.
    """
    angle = (frame_index[..., None] * rotary_frequencies(x.shape[-1]))[:, None, None]
    pairs = angle.shape[-1]
    # A product ends what XLA fuses: on CPUs it would compute sine and cosine anew for every number that they turn.
    turns = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    sine, cosine = jnp.split(jnp.matmul(turns, jnp.eye(2 * pairs), precision="highest"), 2, axis=-1)
    first, second, rest = jnp.split(x, (pairs, 2 * pairs), axis=-1)
    turned = first * cosine - second * sine, second * cosine + first * sine
    return jnp.concatenate([*(each.astype(x.dtype) for each in turned), rest], axis=-1)


@dataclasses.dataclass(frozen=True)
class Position:
    """How temporal attention knows positions.

    Attributes:
      bias: makes, of a number of heads and a random stream, what gives the bias on logits for `frame_index`.
      rotary: queries and keys are `rotated`.
      shared: one table of biases for all blocks.
    """

    bias: Callable[[int, nnx.Rngs], BucketBias]
    rotary: bool = False
    shared: bool = False


NOISE_LEVELS = {"fourier": LevelEmbedding, "cosine_step": StepEmbedding}
POSITIONS = {
    "bucket": Position(BucketBias),
    "lag": Position(lag_bias),
    "rotary_bucket": Position(functools.partial(BucketBias, max_distance=32), rotary=True, shared=True),
}
