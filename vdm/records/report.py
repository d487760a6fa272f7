"""Writes the report of a comparison: `report.html` to look at, and `report.json` with all its numbers."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
from etils import epath

from vdm.records import identity, page, schema
from vdm.records.comparison import Comparison, PassLine, Report
from vdm.records.record import write_whole

VERSION = 1
HTML_NAME = "report.html"
JSON_NAME = "report.json"


def write(folder: epath.PathLike, report: Report) -> epath.Path:
    """Writes `report.html` and `report.json` and returns the path of the first. For process 0 only."""
    folder = epath.Path(folder)
    numbers, html = schema.dumps(to_json(report), JSON_NAME), page.render(report)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / JSON_NAME, numbers.encode())
    write_whole(folder / HTML_NAME, html.encode())
    return folder / HTML_NAME


def to_json(report: Report) -> dict[str, Any]:
    """All the report's numbers as plain values: the arms' whole records, verdicts, and a hash in place of the clips."""
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
                "record": arm.record,
            }
            for arm in report.arms
        ],
        "comparisons": [_fields(entry) | {"verdict": entry.verdict} for entry in report.comparisons],
        "correlations": list(report.correlations),
        "pass_lines": [_fields(entry) | {"passed": entry.passed} for entry in report.pass_lines],
        "notes": list(report.notes),
        "timings": report.timings,
        "bands": report.bands,
    }


def _fields(entry: Comparison | PassLine) -> dict[str, Any]:
    return {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry)}
