"""How much of a score's spread each part of the randomness makes: repeats of one run that draw one part anew.

`config.compare.vary.parts` names parts of `config.vary`; the first trained arm's first run is repeated with each of
them drawn `config.compare.vary.repeats` times anew. What is drawn anew after training (samples, evaluation) takes the
trained parameters as they are.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

from etils import epath

from vdm import arms, build, evaluate, sample
from vdm.arms import Cell, outcomes
from vdm.records import identity, record
from vdm.records.comparison import Spread
from vdm.records.record import Record
from vdm.types import Config


def check(config: Config) -> None:
    """Raises ValueError for parts that there are not, or no repeats of them."""
    options = config.compare.vary
    unknown = sorted(set(options.parts) - set(config.vary))
    if unknown:
        raise ValueError(f"config.compare.vary.parts has {', '.join(unknown)}; the parts are: {', '.join(config.vary)}")
    if options.parts and options.repeats < 1:
        raise ValueError(f"config.compare.vary.repeats is {options.repeats}; it must be at least 1")


def cells(grid: Sequence[Cell]) -> Iterator[Cell]:
    """The repeats of the first run of the grid that is trained, part by part."""
    base = next((cell for cell in grid if cell.config.run.num_steps), None)
    if base is None:
        return
    options = base.config.compare.vary
    for part in options.parts:
        for number in range(1, options.repeats + 1):
            changed = base.config.copy_and_resolve_references()
            changed.vary[part] = base.config.vary[part] + number
            folder = base.folder.parent / "vary" / f"{part}_{number}"
            yield Cell(base.arm, base.seed, changed, folder, part=part)


def is_drawn_later(cell: Cell) -> bool:
    """Whether a repeat takes the trained parameters as they are."""
    return cell.part in sample.DRAWN_LATER


def evaluate_again(cell: Cell) -> Record:
    """A repeat that takes the trained parameters as they are: the run's evaluation once more, with another draw."""
    print(f"{cell.arm}, seed {cell.seed}, another draw of {cell.folder.name}: {cell.folder}")
    done = record.read_same(cell.folder, cell.config)
    if done is not None and done.evaluated_step == cell.config.run.num_steps and arms.is_measured(cell, done):
        return done
    base = cell.folder.parent.parent / f"seed_{cell.seed}"
    scored = evaluate.evaluate(cell.config, base)  # which leaves the run's own record and samples alone
    made = dataclasses.replace(
        scored,
        config=identity.resolve(cell.config),
        identity_hash=identity.identity_hash(cell.config),
        seeds=scored.seeds | {cell.part: build.seed_of(cell.config, cell.part)},
    )
    cell.folder.mkdir(parents=True, exist_ok=True)
    record.write(cell.folder, made)
    return made


def spreads(
    config: Config, grid: Sequence[Cell], repeats: Sequence[Cell], records: Mapping[epath.Path, Record]
) -> Iterator[Spread]:
    """Of every primary outcome: over another draw of each part, and over the seeds of the grid, which draw all anew.

    Args:
      records: folder -> of every run of the grid and every repeat.
    """
    base = next((cell for cell in grid if cell.config.run.num_steps), None)
    if base is None:
        return
    runs = {part: [base, *(cell for cell in repeats if cell.part == part)] for part in config.compare.vary.parts}
    runs["all"] = [cell for cell in grid if cell.arm == base.arm]
    title = config.compare.arm[base.arm].title
    for outcome, (part, drawn) in itertools.product(outcomes(config), runs.items()):
        found = [metric for cell in drawn for metric in records[cell.folder].metrics if metric.name == outcome]
        if len(found) > 1:
            yield Spread(outcome, title, part, tuple(metric.value for metric in found), found[0].unit)
