"""Measures how long the same work takes here and in peers, and what else of ours takes time; writes README.md's tables.

python -m experiments.speed                      all parts (needs .venv-peers: make peers), an hour on two cores
python -m experiments.speed --only train_main    one of them; train_large and ddim_large are for a GPU
python -m experiments.speed --draw               the tables from the records as they are
python -m experiments.speed --check              fails where a table is not that of the records; computes nothing

Every side of a pair is a process of its own that waits for its turns; a turn is some calls, of which the median counts,
and the ratio is the median over rounds of two turns of one round. Who is first changes from round to round.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

from experiments import command
from experiments.speed import feeding, kernels, pairs, scaling, starts, tables
from experiments.speed.works import ON_A_GPU, PAIRS
from vdm.records.environment import read_environment
from vdm.records.readme import replace_block

HERE = Path(__file__).parent
RECORDS, PAGE = HERE / "records", HERE / "README.md"
FRONT = HERE.parents[1] / "README.md"
ALL_PAIRS = PAIRS | ON_A_GPU
PARTS = {name: functools.partial(pairs.measured, pair) for name, pair in ALL_PAIRS.items()} | {
    "starts": starts.measured,
    "feeding": feeding.measured,
    "scaling": scaling.measured,
    "kernels": kernels.measured,
}


def main() -> None:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU's memory is for the workers
    command.main("experiments.speed", __doc__, compute=compute, pages=pages, parts=list(PARTS))


def compute(only: str | None) -> None:
    if only in (None, *ALL_PAIRS) and not pairs.PEERS.exists():
        sys.exit(f"there is no {pairs.PEERS}: `make peers` sets it up")
    for name in (only,) if only else (name for name in PARTS if name not in ON_A_GPU):
        found = PARTS[name]() | {"environment": dataclasses.asdict(read_environment())}
        RECORDS.mkdir(exist_ok=True)
        (RECORDS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        command.draw(pages)


def records() -> dict[str, Any]:
    """Those that there are, by part."""
    files = {name: RECORDS / f"{name}.json" for name in PARTS}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def pages() -> dict[Path, str]:
    found = records()
    of_pairs = {name: record for name, record in found.items() if name in ALL_PAIRS}
    text = PAGE.read_text()
    for block, made in {
        "pairs": tables.pairs(of_pairs),
        "resources": tables.resources(of_pairs),
        "starts": tables.starts(found.get("starts")),
        "feeding": tables.feeding(found.get("feeding"), of_pairs),
        "scaling": tables.scaling(found.get("scaling")),
        "kernels": tables.kernels(found.get("kernels")),
    }.items():
        text = replace_block(text, block, made)
    return {PAGE: text, FRONT: replace_block(FRONT.read_text(), "speed", tables.front(of_pairs))}


if __name__ == "__main__":
    main()
