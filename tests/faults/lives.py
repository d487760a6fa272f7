"""Runs a case, life after life, and says what is wrong with what came out."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests import several_processes as several
from tests import tiny
from tests.faults import plan
from tests.faults.plan import Case, Kill, Setup
from vdm import build
from vdm.runtime import checkpoints, distributed, processes
from vdm.runtime import mesh as meshes
from vdm.runtime.state import TrainState, abstract_state

PAUSE = 0.05  # seconds that a step takes longer, in lives that are to be killed
HEARTBEAT_SECONDS = 6
LIMIT = 240.0  # seconds that a life may take in all
TEMPORARY = "*.orbax-checkpoint-tmp"
Seen = list[dict[int, int]]  # a step's rows, index -> checksum, step by step


class WrongError(AssertionError):
    """A life did not do what it must; the message is for the record."""


def run_case(case: Case, folder: Path, reference: Path) -> dict[str, Any]:
    """Lives through a case in `folder` and compares its end with that of the run in `reference`.

    Returns:
      For the record: the kills with what they hit, and `difference`, the largest of any parameter's, as a share of the
      largest parameter.

    Raises:
      WrongError: a life ended otherwise than it must, a batch was lost or repeated, or the bits differ on one mesh.
    """
    kills, lives = [], []
    for number, (setup, kill) in enumerate(case.lives):
        with started(setup, folder, number, case.num_steps, PAUSE) as run:
            kills.append(describe(kill, setup) | _end(run, kill, folder, number))
        lives.append(seen_by(folder, number))
    finish(case.last, folder, len(case.lives), case.num_steps)
    lives.append(seen_by(folder, len(case.lives)))
    starts = check_batches(lives, kills, seen_by(reference, 0), case.num_steps)
    difference = check_state(folder, reference, same_bits=case.same_mesh)
    return {
        "case": case.name,
        "same_mesh": case.same_mesh,
        "last": case.last.name,
        "num_steps": case.num_steps,
        "kills": kills,
        "starts": starts,
        "difference": difference,
    }


def finish(setup: Setup, folder: Path, life: int, num_steps: int) -> None:
    """A life that nobody kills."""
    with started(setup, folder, life, num_steps, 0.0) as run:
        codes = run.codes(LIMIT)
        _require(set(codes) == {0}, f"the last life ended with {codes}", run)


@contextlib.contextmanager
def started(setup: Setup, folder: Path, life: int, num_steps: int, pause: float) -> Iterator[several.Run]:
    """A life of the run in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    mesh = {"data": 1, "fsdp": 1, "tensor": 1, "frames": 1} | dict(setup.mesh)
    command = ["-m", "tests.faults.process", f"{folder}/seen_{life}_{{process}}.jsonl", str(pause)]
    command += ["--config=tests/tiny.py", f"--workdir={folder / 'run'}"]
    settings: dict[str, Any] = {f"mesh.{axis}": size for axis, size in mesh.items()} | {
        "num_steps": num_steps,
        "log_every_steps": 10,
        "checkpoint_every_steps": plan.CHECKPOINT_EVERY_STEPS,
        "stuck_after_seconds": LIMIT,
    }
    if setup.num_processes > 1:
        settings |= {
            "distributed.name": "given",
            "distributed.heartbeat_seconds": HEARTBEAT_SECONDS,
            "distributed.given.coordinator_address": "localhost:{port}",
            "distributed.given.num_processes": "{num_processes}",
            "distributed.given.process_id": "{process}",
        }
    command += [f"--config.run.{key}={value}" for key, value in settings.items()]
    with several.Run(command, folder / f"log_{life}", setup.num_processes, setup.num_devices) as run:
        yield run


def _end(run: several.Run, kill: Kill, folder: Path, life: int) -> dict[str, Any]:
    """Kills at the moment that is due; what was hit."""
    deadline = time.monotonic() + LIMIT
    seen, saves = folder / f"seen_{life}_{kill.victim}.jsonl", folder / "run" / "checkpoints"
    while kill.moment != "start" and not (
        _num_lines(seen) >= kill.after_steps and (kill.moment == "step" or any(saves.glob(TEMPORARY)))
    ):
        ended = [process.poll() for process in run.processes]
        _require(ended == [None] * len(ended), f"it ended by itself with {ended}", run)
        _require(time.monotonic() < deadline, "it never came to the moment of its kill", run)
        time.sleep(0.002)
    time.sleep(kill.delay if kill.moment != "save" else kill.delay / 10)  # a tiny save takes some tens of milliseconds
    in_save = any(saves.glob(TEMPORARY)) if saves.exists() else False
    run.processes[kill.victim].send_signal(kill.how)
    since = time.monotonic()
    try:
        codes = run.codes(deadline - since)
    except subprocess.TimeoutExpired:
        codes = []
    _require(codes in _codes(kill, len(run.processes)), f"after {kill.how.name} it ended with {codes}", run)
    return {"in_save": in_save, "codes": codes, "seconds": round(time.monotonic() - since, 1)}


