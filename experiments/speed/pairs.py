"""Sides of a pair in turn, each a process of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from experiments.speed.works import KINDS, OURS, SIZES, Pair, Size

CACHES = ("JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")  # a user's own would make some first calls short
PEERS = Path(".venv-peers/bin/python")
ROUNDS, SECONDS_A_TURN, FEWEST_CALLS = 7, 4.0, 3


def measured(pair: Pair, rounds: int = ROUNDS, seconds_a_turn: float = SECONDS_A_TURN) -> dict[str, Any]:
    """Of every side what made it ready, the median seconds of a call in every round, and the peak of its memory.

    Raises:
      ValueError: sides with unlike numbers of parameters, which do not do the same work.
    """
    with tempfile.TemporaryDirectory(prefix="vdm_speed_") as folder:
        workers = {
            side: Worker(side, pair.kind, SIZES[pair.size], {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/{side}"})
            for side in pair.sides
        }
        counts = {side: worker.ready["parameters"] for side, worker in workers.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"not the same network: {counts} parameters")
        calls = {
            side: max(FEWEST_CALLS, round(seconds_a_turn / worker.seconds(FEWEST_CALLS)[-1]))
            for side, worker in workers.items()
        }
        taken: dict[str, list[float]] = {side: [] for side in pair.sides}
        for number in range(rounds):
            first = number % len(pair.sides)
            for side in (*pair.sides[first:], *pair.sides[:first]):
                taken[side].append(statistics.median(workers[side].seconds(calls[side])))
                print(f"{KINDS[pair.kind]}, {pair.size}, {side}: {1e3 * taken[side][-1]:.1f} ms", flush=True)
        sides = {
            side: worker.ready | {"seconds": taken[side], "calls_a_round": calls[side]} | worker.end()
            for side, worker in workers.items()
        }
    return {"kind": pair.kind, "size": pair.size, "sides": sides}


class Worker:
    """A side in a process of its own; see `experiments.speed.worker`. `ready` is what it told when it was."""

    def __init__(self, side: str, kind: str, size: Size, environment: Mapping[str, str] = MappingProxyType({})):
        written = json.dumps(dataclasses.asdict(size))
        python = sys.executable if side in OURS else str(PEERS)
        self.process = subprocess.Popen(
            [python, "-m", "experiments.speed.worker", side, kind, written],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # JAX would take most of a GPU's memory at once, and the sides of a pair are there together
            env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
            | {name: value for name, value in os.environ.items() if name not in CACHES}
            | dict(environment),
        )
        self.ready = self._answer()

    def seconds(self, calls: int) -> list[float]:
        """Of every call."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()
        return self._answer()["seconds"]

    def end(self) -> dict[str, Any]:
        """What it tells at last."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        told = self._answer()
        self.process.wait()
        return told

    def _answer(self) -> dict[str, Any]:
        """The next line of JSON; what libraries print besides is passed on."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
            print(line, end="", file=sys.stderr)
        command = " ".join(map(str, self.process.args))  # type: ignore[arg-type]
        raise RuntimeError(f"{command} ended with {self.process.wait()}")
