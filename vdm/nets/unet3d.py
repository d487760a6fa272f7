"""The factorised space-time UNet of Ho et al. 2022, "Video Diffusion Models" (arXiv:2204.03458).

What they chose, and what stands here. Where they say "as in image models", the UNet of Ho et al. 2020 (DDPM) is meant.
Every deviation is a part of its own: one of `UNet3DConfig`'s named parts where there is a choice, else the class that
is named here.

- convolutions. Ho: 1x3x3. Here: the same, computed as 2-D over (batch x frames).
- spatial attention. Ho: frames as batch, at resolutions 8, 16, 32. Here: the same, at `attention_levels` and in the
  middle; `attention="temporal"` leaves it out, for frames of so few positions that convolutions see all of them.
- temporal attention. Ho: after every spatial one, pixels as batch. Here: the same.
- frame positions. Ho: relative position bias, form not given. Here: `position="bucket"`: T5's buckets, a table in
  every block, random at first; `"lag"`: each head starts by looking at a distance of its own.
- image mode. Ho: temporal attention matrix fixed to the identity. Here: the same, per example of the batch.
- residual block. Ho: as in image models: norm, SiLU, conv, twice. Here: the same, second convolution zero at first.
- noise level, class. Ho: embeddings added in every residual block. Here: `embedding="add"`; `"scale_shift"` (Dhariwal
  & Nichol 2021).
- noise level. Ho: log-SNR of the clip, through an MLP. Here, always: of every frame, bounded by tanh, Fourier features,
  MLP (`LevelEmbedding`).
- norm. Ho: group norm, 32 groups. Here: `norm="group"` with statistics of one frame, `groups`; `"rms"`.
- way up. Ho: one block more per level than down, all skips. Here: `skips="all"`; `"blocks"`: as many blocks as down,
  their skips.
- resampling. Ho: strided convolution; nearest and convolution. Here: `resampling="conv"`; `"patch"`: space-to-depth
  and a linear map.
- middle. Ho: block, attention, block. Here: the same.
- head dimension. Ho: 64. Here: `head_dim`.
- widths. Ho: 128 or 256 channels, multipliers 1, 2, 4, 8. Here: `channels`, `multipliers`.
- pixels in. Ho: one by one. Here: `patch=1`; larger: space-to-depth in, its inverse out.
- dropout. Ho: 0 to 0.1. Here: `dropout`, with the keys given to `apply`, one an example.
- query, key, value, out. Ho: not given. Here, always: no biases, so that image mode adds exactly W_out W_v x;
  `out` is zero at first, so that the block passes its input on (`Heads`).
- precision. Ho: not given. Here: `compute_dtype`; parameters, norms and softmax float32 in either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vdm.nets import module, sharding
from vdm.nets.attention import SpatialAttention, TemporalAttention
from vdm.nets.blocks import (
    EMBEDDINGS,
    NORMS,
    RESAMPLINGS,
    OutputHead,
    ResidualBlock,
    depth_to_space,
    space_to_depth,
)
from vdm.nets.embeddings import POSITIONS, LabelEmbedding, LevelEmbedding
from vdm.nets.linear import Conv
from vdm.nets.remat import REMAT
from vdm.types import Condition, ExampleKeys, FrameIndex, FrameKeys, Key, LogSnr, Params, Prediction, Video

ATTENTIONS = {"space_time": ("spatial", "temporal"), "temporal": ("temporal",)}  # after a block, the spatial first
SKIPS = {"all": 1, "blocks": 0}  # blocks per level that the way up has more than the way down
COMPUTE_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
SCANNED = 3  # units of one function from which on a loop is compiled once, instead of every one
EMBEDDING_MULTIPLE = 4  # channels of the embedding, in units of `channels` (Ho et al. 2020)

_NAMES = {
    "norm": NORMS,
    "embedding": EMBEDDINGS,
    "attention": ATTENTIONS,
    "position": POSITIONS,
    "resampling": RESAMPLINGS,
    "skips": SKIPS,
    "remat": REMAT,
    "compute_dtype": COMPUTE_DTYPES,
}


@dataclasses.dataclass(frozen=True)
class UNet3DConfig:
    """Shape and parts of the network.

    Attributes:
      channels_in: channels of the video, before patching.
      channels_out: channels of the prediction.
      channels: of the first level.
      multipliers: channels of each level, in units of `channels`; each level halves height and width.
      num_blocks: residual blocks per level.
      attention_levels: levels with attention after each block; the middle always has it.
      head_dim: channels of one attention head.
      groups: channel groups of the group norm.
      patch: side in pixels of the squares that become channels on the way in; 1: none.
      dropout: probability, in [0, 1), that a residual block drops a number.
      remat: what the backward pass computes again instead of keeping it, a name in `remat.REMAT`.
      num_classes: classes of the label; None: the network is told no class.
      learned_variance: predict `log_variance` too, from as many channels again.
      norm, embedding, attention, position, resampling, skips, compute_dtype: names of parts, see the table above.

    Raises:
      ValueError: a name without a part, or channels that `head_dim` or `groups` does not divide.
    """

    channels_in: int
    channels_out: int
    channels: int
    multipliers: tuple[int, ...]
    num_blocks: int
    attention_levels: tuple[int, ...]
    head_dim: int
    groups: int = 8
    patch: int = 1
    dropout: float = 0.0
    remat: str = "none"
    num_classes: int | None = None
    learned_variance: bool = False
    norm: str = "group"
    embedding: str = "add"
    attention: str = "space_time"
    position: str = "bucket"
    resampling: str = "conv"
    skips: str = "all"
    compute_dtype: str = "float32"

    def __post_init__(self) -> None:
        for field, table in _NAMES.items():
            if getattr(self, field) not in table:
                raise ValueError(f"{field} is {getattr(self, field)!r}; there are: {', '.join(table)}.")
        levels = len(self.multipliers)
        if levels == 0 or self.num_blocks < 1 or self.patch < 1:
            raise ValueError(
                f"multipliers {self.multipliers}, num_blocks {self.num_blocks}, patch {self.patch}: at least one "
                "level, one block and a patch of 1 pixel are needed."
            )
        if not set(self.attention_levels) <= set(range(levels)):
            raise ValueError(
                f"attention_levels {self.attention_levels} go beyond the levels 0 to {levels - 1}: drop those, or add "
                "multipliers."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it is a probability in [0, 1).")
        for level in {*self.attention_levels, levels - 1}:
            if self.width(level) % self.head_dim:
                raise ValueError(
                    f"Level {level} has {self.width(level)} channels, which head_dim {self.head_dim} does not divide: "
                    "change either."
                )
        if self.norm == "group" and self.channels % self.groups:
            raise ValueError(f"channels {self.channels} are not divisible into {self.groups} groups: change either.")
        if self.norm == "group" and self.embedding == "add" and self.channels == self.groups:
            raise ValueError(
                f"With {self.groups} groups of one channel the norm takes out what the embedding adds, and the network"
                " is blind to level and class: take fewer groups, or embedding scale_shift."
            )

    def width(self, level: int) -> int:
        """Channels of a level."""
        return self.channels * self.multipliers[level]

    def check(self, height: int, width: int) -> None:
        """Raises ValueError if `height` and `width`, in pixels, cannot be patched and halved from level to level."""
        multiple = self.patch * 2 ** (len(self.multipliers) - 1)
        if height % multiple or width % multiple:
            raise ValueError(
                f"A clip of {height} x {width} pixels cannot pass: patch {self.patch} and {len(self.multipliers)} "
                f"levels need multiples of {multiple}. Resize the clip, or take a smaller patch or fewer levels."
            )


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of the way through the network: a part, and what it is handed."""

    part: str
    kind: str  # plain | block | temporal


