"""What a source of clips is. A source is a file of this folder, with a function that returns its `Splits`, or
a `World` from which `simulated.splits` makes them.

Sources are numpy alone: they also run in worker processes, which must never touch JAX. Normalisation to [-1, 1] is the
device's work.
"""

from __future__ import annotations

import dataclasses
from typing import NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Int32, UInt8

Actions = Int32[np.ndarray, "frames"]


class Example(TypedDict):
    """One clip and what is known of it. All examples of a source have the same keys and shapes: they form a batch.

    `label` is the clip's class, an index into the source's `class_names`; `actions[i]` is what was done between frames
    i - 1 and i.
    """

    video: UInt8[np.ndarray, "frames height width channels"]
    label: NotRequired[np.int32]
    actions: NotRequired[Actions]


@runtime_checkable
class Source(Protocol):
    """One split of a data set: `len(source)` clips of one shape, addressed by an index in [0, len(source)).

    `fingerprint` is a short hexadecimal hash of everything that decides the clips (files, split, options): equal
    fingerprints mean equal data, in any process and on any machine. `class_names` is empty when there are no labels.
    """

    @property
    def num_channels(self) -> int: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example:
        """The clip without random augmentation, for validation and statistics. IndexError outside [0, len(self))."""
        ...

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """The clip as training sees it: random choices (offset, crop, flip) are drawn from `rng` and nothing else.

        The pipeline derives `rng` from (seed, global example index). A source without augmentation returns
        `self[index]`.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Splits:
    """The named splits of a data set: no clip is in two of them.

    Attributes:
      selection: what settings are chosen by; None where `config.data.num_selection` sets none aside.
    """

    train: Source
    validation: Source
    selection: Source | None = None
