"""Compiles the grid of plans, and writes the tables of the README from their records.

python -m experiments.plans                   every plan that has no record yet; needs libtpu (requirements/tpu.txt)
python -m experiments.plans --only NAME       one plan again
python -m experiments.plans --draw            the tables from the records as they are
python -m experiments.plans --check           fails where a table is not that of its records; computes nothing
"""

from __future__ import annotations

import argparse
import sys

from experiments.plans import grid, tables
from vdm.records.environment import read_environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--only", choices=list(grid.CELLS), metavar="NAME", help=f"one of {', '.join(grid.CELLS)}")
    what.add_argument("--draw", action="store_true", help="compile nothing; write the tables from the records")
    what.add_argument("--check", action="store_true", help="compile and write nothing; compare the tables")
    given = parser.parse_args()
    if given.check:
        stale = [str(path) for path, text in tables.pages(grid.records()).items() if text != path.read_text()]
        if stale:
            sys.exit(f"not the tables of the records: {', '.join(stale)}; run python -m experiments.plans --draw")
        return
    if not given.draw:
        environment = read_environment()
        for name in (given.only,) if given.only else grid.missing():
            grid.compute(name, environment)
    for path, text in tables.pages(grid.records()).items():
        path.write_text(text)


if __name__ == "__main__":
    main()
