"""The order in which a run sees its clips: a function of (seed, step) alone, so that nothing is saved or restored.

Example number g = step x batch_size + row of a run is a clip of the split, chosen by its epoch's permutation and
changed by random choices derived from (seed, g). Both are fixed before a process takes its rows: any number of
processes, workers and restarts continues the same sequence. Batches are numpy; nothing here touches JAX's devices.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags
from jaxtyping import Int

from data.sources import Example, Source

ORDER, CHOICES = 101, 102  # purposes: with the seed they name streams of random numbers, none of them a source's own
READ_AHEAD = 4  # batches that are ready or in work before they are asked for
NUM_THREADS = 2

Batch = dict[str, np.ndarray]


def batches(
    source: Source,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    rows: Int[np.ndarray, "rows"] | None = None,
    num_workers: int = 0,
    overfit: int = 0,
) -> grain.DatasetIterator[Batch]:
    """The endless sequence of training batches, from any step on at once.

    Every epoch is a new permutation of the split. Batches run across epochs: a split smaller than the batch repeats.

    Args:
      seed: of order and augmentation, >= 0.
      batch_size: clips per step over all processes.
      start_step: number of the first batch.
      rows: those of [0, batch_size) that this process needs, in this order; None: all.
      num_workers: processes that load; 0: threads. With more, a script needs the guard `if __name__ == "__main__":`.
      overfit: if not 0, only the first so many clips are seen, without augmentation.

    Yields:
      The keys of the source's examples with a leading axis of rows, and "index" [rows], the number g as int64. The
      iterator's `close()` ends its threads and processes.

    Raises:
      ValueError: for an empty split, more clips to overfit than there are, and rows outside of the batch.
    """
    rows = np.arange(batch_size) if rows is None else rows
    if not len(rows) or min(rows) < 0 or max(rows) >= batch_size:
        raise ValueError(f"A process needs one row or more of [0, {batch_size}); given: {list(rows)}.")
    if seed < 0 or start_step < 0 or not 0 <= overfit <= len(source) or not len(source):
        raise ValueError(
            f"Training needs a split with clips ({len(source)} here), overfit={overfit} within it (0: all of it), and "
            f"seed={seed} and start_step={start_step} not negative."
        )
    sequence = _TrainingBatches(source, seed, batch_size, start_step, tuple(rows.tolist()), overfit)
    dataset = grain.MapDataset.source(sequence).to_iter_dataset(
        grain.ReadOptions(num_threads=NUM_THREADS, prefetch_buffer_size=READ_AHEAD)
    )
    if num_workers:
        if not flags.FLAGS.is_parsed():  # grain's workers inherit absl's flags and refuse to start without
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=READ_AHEAD))
    return iter(dataset)


def fixed(source: Source, count: int, batch_size: int) -> Iterator[Batch]:
    """The first `count` clips of a split in order, without augmentation: for validation and for statistics.

    Yields batches as `batches` does, the last one with what is left; "index" is the clip's index in the split.
    ValueError when the split has fewer clips: a number that is reported over `count` clips is over just those.
    """
    if not 0 < count <= len(source) or batch_size < 1:
        raise ValueError(
            f"{count} clips in batches of {batch_size}: ask for 1 to {len(source)} clips, one or more a batch."
        )
    return (
        _stack([source[index] for index in indices], indices)
        for indices in (list(range(first, min(first + batch_size, count))) for first in range(0, count, batch_size))
    )


def drawn(source: Source, indices: Int[np.ndarray, "clips"], batch_size: int, seed: int) -> Iterator[Batch]:
    """Clips of a split by their indices, each once, from random frames of its video on, as a function of (seed, index).

    Yields batches as `fixed` does. Mirroring, where the source mirrors, is part of what is drawn.
    """
    return (
        _stack([source.example(i, np.random.default_rng((seed, CHOICES, i))) for i in some], some)
        for some in (indices[first : first + batch_size].tolist() for first in range(0, len(indices), batch_size))
    )


@dataclasses.dataclass(frozen=True)
class _TrainingBatches:
    """Random access to the batches of a run from `start_step` on: what grain's threads and workers read."""

    source: Source
    seed: int
    batch_size: int
    start_step: int
    rows: tuple[int, ...]
    overfit: int

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> Batch:
        first = (self.start_step + index) * self.batch_size
        numbers = [first + row for row in self.rows]
        return _stack([self._example(number) for number in numbers], numbers)

    def _example(self, number: int) -> Example:
        clip = clip_of(self.source, self.seed, number, self.overfit)
        if self.overfit:
            return self.source[clip]
        return self.source.example(clip, np.random.default_rng((self.seed, CHOICES, number)))


def clip_of(source: Source, seed: int, number: int, overfit: int = 0) -> int:
    """The index in the split of example `number` of a run; see `batches`."""
    length = overfit or len(source)
    epoch, place = divmod(number, length)
    return int(_permutation(seed, epoch, length)[place])


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, length: int) -> Int[np.ndarray, "length"]:
    """Not grain's shuffle (0.2.18): of 8 clips it takes 5 ms each, and its epoch 1 is the epoch 0 of seed + 1."""
    return np.random.default_rng((seed, ORDER, epoch)).permutation(length)


def _stack(examples: list[Any], numbers: list[int]) -> Batch:
    batch = {name: np.stack([example[name] for example in examples]) for name in examples[0]}
    return batch | {"index": np.array(numbers, np.int64)}
