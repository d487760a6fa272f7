"""Which frames of a longer video a clip takes: one clip per video, short videos left out, as in StyleGAN-V's protocol
(Skorokhodov et al. 2022). The folder source and the TFDS readers share it.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int64, UInt8

FrameIndices = Int64[np.ndarray, "frames"]


@dataclasses.dataclass(frozen=True)
class Window:
    """The frames of one clip: their indices in the video, and whether they are mirrored left to right."""

    indices: FrameIndices
    mirrored: bool

    def orient(self, frames: UInt8[np.ndarray, "frames height width channels"]) -> UInt8[np.ndarray, ...]:
        """The frames as the clip shows them."""
        return np.ascontiguousarray(frames[:, :, ::-1]) if self.mirrored else frames


@dataclasses.dataclass(frozen=True)
class ClipSampler:
    """Takes `num_frames` frames, every `stride`-th one of the video. ValueError unless both are at least 1.

    Attributes:
      num_frames: of a clip.
      stride: frames of the video per frame of the clip.
      flip: mirror half of the drawn clips left to right.
    """

    num_frames: int
    stride: int = 1
    flip: bool = False

    def __post_init__(self):
        if self.num_frames < 1 or self.stride < 1:
            raise ValueError(
                f"a clip needs num_frames >= 1 and frame_stride >= 1, got {self.num_frames} and {self.stride}"
            )

    @property
    def span(self) -> int:
        """Frames of the video from the clip's first to its last one, both counted: (num_frames - 1) stride + 1."""
        return (self.num_frames - 1) * self.stride + 1

    def num_offsets(self, video_frames: int) -> int:
        """How many clips a video of so many frames holds; 0 if it is too short."""
        return max(0, video_frames - self.span + 1)

    def draw(self, video_frames: int, rng: np.random.Generator) -> Window:
        """A random clip: the offset is uniform over all that fit. ValueError if the video is too short."""
        self._check(video_frames)
        offset = int(rng.integers(self.num_offsets(video_frames)))
        mirrored = bool(rng.random() < 0.5)  # drawn in any case, so that `flip` leaves the offsets as they are
        return Window(self._indices(offset), mirrored and self.flip)

    def centre(self, video_frames: int) -> Window:
        """The clip in the middle of the video (the earlier one of two), not mirrored: for validation."""
        self._check(video_frames)
        return Window(self._indices((self.num_offsets(video_frames) - 1) // 2), mirrored=False)

    def _indices(self, offset: int) -> FrameIndices:
        return offset + self.stride * np.arange(self.num_frames, dtype=np.int64)

    def _check(self, video_frames: int) -> None:
        if not self.num_offsets(video_frames):
            raise ValueError(f"{self.describe()} does not fit a video of {video_frames} frames")

    def describe(self) -> str:
        return f"a clip of {self.num_frames} frames with stride {self.stride} (it spans {self.span} frames)"


def crop_and_resize(
    frame: UInt8[np.ndarray, "height width channels"], height: int, width: int
) -> UInt8[np.ndarray, "new_height new_width channels"]:
    """The largest centred rectangle of the aspect ratio height : width, resized by Pillow's bicubic filter.

    The filter's support grows with the reduction, so that fine detail is averaged and not aliased. A frame that has the
    size already is returned as it is. Colour or grey.
    """
    if frame.shape[:2] == (height, width):
        return frame
    from PIL import Image

    scale = min(frame.shape[0] / height, frame.shape[1] / width)
    top, left = (frame.shape[0] - height * scale) / 2, (frame.shape[1] - width * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    image = Image.fromarray(frame if frame.shape[2] == 3 else frame[..., 0])
    resized = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box))
    return resized.reshape(height, width, frame.shape[2])
