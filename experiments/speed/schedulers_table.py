"""Runs our samplers beside what `reference_schedulers` has recorded of diffusers', and writes schedulers.md's tables.

python -m experiments.speed.schedulers_table             measures, half a minute
python -m experiments.speed.schedulers_table --draw      the tables from the record as it is
python -m experiments.speed.schedulers_table --check     fails where a table is not that of the record; computes nothing
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import command
from experiments.speed import schedulers_ours as ours
from experiments.speed.schedulers import SCHEDULES
from experiments.speed.schedulers_rows import PARTS, ROWS, STARTS, Part
from vdm.records.environment import read_environment
from vdm.records.readme import replace_block, table

HERE = Path(__file__).parent
RECORD, PAGE = HERE / "records" / "schedulers.json", HERE / "schedulers.md"
Record = Mapping[str, Any]


def main() -> None:
    command.main("experiments.speed.schedulers_table", __doc__, compute=compute, pages=pages)


def compute(_: str | None) -> None:
    found = {
        "environment": dataclasses.asdict(read_environment()),
        "versions": ours.told()["versions"],
        "rows": {key: ours.distances(*row) for key, row in ROWS.items()},
        "schedules": {name: ours.relative_errors(name) for name in SCHEDULES},
        "starts": {name: ours.deviations(name, *where[:2]) for name, where in STARTS.items()},
        "numbers": ours.numbers(),
    }
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(found, indent=1) + "\n")


def record() -> Record:
    return json.loads(RECORD.read_text())


def pages() -> dict[Path, str]:
    return {PAGE: replace_block(PAGE.read_text(), "schedulers", made(record()))}


def made(found: Record) -> str:
    """What stands between the marks."""
    rows, versions = found["rows"], found["versions"]
    sizes = {key.removesuffix(" differs"): row["largest"] for key, row in rows.items() if "largest" in row}
    values = {name: f"{value:.2g}" for name, value in (sizes | found["numbers"]).items()}
    float64 = [row["float64"] for row in rows.values() if "float64" in row]
    said = (
        f"diffusers {versions['diffusers']}, torch {versions['torch']}; {values['runs']} runs of "
        f"{values['fewest steps']} to {values['most steps']} steps, whose clips have a root mean square of "
        f"{values['smallest rms']} to {values['largest rms']}. In float64 the two are within {max(float64):.2g} of "
        f"each other, in half of the rows within {statistics.median(float64):.2g}."
    )
    return "\n\n".join([said, _lines(found, values), _schedules(found), _starts(found)])


def _lines(found: Record, values: Mapping[str, str]) -> str:
    def float32(part: Part) -> str:
        agree = [found["rows"][name]["float32"] for name, row in part.rows if row.differs is None]
        return f"{max(agree):.2g}" if agree else part.float32

    lines = [[part.theirs, part.ours, float32(part), part.cause.format_map(values), part.source] for part in PARTS]
    return table(["diffusers", "ours", "float32", "what differs, and whose it is", "source"], lines)


def _schedules(found: Record) -> str:
    columns = [f"{who}, {what}" for who in ("theirs", "ours") for what in ("alpha^2", "sigma^2")]
    lines = [[name, *(f"{errors[column]:.2g}" for column in columns)] for name, errors in found["schedules"].items()]
    return f"Relative errors of the schedules in float32:\n\n{table(['schedule', *columns], lines)}"


def _starts(found: Record) -> str:
    columns = ["theirs", "ours", "of data"]
    lines = [[name, *(f"{told[column]:.7g}" for column in columns)] for name, told in found["starts"].items()]
    head = ["run", "theirs", "ours", "of noisy data of unit variance"]
    return f"Standard deviations of what a run starts from:\n\n{table(head, lines)}"


if __name__ == "__main__":
    main()
