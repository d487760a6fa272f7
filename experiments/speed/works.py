"""What is run on both sides: the same network at stated sizes."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Size:
    """A network of video-diffusion-pytorch, and the clips that it sees.

    Attributes:
      dim, multipliers: its `dim` and `dim_mults`.
      frames, side: of a clip; frames are squares.
      clips: at a time.
    """

    dim: int
    multipliers: tuple[int, ...]
    frames: int
    side: int
    clips: int

    @property
    def title(self) -> str:
        levels = ", ".join(map(str, self.multipliers))
        return f"{self.dim} ({levels}), {self.clips} x {self.frames} x {self.side} x {self.side}"


SIZES = {
    "small": Size(16, (1, 2, 4), 8, 16, clips=4),
    "main": Size(32, (1, 2, 4), 16, 32, clips=1),
    "wide": Size(64, (1, 2, 4), 16, 32, clips=1),
}
KINDS = {"train": "training step", "forward": "forward pass"}
SIDES = ("ours", "eager", "compiled")  # jax; PyTorch as it is, and under torch.compile
