"""How time and memory of a training step grow with clips, frames, positions and channels."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import numpy as np

from experiments.speed.pairs import Worker
from experiments.speed.works import Size

# what grows -> the sizes; the spatial part is linear in frames, temporal attention's logits are quadratic
BASE = Size(32, (1, 2), frames=8, side=16, clips=2)
GROWN: dict[str, tuple[Size, ...]] = {
    "clips": tuple(dataclasses.replace(BASE, clips=count) for count in (2, 4, 8)),
    "frames": tuple(dataclasses.replace(BASE, frames=count) for count in (8, 16, 32)),
    "positions": tuple(dataclasses.replace(BASE, side=side) for side in (16, 24, 32)),
    "channels": tuple(dataclasses.replace(BASE, dim=dim) for dim in (32, 64, 128)),
}
CALLS, ROUNDS = 3, 3
THEORY = {  # of what does most of the work when it is large: P pixels of a frame, F frames, C channels
    "clips": "1 in all",
    "frames": "1 in all but temporal attention's products, P F^2 C",
    "positions": "1 in all but the middle's spatial attention, F P^2 C",
    "channels": "2 in FLOPs (P F C^2), but 1 in attention's products; 1 in memory",
}


def measured() -> dict[str, Any]:
    """For all that grows: its numbers, seconds, peak bytes above those at rest, and FLOPs of a training step."""
    return {what: _measured(what, sizes) for what, sizes in GROWN.items()}


def _measured(what: str, sizes: tuple[Size, ...]) -> dict[str, list[float]]:
    workers = [Worker("ours", "train", size) for size in sizes]
    seconds: list[list[float]] = [[] for _ in sizes]
    for _ in range(ROUNDS):
        for taken, worker in zip(seconds, workers, strict=True):
            taken.append(statistics.median(worker.seconds(CALLS)))
    ends = [worker.end() for worker in workers]
    found = {
        "numbers": [float(number_of(what, size)) for size in sizes],
        "seconds": [statistics.median(each) for each in seconds],
        "bytes": [float(end["peak_bytes"] - end["bytes_at_rest"]) for end in ends],
        "flops": [end["flops"] for end in ends],
    }
    print(f"{what}: {found}", flush=True)
    return found


def number_of(what: str, size: Size) -> int:
    return {"clips": size.clips, "frames": size.frames, "positions": size.side**2, "channels": size.dim}[what]


def exponent(numbers: list[float], values: list[float]) -> float:
    """Of the power law that fits best: the slope of the logarithms."""
    return float(np.polyfit(np.log(numbers), np.log(values), 1)[0])
