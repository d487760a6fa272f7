"""The pieces of a residual network over [batch, frames, height, width, channels]: none looks beyond one frame."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from vdm.nets.linear import Conv, Dense, Features, TransposedConv
from vdm.types import FrameKeys

Embedding = Float[Array, "batch frames embedding"]

EPSILON = 1e-6  # added to variances


class GroupNorm(nnx.Module):
    """Group normalisation (Wu & He 2018) with the statistics of one frame, in float32."""

    def __init__(self, channels: int, groups: int):
        self.groups = groups
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Features) -> Features:
        y = x.astype(jnp.float32)
        y = y - self._mean(y)
        y = y * (jax.lax.rsqrt(self._mean(y * y) + EPSILON) * self.scale[...]) + self.bias[...]
        return y.astype(x.dtype)

    def _mean(self, y: Features) -> Features:
        # Pixels first, then the few numbers left: on CPUs a sum over a split channel axis costs three times as much.
        per_channel = y.mean(axis=(2, 3), keepdims=True)
        grouped = rearrange(per_channel, "b f h w (groups c) -> b f h w groups c", groups=self.groups)
        return jnp.broadcast_to(grouped.mean(axis=-1, keepdims=True), grouped.shape).reshape(per_channel.shape)


class RmsNorm(nnx.Module):
    """Root-mean-square normalisation over the channels of every pixel (Zhang & Sennrich 2019), in float32."""

    def __init__(self, channels: int, groups: int):
        del groups  # this norm has none
        self.scale = nnx.Param(jnp.ones(channels))

    def __call__(self, x: Features) -> Features:
        y = x.astype(jnp.float32)
        return (y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + EPSILON) * self.scale[...]).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer normalisation over the channels of every pixel (Ba et al. 2016), without a bias, in float32."""

    def __init__(self, channels: int, groups: int):
        del groups  # this norm has none
        self.scale = nnx.Param(jnp.ones(channels))

    def __call__(self, x: Features) -> Features:
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, axis=-1, keepdims=True)
        return (y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + 1e-5) * self.scale[...]).astype(x.dtype)


class NoEmbedding(nnx.Module):
    """norm(x): of a block that is told nothing."""

    def __init__(self, channels: int, embedding_channels: int, norm: nnx.Module, rngs: nnx.Rngs):
        del channels, embedding_channels, rngs
        self.norm = norm

    def __call__(self, x: Features, embedding: Embedding) -> Features:
        return self.norm(x)


class AddedEmbedding(nnx.Module):
    """norm(x + dense(embedding)): Ho et al. 2020."""

    def __init__(self, channels: int, embedding_channels: int, norm: nnx.Module, rngs: nnx.Rngs):
        self.norm = norm
        self.dense = Dense(embedding_channels, channels, rngs)

    def __call__(self, x: Features, embedding: Embedding) -> Features:
        return self.norm(x + self.dense(embedding)[:, :, None, None])


class ScaleShiftEmbedding(nnx.Module):
    """norm(x) (1 + scale) + shift, both from the embedding: Dhariwal & Nichol 2021."""

    def __init__(self, channels: int, embedding_channels: int, norm: nnx.Module, rngs: nnx.Rngs):
        self.norm = norm
        self.dense = Dense(embedding_channels, 2 * channels, rngs)

    def __call__(self, x: Features, embedding: Embedding) -> Features:
        scale, shift = jnp.split(self.dense(embedding)[:, :, None, None], 2, axis=-1)
        return self.norm(x) * (1 + scale) + shift


