"""Runs the same work here and in the peers, in turn, and writes the table of the README from the record.

python -m experiments.speed                      all pairs (needs .venv-peers: make peers), half an hour on two cores
python -m experiments.speed --only train_main    one of them
python -m experiments.speed --draw               the table from the record as it is
python -m experiments.speed --check              fails where the table is not that of the record; computes nothing

Every side is a process of its own that waits for its turns; a turn is some calls, of which the median counts, and the
ratio is the median over rounds of two turns of one round. Who is first changes from round to round.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from experiments import command
from experiments.speed import tables
from experiments.speed.worker import OURS
from experiments.speed.works import KINDS, PAIRS, Pair
from vdm.records.environment import read_environment
from vdm.records.readme import replace_block

HERE = Path(__file__).parent
RECORD, PAGE = HERE / "records" / "pairs.json", HERE / "README.md"
PEERS = Path(".venv-peers/bin/python")
ROUNDS, SECONDS_A_TURN, FEWEST_CALLS = 7, 4.0, 3


def main() -> None:
    command.main("experiments.speed", __doc__, compute=compute, pages=pages, parts=list(PAIRS))


def compute(only: str | None) -> None:
    if not PEERS.exists():
        sys.exit(f"there is no {PEERS}: `make peers` sets it up")
    for name in (only,) if only else PAIRS:
        found = records() | {name: measured(PAIRS[name])}
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(json.dumps(found, indent=1) + "\n")
        command.draw(pages)


def records() -> dict[str, Any]:
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def pages() -> dict[Path, str]:
    recorded = records()
    found = {name: recorded[name] for name in PAIRS if name in recorded}
    text = replace_block(PAGE.read_text(), "pairs", tables.pairs(found))
    return {PAGE: replace_block(text, "resources", tables.resources(found))}


def measured(pair: Pair, rounds: int = ROUNDS, seconds_a_turn: float = SECONDS_A_TURN) -> dict[str, Any]:
    """Of every side what made it ready, the median seconds of a call in every round, and the peak of its memory.

    Raises:
      ValueError: sides with unlike numbers of parameters, which do not do the same work.
    """
    with tempfile.TemporaryDirectory(prefix="vdm_speed_") as folder:
        workers = {side: Worker(side, pair, Path(folder)) for side in pair.sides}
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
        return {
            "kind": pair.kind,
            "size": pair.size,
            "environment": dataclasses.asdict(read_environment()),
            "sides": {
                side: worker.ready | {"seconds": taken[side], "calls_a_round": calls[side]} | worker.end()
                for side, worker in workers.items()
            },
        }


class Worker:
    """A side in a process of its own; see `experiments.speed.worker`."""

    def __init__(self, side: str, pair: Pair, folder: Path):
        """`folder`: for what a compiler keeps on disk, so that every first call compiles."""
        python = sys.executable if side in OURS else str(PEERS)
        self.process = subprocess.Popen(
            [python, "-m", "experiments.speed.worker", side, pair.kind, pair.size],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(folder / side)},
        )
        self.ready = self._answer()

    def seconds(self, calls: int) -> list[float]:
        """Of every call."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()
        return self._answer()["seconds"]

    def end(self) -> dict[str, Any]:
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
        raise RuntimeError(f"{' '.join(map(str, self.process.args))} ended with {self.process.wait()}")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
