"""One writer for what a run measures: JSON lines, which everything here reads, and TensorBoard's event files, for
people.

Object stores cannot append, so the lines go to a new shard with every flush. A run that was killed goes on from a
checkpoint and does the steps after it again: its new writer says so in its first line, and reading leaves out what the
killed process had written beyond, so a curve has one value a step.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import SupportsFloat

import jax
import numpy as np
from etils import epath
from jaxtyping import UInt8
from tensorboardX import SummaryWriter

FOLDER = "metrics"  # inside the work directory
_SHARD = re.compile(r"scalars-(\d{6})\.jsonl")
_GOES_ON_AFTER = "goes_on_after_step"


class Writer:
    """Writes the scalars and images of one process of one run; the processes of a pod but the first write nothing.

    What is not flushed is lost in a kill: flush before a checkpoint is saved, lest the steps before it have a gap.

    Args:
      workdir: of the run; the files go to its folder `metrics`.
      first_step: steps that were done when this process took over, 0 in a new run.
    """

    def __init__(self, workdir: epath.PathLike, *, first_step: int) -> None:
        self._folder = epath.Path(workdir) / FOLDER
        self._rows: list[Mapping[str, float | str]] = [{_GOES_ON_AFTER: first_step}]
        self._events: SummaryWriter | None = None
        if jax.process_index() == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            # makes TensorBoard, too, forget what comes again
            purge = first_step + 1 if first_step else None
            self._events = SummaryWriter(str(self._folder), purge_step=purge)

    def scalars(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Notes numbers after a step. The same name at the same step replaces; other names join the row.

        Raises:
          ValueError: if a value is called "step", which is the row's own.
        """
        if "step" in values:
            raise ValueError('a scalar cannot be called "step": that is the name of the row\'s step')
        self._rows.append({"step": step} | {name: _to_json(value) for name, value in values.items()})
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, float(value), step)

    def image(self, step: int, name: str, image: UInt8[np.ndarray, "height width channels"]) -> None:
        """Shows an image of 1 or 3 channels in TensorBoard."""
        if self._events is not None:
            self._events.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        """Writes what was noted since the last flush; a shard appears whole or not at all."""
        rows, self._rows = self._rows, []
        if self._events is None or not rows:
            return
        numbers = [number for number, _ in _shards(self._folder)]
        shard = self._folder / f"scalars-{max(numbers, default=0) + 1:06d}.jsonl"
        unfinished = self._folder / f"{shard.name}.unfinished"
        unfinished.write_text("".join(f"{json.dumps(row, allow_nan=False)}\n" for row in rows))
        unfinished.rename(shard)
        self._events.flush()

    def close(self) -> None:
        """Flushes, and closes the event file."""
        self.flush()
        if self._events is not None:
            self._events.close()


def read_scalars(workdir: epath.PathLike) -> list[dict[str, float]]:
    """All that a run measured: a row a step, ascending, {"step": 50, "train/loss": 0.25}; empty if there is nothing."""
    rows: dict[int, dict[str, float]] = {}
    for _, shard in _shards(epath.Path(workdir) / FOLDER):
        for line in shard.read_text().splitlines():
            row = json.loads(line)
            if _GOES_ON_AFTER in row:
                rows = {step: kept for step, kept in rows.items() if step <= row[_GOES_ON_AFTER]}
            else:
                values = {name: float(value) for name, value in row.items() if name != "step"}
                rows[row["step"]] = rows.get(row["step"], {"step": row["step"]}) | values
    return [rows[step] for step in sorted(rows)]


def _shards(folder: epath.Path) -> list[tuple[int, epath.Path]]:
    if not folder.exists():
        return []
    matches = ((_SHARD.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match.group(1)), path) for match, path in matches if match)


def _to_json(value: SupportsFloat) -> float | str:
    """Strict JSON has no NaN and no infinity: they are written as the text that `float` reads."""
    number = float(value)
    return number if math.isfinite(number) else str(number)
