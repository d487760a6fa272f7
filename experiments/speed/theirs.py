"""Their side: video-diffusion-pytorch with Adam and an average of the weights, eager or under torch.compile."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from experiments.speed.torch_peers import video_diffusion_pytorch
from experiments.speed.works import SIZES, Size


def make(side: str, kind: str, size: str) -> tuple[Callable[[], None], int]:
    """A call that returns when its work is done, and the number of parameters."""
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")
    torch._dynamo.config.recompile_limit = 256  # the package's blocks share code, and each is compiled for its sizes
    return {"train": _training_step, "forward": _forward_pass}[kind](SIZES[size], side == "compiled")


def _training_step(size: Size, is_compiled: bool) -> tuple[Callable[[], None], int]:
    package = video_diffusion_pytorch()
    network = package.Unet3D(dim=size.dim, dim_mults=size.multipliers)
    diffusion = package.GaussianDiffusion(network, image_size=size.side, num_frames=size.frames, loss_type="l2")
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=1e-4, fused=True)
    average = copy.deepcopy(network)
    clips = torch.rand(size.clips, 3, size.frames, size.side, size.side)
    loss = torch.compile(diffusion, dynamic=False) if is_compiled else diffusion
    pairs = list(average.parameters()), list(network.parameters())

    def call() -> None:
        optimizer.zero_grad()
        loss(clips).backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(*pairs, 0.001)  # one call for all; the package's own loop over them takes longer

    return call, _count(network)


def _forward_pass(size: Size, is_compiled: bool) -> tuple[Callable[[], None], int]:
    network = video_diffusion_pytorch().Unet3D(dim=size.dim, dim_mults=size.multipliers).eval()
    apply = torch.compile(network, dynamic=False) if is_compiled else network
    xt = torch.randn(size.clips, 3, size.frames, size.side, size.side)
    steps = torch.full((size.clips,), 500)

    def call() -> None:
        with torch.inference_mode():
            apply(xt, steps)

    return call, _count(network)


def _count(network: torch.nn.Module) -> int:
    return sum(value.numel() for value in network.parameters() if value.requires_grad)
