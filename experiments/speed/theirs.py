"""Their side: video-diffusion-pytorch with Adam and an average of the weights, and diffusers' schedulers, which sample
faster than the package's own chain of 1,000 steps; as they are, or the network under torch.compile."""

from __future__ import annotations

import copy
import importlib.metadata
from collections.abc import Callable

import diffusers
import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.speed.torch_peers import video_diffusion_pytorch
from experiments.speed.works import CHAIN, DDIM_STEPS, Made, Size

Work = tuple[Callable[[], None], int]


def make(side: str, kind: str, size: Size) -> Made:
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")
    torch._dynamo.config.recompile_limit = 256  # the package's blocks share code, and each is compiled for its sizes
    work = {"train": _training_step, "forward": _forward_pass, "ddim": _ddim, "loop": _loop}[kind]
    call, parameters = work(size, side == "compiled")
    versions = {name: importlib.metadata.version(name) for name in ("torch", "video-diffusion-pytorch", "diffusers")}
    return Made(call, parameters, lambda: _flops(work(size, False)[0]), versions, torch.get_num_threads())


def _training_step(size: Size, is_compiled: bool) -> Work:
    network = _network(size)
    package = video_diffusion_pytorch()
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


def _forward_pass(size: Size, is_compiled: bool) -> Work:
    network = _network(size).eval()
    apply = torch.compile(network, dynamic=False) if is_compiled else network
    xt, steps = _noise(size), torch.full((size.clips,), 500)

    def call() -> None:
        with torch.inference_mode():
            apply(xt, steps)

    return call, _count(network)


def _ddim(size: Size, is_compiled: bool) -> Work:
    network = _network(size).eval()
    apply = torch.compile(network, dynamic=False) if is_compiled else network
    scheduler = diffusers.DDIMScheduler(**_CHAIN, set_alpha_to_one=True)
    return _sampling(lambda x, step: apply(x, step.expand(size.clips)), scheduler, DDIM_STEPS, size), _count(network)


def _loop(size: Size, is_compiled: bool) -> Work:
    scheduler = diffusers.DDPMScheduler(**_CHAIN)
    return _sampling(lambda x, step: torch.zeros_like(x), scheduler, CHAIN, size), 0


_CHAIN = {
    "num_train_timesteps": CHAIN,
    "beta_schedule": "squaredcos_cap_v2",
    "clip_sample": False,
    "timestep_spacing": "trailing",
}


def _sampling(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    scheduler: diffusers.SchedulerMixin,
    num_steps: int,
    size: Size,
) -> Callable[[], None]:
    def call() -> None:
        scheduler.set_timesteps(num_steps)
        x = _noise(size)
        with torch.inference_mode():
            for step in scheduler.timesteps:
                x = scheduler.step(predict(x, step), step, x).prev_sample

    return call


def _network(size: Size) -> torch.nn.Module:
    return video_diffusion_pytorch().Unet3D(dim=size.dim, dim_mults=size.multipliers)


def _noise(size: Size) -> torch.Tensor:
    return torch.randn(size.clips, 3, size.frames, size.side, size.side)


def _flops(call: Callable[[], None]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def _count(network: torch.nn.Module) -> int:
    return sum(value.numel() for value in network.parameters() if value.requires_grad)
