"""What is run on both sides: the same work at stated sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable


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


@dataclasses.dataclass(frozen=True)
class Pair:
    """A work, and who does it; the first of `sides` is ours, which the others are compared with."""

    kind: str
    size: str
    sides: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Made:
    """A work that is ready.

    Attributes:
      call: does it, and returns when it is done.
      parameters: numbers of the network.
      flops: counts those of its products of matrices and convolutions, each side by its own counter.
      versions: of the packages that do it.
      threads: that it may use.
      device: the name of what computes.
      peak_bytes: the most that a device with a memory of its own has held; None: it computes in the process's.
    """

    call: Callable[[], None]
    parameters: int
    flops: Callable[[], float]
    versions: dict[str, str]
    threads: int
    device: str
    peak_bytes: Callable[[], int] | None = None


SIZES = {
    "small": Size(16, (1, 2, 4), 8, 16, clips=4),
    "main": Size(32, (1, 2, 4), 16, 32, clips=1),
    "wide": Size(64, (1, 2, 4), 16, 32, clips=1),
    "large": Size(128, (1, 2, 4, 8), 16, 64, clips=4),
}
ON_TWO_CORES = ("small", "main", "wide")
KINDS = {
    "train": "training step",
    "forward": "forward pass",
    "ddim": "50 steps of DDIM",
    "loop": "1,000 ancestral steps around a network that does nothing",
    "linear": "linear attention, with gradients",
    "temporal": "temporal attention, with gradients",
    "spatial": "spatial attention, with gradients",
    "bound": "bits/dim of a batch by the bound, 32 levels",
    "features": "features of a batch for FVD (I3D)",
}
DDIM_STEPS, CHAIN = 50, 1000
SIDES = {
    "ours": "ours",
    "remat": "ours, blocks computed again",  # in the backward pass
    "bfloat16": "ours, bfloat16",
    "eager": "PyTorch",
    "compiled": "torch.compile",
    "autocast": "torch.compile, bfloat16",  # PyTorch's autocast
}
OURS = ("ours", "remat", "bfloat16")
PAIRS = {
    **{f"train_{size}": Pair("train", size, ("ours", "remat", "eager", "compiled")) for size in ON_TWO_CORES},
    **{f"forward_{size}": Pair("forward", size, ("ours", "eager", "compiled")) for size in ON_TWO_CORES},
    "ddim_small": Pair("ddim", "small", ("ours", "eager", "compiled")),
    "ddim_main": Pair("ddim", "main", ("ours", "eager", "compiled")),
    "loop_main": Pair("loop", "main", ("ours", "eager")),
    "linear_main": Pair("linear", "main", ("ours", "eager", "compiled")),
    "temporal_main": Pair("temporal", "main", ("ours", "eager", "compiled")),
    "spatial_small": Pair("spatial", "small", ("ours", "eager", "compiled")),
    "bound_small": Pair("bound", "small", ("ours",)),  # nobody else here has these two
    "features_main": Pair("features", "main", ("ours",)),
}
ON_A_GPU = {  # asked for by name
    f"{kind}_large": Pair(kind, "large", ("ours", "bfloat16", "compiled", "autocast")) for kind in ("train", "ddim")
}
