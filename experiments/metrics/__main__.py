"""Runs the ladder, and writes the tables of the README from its records.

python -m experiments.metrics                  features of every set that are not in runs/metrics, then the records
python -m experiments.metrics --only trails    of one source
python -m experiments.metrics --draw           the tables from the records as they are
python -m experiments.metrics --check          fails where a table is not that of its records; computes nothing

About an hour on two cores, nearly all of it I3D; stop it whenever you like.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from configs import base
from experiments import command
from experiments.metrics import answers, grid, tables
from experiments.metrics.distortions import Clips
from vdm import scoring
from vdm.measures import measures_of
from vdm.metrics.features.extractor import Extractor
from vdm.records.environment import read_environment
from vdm.runtime import mesh as meshes

BATCH_SIZE = 8
KEPT = Path("runs/metrics")  # features, which take long and are not committed


def main() -> None:
    command.main(
        "experiments.metrics",
        __doc__,
        compute=compute,
        pages=lambda: {tables.PAGE: tables.page(grid.records())},
        parts=list(grid.SOURCES),
    )


def compute(only: str | None) -> None:
    for name in (only,) if only else grid.SOURCES:
        grid.file_of(name).parent.mkdir(exist_ok=True)
        grid.file_of(name).write_text(json.dumps(record(name), indent=1) + "\n")


def record(name: str) -> dict[str, Any]:
    """The record of one source."""
    config = base.get_config()
    config.scores.metrics = grid.METRICS
    measures = measures_of(config)
    rows, extractors = [], {}
    for measure in measures:
        sets = seen(name, measure.extractor)
        found = answers.answers(measure.metric, sets)
        stated = grid.rungs(grid.SOURCES[name])
        rows += [row | {"stated": stated[row["rung"]].expected(measure.metric)} for row in found]
        extractors[measure.metric] = {"name": measure.extractor.name, "sha256": measure.extractor.sha256}
    environment = dataclasses.asdict(read_environment())
    return {"source": name, "environment": environment, "extractors": extractors, "rows": rows}


def seen(name: str, extractor: Extractor) -> dict[str, Float[np.ndarray, "n d"]]:
    """Features of the reference, of undistorted clips and of every rung, from `KEPT` where those of these clips are."""
    see = scoring.make_features(meshes.make_mesh(), extractor, BATCH_SIZE)
    sets = grid.sets(name)
    seen_by = f"{extractor.sha256} {_program(extractor, sets['reference'])}".encode()

    def features(title: str, clips: Clips) -> Float[np.ndarray, "n d"]:
        key = hashlib.sha256(clips.tobytes() + seen_by).hexdigest()[:12]
        file = KEPT / name / extractor.name / f"{title.replace(' ', '_')}_{key}.npy"
        if not file.exists():
            print(f"{name}, {extractor.name}: {title}", flush=True)
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(".partial.npy")
            np.save(partial, see(clips))
            partial.rename(file)
        return np.load(file)

    return {title: features(title, clips) for title, clips in sets.items()}


def _program(extractor: Extractor, clips: Clips) -> str:
    """What computes the features: other code gives other features from the same weights and clips."""
    some = jax.ShapeDtypeStruct((BATCH_SIZE, *clips.shape[1:]), np.float32)
    return jax.jit(extractor.features, static_argnums=2).lower(extractor.weights, some, "centres").as_text()


if __name__ == "__main__":
    main()
