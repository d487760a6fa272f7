"""Compiles the grid of plans, and writes the tables of the README from their records.

python -m experiments.plans                   every plan that has no record yet; needs libtpu (requirements/tpu.txt)
python -m experiments.plans --only NAME       one plan again
python -m experiments.plans --draw            the tables from the records as they are
python -m experiments.plans --check           fails where a table is not that of its records; computes nothing
"""

from __future__ import annotations

from experiments import command
from experiments.plans import grid, tables
from vdm.records.environment import read_environment


def compute(only: str | None) -> None:
    environment = read_environment()
    for name in (only,) if only else grid.missing():
        grid.compute(name, environment)


if __name__ == "__main__":
    command.main(
        "experiments.plans",
        __doc__,
        compute=compute,
        pages=lambda: tables.pages(grid.records()),
        parts=list(grid.CELLS),
    )
