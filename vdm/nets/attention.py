"""Attention within a frame and attention across frames at one pixel (Ho et al. 2022).

Every product of matrices here has the form [..., tokens, head_dim] with all other axes in front, heads too. With the
heads between tokens and channels the gradient costs up to twice as much on CPUs, and multiply-and-sum forms ten times.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from vdm.nets.blocks import NORMS
from vdm.nets.embeddings import POSITIONS, rotated
from vdm.nets.fold import tubes, untubed
from vdm.nets.linear import Dense, Features
from vdm.nets.products import dots, times
from vdm.types import FrameIndex


def attend(
    query: Float[Array, "*batch tokens head_dim"],
    key: Float[Array, "*batch tokens head_dim"],
    value: Float[Array, "*batch tokens head_dim"],
    bias: Float[Array, "... tokens tokens"] | None = None,
    identity: Bool[Array, "... 1 1"] | None = None,
) -> Float[Array, "*batch tokens head_dim"]:
    """softmax(q k^T / sqrt(head_dim) + bias) v, the softmax in float32.

    Where `identity` is True the matrix of weights is the identity: every token sees itself alone.
    """
    logits = dots(query, key) / query.shape[-1] ** 0.5
    weights = jax.nn.softmax(logits if bias is None else logits + bias, axis=-1)
    if identity is not None:
        weights = jnp.where(identity, jnp.eye(weights.shape[-1]), weights)
    return times(weights.astype(value.dtype), value)


def attend_linearly(
    query: Float[Array, "*batch tokens head_dim"],
    key: Float[Array, "*batch tokens head_dim"],
    value: Float[Array, "*batch tokens head_dim"],
) -> Float[Array, "*batch tokens head_dim"]:
    """softmax(q over head_dim) (softmax(k over tokens)^T v) / sqrt(head_dim), in time linear in the number of tokens:
    the efficient attention of Shen et al. 2021 (arXiv:1812.01243); the softmax in float32.
    """
    weights, weight = _exponentials(query)
    shares, share = _exponentials(jnp.swapaxes(key, -1, -2))  # [head_dim, tokens]
    context = times(shares.astype(value.dtype), value) / share
    mixed = times(weights.astype(value.dtype), context.astype(value.dtype))
    return (mixed / (weight * query.shape[-1] ** 0.5)).astype(value.dtype)


def _exponentials(x: Float[Array, "*rows n"]) -> tuple[Float[Array, "*rows n"], Float[Array, "*rows 1"]]:
    """A softmax over the last axis before its division, and what to divide by, in float32.

    Divided after a product, which takes them as they are, it costs CPUs half the time.
    """
    x = x.astype(jnp.float32)
    powers = jnp.exp(x - jax.lax.stop_gradient(x.max(axis=-1, keepdims=True)))
    return powers, powers.sum(axis=-1, keepdims=True)


class Heads(nnx.Module):
    """Maps to queries, keys and values of every head, and back; no biases, but for `bias` on the way back, which is
    zero at first.
    """

    def __init__(self, channels: int, num_heads: int, head_dim: int, rngs: nnx.Rngs, *, bias: bool = False):
        self.head_dim = head_dim
        inner = num_heads * head_dim
        self.query, self.key, self.value = (Dense(channels, inner, rngs, bias=False) for _ in range(3))
        self.out = Dense(inner, channels, rngs, bias=bias, zero=True)

    def __call__(self, x: Features, mix: Callable[..., Array]) -> Features:
        """`mix(query, key, value)` in every head, each [batch, frames, heads, pixels of a frame, head_dim]."""
        queries_keys_values = (
            rearrange(project(x), "b f h w (heads d) -> b f heads (h w) d", d=self.head_dim)
            for project in (self.query, self.key, self.value)
        )
        y = mix(*queries_keys_values)
        return self.out(rearrange(y, "b f heads (h w) d -> b f h w (heads d)", h=x.shape[2]))


class SpatialAttention(nnx.Module):
    """Every pixel attends to all pixels of its frame; plus the input."""

    def __init__(self, channels: int, num_heads: int, head_dim: int, rngs: nnx.Rngs, *, norm: str, groups: int):
        self.norm = NORMS[norm](channels, groups)
        self.heads = Heads(channels, num_heads, head_dim, rngs)

    def __call__(self, x: Features) -> Features:
        return x + self.heads(self.norm(x), attend)


class LinearAttention(nnx.Module):
    """Every pixel attends to all pixels of its frame by `attend_linearly`; plus the input."""

    def __init__(self, channels: int, num_heads: int, head_dim: int, rngs: nnx.Rngs, *, norm: str, groups: int):
        self.norm = NORMS[norm](channels, groups)
        self.heads = Heads(channels, num_heads, head_dim, rngs, bias=True)

    def __call__(self, x: Features) -> Features:
        return x + self.heads(self.norm(x), attend_linearly)


class TemporalAttention(nnx.Module):
    """Every pixel attends to its place in all frames, with a bias by their distance in time; plus the input."""

    def __init__(
        self, channels: int, num_heads: int, head_dim: int, rngs: nnx.Rngs, *, norm: str, groups: int, position: str
    ):
        self.norm = NORMS[norm](channels, groups)
        self.heads = Heads(channels, num_heads, head_dim, rngs)
        kind = POSITIONS[position]
        self.rotary = kind.rotary
        self.position = None if kind.shared else kind.bias(num_heads, rngs)

    def __call__(
        self,
        x: Features,
        frame_index: FrameIndex,
        is_image: Bool[Array, "batch"] | None,
        shared: Float[Array, "batch heads frames frames"] | None = None,
    ) -> Features:
        """Where `is_image` is True the weights are the identity: W_out W_v norm(x) is added, frame by frame.

        `frame_index` is that of all frames, `x` may be a device's part of them. `shared` is the bias of a table for
        all blocks.
        """
        bias = shared if self.position is None else self.position(frame_index)
        assert bias is not None, "a block without a table of its own is handed what all share"
        identity = None if is_image is None else is_image[:, None, None, None, None]

        def mix(query: Array, key: Array, value: Array) -> Array:
            if self.rotary:
                query, key = (rotated(each, frame_index) for each in (query, key))
            return attend(query, key, value, bias=bias[:, None], identity=identity)

        y = self.heads(tubes(self.norm(x)), mix)
        return x + untubed(y, *x.shape[2:4])


KINDS = {"spatial": SpatialAttention, "linear": LinearAttention, "temporal": TemporalAttention}
