"""Runs the study, part by part, and writes records, figures and the tables of the README.

python -m experiments.solvers                  every part
python -m experiments.solvers --only ode       one part again
python -m experiments.solvers --draw           figures and tables from the records as they are
python -m experiments.solvers --check          fails where a table is not that of its record; computes nothing
"""

from __future__ import annotations

import time
from pathlib import Path

from experiments import command
from experiments.solvers import records, tables
from vdm.records.environment import Environment, read_environment


def main() -> None:
    command.main(
        "experiments.solvers", __doc__, compute=compute_all, pages=pages, figures=draw_all, parts=records.PARTS
    )


def compute_all(only: str | None) -> None:
    environment = read_environment()
    for part in (only,) if only else records.PARTS:
        compute(part, environment)


def compute(part: str, environment: Environment) -> None:
    """Runs a part and writes its record."""
    from experiments.solvers import bounds, deterministic, likelihoods, stochastic, training, weights

    runs = {
        "ode": deterministic.run,
        "sde": stochastic.run,
        "likelihood": likelihoods.run,
        "bound": bounds.run,
        "weights": weights.run,
        "training": training.run,
    }
    start = time.perf_counter()
    result = runs[part]()
    seconds = time.perf_counter() - start
    records.write(part, result, seconds, environment)
    print(f"{part}: {seconds:.0f} s", flush=True)


def draw_all() -> None:
    """Writes the figures."""
    from experiments.solvers import figures

    for part in records.PARTS:
        figures.draw(part, records.read(part))


def pages() -> dict[Path, str]:
    """The README with the tables of all parts."""
    page = tables.PAGE.read_text()
    for part in records.PARTS:
        page = tables.page(page, part, records.read(part))
    return {tables.PAGE: page}


if __name__ == "__main__":
    main()