def _codes(kill: Kill, num_processes: int) -> Sequence[list[int]]:
    """Exit codes that are right, by process."""
    if kill.how == signal.SIGTERM:
        in_order = [[processes.STOPPED] * num_processes]
        return [*in_order, [-signal.SIGTERM]] if kill.moment == "start" else in_order
    codes = [distributed.LOST] * num_processes
    codes[kill.victim] = -signal.SIGKILL
    return [codes]


def describe(kill: Kill, setup: Setup) -> dict[str, Any]:
    """For the record."""
    return {
        "on": setup.name,
        "signal": kill.how.name,
        "moment": kill.moment,
        "after_steps": kill.after_steps,
        "victim": kill.victim,
    }


def seen_by(folder: Path, life: int) -> Seen:
    """The batches that a life trained on, its processes' rows put together."""
    parts = [path.read_text().split("\n")[:-1] for path in sorted(folder.glob(f"seen_{life}_*.jsonl"))]
    rows = [[{int(index): crc for index, crc in json.loads(line).items()} for line in part] for part in parts]
    return [dict(item for part in step for item in part.items()) for step in zip(*rows, strict=False)]


def check_batches(lives: Sequence[Seen], kills: Sequence[dict[str, Any]], uninterrupted: Seen, num_steps: int):
    """That the lives, each cut where the next one began, are the uninterrupted sequence; where each began."""
    size = len(uninterrupted[0])
    _same(len(uninterrupted), num_steps, "steps of the uninterrupted run")
    starts: list[int | None] = []
    kept: Seen = []
    for life, seen in enumerate(lives):
        starts.append(min(seen[0]) // size if seen else None)
        if not seen:
            continue
        first = min(seen[0]) // size
        before = kills[life - 1] if life else {"signal": "SIGKILL"}
        if first > len(kept) or (before["signal"] == "SIGTERM" and before["codes"][0] != -15 and first != len(kept)):
            raise WrongError(f"life {life} began at step {first}, after {len(kept)} steps were done")
        kept = [*kept[:first], *seen]
    for step, rows in enumerate(kept):
        _same(sorted(rows), list(range(step * size, (step + 1) * size)), f"examples of step {step}")
        _same(rows, uninterrupted[step], f"checksums of the clips of step {step}")
    _same(len(kept), num_steps, "steps in all")
    return starts


def check_state(folder: Path, reference: Path, *, same_bits: bool) -> float:
    """The largest difference of a parameter or its average from the reference, in units of the largest parameter."""
    ours, theirs = last_state(folder), last_state(reference)
    if same_bits:
        for (path, one), two in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
            if one.tobytes() != two.tobytes():
                raise WrongError(f"{jax.tree_util.keystr(path)} has other bits than in the uninterrupted run")
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(theirs.params))
    apart = jax.tree.map(lambda one, two: np.abs(one - two).max(), (ours.params, ours.ema), (theirs.params, theirs.ema))
    return float(max(jax.tree.leaves(apart)) / largest)


def last_state(folder: Path) -> TrainState:
    """The newest checkpoint of a run as numpy arrays, checked against its checksums."""
    return jax.tree.map(np.asarray, checkpoints.restore(folder / "run" / "checkpoints", _abstract()))


@functools.cache
def _abstract() -> TrainState:
    experiment = build.experiment(tiny.get_config())
    here = meshes.make_mesh(devices=jax.devices()[:1])
    return abstract_state(experiment.init, experiment.optimizer, here, experiment.rules, experiment.proposal.first())


def _num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _same(given: Any, wanted: Any, what: str) -> None:
    if given != wanted:
        raise WrongError(f"{what}: {given} instead of {wanted}")


def _require(right: bool, what: str, run: several.Run) -> None:
    if not right:
        print(run.said(), file=sys.stderr)
        raise WrongError(what)
