"""Writes the report of a comparison: `report.html` to look at, `report.md` to read, and its numbers as `report.json`,
which holds them all, and `report.csv`, a score a line.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from vdm.records import curves, identity, page, report_text, schema
from vdm.records.comparison import Healthy, OverSeeds, PassLine, Report, Spread
from vdm.records.record import Record, write_whole

VERSION = 2
HTML_NAME = "report.html"
JSON_NAME = "report.json"
MARKDOWN_NAME = "report.md"
CSV_NAME = "report.csv"


def write(folder: epath.PathLike, report: Report) -> epath.Path:
    """Writes the four files and returns the path of `report.html`. For process 0 only."""
    folder = epath.Path(folder)
    files = {
        JSON_NAME: schema.dumps(to_json(report), JSON_NAME),
        CSV_NAME: report_text.table(report),
        MARKDOWN_NAME: report_text.markdown(report),
        HTML_NAME: page.render(report),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_whole(folder / name, text.encode())
    return folder / HTML_NAME


def to_json(report: Report) -> dict[str, Any]:
    """All the report's numbers as plain values: the arms' whole records, verdicts, and a hash in place of the clips.

    What the healthy run says is left to its own report.
    """
    base = report.arms[0].record.config
    return {
        "version": VERSION,
        "title": report.title,
        "question": report.question,
        "command": report.command,
        "arms": [
            {
                "name": arm.name,
                "title": arm.title,
                "description": arm.description,
                "differences": list(identity.differences(base, arm.record.config)),
                "num_clips": len(arm.videos),
                "clips_sha256": hashlib.sha256(np.ascontiguousarray(arm.videos).tobytes()).hexdigest(),
                "flops": arm.flops,
                "record": arm.record,
            }
            for arm in report.arms
        ],
        "comparisons": list(report.comparisons),
        "correlations": list(report.correlations),
        "pass_lines": [_fields(entry) | {"passed": entry.passed} for entry in report.pass_lines],
        "notes": list(report.notes),
        "over_seeds": [
            _fields(entry) | {"difference": entry.difference, "verdict": entry.verdict} for entry in report.over_seeds
        ],
        "selections": [
            {"arm": entry.arm, "tried": list(entry.tried), "rate": entry.chosen.rate, "average": entry.average}
            | {"is_interior": entry.is_interior}
            for entry in report.selections
        ],
        "spreads": [_fields(entry) | {"standard_deviation": entry.standard_deviation} for entry in report.spreads],
        "timings": report.timings,
    }


def read_healthy(path: epath.PathLike) -> Healthy:
    """What a report.json of several seeds says of a healthy run. ValueError, naming the file, for anything else."""
    path = epath.Path(path)
    try:
        text = path.read_text()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}); name the report.json of a healthy comparison") from error
    values = schema.parse(text, str(path), VERSION)
    runs = [schema.read(Record, arm["record"], f"{path}: {arm['name']}") for arm in values["arms"]]
    names = [field.name for field in dataclasses.fields(OverSeeds)]
    over_seeds = [
        schema.read(OverSeeds, {name: entry[name] for name in names if name in entry}, str(path))
        for entry in values["over_seeds"]
    ]
    return Healthy(bands([run for run in runs if run.num_steps]), tuple(over_seeds))


def bands(records: Sequence[Record]) -> dict[str, tuple[tuple[int, float, float], ...]]:
    """Curve name -> (step, lowest, highest value), for the curves and at the steps that every record has."""
    found = {}
    for name in records[0].curves if records else ():
        rows = curves.together(record.curves.get(name, ()) for record in records)
        if rows:
            found[name] = tuple((step, min(values), max(values)) for step, values in rows.items())
    return found


def _fields(entry: OverSeeds | PassLine | Spread) -> dict[str, Any]:
    return {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry)}
