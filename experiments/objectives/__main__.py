"""Runs the studies of objectives, and writes the tables and the figure from their records.

python -m experiments.objectives                   what is missing of every study: a seed of all its arms at a time
python -m experiments.objectives --only presets    of one study
python -m experiments.objectives --draw            tables and figure from the records as they are
python -m experiments.objectives --check           fails where a page is not that of its records; computes nothing

Hours on two cores. Stop it whenever you like (Ctrl-C, or SIGTERM): the same command goes on, on another machine after
the last seed that is recorded, and what is recorded after each seed is a whole comparison of fewer seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from data.sources.part import Part
from data.sources.simulated import Simulated
from experiments import command
from experiments.objectives import entropy, figures, gradients, grid, records, tables
from vdm import arms, build, compare, sample
from vdm.runtime import processes
from vdm.types import Config

WORKDIR = Path("runs/objectives")


def main() -> None:
    command.main(
        "experiments.objectives",
        __doc__,
        compute=compute_all,
        pages=pages,
        figures=draw_figure,
        parts=list(grid.STUDIES),
    )


def compute_all(only: str | None) -> None:
    for study in (only,) if only else grid.STUDIES:
        if not compute(study):
            sys.exit(processes.STOPPED)


def pages() -> dict[Path, str]:
    return tables.pages(records.complete())


def draw_figure() -> None:
    found = records.complete()
    if "presets" in found:
        figures.draw(found["presets"])


def compute(study: str) -> bool:
    """Runs what is missing, and records it after each seed; False after a SIGTERM."""
    config, folder = grid.get_config(study), epath.Path(WORKDIR) / study
    all_arms = config.compare.arms
    if not choose(study, folder):
        return False
    for seed, names in records.missing(study).items():
        config.compare.seeds = (seed,)
        config.compare.arms = all_arms if study in MEASURED_BESIDES else tuple(names)  # what is besides is of them all
        made = compare.compare(config, folder, records.chosen(study))
        if made is None:
            return False
        cells = list(arms.cells(config, folder, records.chosen(study)))
        records.write(study, made, MEASURED_BESIDES.get(study, lambda config, cells: {})(config, cells))
        command.draw(pages, draw_figure)
    return True


def choose(study: str, folder: epath.Path) -> bool:
    """Chooses rate and average of the arms that none is recorded for, and records it, as many arms at a time as runs
    (so that their trials, three or more each, keep all cores busy); False after a SIGTERM.
    """
    config = grid.get_config(study)
    known = records.chosen(study)
    compare.checked(config, folder, known)
    waiting = [name for name in config.compare.arms if name not in known]
    for first in range(0, len(waiting), config.compare.parallel):
        config.compare.arms = tuple(waiting[first : first + config.compare.parallel])
        chosen = compare.select(config, folder, {})
        if chosen is None:
            return False
        records.write_chosen(study, chosen.values())
    return True


def floor(config: Config, cells: list[arms.Cell]) -> Mapping[str, Any]:
    """Bits/dim that the clips of the likelihoods cost by the world itself; the same for all seeds."""
    if "floor" in (before := records.kept("floor")):
        return {"floor": before["floor"]}
    held_out = build.experiment(config).splits.validation
    assert isinstance(held_out, Part) and held_out.first == 0 and isinstance(held_out.source, Simulated)
    bits = entropy.bits_per_dim(held_out.source, config.scores.num_likelihood)
    return {"floor": float(np.mean(bits))}


def gradient_variances(config: Config, cells: list[arms.Cell]) -> Mapping[str, Any]:
    """Seed -> arm's title -> variance of the gradient, at the network that even levels have trained."""
    (seed,) = config.compare.seeds
    of_arm = {cell.arm: cell for cell in cells}
    even = of_arm[grid.EVEN]
    _, params, _ = sample.restore(even.config, even.folder)
    found = {config.compare.arm[name].title: gradients.variance(cell, params) for name, cell in of_arm.items()}
    return {"gradient_variance": records.kept("density").get("gradient_variance", {}) | {str(seed): found}}


MEASURED_BESIDES = {"floor": floor, "density": gradient_variances}


if __name__ == "__main__":
    main()
