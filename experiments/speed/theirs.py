"""Their side: video-diffusion-pytorch with Adam and an average of the weights, and diffusers' schedulers, which sample
faster than the package's own chain of 1,000 steps; as they are, or under torch.compile, or that under autocast.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import importlib.metadata
from collections.abc import Callable

import diffusers
import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.speed.torch_peers import video_diffusion_pytorch
from experiments.speed.works import CHAIN, DDIM_STEPS, Made, Size

Work = tuple[Callable[[], None], int]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclasses.dataclass(frozen=True)
class Way:
    """How the network is run."""

    is_compiled: bool = False
    is_autocast: bool = False

    def made(self, module: torch.nn.Module) -> Callable[..., torch.Tensor]:
        return torch.compile(module, dynamic=False) if self.is_compiled else module

    def precision(self) -> contextlib.AbstractContextManager:
        return torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.is_autocast)


def make(side: str, kind: str, size: Size) -> Made:
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")
    torch._dynamo.config.recompile_limit = 256  # the package's blocks share code, and each is compiled for its sizes
    works = {"train": _training_step, "forward": _forward_pass, "ddim": _ddim, "loop": _loop}
    work = (works | {name: functools.partial(_attention, name) for name in ("linear", "temporal", "spatial")})[kind]
    call, parameters = work(size, Way(side in ("compiled", "autocast"), side == "autocast"))
    versions = {name: importlib.metadata.version(name) for name in ("torch", "video-diffusion-pytorch", "diffusers")}
    on_gpu = DEVICE.type == "cuda"

    def finished() -> None:
        call()
        if on_gpu:
            torch.cuda.synchronize()

    return Made(
        call=finished,
        parameters=parameters,
        flops=lambda: _flops(work(size, Way())[0]),
        versions=versions,
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name() if on_gpu else "cpu",
        peak_bytes=torch.cuda.max_memory_allocated if on_gpu else None,
    )


def _training_step(size: Size, way: Way) -> Work:
    network = _network(size)
    package = video_diffusion_pytorch()
    diffusion = package.GaussianDiffusion(network, image_size=size.side, num_frames=size.frames, loss_type="l2")
    diffusion.to(DEVICE)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=1e-4, fused=True)
    average = copy.deepcopy(network)
    clips = torch.rand(size.clips, 3, size.frames, size.side, size.side, device=DEVICE)
    loss = way.made(diffusion)
    pairs = list(average.parameters()), list(network.parameters())

    def call() -> None:
        optimizer.zero_grad()
        with way.precision():
            value = loss(clips)
        value.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(*pairs, 0.001)  # one call for all; the package's own loop over them takes longer

    return call, _count(network)


def _forward_pass(size: Size, way: Way) -> Work:
    network = _network(size).eval()
    apply = way.made(network)
    xt, steps = _noise(size), torch.full((size.clips,), 500, device=DEVICE)

    def call() -> None:
        with torch.inference_mode(), way.precision():
            apply(xt, steps)

    return call, _count(network)


def _ddim(size: Size, way: Way) -> Work:
    network = _network(size).eval()
    apply = way.made(network)
    scheduler = diffusers.DDIMScheduler(**_CHAIN, set_alpha_to_one=True)
    call = _sampling(lambda x, step: apply(x, step.to(DEVICE).expand(size.clips)), scheduler, DDIM_STEPS, size, way)
    return call, _count(network)


def _loop(size: Size, way: Way) -> Work:
    return _sampling(lambda x, step: torch.zeros_like(x), diffusers.DDPMScheduler(**_CHAIN), CHAIN, size, way), 0


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
    way: Way,
) -> Callable[[], None]:
    def call() -> None:
        scheduler.set_timesteps(num_steps)
        x = _noise(size)
        with torch.inference_mode():
            for step in scheduler.timesteps:
                with way.precision():
                    predicted = predict(x, step)
                x = scheduler.step(predicted, step, x).prev_sample

    return call


def _attention(kind: str, size: Size, way: Way) -> Work:
    """An attention of the first level in its norm and residual, and the gradients of its parameters and input."""
    package, heads, width = video_diffusion_pytorch(), 8, 32
    if kind == "linear":
        inner = package.SpatialLinearAttention(size.dim, heads=heads, dim_head=width)
    else:
        rotary = package.RotaryEmbedding(width) if kind == "temporal" else None
        tokens = "b (h w) f c" if kind == "temporal" else "b f (h w) c"
        attention = package.Attention(size.dim, heads=heads, dim_head=width, rotary_emb=rotary)
        inner = package.EinopsToAndFrom("b c f h w", tokens, attention)
    layer = package.Residual(package.PreNorm(size.dim, inner)).to(DEVICE)
    apply = way.made(layer)
    shape = (size.clips, size.dim, size.frames, size.side, size.side)
    x = torch.randn(shape, device=DEVICE, requires_grad=True)
    bias = torch.zeros(heads, size.frames, size.frames, device=DEVICE)
    told = {"pos_bias": bias} if kind == "temporal" else {}

    def call() -> None:
        layer.zero_grad()
        x.grad = None
        with way.precision():
            value = apply(x, **told).square().mean()
        value.backward()

    return call, _count(layer)


def _network(size: Size) -> torch.nn.Module:
    return video_diffusion_pytorch().Unet3D(dim=size.dim, dim_mults=size.multipliers).to(DEVICE)


def _noise(size: Size) -> torch.Tensor:
    return torch.randn(size.clips, 3, size.frames, size.side, size.side, device=DEVICE)


def _flops(call: Callable[[], None]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def _count(network: torch.nn.Module) -> int:
    return sum(value.numel() for value in network.parameters() if value.requires_grad)
