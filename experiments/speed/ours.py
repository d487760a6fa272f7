"""Our side: the training step, the network and the samplers of configs/video_diffusion_pytorch.py."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from configs import video_diffusion_pytorch
from experiments.speed.works import CHAIN, DDIM_STEPS, Made, Size
from vdm import build, likelihoods, sample, steps, train
from vdm.costs import jaxpr
from vdm.diffusion import bound
from vdm.metrics.features import extractor
from vdm.nets import module
from vdm.nets.attention import KINDS
from vdm.types import Condition, Config, Prediction

Work = tuple[Callable[[], None], Any, Callable[[], float]]  # the call, the parameters, what counts its FLOPs


def make(side: str, kind: str, size: Size) -> Made:
    config = config_of(size)
    config.run.remat = "blocks" if side == "remat" else "none"
    config.network.unet3d.compute_dtype = "bfloat16" if side == "bfloat16" else "float32"
    jax.config.update("jax_default_matmul_precision", "default" if side == "bfloat16" else "highest")
    works = {"train": _training_step, "forward": _forward_pass, "ddim": _ddim, "loop": _loop}
    works |= {"bound": _bound, "features": _features}
    works |= {name: functools.partial(_attention, name) for name in KINDS}
    call, params, flops = works[kind](config)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")}
    device = jax.devices()[0]
    on_host = device.platform == "cpu"
    peak = None if on_host else lambda: (device.memory_stats() or {})["peak_bytes_in_use"]
    return Made(call, parameters, flops, versions, len(os.sched_getaffinity(0)), device.device_kind, peak)


def config_of(size: Size) -> Config:
    config = video_diffusion_pytorch.get_config()
    levels = tuple(range(len(size.multipliers)))
    config.network.unet3d.update(channels=size.dim, multipliers=size.multipliers, attention_levels=levels)
    config.data.update(num_frames=size.frames, height=size.side, width=size.side, batch_size=size.clips)
    return config


def _training_step(config: Config) -> Work:
    experiment = build.experiment(config)
    state, _ = train.start(experiment, epath.Path("/nonexistent"))
    with contextlib.closing(steps.device_batches(experiment, 0)) as batches:
        batch = next(batches)
    step = steps.make_step(experiment)
    kept = [state, steps.make_window(experiment.mesh)()]

    def call() -> None:
        with jax.set_mesh(experiment.mesh):
            kept[:] = jax.block_until_ready(step(*kept, batch))

    return call, state.params, lambda: _flops(experiment, step, *kept, batch)


def _forward_pass(config: Config) -> Work:
    model = build.experiment(config)
    params = jax.jit(model.network.init)(jax.random.key(0))
    data = config.data
    shape = (data.batch_size, data.num_frames, data.height, data.width, 3)
    xt = jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))
    index = jnp.tile(jnp.arange(data.num_frames), (data.batch_size, 1))
    apply = jax.jit(lambda params, xt, log_snr: model.network.apply(params, xt, log_snr, index, Condition()).value)
    given = params, xt, jnp.zeros(shape[:2])

    def call() -> None:
        jax.block_until_ready(apply(*given))

    return call, params, lambda: _flops(model, apply, *given)


def _ddim(config: Config) -> Work:
    return _sampling(build.experiment(_with_sampler(config, "ddim", DDIM_STEPS)))


def _loop(config: Config) -> Work:
    experiment = build.experiment(_with_sampler(config, "ancestral", CHAIN))
    return _sampling(dataclasses.replace(experiment, network=Nothing()))


def _with_sampler(config: Config, name: str, num_evaluations: int) -> Config:
    config.sampler.update(name=name, num_steps=num_evaluations - 1)  # and from the last level to the estimate
    config.sampler.spacing.name = "trailing"
    return config


class Nothing:
    """A network that predicts no noise and has no parameters."""

    def init(self, key: jax.Array) -> dict[str, jax.Array]:
        return {}

    def apply(self, params: object, xt: jax.Array, *args: object, **options: object) -> Prediction:
        return Prediction(jnp.zeros_like(xt))


def _sampling(experiment: build.Experiment) -> Work:
    params = jax.jit(experiment.network.init)(jax.random.key(0))
    draw = sample.make_sampler(experiment)
    indices = np.arange(experiment.config.data.batch_size)

    def call() -> None:
        with jax.set_mesh(experiment.mesh):
            jax.block_until_ready(draw(params, indices))

    return call, params, lambda: _flops(experiment, draw, params, indices)


def _bound(config: Config) -> Work:
    config.scores.num_levels = 32
    experiment = build.experiment(config)
    params = jax.jit(experiment.network.init)(jax.random.key(0))
    with contextlib.closing(steps.device_batches(experiment, 0)) as batches:
        batch = next(batches)
    bits = jax.jit(likelihoods.make_bound(experiment, params))

    def call() -> None:
        with jax.set_mesh(experiment.mesh):
            jax.block_until_ready(bits(params, batch))

    return call, params, lambda: _flops(experiment, bits, params, batch)


def _features(config: Config) -> Work:
    seen, data = extractor.i3d_kinetics(), config.data
    clips = jnp.zeros((data.batch_size, data.num_frames, data.height, data.width, 3), jnp.uint8)
    features = jax.jit(lambda weights, clips: seen.features(weights, bound.to_float(clips), "centres"))

    def call() -> None:
        jax.block_until_ready(features(seen.weights, clips))

    return call, seen.weights, lambda: jaxpr.work(features, seen.weights, clips).flops


def _attention(kind: str, config: Config) -> Work:
    """An attention of the first level, and the gradients of its parameters and input."""
    unet, data, rest = config.network.unet3d, config.data, {}
    if kind == "temporal":
        rest = {"position": unet.position}
    build_one = functools.partial(
        KINDS[kind], unet.channels, unet.num_heads, unet.head_dim, norm=unet.attention_norm, groups=unet.groups, **rest
    )
    part = module.split("attention", lambda rngs: build_one(rngs=rngs))
    params = part.init(jax.random.key(0))
    shape = (data.batch_size, data.num_frames, data.height, data.width, unet.channels)
    x = jax.random.normal(jax.random.key(1), shape)
    index = jnp.tile(jnp.arange(data.num_frames), (data.batch_size, 1))
    bias = jnp.zeros((data.batch_size, unet.num_heads, data.num_frames, data.num_frames))
    told = (index, None, bias) if kind == "temporal" else ()

    @jax.jit
    def gradients(params: Any, x: jax.Array) -> Any:
        return jax.grad(lambda params, x: jnp.mean(part.call(params, x, *told) ** 2), argnums=(0, 1))(params, x)

    def call() -> None:
        jax.block_until_ready(gradients(params, x))

    return call, params, lambda: jaxpr.work(gradients, params, x).flops


def _flops(experiment: build.Experiment, function: Callable[..., Any], *given: Any) -> float:
    with jax.set_mesh(experiment.mesh):
        return jaxpr.work(function, *given).flops
