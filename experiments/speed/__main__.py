"""Runs the same work here and in the peers, in turn, and writes the table of the README from the record.

python -m experiments.speed                      all pairs (needs .venv-peers: make peers), half an hour on two cores
python -m experiments.speed --only train_main    one of them
python -m experiments.speed --draw               the table from the record as it is
python -m experiments.speed --check              fails where the table is not that of the record; computes nothing

Every side is a process of its own that waits for its turns; a turn is some calls, of which the median counts, and the
ratio is the median over rounds of two turns that follow each other.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from experiments import command
from experiments.speed import tables
from experiments.speed.works import KINDS, SIDES, SIZES
from vdm.records.environment import read_environment
from vdm.records.readme import replace_block

HERE = Path(__file__).parent
RECORD, PAGE = HERE / "records" / "pairs.json", HERE / "README.md"
PEERS = Path(".venv-peers/bin/python")
ROUNDS, SECONDS_A_TURN = 7, 4.0
PAIRS = {f"{kind}_{size}": (kind, size) for kind in KINDS for size in SIZES}


def main() -> None:
    command.main("experiments.speed", __doc__, compute=compute, pages=pages, parts=list(PAIRS))


def compute(only: str | None) -> None:
    if not PEERS.exists():
        sys.exit(f"there is no {PEERS}: `make peers` sets it up")
    for name in (only,) if only else PAIRS:
        found = records() | {name: measured(*PAIRS[name])}
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(json.dumps(found, indent=1) + "\n")
        command.draw(pages)


def records() -> dict[str, Any]:
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def pages() -> dict[Path, str]:
    recorded = records()
    found = {name: recorded[name] for name in PAIRS if name in recorded}
    return {PAGE: replace_block(PAGE.read_text(), "pairs", tables.pairs(found))}


def measured(kind: str, size: str) -> dict[str, Any]:
    """Of every side what made it ready, the median seconds of a call in every round, and the peak of its memory."""
    workers = {side: Worker(side, kind, size) for side in SIDES}
    rounds: dict[str, list[float]] = {side: [] for side in SIDES}
    calls = {side: max(1, round(SECONDS_A_TURN / worker.seconds(3)[-1])) for side, worker in workers.items()}
    for _ in range(ROUNDS):
        for side, worker in workers.items():
            rounds[side].append(statistics.median(worker.seconds(calls[side])))
            print(f"{KINDS[kind]}, {size}, {side}: {1e3 * rounds[side][-1]:.0f} ms", flush=True)
    return {
        "kind": kind,
        "size": size,
        "environment": dataclasses.asdict(read_environment()),
        "sides": {
            side: worker.ready | {"seconds": rounds[side], "calls_a_round": calls[side]} | worker.end()
            for side, worker in workers.items()
        },
    }


class Worker:
    """A side in a process of its own; see `experiments.speed.worker`."""

    def __init__(self, side: str, kind: str, size: str):
        python = sys.executable if side == "ours" else str(PEERS)
        self.process = subprocess.Popen(
            [python, "-m", "experiments.speed.worker", side, kind, size],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
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
