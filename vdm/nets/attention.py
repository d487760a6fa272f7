"""Attention within a frame and attention across frames at one pixel (Ho et al. 2022).

Products of matrices of every head have the form [..., tokens, head_dim] with all other axes in front, heads too. With
heads between tokens and channels the gradient costs up to twice as much on CPUs, and multiply-and-sum forms ten times.
"""

from __future__ import annotations

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from vdm.nets.blocks import NORMS
from vdm.nets.embeddings import POSITIONS, rotated
from vdm.nets.fold import tubes, untubed
from vdm.nets.linear import Dense, Features, add_bias, dense
from vdm.nets.products import dots, softmax, times
from vdm.nets.remat import PRODUCT
from vdm.nets.sharding import kernels_are_whole
from vdm.types import FrameIndex


def attention_weights(
    query: Float[Array, "*batch tokens head_dim"],
    key: Float[Array, "*batch tokens head_dim"],
    bias: Float[Array, "... tokens tokens"] | None = None,
    identity: Bool[Array, "... 1 1"] | None = None,
) -> Float[Array, "*batch tokens tokens"]:
    """softmax(q k^T / sqrt(head_dim) + bias) in float32, a row for every query.

    Where `identity` is True they are the identity: every token sees itself alone.
    """
    logits = dots(query, key) / query.shape[-1] ** 0.5
    weights = softmax(logits if bias is None else logits + bias)
    return weights if identity is None else jnp.where(identity, jnp.eye(weights.shape[-1]), weights)


class Heads(nnx.Module):
    """Maps to queries, keys and values of every head, and back; no biases, but for `bias` on the way back, which is
    zero at first.

    What a head mixes by its weights W are values, a product of its input x, and what it mixed is multiplied once more:
    W (x V) O. That is (W x) (V O), with one matrix V O of channels by channels for every head. Where channels are few
    this is less to compute and, of the widest arrays of a network, half as many to write and read; see `mixes_inputs`.
    """

    def __init__(self, channels: int, num_heads: int, head_dim: int, rngs: nnx.Rngs, *, bias: bool = False):
        self.head_dim = head_dim
        inner = num_heads * head_dim
        self.query, self.key, self.value = (Dense(channels, inner, rngs, bias=False) for _ in range(3))
        self.out = Dense(inner, channels, rngs, bias=bias, zero=True)

    def split(self, projected: Features) -> Float[Array, "batch frames heads tokens head_dim"]:
        """What a projection gave, head by head; tokens are the pixels of a frame."""
        return rearrange(projected, "b f h w (heads d) -> b f heads (h w) d", d=self.head_dim)

    def queries_keys(self, x: Features) -> tuple[Array, Array]:
        """Each [batch, frames, heads, tokens, head_dim]."""
        return self.split(self.query(x)), self.split(self.key(x))

    def mixes_inputs(self, x: Features, few_channels: bool) -> bool:
        """Whether to, where channels are few: not from kernels that are split, which it would join across devices, nor
        below float32, where V O is rounded otherwise than V and O are.
        """
        return few_channels and x.dtype == jnp.float32 and kernels_are_whole()

    def mixed(self, weights: Float[Array, "batch frames heads tokens tokens"], x: Features) -> Features:
        """The values of every head in the shares that its weights say, mapped back."""
        weights = weights.astype(x.dtype)
        if not self.mixes_inputs(x, x.shape[-1] <= self.head_dim):
            return self.back(times(weights, self.split(self.value(x))), x)
        y = times(rearrange(weights, "b f heads q k -> b f (q heads) k"), rearrange(x, "b f h w c -> b f (h w) c"))
        y = rearrange(y, "b f (h w heads) c -> b f h w (heads c)", h=x.shape[2], w=x.shape[3])
        return dense(y, rearrange(self.value_out(), "heads c d -> (heads c) d"), self.out.bias)

    def back(self, y: Float[Array, "batch frames heads tokens head_dim"], x: Features) -> Features:
        """What the heads mixed, mapped back; `x` tells the shape of frames."""
        return self.out(rearrange(y, "b f heads (h w) d -> b f h w (heads d)", h=x.shape[2]))

    def value_out(self) -> Float[Array, "heads channels channels"]:
        """The product of a head's maps to its values and back."""
        value = rearrange(self.value.kernel[...], "c (heads d) -> heads c d", d=self.head_dim)
        return value @ rearrange(self.out.kernel[...], "(heads d) c -> heads d c", d=self.head_dim)