@dataclasses.dataclass(frozen=True)
class Unit:
    """Steps between two touches of the stack of skips: a residual block with what follows it, or a single step."""

    steps: tuple[Step, ...]
    takes_skip: bool = False  # the last skip is concatenated to the input
    leaves_skip: bool = False  # the output is put on the stack


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
        skips: list[jax.Array] = []
        for run in self.runs:
            given = [_given(unit, params, frame_keys, skips) for unit in run]
            through = partial(self._through, run[0], embedding, frame_index, condition.is_image)
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
        frame_index: FrameIndex,
        is_image: jax.Array | None,
        x: jax.Array,
        given: Given,
    ) -> tuple[jax.Array, jax.Array | None]:
        """A unit's output, twice if it is a skip too."""
        params, keys, skip = given
        x = x if skip is None else jnp.concatenate([x, skip], axis=-1)
        for step, own, own_keys in zip(unit.steps, params, keys, strict=True):
            frames = (x, embedding, own_keys) if step.kind == "block" else (x,)
            clips = (frame_index, is_image) if step.kind == "temporal" else ()
            part, dtype = self.parts[step.part], COMPUTE_DTYPES[self.config.compute_dtype]
            x = sharding.lay_out(part.apply(own, frames, clips, dtype=dtype, remat=self.config.remat))
        return x, x if unit.leaves_skip else None

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
    plan = _Plan(config)
    plan.add_all()
    return UNet3D(config, plan.parts, plan.runs())


def _given(unit: Unit, params: Params, keys: FrameKeys | None, skips: list[jax.Array]) -> Given:
    """What is a unit's own; takes its skip from the stack."""
    own = tuple(module.subtree(params, step.part) for step in unit.steps)
    own_keys = tuple(None if keys is None else module.named_keys(keys, step.part) for step in unit.steps)
    return own, own_keys, skips.pop() if unit.takes_skip else None


