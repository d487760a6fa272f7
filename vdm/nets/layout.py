"""The shape of a UNet, and the walk through its levels that writes down its parts and the order of its steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from flax import nnx

from vdm.nets import module
from vdm.nets.attention import KINDS
from vdm.nets.blocks import BLOCKS, NORMS, RESAMPLINGS, OutputHead
from vdm.nets.embeddings import NOISE_LEVELS, POSITIONS, LabelEmbedding
from vdm.nets.linear import Conv, Dense
from vdm.nets.remat import REMAT

ATTENTIONS = {  # after a block of a level, and in the middle
    "space_time": (("spatial", "temporal"), ("spatial", "temporal")),
    "linear_time": (("linear", "temporal"), ("spatial", "temporal")),
    "temporal": (("temporal",), ("temporal",)),
}
STEMS = {"conv": (3, False), "wide_temporal": (7, True)}  # side of the kernel; is temporal attention next?
COMPUTE_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
EMBEDDING_MULTIPLE = 4  # channels of the embedding, in units of `channels` (Ho et al. 2020)
AS_BLOCKS = "as_blocks"


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
      num_heads: of an attention; 0: as many as `head_dim` makes of the level's channels.
      head_dim: channels of one attention head.
      groups: channel groups of the group norm.
      patch: side in pixels of the squares that become channels on the way in; 1: none.
      dropout: probability, in [0, 1), that a residual block drops a number.
      remat: what the backward pass computes again instead of keeping it, a name in `remat.REMAT`.
      num_classes: classes of the label; None: the network is told no class.
      learned_variance: predict `log_variance` too, from as many channels again.
      norm, attention_norm, block, embedding, noise_level, stem, attention, position, resampling, skips, compute_dtype:
        names of parts, see the table in `unet3d`.

    Raises:
      ValueError: a name without a part, or channels that `groups` does not divide.
    """

    channels_in: int
    channels_out: int
    channels: int
    multipliers: tuple[int, ...]
    num_blocks: int
    attention_levels: tuple[int, ...]
    head_dim: int
    num_heads: int = 0
    groups: int = 8
    patch: int = 1
    dropout: float = 0.0
    remat: str = "none"
    num_classes: int | None = None
    learned_variance: bool = False
    norm: str = "group"
    attention_norm: str = AS_BLOCKS
    block: str = "norm_first"
    embedding: str = "add"
    noise_level: str = "fourier"
    stem: str = "conv"
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
        if "group" in (self.norm, self.attention_norm) and self.channels % self.groups:
            raise ValueError(f"channels {self.channels} are not divisible into {self.groups} groups: change either.")
        if self.num_heads < 0:
            raise ValueError(f"num_heads is {self.num_heads}; give the heads of every attention, or 0.")
        if POSITIONS[self.position].shared and not self.num_heads:
            raise ValueError(f"position {self.position!r} has one table for all attentions: give them all num_heads.")
        if POSITIONS[self.position].rotary and self.head_dim % 2:
            raise ValueError(
                f"position {self.position!r} turns pairs of numbers: head_dim {self.head_dim} must be even."
            )
        if self.norm == "group" and self.embedding == "add" and self.channels == self.groups:
            raise ValueError(
                f"With {self.groups} groups of one channel the norm takes out what the embedding adds, and the network"
                " is blind to level and class: take fewer groups, or embedding scale_shift."
            )

    def heads(self, place: str, channels: int) -> int:
        """Heads of the attention at a place of so many channels.

        Raises:
          ValueError: `head_dim` does not divide them.
        """
        if not self.num_heads and channels % self.head_dim:
            raise ValueError(
                f"{place} has {channels} channels, which head_dim {self.head_dim} does not divide: change either, or "
                "give num_heads."
            )
        return self.num_heads or channels // self.head_dim

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


