"""Attention within a frame and attention across frames at one pixel (Ho et al. 2022).

Every product of matrices here has the form [..., tokens, head_dim] with all other axes in front, heads too. With the
heads between tokens and channels the gradient costs up to twice as much on CPUs, and multiply-and-sum forms ten times.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from vdm.nets.blocks import NORMS
from vdm.nets.embeddings import POSITIONS
from vdm.nets.fold import tubes, untubed
from vdm.nets.linear import Dense, Features
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
    logits = jnp.einsum("...nd,...md->...nm", query, key, preferred_element_type=jnp.float32) / query.shape[-1] ** 0.5
    weights = jax.nn.softmax(logits if bias is None else logits + bias, axis=-1)
    if identity is not None:
        weights = jnp.where(identity, jnp.eye(weights.shape[-1]), weights)
    return jnp.einsum("...nm,...md->...nd", weights.astype(value.dtype), value)


class Heads(nnx.Module):
    """Maps to queries, keys and values of every head, and back; no biases. The way back is zero at first."""

    def __init__(self, channels: int, head_dim: int, rngs: nnx.Rngs):
        self.head_dim = head_dim
        self.query, self.key, self.value = (Dense(channels, channels, rngs, bias=False) for _ in range(3))
        self.out = Dense(channels, channels, rngs, bias=False, zero=True)

    def __call__(self, x: Features, **options: Array | None) -> Features:
        """`attend` in every head, with its options, among the pixels of a frame."""
        queries_keys_values = (
            rearrange(project(x), "b f h w (heads d) -> b f heads (h w) d", d=self.head_dim)
            for project in (self.query, self.key, self.value)
        )
        y = attend(*queries_keys_values, **options)
        return self.out(rearrange(y, "b f heads (h w) d -> b f h w (heads d)", h=x.shape[2]))


class SpatialAttention(nnx.Module):
    """Every pixel attends to all pixels of its frame; plus the input."""

    def __init__(self, channels: int, head_dim: int, rngs: nnx.Rngs, *, norm: str, groups: int):
        self.norm = NORMS[norm](channels, groups)
        self.heads = Heads(channels, head_dim, rngs)

    def __call__(self, x: Features) -> Features:
        return x + self.heads(self.norm(x))


class TemporalAttention(nnx.Module):
    """Every pixel attends to its place in all frames, with a bias by their distance in time; plus the input."""

    def __init__(self, channels: int, head_dim: int, rngs: nnx.Rngs, *, norm: str, groups: int, position: str):
        self.norm = NORMS[norm](channels, groups)
        self.heads = Heads(channels, head_dim, rngs)
        self.position = POSITIONS[position](channels // head_dim, rngs)

    def __call__(self, x: Features, frame_index: FrameIndex, is_image: Bool[Array, "batch"] | None) -> Features:
        """Where `is_image` is True the weights are the identity: W_out W_v norm(x) is added, frame by frame.

        `frame_index` is that of all frames, `x` may be a device's part of them.
        """
        bias = self.position(frame_index)[:, None]
        identity = None if is_image is None else is_image[:, None, None, None, None]
        y = self.heads(tubes(self.norm(x)), bias=bias, identity=identity)
        return x + untubed(y, *x.shape[2:4])
