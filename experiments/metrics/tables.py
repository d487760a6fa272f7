"""The tables of the README, made from the records alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.metrics import grid
from vdm.records import readme

PAGE = Path(__file__).parent / "README.md"
TITLES = {"fvd": "FVD", "kvd": "KVD", "frame_frechet": "frames (VGG16)", "motion": "motion"}

STATED = {"above": "above", "floor": "no difference", "hardly": "less than every blur and noise"}


def page(records: dict[str, dict[str, Any]]) -> str:
    """What the README should be."""
    text = PAGE.read_text()
    for name in grid.SOURCES:
        text = readme.replace_block(text, name, table(records[name]) if name in records else "Not computed yet.")
    return text


def table(record: dict[str, Any]) -> str:
    """A rung a row, a metric a column: the difference from undistorted clips with its standard error at the largest
    number of clips, and the number from which on the metric always sees the rung; where the answer is not that which
    was stated beforehand, what was.
    """
    rungs = dict.fromkeys(row["rung"] for row in record["rows"])
    rows = [[rung, *(_cell(record, metric, rung) for metric in grid.METRICS)] for rung in rungs]
    floors = ["the floor", *(_floor(record, metric) for metric in grid.METRICS)]
    head = ["rung", *(TITLES[metric] for metric in grid.METRICS)]
    environment = record["environment"]
    made_by = (
        f"{grid.NUM_CLIPS} clips a set at most; jax {environment['versions']['jax']}, commit "
        f"{(environment['code']['commit'] or 'unknown')[:12]}. In brackets: seen from so many clips on."
    )
    return "\n".join([readme.table(head, [floors, *rows]), "", made_by])


def _cell(record: dict[str, Any], metric: str, rung: str) -> str:
    rows = [row for row in record["rows"] if (row["metric"], row["rung"]) == (metric, rung)]
    largest = rows[-1]
    number = f"{largest['difference']:+.3g} ± {largest['standard_error']:.2g}"
    blind = [i for i, row in enumerate(rows) if row["answer"] != "above"]
    sees = largest["answer"] == "above"
    told = f"**{number}** ({rows[max(blind, default=-1) + 1]['clips']})" if sees else number
    return told if _as_stated(record, largest) else f"{told}, stated: {STATED[largest['stated']]}"


def _as_stated(record: dict[str, Any], row: dict[str, Any]) -> bool:
    if row["stated"] != "hardly":
        return row["stated"] in ("open", row["answer"])
    alike = [other for other in record["rows"] if all(other[name] == row[name] for name in ("metric", "clips"))]
    return row["difference"] < min(other["difference"] for other in alike if other["rung"] in grid.PICTURES)


def _floor(record: dict[str, Any], metric: str) -> str:
    rows = [row for row in record["rows"] if row["metric"] == metric and row["clips"] == grid.NUM_CLIPS]
    return f"{rows[0]['floor']:.3g}"
