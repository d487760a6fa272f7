"""Runs the study, part by part, and writes records, figures and the tables of the README.

python -m experiments.solvers                  every part
python -m experiments.solvers --only ode       one part again
python -m experiments.solvers --draw           figures and tables from the records as they are
python -m experiments.solvers --check          fails where a table is not that of its record; computes nothing
"""

from __future__ import annotations

import argparse
import sys
import time

from experiments.solvers import records, tables
from vdm.records.environment import Environment, read_environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--only", choices=records.PARTS, help="run this part alone")
    what.add_argument("--draw", action="store_true", help="compute nothing; draw figures and tables from the records")
    what.add_argument("--check", action="store_true", help="compute and write nothing; compare the tables")
    given = parser.parse_args()
    if given.check:
        check()
        return
    environment = read_environment()
    for part in (given.only,) if given.only else records.PARTS:
        if not given.draw:
            compute(part, environment)
        draw(part)


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


def draw(part: str) -> None:
    """Writes the figure of a part and its tables into the README."""
    from experiments.solvers import figures

    figures.draw(part, records.read(part))
    tables.PAGE.write_text(tables.page(tables.PAGE.read_text(), part, records.read(part)))


def check() -> None:
    page = tables.PAGE.read_text()
    for part in records.PARTS:
        if tables.page(page, part, records.read(part)) != page:
            sys.exit(
                f"the tables of {part} in {tables.PAGE} are not those of {records.path(part)}: run"
                " `python -m experiments.solvers --draw`, or undo the edit"
            )


if __name__ == "__main__":
    main()
