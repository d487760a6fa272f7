"""How many clips a second the input pipeline gives: rendered, or from a folder of videos that were decoded before."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from configs import base
from data import pipeline, video_io
from data.sources import moving_shapes, simulated
from experiments.speed.works import ON_TWO_CORES, SIZES, Size
from vdm import build
from vdm.types import Config

NUM_VIDEOS, VIDEO_FRAMES, VIDEO_SIZE = 24, 64, 128
SECONDS = 5.0
FEWEST = 3  # batches


def measured() -> dict[str, Any]:
    """Clips a second of every source at every size, and how many videos a second are decoded into the cache."""
    found: dict[str, Any] = {"clips_a_second": {}}
    with tempfile.TemporaryDirectory(prefix="vdm_speed_") as name:
        write_videos(Path(name))
        for title in ON_TWO_CORES:
            size, rates = SIZES[title], {}
            config = _config(size, name)
            for source in ("moving_shapes", "folder"):
                config.data.name = source
                since = time.monotonic()
                splits = build.SOURCES[source](config.data)
                if source == "folder" and "videos_a_second" not in found:
                    found["videos_a_second"] = NUM_VIDEOS / (time.monotonic() - since)
                rates[source] = clips_a_second(splits.train, size.clips)
                print(f"{title}, {source}: {rates[source]:.0f} clips a second", flush=True)
            found["clips_a_second"][title] = rates
    return found


def write_videos(folder: Path) -> None:
    """Shapes that bounce, as MP4 files of `VIDEO_FRAMES` frames of `VIDEO_SIZE` pixels a side."""
    world = moving_shapes.World(VIDEO_FRAMES, VIDEO_SIZE, VIDEO_SIZE, radius=16.0)
    clips = simulated.splits(world, NUM_VIDEOS, 1).train
    for index in range(NUM_VIDEOS):
        (folder / f"{index}.mp4").write_bytes(video_io.encode_mp4(clips[index]["video"], fps=8))


def clips_a_second(source: Any, batch_size: int, seconds: float = SECONDS) -> float:
    """Of the batches that training sees, after the threads have begun."""
    with contextlib.closing(pipeline.batches(source, seed=0, batch_size=batch_size)) as batches:
        for _ in range(FEWEST + pipeline.READ_AHEAD):
            next(batches)
        count, since = 0, time.monotonic()
        while time.monotonic() - since < seconds:
            count += len(np.asarray(next(batches)["video"]))
        return count / (time.monotonic() - since)


def _config(size: Size, folder: str) -> Config:
    config = base.get_config()
    config.data.update(num_frames=size.frames, height=size.side, width=size.side, batch_size=size.clips)
    config.data.folder.path = folder
    return config
