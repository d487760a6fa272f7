"""Cards for tests: one with made numbers, and what an attacker does who can compute hashes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.records import examples
from vdm.records import card, environment, identity, record, replay, schema, weights

LOCK = b"absl-py==2.5.1 \\\n    --hash=sha256:00\n    # via clu\njax==0.10.2 ; python_full_version < '3.12'\n"
PARAMS = {  # a number by itself, as of a learned schedule, and an array that does not lie in order
    "stem": {"kernel": np.arange(6, dtype=np.float32).reshape(3, 2).T},
    "out": {"bias": np.ones(3, np.float32), "scale": np.float32(7)},
}


@functools.cache  # it has the time of day
def a_record() -> record.Record:
    return dataclasses.replace(examples.a_record(), num_parameters=10)


@functools.cache
def a_replay() -> replay.Replay:
    here = environment.read_environment()
    here = dataclasses.replace(here, lock_sha256=hashlib.sha256(LOCK).hexdigest())
    mesh = {"data": 1, "fsdp": 1, "tensor": 1, "frames": 1}
    inputs = replay.Inputs(a_record().identity_hash, "d", mesh, here)
    return replay.Replay(replay.VERSION, inputs, (1.0, 0.1), (2.0, 3.0), "0" * 64)


def files() -> dict[str, bytes]:
    done = a_record()
    return {
        card.PAGE: b"---\ntags: []\n---\n",
        card.CONFIG: schema.dumps(done.config, card.CONFIG).encode(),
        card.RECORD: schema.dumps(done, card.RECORD).encode(),
        card.REPLAY: schema.dumps(a_replay(), card.REPLAY).encode(),
        card.LOCK: LOCK,
        card.SHEET: b"\x89PNG\r\n\x1a\n rest",
        card.SAMPLES: b"GIF89a rest",
        card.WEIGHTS: weights.dumps(PARAMS),
    }


def reseal(folder: Path, **files: bytes) -> None:
    """Makes the manifest one of the files as they are, with those of `files` by their names' first part."""
    names = {name.partition(".")[0]: name for name in card.FILES}
    for name, content in files.items():
        (folder / names[name]).write_bytes(content)
    entries = {
        path.name: card.Entry(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.iterdir()
        if path.name != card.MANIFEST
    }
    curves = json.loads((folder / card.RECORD).read_text())["curves"]
    digests = {
        name: hashlib.sha256(identity.canonical_json(curve).encode()).hexdigest() for name, curve in curves.items()
    }
    (folder / card.MANIFEST).write_text(schema.dumps(card.Manifest(card.VERSION, entries, digests), card.MANIFEST))


def edit(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Changes a JSON file of a card in place and seals it anew, as whoever wants to deceive would."""
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))
    reseal(folder)
