"""The step of training as a program that is traced and not run: on one device, without the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vdm import build, steps
from vdm.costs import jaxpr
from vdm.runtime import mesh as meshes
from vdm.runtime.step import Window
from vdm.types import Config

TRACED_CLIPS = 8  # where activations outweigh the gradients, which do not scale with them


@dataclasses.dataclass(frozen=True)
class Data:
    """What a network must know of the data."""

    num_channels: int
    num_classes: int | None


def with_remat(config: Config, remat: str) -> Config:
    """The config under another policy of recomputing."""
    return _changed(config, lambda made: made.run.update(remat=remat))


def with_clips(config: Config, clips: int) -> Config:
    """The config with another batch, done at once."""

    def change(made: Config) -> None:
        made.data.batch_size = made.evaluation.batch_size = clips
        made.run.num_microbatches = 1

    return _changed(config, change)


def _changed(config: Config, change: Callable[[Config], None]) -> Config:
    made = config.copy_and_resolve_references()
    change(made)
    return made


def model(config: Config, data: Data, mesh: Mesh) -> build.Model:
    """What the config names, on a mesh of any devices; see `build.model`."""
    return build.model(config, mesh, num_channels=data.num_channels, num_classes=data.num_classes)


def here() -> Mesh:
    """One real device, on which programs are traced."""
    return meshes.make_mesh(devices=jax.local_devices()[:1])


def traced(config: Config, data: Data) -> Any:
    """The jaxpr of the step."""
    step, arguments = step_of(model(config, data, here()))
    with jax.set_mesh(here()):
        return jaxpr.traced(step, *arguments)


def flops_a_clip(config: Config, data: Data) -> float:
    """FLOPs of the model for a clip in a step of training, with nothing computed twice; see `costs.jaxpr`."""
    plain = with_clips(with_remat(config, "none"), TRACED_CLIPS)
    return jaxpr.work_of(traced(plain, data)).flops / TRACED_CLIPS


def step_of(model: build.Model) -> tuple[Any, tuple[Any, ...]]:
    """The step of `steps.make_step` and its abstract arguments: state, window and batch in their resting places."""
    config, everywhere = model.config, meshes.replicated(model.mesh)
    window = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), jax.eval_shape(Window.empty)
    )
    rows = {"video": ((config.data.num_frames, *model.frame_shape), np.uint8), "index": ((), np.int32)}
    if model.num_classes is not None:
        rows["label"] = ((), np.int32)
    place = meshes.batch_sharding(model.mesh)
    batch = {
        name: jax.ShapeDtypeStruct((config.data.batch_size, *shape), dtype, sharding=place)
        for name, (shape, dtype) in rows.items()
    }
    return steps.make_step(model), (model.abstract_state(), window, batch)