class SpatialAttention(nnx.Module):
    """Every pixel attends to all pixels of its frame; plus the input."""

    def __init__(self, channels: int, num_heads: int, head_dim: int, rngs: nnx.Rngs, *, norm: str, groups: int):
        self.norm = NORMS[norm](channels, groups)
        self.heads = Heads(channels, num_heads, head_dim, rngs)

    def __call__(self, x: Features) -> Features:
        normed = self.norm(x)
        return x + self.heads.mixed(attention_weights(*self.heads.queries_keys(normed)), normed)


class LinearAttention(nnx.Module):
    """Every pixel attends to all pixels of its frame in time linear in their number; plus the input.

    The shares are softmax(q over head_dim) softmax(k over tokens)^T / sqrt(head_dim): the efficient attention of Shen
    et al. 2021 (arXiv:1812.01243).
    """

    def __init__(self, channels: int, num_heads: int, head_dim: int, rngs: nnx.Rngs, *, norm: str, groups: int):
        self.norm = NORMS[norm](channels, groups)
        self.heads = Heads(channels, num_heads, head_dim, rngs, bias=True)

    def __call__(self, x: Features) -> Features:
        normed = self.norm(x)
        query = rearrange(self.heads.query(normed), "b f h w (heads d) -> b f (h w) heads d", d=self.heads.head_dim)
        query = (softmax(query) / self.heads.head_dim**0.5).astype(x.dtype)
        # as measured: beside a matrix of channels by channels for every head and frame, pixels must be many
        few_channels = 4 * x.shape[-1] <= x.shape[2] * x.shape[3]
        mixed = self._mixed_inputs if self.heads.mixes_inputs(x, few_channels) else self._mixed_values
        return x + mixed(query, normed)

    def _mixed_values(self, query: Float[Array, "batch frames tokens heads head_dim"], x: Features) -> Features:
        key = softmax(jnp.swapaxes(self.heads.split(self.heads.key(x)), -1, -2)).astype(x.dtype)
        context = times(key, self.heads.split(self.heads.value(x)))  # [head_dim, head_dim]
        return self.heads.back(times(jnp.moveaxis(query, -2, -3), context), x)

    def _mixed_inputs(self, query: Float[Array, "batch frames tokens heads head_dim"], x: Features) -> Features:
        """A query times the product of its head's context, which is of inputs, and V O."""
        tokens = rearrange(x, "b f h w c -> b f (h w) c")
        # Keys as [heads x head_dim, tokens] from the start: to turn them takes CPUs as long as to compute them.
        kernel = self.heads.key.kernel[...].T
        kernel = jnp.broadcast_to(kernel, (*x.shape[:2], *kernel.shape))
        key = softmax(checkpoint_name(dots(kernel, tokens), PRODUCT))
        context = rearrange(times(key, tokens), "b f (heads d) c -> b f heads d c", d=self.heads.head_dim)
        matrices = jnp.einsum("bfhdc,hce->bfhde", context, self.heads.value_out())
        matrices = rearrange(matrices, "b f heads d c -> b f (heads d) c")
        y = times(rearrange(query, "b f p heads d -> b f p (heads d)"), matrices).reshape(x.shape)
        assert self.heads.out.bias is not None
        return checkpoint_name(add_bias(y, self.heads.out.bias[...]), PRODUCT)


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

        normed = tubes(self.norm(x))
        query, key = self.heads.queries_keys(normed)
        if self.rotary:
            query, key = (rotated(each, frame_index) for each in (query, key))
        y = self.heads.mixed(attention_weights(query, key, bias[:, None], identity), normed)
        return x + untubed(y, *x.shape[2:4])


KINDS = {"spatial": SpatialAttention, "linear": LinearAttention, "temporal": TemporalAttention}
