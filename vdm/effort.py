"""How much a comparison will be, said before it starts: runs, FLOPs and hours.

Once a run of it is recorded, hours are at the speed of those that are. Before that, a few steps of one arm are timed as
its runs will be made, and the other arms' follow by their FLOPs: an estimate, as evaluation cannot be known yet.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from vdm import arms, build, steps
from vdm.arms import Cell
from vdm.records import record
from vdm.records.record import Record
from vdm.runtime import processes

NUM_TIMED = 3


@dataclasses.dataclass(frozen=True)
class Timed:
    """What the first steps of a run took: the first one, which compiles, and the median of the next."""

    first_seconds: float
    step_seconds: float


def tell(plan: Sequence[Cell], flops: Mapping[str, float]) -> bool:
    """Prints how much it is; False after a SIGTERM.

    Args:
      plan: the runs that train, as far as they are known; one at least.
      flops: arm -> those of a step.

    Raises:
      JobFailed: the steps that were to be timed failed.
    """
    first = next((cell for cell in plan if cell.config.run.num_steps), None)
    if first is None or recorded(plan):
        print(words(plan, flops))
        return True
    timed = time_steps(first)
    if timed is not None:
        print(words(plan, flops, (first, timed)))
    return timed is not None


def recorded(plan: Sequence[Cell]) -> list[tuple[Cell, Record]]:
    """The runs that have done steps."""
    return [(cell, found) for cell in plan if (found := record.read(cell.folder)) is not None and found.num_steps]


def words(plan: Sequence[Cell], flops: Mapping[str, float], timed: tuple[Cell, Timed] | None = None) -> str:
    """Runs, FLOPs, and hours to go.

    Args:
      plan: as for `tell`; flops: as for `tell`.
      timed: a run and what its first steps took, where no run is recorded.
    """
    whole = sum(flops[cell.arm] * cell.config.run.num_steps for cell in plan)
    found = recorded(plan)
    spent = sum(flops[cell.arm] * one.num_steps for cell, one in found)
    more = " or more" if plan[0].config.compare.select.factors else ""
    done = f"{len(plan)} runs{more}, {whole:.2g} FLOPs of the model, of which {spent:.2g} are done"
    seconds, basis = 0.0, ""
    if found:
        seconds = sum(sum(one.timings.values()) for _, one in found) / spent * (whole - spent)
    elif timed is not None:
        cell, took = timed
        trained = sum(1 for one in plan if one.config.run.num_steps)
        seconds = trained * took.first_seconds + took.step_seconds / flops[cell.arm] * whole
        basis = f" of training, by {NUM_TIMED} steps of {cell.arm} timed now; evaluation comes on top"
    return f"{done}: about {seconds / arms.at_once(plan[0].config) / 3600:.2g} hours to go{basis}"


def time_steps(cell: Cell) -> Timed | None:
    """Times the first steps of a run, with the cores that it will have; None after a SIGTERM.

    Raises:
      JobFailed: they failed, in a process of their own.
    """
    at_once = arms.at_once(cell.config)
    if at_once == 1:
        return timed_here(cell)
    with tempfile.TemporaryDirectory(prefix="vdm_effort_") as name:
        result, log = Path(name) / "timed.json", Path(name) / "log.txt"
        job = processes.Job(f"{cell.arm}, first steps", functools.partial(leave, cell, result), log)
        code = processes.run([job], at_once).get(job.name, processes.STOPPED)
        if code == processes.STOPPED:
            return None
        if code:
            raise processes.JobFailed(f"the first steps of {cell.arm} failed: {processes.last_line(log)}")
        return Timed(**json.loads(result.read_text()))


def leave(cell: Cell, result: Path) -> int:
    """Times the first steps and writes what they took; returns the exit code of a process that did nothing else."""
    result.write_text(json.dumps(dataclasses.asdict(timed_here(cell))))
    return 0


def timed_here(cell: Cell) -> Timed:
    """Times the first steps of a run in this process; they leave nothing."""
    experiment = build.experiment(cell.config)
    moments = [time.monotonic()]
    with jax.set_mesh(experiment.mesh), contextlib.closing(steps.device_batches(experiment, 0)) as batches:
        advance, empty = steps.make_step(experiment), steps.make_window(experiment.mesh)
        now = experiment.first_state()
        for _ in range(1 + NUM_TIMED):
            now, window = advance(now, empty(), next(batches))
            jax.block_until_ready(window)
            moments.append(time.monotonic())
    first, *others = (after - before for before, after in itertools.pairwise(moments))
    return Timed(first, statistics.median(others))
