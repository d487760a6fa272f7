"""A part of a split, as a source of its own."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from data.sources import Example, Source, Splits


@dataclasses.dataclass(frozen=True)
class Part:
    """Clips `first` to `last` - 1 of a source."""

    source: Source
    first: int
    last: int

    @property
    def num_channels(self) -> int:
        return self.source.num_channels

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    @property
    def fingerprint(self) -> str:
        whole = self.source.fingerprint
        return hashlib.sha256(f"{whole} {self.first} {self.last}".encode()).hexdigest()[: len(whole)]

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> Example:
        return self.source[self._place(index)]

    def example(self, index: int, rng: np.random.Generator) -> Example:
        return self.source.example(self._place(index), rng)

    def _place(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        return self.first + index


def set_aside(splits: Splits, count: int) -> Splits:
    """The splits with the last `count` clips of the validation split as `selection`, and not in it any more; as they
    are for 0.

    Raises:
      ValueError: nothing would be left of the validation split.
    """
    held = len(splits.validation)
    if not count:
        return splits
    if not 0 < count < held:
        raise ValueError(
            f"config.data.num_selection is {count}, and the validation split has {held} clips: some must be left of it"
        )
    validation, selection = Part(splits.validation, 0, held - count), Part(splits.validation, held - count, held)
    return dataclasses.replace(splits, validation=validation, selection=selection)