class Layout:
    """Writes down the parts, and the units in the order in which a network takes them."""

    def __init__(self, config: UNet3DConfig):
        self.config = config
        self.parts: dict[str, module.Part] = {}
        self.units: list[Unit] = []
        self.channels = 0  # of the activations after the last step
        self._embedding = EMBEDDING_MULTIPLE * config.channels
        self._skips: list[int] = []  # channels of the skips on the stack
        self._define("level", partial(NOISE_LEVELS[config.noise_level], self._embedding, config.channels))
        if config.num_classes is not None:
            self._define("label", partial(LabelEmbedding, config.num_classes, self._embedding))
        if POSITIONS[config.position].shared:
            self._define("position", partial(POSITIONS[config.position].bias, config.num_heads))
        SKIPS[config.skips](self)

    def stem(self, leaves_skip: bool) -> None:
        """From pixels to channels, and what `STEMS` puts after it."""
        c = self.config
        size, is_temporal = STEMS[c.stem]
        self._define("stem", partial(Conv, c.channels_in * c.patch**2, c.channels, size=size))
        steps = [Step("stem", "plain")]
        if is_temporal:
            steps.append(self._attention("stem_temporal", "temporal", c.channels))
        self._unit(Unit(tuple(steps), leaves_skip=leaves_skip), c.channels)

    def block(
        self,
        place: str,
        number: int,
        channels: int,
        attentions: Sequence[str] = (),
        takes_skip: bool = False,
        leaves_skip: bool = False,
        embedding: str | None = None,
    ) -> None:
        """A residual block, and the attentions after it.

        Args:
          place: the level or other branch of the tree of parameters that it belongs to.
          number: of the block there.
          channels: of its output.
          attentions: names in `attention.KINDS`, in their order.
          embedding: how it is told level and class; None: as the config says.
        """
        c = self.config
        channels_in = self.channels + (self._skips.pop() if takes_skip else 0)
        name = f"{place}/block_{number}"
        build = partial(BLOCKS[c.block], channels_in, channels, self._embedding, norm=c.norm, groups=c.groups)
        self._define(name, partial(build, embedding=embedding or c.embedding, dropout=c.dropout))
        steps = [Step(name, "block")]
        steps += [self._attention(f"{place}/{kind}_{number}", kind, channels) for kind in attentions]
        self._unit(Unit(tuple(steps), takes_skip, leaves_skip), channels)

    def downsample(self, level: int, leaves_skip: bool) -> None:
        self._define(f"down_{level}/downsample", partial(RESAMPLINGS[self.config.resampling][0], self.channels))
        self._unit(Unit((Step(f"down_{level}/downsample", "plain"),), leaves_skip=leaves_skip), self.channels)

    def upsample(self, level: int) -> None:
        self._define(f"up_{level}/upsample", partial(RESAMPLINGS[self.config.resampling][1], self.channels))
        self._unit(Unit((Step(f"up_{level}/upsample", "plain"),)), self.channels)

    def middle(self) -> None:
        """Block, attention, block."""
        self.block("middle", 0, self.channels, ATTENTIONS[self.config.attention][1])
        self.block("middle", 1, self.channels)

    def head(self, build: Callable[..., nnx.Module]) -> None:
        """From channels to pixels, by what `build(channels_in, channels_out, rngs=...)` makes."""
        out = self.config.channels_out * (1 + self.config.learned_variance) * self.config.patch**2
        self._define("head", partial(build, self.channels, out))
        self._unit(Unit((Step("head", "plain"),)), out)

    def attentions(self, level: int) -> tuple[str, ...]:
        """What comes after a block of the level."""
        return ATTENTIONS[self.config.attention][0] if level in self.config.attention_levels else ()

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

    def _attention(self, name: str, kind: str, channels: int) -> Step:
        c = self.config
        norm = c.norm if c.attention_norm == AS_BLOCKS else c.attention_norm
        build = partial(KINDS[kind], channels, c.heads(name, channels), c.head_dim, norm=norm, groups=c.groups)
        self._define(name, partial(build, position=c.position) if kind == "temporal" else build)
        return Step(name, "temporal" if kind == "temporal" else "plain")

    def _define(self, name: str, build: Callable[..., nnx.Module]) -> None:
        self.parts[name] = module.split(name, lambda rngs: build(rngs=rngs))

    def _unit(self, unit: Unit, channels: int) -> None:
        self.units.append(unit)
        self.channels = channels
        if unit.leaves_skip:
            self._skips.append(channels)


def _skip_every_block(layout: Layout, more: int) -> None:
    """A skip from every block to a block of the way up, which has `more` blocks a level; these take the skips of the
    stem and of the resamplings. Attention after every block.
    """
    c = layout.config
    levels = range(len(c.multipliers))
    layout.stem(leaves_skip=bool(more))
    for level in levels:
        for block in range(c.num_blocks):
            layout.block(f"down_{level}", block, c.width(level), layout.attentions(level), leaves_skip=True)
        if level != levels[-1]:
            layout.downsample(level, leaves_skip=bool(more))
    layout.middle()
    for level in reversed(levels):
        for block in range(c.num_blocks + more):
            layout.block(f"up_{level}", block, c.width(level), layout.attentions(level), takes_skip=True)
        if level != levels[0]:
            layout.upsample(level)
    layout.head(partial(OutputHead, norm=c.norm, groups=c.groups))


def _skip_every_level(layout: Layout) -> None:
    """A skip from every level, at its end, and attention there alone; a level's way up ends with the width of the one
    above it. The stem's skip goes to a last block, which is told nothing.
    """
    c = layout.config
    levels = range(len(c.multipliers))
    last = c.num_blocks - 1
    layout.stem(leaves_skip=True)
    for level in levels:
        for block in range(c.num_blocks):
            attentions = layout.attentions(level) if block == last else ()
            layout.block(f"down_{level}", block, c.width(level), attentions, leaves_skip=block == last)
        if level != levels[-1]:
            layout.downsample(level, leaves_skip=False)
    layout.middle()
    for level in reversed(levels):
        width = c.width(level - 1) if level else c.channels
        for block in range(c.num_blocks):
            attentions = layout.attentions(level) if block == last else ()
            layout.block(f"up_{level}", block, width, attentions, takes_skip=block == 0)
        if level:
            layout.upsample(level)
    layout.block("last", 0, c.channels, takes_skip=True, embedding="none")
    layout.head(Dense)


SKIPS = {
    "all": partial(_skip_every_block, more=1),
    "blocks": partial(_skip_every_block, more=0),
    "levels": _skip_every_level,
}
_NAMES = {
    "norm": NORMS,
    "attention_norm": (AS_BLOCKS, *NORMS),
    "block": BLOCKS,
    "embedding": ("add", "scale_shift"),
    "noise_level": NOISE_LEVELS,
    "stem": STEMS,
    "attention": ATTENTIONS,
    "position": POSITIONS,
    "resampling": RESAMPLINGS,
    "skips": SKIPS,
    "remat": REMAT,
    "compute_dtype": COMPUTE_DTYPES,
}