class ResidualBlock(nnx.Module):
    """norm, SiLU, convolution, embedding, norm, SiLU, dropout, convolution (zero at first); plus the input.

    With `conv_first`: convolution, embedding, norm, SiLU, dropout, convolution, norm, SiLU; plus the input.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        embedding_channels: int,
        rngs: nnx.Rngs,
        *,
        norm: str,
        groups: int,
        embedding: str,
        dropout: float,
        conv_first: bool = False,
    ):
        self.dropout = dropout
        self.norm_1 = None if conv_first else NORMS[norm](channels_in, groups)
        self.conv_1 = Conv(channels_in, channels_out, rngs)
        self.embedding = EMBEDDINGS[embedding](
            channels_out, embedding_channels, NORMS[norm](channels_out, groups), rngs
        )
        self.conv_2 = Conv(channels_out, channels_out, rngs, zero=not conv_first)
        self.norm_2 = NORMS[norm](channels_out, groups) if conv_first else None
        self.skip = Dense(channels_in, channels_out, rngs) if channels_in != channels_out else None

    def __call__(self, x: Features, embedding: Embedding, keys: FrameKeys | None) -> Features:
        """`keys` draw the dropout, frame by frame; None: no dropout."""
        y = self.conv_1(x if self.norm_1 is None else jax.nn.silu(self.norm_1(x)))
        y = jax.nn.silu(self.embedding(y, embedding))
        if keys is not None and self.dropout > 0:
            kept = jax.vmap(jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.dropout, y.shape[2:])))(keys)
            y = jnp.where(kept, y / (1 - self.dropout), 0)
        y = self.conv_2(y)
        y = y if self.norm_2 is None else jax.nn.silu(self.norm_2(y))
        return y + (x if self.skip is None else self.skip(x))


class StridedDownsample(nnx.Module):
    """Halves height and width: 3x3 convolution with stride 2 (Ho et al. 2020)."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.conv = Conv(channels, channels, rngs, stride=2)

    def __call__(self, x: Features) -> Features:
        return self.conv(x)


class NearestUpsample(nnx.Module):
    """Doubles height and width: every pixel four times, then a 3x3 convolution (Ho et al. 2020)."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.conv = Conv(channels, channels, rngs)

    def __call__(self, x: Features) -> Features:
        return self.conv(jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3))


class WideDownsample(nnx.Module):
    """Halves height and width: 4x4 convolution with stride 2."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.conv = Conv(channels, channels, rngs, size=4, stride=2)

    def __call__(self, x: Features) -> Features:
        return self.conv(x)


class TransposedUpsample(nnx.Module):
    """Doubles height and width: the transpose of a 4x4 convolution with stride 2."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.conv = TransposedConv(channels, channels, rngs)

    def __call__(self, x: Features) -> Features:
        return self.conv(x)


class PatchDownsample(nnx.Module):
    """Halves height and width: 2x2 pixels become channels, then a linear map of them."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.dense = Dense(4 * channels, channels, rngs)

    def __call__(self, x: Features) -> Features:
        return self.dense(space_to_depth(x, 2))


class PatchUpsample(nnx.Module):
    """Doubles height and width: a linear map to four times the channels, which become 2x2 pixels."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.dense = Dense(channels, 4 * channels, rngs)

    def __call__(self, x: Features) -> Features:
        return depth_to_space(self.dense(x), 2)


class OutputHead(nnx.Module):
    """norm, SiLU, convolution (zero at first)."""

    def __init__(self, channels_in: int, channels_out: int, rngs: nnx.Rngs, *, norm: str, groups: int):
        self.norm = NORMS[norm](channels_in, groups)
        self.conv = Conv(channels_in, channels_out, rngs, zero=True)

    def __call__(self, x: Features) -> Features:
        return self.conv(jax.nn.silu(self.norm(x)))


def space_to_depth(video: Features, patch: int) -> Features:
    """Squares of `patch` x `patch` pixels become the channels of one."""
    return rearrange(video, "b f (h p) (w q) c -> b f h w (p q c)", p=patch, q=patch)


def depth_to_space(video: Features, patch: int) -> Features:
    """The inverse of `space_to_depth`."""
    return rearrange(video, "b f h w (p q c) -> b f (h p) (w q) c", p=patch, q=patch)


NORMS = {"group": GroupNorm, "rms": RmsNorm, "layer": LayerNorm}
EMBEDDINGS = {"add": AddedEmbedding, "scale_shift": ScaleShiftEmbedding, "none": NoEmbedding}
BLOCKS = {"norm_first": ResidualBlock, "conv_first": partial(ResidualBlock, conv_first=True)}
RESAMPLINGS = {
    "conv": (StridedDownsample, NearestUpsample),
    "conv_4x4": (WideDownsample, TransposedUpsample),
    "patch": (PatchDownsample, PatchUpsample),
}
