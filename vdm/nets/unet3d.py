"""The factorised space-time UNet of Ho et al. 2022, "Video Diffusion Models" (arXiv:2204.03458).

What they chose, and what stands here. Where they say "as in image models", the UNet of Ho et al. 2020 (DDPM) is meant.
Every deviation is a part of its own: one of `UNet3DConfig`'s named parts where there is a choice, else the class that
is named here.

- convolutions. Ho: 1x3x3. Here: the same, computed as 2-D over (batch x frames).
- spatial attention. Ho: frames as batch, at resolutions 8, 16, 32. Here: the same, at `attention_levels` and in the
  middle; `attention="temporal"` leaves it out, for frames of so few positions that convolutions see all of them;
  `"linear_time"`: efficient attention (Shen et al. 2021) at the levels.
- temporal attention. Ho: after every spatial one, pixels as batch. Here: the same.
- frame positions. Ho: relative position bias, form not given. Here: `position="bucket"`: T5's buckets, a table in
  every block, random at first; `"lag"`: each head starts by looking at a distance of its own; `"rotary_bucket"`: one
  table for all blocks, and rotary embeddings.
- image mode. Ho: temporal attention matrix fixed to the identity. Here: the same, per example of the batch.
- residual block. Ho: as in image models: norm, SiLU, conv, twice. Here: the same, second convolution zero at first;
  `block="conv_first"`: conv, norm, SiLU, twice.
- noise level, class. Ho: embeddings added in every residual block. Here: `embedding="add"`; `"scale_shift"` (Dhariwal
  & Nichol 2021).
- noise level. Ho: log-SNR of the clip, through an MLP. Here: of every frame; `noise_level="fourier"`: bounded by tanh,
  Fourier features, MLP; `"cosine_step"`: the step of a cosine chain, its sines and cosines, MLP.
- norm. Ho: group norm, 32 groups. Here: `norm="group"` with statistics of one frame, `groups`; `"rms"`, `"layer"`;
  another before attention: `attention_norm`.
- way up. Ho: one block more per level than down, all skips. Here: `skips="all"`; `"blocks"`: as many blocks as down,
  their skips; `"levels"`: one skip a level, attention at its end alone, and a last block with the stem's.
- stem. Ho: 3x3. Here: `stem="conv"`; `"wide_temporal"`: 7x7, then temporal attention.
- resampling. Ho: strided convolution; nearest and convolution. Here: `resampling="conv"`; `"conv_4x4"`: strided, and
  its transpose; `"patch"`: space-to-depth and a linear map.
- middle. Ho: block, attention, block. Here: the same.
- head dimension. Ho: 64. Here: `head_dim`; `num_heads`, where not as many as the channels hold.
- widths. Ho: 128 or 256 channels, multipliers 1, 2, 4, 8. Here: `channels`, `multipliers`.
- pixels in. Ho: one by one. Here: `patch=1`; larger: space-to-depth in, its inverse out.
- dropout. Ho: 0 to 0.1. Here: `dropout`, with the keys given to `apply`, one an example.
- query, key, value, out. Ho: not given. Here, always: no biases (but in the `out` of linear attention), so that image
  mode adds exactly W_out W_v x; `out` is zero at first, so that the block passes its input on (`Heads`).
- precision. Ho: not given. Here: `compute_dtype`; parameters, norms and softmax float32 in either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from vdm.nets import module, sharding
from vdm.nets.blocks import depth_to_space, space_to_depth
from vdm.nets.layout import COMPUTE_DTYPES, Layout, UNet3DConfig, Unit
from vdm.types import Condition, ExampleKeys, FrameIndex, FrameKeys, Key, LogSnr, Params, Prediction, Video

SCANNED = 3  # units of one function from which on a loop is compiled once, instead of every one

Given = tuple[tuple[Params, ...], tuple[FrameKeys | None, ...], jax.Array | None]  # by step, by step, the skip


@dataclasses.dataclass(frozen=True)
class UNet3D:
    """The network as pure functions over a plain tree of float32 parameters; satisfies `vdm.types.Network`."""

    config: UNet3DConfig
    parts: Mapping[str, module.Part]
    runs: tuple[tuple[Unit, ...], ...]  # units that follow each other and compute the same function

    def init(self, key: Key) -> Params:
        """Parameters, nested by "/" in the parts' names: params["down_0"]["block_0"]["conv_1"]["kernel"]."""
        return module.init(self.parts, key)

    def check(self, height: int, width: int) -> None:
        """See `UNet3DConfig.check`."""
        self.config.check(height, width)

    def apply(
        self,
        params: Params,
        xt: Video,
        log_snr: LogSnr,
        frame_index: FrameIndex,
        condition: Condition,
        *,
        keys: ExampleKeys | None = None,
    ) -> Prediction:
        """The raw output for noisy clips.

        Args:
          params: of `init`.
          xt: noisy clips of unit variance.
          log_snr: of every frame; may be infinite.
          frame_index: position of every frame in its video, in frames; only differences matter.
          condition: `label` only where the network has classes, None means the null class; `is_image` holds temporal
            attention at the identity.
          keys: of the examples, draw the dropout; None: no dropout.

        Raises:
          ValueError: a height or width that does not fit, or a label for a network without classes.
        """
        self.check(*xt.shape[2:4])
        embedding = self._embed(params, log_snr, condition)
        dtype = COMPUTE_DTYPES[self.config.compute_dtype]
        x, embedding = (
            sharding.lay_out(each.astype(dtype)) for each in (space_to_depth(xt, self.config.patch), embedding)
        )
        frame_keys = None if keys is None else module.frame_keys(keys, xt.shape[1])
        clips = (frame_index, condition.is_image, *self._shared_bias(params, frame_index))
        skips: list[jax.Array] = []
        for run in self.runs:
            given = [_given(unit, params, frame_keys, skips) for unit in run]
            through = partial(self._through, run[0], embedding, clips)
            outputs: Any = []
            if len(run) < SCANNED:
                for each in given:
                    x, output = through(x, each)
                    outputs.append(output)
            else:
                x, outputs = jax.lax.scan(through, x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *given))
            skips.extend(outputs if run[0].leaves_skip else ())
        out = depth_to_space(x.astype(jnp.float32), self.config.patch)
        if not self.config.learned_variance:
            return Prediction(out)
        return Prediction(*jnp.split(out, 2, axis=-1))

    def _through(
        self,
        unit: Unit,
        embedding: jax.Array,
        of_clips: tuple[jax.Array | None, ...],
        x: jax.Array,
        given: Given,
    ) -> tuple[jax.Array, jax.Array | None]:
        """A unit's output, twice if it is a skip too."""
        params, keys, skip = given
        x = x if skip is None else jnp.concatenate([x, skip], axis=-1)
        for step, own, own_keys in zip(unit.steps, params, keys, strict=True):
            frames = (x, embedding, own_keys) if step.kind == "block" else (x,)
            clips = of_clips if step.kind == "temporal" else ()
            part, dtype = self.parts[step.part], COMPUTE_DTYPES[self.config.compute_dtype]
            x = sharding.lay_out(part.apply(own, frames, clips, dtype=dtype, remat=self.config.remat))
        return x, x if unit.leaves_skip else None

    def _shared_bias(self, params: Params, frame_index: FrameIndex) -> tuple[jax.Array, ...]:
        """What temporal attention is handed where all blocks share one table."""
        part = self.parts.get("position")
        return () if part is None else (part.apply(params["position"], clips=(frame_index,)),)

    def _embed(self, params: Params, log_snr: LogSnr, condition: Condition) -> jax.Array:
        """What every residual block is handed: [batch, frames, embedding] in float32."""
        embedding = self.parts["level"].apply(params["level"], (log_snr,))
        if self.config.num_classes is not None:
            null = jnp.full(len(log_snr), self.config.num_classes)
            label = null if condition.label is None else condition.label
            embedding = embedding + self.parts["label"].apply(params["label"], clips=(label,))
        elif condition.label is not None:
            raise ValueError(
                "A label was given to a network without classes: set num_classes (class_conditional), or give no label."
            )
        return jax.nn.silu(embedding)


def unet3d(config: UNet3DConfig) -> UNet3D:
    """Makes the network of a config; no parameter is allocated before `init`."""
    layout = Layout(config)
    return UNet3D(config, layout.parts, layout.runs())


def _given(unit: Unit, params: Params, keys: FrameKeys | None, skips: list[jax.Array]) -> Given:
    """What is a unit's own; takes its skip from the stack."""
    own = tuple(module.subtree(params, step.part) for step in unit.steps)
    own_keys = tuple(None if keys is None else module.named_keys(keys, step.part) for step in unit.steps)
    return own, own_keys, skips.pop() if unit.takes_skip else None
