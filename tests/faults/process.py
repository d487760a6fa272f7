"""A process of a run that may be killed: `python -m vdm train`, with a line for every batch that it trains on.

python -m tests.faults.process SEEN PAUSE ARGUMENTS: the lines go to the file SEEN, global example index -> checksum of
the clip for the rows of this process, just before the step; every step takes PAUSE seconds longer, so that there is
time to be killed.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from pathlib import Path

from vdm.runtime.host_memory import keep_freed_memory

keep_freed_memory()

import numpy as np  # noqa: E402  # after the allocator is told

from vdm import steps  # noqa: E402
from vdm.__main__ import main  # noqa: E402


def rows_of(batch: steps.Batch) -> dict[int, int]:
    """Index -> checksum of the clip, which lies here as a whole: a batch is split by clips alone."""
    indices = {shard.device: np.asarray(shard.data) for shard in batch["index"].addressable_shards}
    return {
        int(index): zlib.crc32(clip.tobytes())
        for shard in batch["video"].addressable_shards
        for index, clip in zip(indices[shard.device], np.asarray(shard.data), strict=True)
    }


def watched(seen: Path, pause: float) -> None:
    """Makes every step of training leave its line."""
    make_step = steps.make_step

    def make_watched_step(experiment):
        advance, log = make_step(experiment), seen.open("a")

        def step(state, window, batch):
            log.write(json.dumps(rows_of(batch)) + "\n")
            log.flush()
            time.sleep(pause)
            return advance(state, window, batch)

        return step

    steps.make_step = make_watched_step


if __name__ == "__main__":
    watched(Path(sys.argv[1]), float(sys.argv[2]))
    sys.exit(main(["vdm", "train", *sys.argv[3:]]))
