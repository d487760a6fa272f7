"""The record of a part: what it was computed with, its settings and its rows, a row a line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from vdm.records.environment import Environment

HERE = Path(__file__).resolve().parent
PARTS = ("ode", "sde", "likelihood", "bound", "weights", "training")
VERSION = 2


def path(part: str) -> Path:
    return HERE / "records" / f"{part}.json"


def write(part: str, result: dict[str, Any], seconds: float, environment: Environment) -> None:
    """`environment` as it was before the first record was written over."""
    head = {
        "version": VERSION,
        "part": part,
        "seconds": round(seconds),
        "environment": {
            "commit": environment.code.commit,
            "dirty": environment.code.dirty,
            "lock_sha256": environment.lock_sha256,
            "versions": environment.versions,
            "devices": environment.devices,
            "num_cpus": environment.num_cpus,
        },
        "settings": result["settings"],
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value, allow_nan=False)}," for key, value in head.items()]
    rows = ",\n".join(f"  {json.dumps(row, allow_nan=False)}" for row in result["rows"])
    path(part).parent.mkdir(exist_ok=True)
    path(part).write_text("\n".join(["{", *lines, ' "rows": [', rows, " ]", "}", ""]))


def read(part: str) -> dict[str, Any]:
    """Exits where the record is missing, or was written by other code."""
    if not path(part).exists():
        sys.exit(f"{path(part)} is missing: `python -m experiments.solvers --only {part}` makes it")
    record = json.loads(path(part).read_text())
    if record["version"] != VERSION:
        sys.exit(f"{path(part)} has version {record['version']}, this code reads {VERSION}: run the part again")
    return record
