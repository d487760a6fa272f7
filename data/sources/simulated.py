"""Clips of a simulated world, each a function of (world, seed, split, index) alone, whose truth is known.

A world is a file of its own with a `World`; it has a line in `WORLDS` of vdm/build.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, Protocol, runtime_checkable

import numpy as np

from data.sources import Example, Splits

SPLITS = {"train": 0, "validation": 1}  # each draws from random streams of its own


@runtime_checkable
class World(Protocol):
    """What can be seen and how it moves; a frozen dataclass, whose options are part of the data's fingerprint."""

    @property
    def rendering(self) -> str:
        """A text that is another whenever the same options, seed and index give other pixels."""
        ...

    @property
    def num_channels(self) -> int: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def draw(self, split: str, rng: np.random.Generator) -> Any:
        """The truth about one clip, its state."""
        ...

    def show(self, state: Any, rng: np.random.Generator) -> Example:
        """The clip of a state; `rng` is that of `draw`, where it stopped."""
        ...

    def caption(self, state: Any) -> str:
        """What the clip of a state shows, in words."""
        ...


@dataclasses.dataclass(frozen=True)
class Simulated:
    """One split of a world, `num_clips` clips; a `Source` without augmentation. Impossible splits are ValueErrors."""

    world: World
    split: str
    num_clips: int
    seed: int = 0

    def __post_init__(self):
        if self.split not in SPLITS or self.num_clips < 1 or self.seed < 0:
            raise ValueError(
                f"a split needs a name of {sorted(SPLITS)}, one clip or more and a seed >= 0, got {self.split!r}, "
                f"{self.num_clips} and {self.seed}"
            )

    @property
    def num_channels(self) -> int:
        return self.world.num_channels

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.world.class_names

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.world.rendering} {self!r}".encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int) -> Example:
        rng = self._rng(index)
        return self.world.show(self.world.draw(self.split, rng), rng)

    def example(self, index: int, rng: np.random.Generator) -> Example:
        return self[index]

    def state(self, index: int) -> Any:
        """The truth about a clip: the world's `State`."""
        return self.world.draw(self.split, self._rng(index))

    def caption(self, index: int) -> str:
        return self.world.caption(self.state(index))

    def _rng(self, index: int) -> np.random.Generator:
        if not 0 <= index < self.num_clips:
            raise IndexError(f"clip {index} of a split of {self.num_clips}")
        return np.random.default_rng((self.seed, SPLITS[self.split], int(index)))


def splits(world: World, num_train: int, num_validation: int, seed: int = 0) -> Splits:
    """Training and validation clips of a world."""
    return Splits(
        train=Simulated(world, "train", num_train, seed),
        validation=Simulated(world, "validation", num_validation, seed),
    )