class _Plan:
    """Walks the levels once and writes down the parts and the order of the steps."""

    def __init__(self, config: UNet3DConfig):
        self.config = config
        self.parts: dict[str, module.Part] = {}
        self.units: list[Unit] = []
        self.embedding = EMBEDDING_MULTIPLE * config.channels
        self.channels = 0  # of the activations after the last step
        self.skips: list[int] = []  # channels of the skips on the stack

    def add_all(self) -> None:
        c = self.config
        self.define("level", lambda rngs: LevelEmbedding(self.embedding, rngs))
        if c.num_classes is not None:
            self.define("label", partial(LabelEmbedding, c.num_classes, self.embedding))
        more = SKIPS[c.skips]
        levels = range(len(c.multipliers))
        down, up = RESAMPLINGS[c.resampling]
        stem_in = c.channels_in * c.patch**2
        self.plain("stem", lambda rngs: Conv(stem_in, c.channels, rngs), c.channels, leaves_skip=bool(more))
        for level in levels:
            for block in range(c.num_blocks):
                self.block(f"down_{level}", block, c.width(level), level in c.attention_levels, leaves_skip=True)
            if level != levels[-1]:
                build = partial(down, self.channels)
                self.plain(f"down_{level}/downsample", build, self.channels, leaves_skip=bool(more))
        self.block("middle", 0, self.channels, attention=True)
        self.block("middle", 1, self.channels, attention=False)
        for level in reversed(levels):
            for block in range(c.num_blocks + more):
                self.block(f"up_{level}", block, c.width(level), level in c.attention_levels, takes_skip=True)
            if level != levels[0]:
                self.plain(f"up_{level}/upsample", partial(up, self.channels), self.channels)
        width, out = self.channels, c.channels_out * (1 + c.learned_variance) * c.patch**2
        self.plain("head", lambda rngs: OutputHead(width, out, rngs, norm=c.norm, groups=c.groups), out)

    def define(self, name: str, build: Callable[[nnx.Rngs], nnx.Module]) -> None:
        self.parts[name] = module.split(name, build)

    def plain(
        self, name: str, build: Callable[[nnx.Rngs], nnx.Module], channels: int, leaves_skip: bool = False
    ) -> None:
        self.define(name, build)
        self._unit(Unit((Step(name, "plain"),), leaves_skip=leaves_skip), channels)

    def block(
        self,
        place: str,
        number: int,
        channels: int,
        attention: bool,
        takes_skip: bool = False,
        leaves_skip: bool = False,
    ) -> None:
        """A residual block and, with `attention`, what `ATTENTIONS` puts after it."""
        c = self.config
        channels_in = self.channels + (self.skips.pop() if takes_skip else 0)
        norm = {"norm": c.norm, "groups": c.groups}
        self.define(
            f"{place}/block_{number}",
            lambda rngs: ResidualBlock(
                channels_in, channels, self.embedding, rngs, embedding=c.embedding, dropout=c.dropout, **norm
            ),
        )
        steps = [Step(f"{place}/block_{number}", "block")]
        attentions = ATTENTIONS[c.attention] if attention else ()
        if "spatial" in attentions:
            steps.append(Step(f"{place}/spatial_{number}", "plain"))
            self.define(steps[-1].part, lambda rngs: SpatialAttention(channels, c.head_dim, rngs, **norm))
        if "temporal" in attentions:
            steps.append(Step(f"{place}/temporal_{number}", "temporal"))
            build = partial(TemporalAttention, channels, c.head_dim, position=c.position, **norm)
            self.define(steps[-1].part, lambda rngs: build(rngs=rngs))
        self._unit(Unit(tuple(steps), takes_skip, leaves_skip), channels)

    def _unit(self, unit: Unit, channels: int) -> None:
        self.units.append(unit)
        self.channels = channels
        if unit.leaves_skip:
            self.skips.append(channels)

    def runs(self) -> tuple[tuple[Unit, ...], ...]:
        """The units, those that compute the same function together."""
        runs: list[list[Unit]] = []
        for unit in self.units:
            if runs and self._equal(runs[-1][0], unit):
                runs[-1].append(unit)
            else:
                runs.append([unit])
        return tuple(map(tuple, runs))

    def _equal(self, one: Unit, other: Unit) -> bool:
        kinds = [(unit.takes_skip, unit.leaves_skip, *(step.kind for step in unit.steps)) for unit in (one, other)]
        return kinds[0] == kinds[1] and all(
            self.parts[left.part].equals(self.parts[right.part])
            for left, right in zip(one.steps, other.steps, strict=True)
        )
