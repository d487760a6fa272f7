"""Our side: the training step and the network of configs/video_diffusion_pytorch.py."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from configs import video_diffusion_pytorch
from experiments.speed.works import SIZES, Size
from vdm import build, steps, train
from vdm.types import Condition, Config


def make(side: str, kind: str, size: str) -> tuple[Callable[[], None], int]:
    """A call that returns when its work is done, and the number of parameters."""
    return {"train": _training_step, "forward": _forward_pass}[kind](_config(SIZES[size]))


def _config(size: Size) -> Config:
    config = video_diffusion_pytorch.get_config()
    levels = tuple(range(len(size.multipliers)))
    config.network.unet3d.update(channels=size.dim, multipliers=size.multipliers, attention_levels=levels)
    config.data.update(num_frames=size.frames, height=size.side, width=size.side, batch_size=size.clips)
    return config


def _training_step(config: Config) -> tuple[Callable[[], None], int]:
    experiment = build.experiment(config)
    state, _ = train.start(experiment, epath.Path("/nonexistent"))
    batches = steps.device_batches(experiment, 0)
    batch = next(batches)
    batches.close()
    step = steps.make_step(experiment)
    kept = [state, steps.make_window(experiment.mesh)()]

    def call() -> None:
        with jax.set_mesh(experiment.mesh):
            kept[:] = jax.block_until_ready(step(*kept, batch))

    return call, _count(state.params)


def _forward_pass(config: Config) -> tuple[Callable[[], None], int]:
    model = build.experiment(config)
    params = jax.jit(model.network.init)(jax.random.key(0))
    data = config.data
    shape = (data.batch_size, data.num_frames, data.height, data.width, 3)
    xt = jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))
    index = jnp.tile(jnp.arange(data.num_frames), (data.batch_size, 1))
    apply = jax.jit(lambda params, xt, log_snr: model.network.apply(params, xt, log_snr, index, Condition()).value)
    log_snr = jnp.zeros(shape[:2])

    def call() -> None:
        jax.block_until_ready(apply(params, xt, log_snr))

    return call, _count(params)


def _count(params: object) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
