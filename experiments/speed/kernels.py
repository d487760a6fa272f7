"""What this machine's kernels give: products of matrices; convolutions of frames as 2-D and as 3-D ones; attention as
ours and as JAX's own, with cuDNN where there is a GPU. In turn, medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vdm.nets.attention import attention_weights
from vdm.nets.products import times

ROUNDS = 9
Kernels = dict[str, Callable[[], jax.Array]]


def measured() -> dict[str, Any]:
    """Rate of products in FLOPs a second by type, and seconds of the ways to do the same by kernel and shape."""
    on_gpu = jax.default_backend() == "gpu"
    side = 8192 if on_gpu else 1024
    found: dict[str, Any] = {"device": jax.devices()[0].device_kind, "products": {}, "seconds": {}}
    for dtype in (jnp.float32, jnp.bfloat16):
        seconds = timed({"product": product(side, dtype)})["product"]
        found["products"][jnp.dtype(dtype).name] = 2 * side**3 / seconds
    dtype = jnp.bfloat16 if on_gpu else jnp.float32
    channels = 128 if on_gpu else 32
    for title, kernels in {
        f"convolution of 16 frames of 32 x 32, {channels} channels": convolutions(4, 16, 32, channels, dtype),
        "spatial attention, 16 frames of 16 x 16, 4 heads of 64": attentions(16, 256, 4, 64, dtype, on_gpu),
        "temporal attention, 32 x 32 pixels of 16 frames, 4 heads of 64": attentions(1024, 16, 4, 64, dtype, on_gpu),
    }.items():
        found["seconds"][title] = timed(kernels)
        print(title, found["seconds"][title], flush=True)
    return found


def product(side: int, dtype: Any) -> Callable[[], jax.Array]:
    a, b = (jax.random.normal(jax.random.key(i), (side, side), dtype) for i in range(2))
    multiply = jax.jit(jnp.matmul)
    return lambda: multiply(a, b)


def convolutions(clips: int, frames: int, side: int, channels: int, dtype: Any) -> Kernels:
    """1 x 3 x 3, as `nets.linear.Conv` does it over (clips x frames), and as one convolution in three dimensions."""
    x = jax.random.normal(jax.random.key(0), (clips, frames, side, side, channels), dtype)
    kernel = jax.random.normal(jax.random.key(1), (3, 3, channels, channels), dtype)

    @jax.jit
    def flat(x: jax.Array, kernel: jax.Array) -> jax.Array:
        rows, names = x.reshape(-1, *x.shape[2:]), ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(rows, kernel, (1, 1), "SAME", dimension_numbers=names).reshape(x.shape)

    @jax.jit
    def solid(x: jax.Array, kernel: jax.Array) -> jax.Array:
        names = ("NDHWC", "DHWIO", "NDHWC")
        return jax.lax.conv_general_dilated(x, kernel[None], (1, 1, 1), "SAME", dimension_numbers=names)

    return {"2-D": lambda: flat(x, kernel), "3-D": lambda: solid(x, kernel)}


def attentions(rows: int, tokens: int, heads: int, head_dim: int, dtype: Any, on_gpu: bool) -> Kernels:
    """`nets.attention`'s way, and `jax.nn.dot_product_attention` by XLA's and, on a GPU, by cuDNN's kernels."""
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = [jax.random.normal(key, (rows, tokens, heads, head_dim), dtype) for key in keys]
    heads_first = [each.swapaxes(1, 2) for each in inputs]
    ours = jax.jit(lambda query, key, value: times(attention_weights(query, key).astype(dtype), value))
    theirs = jax.jit(jax.nn.dot_product_attention, static_argnames="implementation")
    found: Kernels = {"ours": lambda: ours(*heads_first), "JAX's": lambda: theirs(*inputs, implementation="xla")}
    return found | ({"cuDNN's": lambda: theirs(*inputs, implementation="cudnn")} if on_gpu else {})


def timed(kernels: Kernels) -> dict[str, float]:
    """Median seconds of each, in turn."""
    taken: dict[str, list[float]] = {name: [] for name in kernels}
    for _ in range(-1, ROUNDS):  # the first compiles
        for name, kernel in kernels.items():
            since = time.perf_counter()
            jax.block_until_ready(kernel())
            taken[name].append(time.perf_counter() - since)
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}
