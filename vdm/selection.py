"""Which learning rate and which average of the parameters an arm is compared with.

Every factor of `config.compare.select.factors` is tried on the arm's own rate, in a run of another seed than those that
are compared. The criterion is the loss that the arm trains, on clips that nothing else sees: an arm's samples, or the
losses of another arm, never decide. Where the best rate is the first or the last one, one more is tried beyond it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from vdm import build, forensics, train, validation
from vdm.arms import Cell, config_of
from vdm.records import record
from vdm.records.comparison import Selection, Tried
from vdm.records.record import Metric, Record
from vdm.runtime import checkpoints, state, watchdog
from vdm.types import Config

MIN_FACTORS = 3
RATIOS = (2.0, 3.0)  # of a factor to the one before
NAME = "loss on the selection split"


def check(config: Config) -> None:
    """Raises ValueError for a selection that cannot be."""
    options, seeds = config.compare.select, config.compare.seeds
    factors = tuple(options.factors)
    if not factors:
        return
    ratios = [after / before if before > 0 else 0.0 for before, after in itertools.pairwise(factors)]
    low, high = (limit * (1 + sign * 1e-6) for limit, sign in zip(RATIOS, (-1, 1), strict=True))  # 2.1 / 0.7 is above 3
    if len(factors) < MIN_FACTORS or not all(low <= ratio <= high for ratio in ratios):
        raise ValueError(
            f"config.compare.select.factors is {factors}; give at least {MIN_FACTORS}, each {RATIOS[0]:g} to "
            f"{RATIOS[1]:g} times the one before, or none"
        )
    if not config.data.num_selection:
        raise ValueError(
            "config.compare.select has factors, and config.data.num_selection is 0: set clips aside to choose by"
        )
    if options.seed in seeds:
        raise ValueError(f"config.compare.select.seed is {options.seed}, which is one of compare.seeds; take another")
    if options.max_more < 0 or options.num_levels < 1:
        raise ValueError(
            f"config.compare.select has max_more {options.max_more} and num_levels {options.num_levels}; they must be "
            "at least 0 and 1"
        )


def trials(config: Config, folder: epath.Path, name: str, factors: Sequence[float]) -> Iterator[Cell]:
    """The runs that try factors on the rate of an arm; none for an arm that is not trained."""
    seed = config.compare.select.seed
    for factor in factors:
        changed = config_of(config, name, seed)
        changed.optimizer.learning_rate *= factor
        if changed.run.num_steps:
            yield Cell(name, seed, changed, folder / name / "select" / f"rate_x{factor:g}", factor)


def run(cell: Cell) -> Record | None:
    """Trains a trial and takes its loss by every average; None after a SIGTERM. One that diverges stops there."""
    print(f"{cell.arm}, learning rate {cell.config.optimizer.learning_rate:g}: {cell.folder}")
    done = record.read_same(cell.folder, cell.config)
    if done is not None and (_diverged(cell) or _is_measured(cell, done)):
        return done
    if done is None or done.status != "finished" or done.num_steps != cell.config.run.num_steps:
        try:
            done = train.train_or_tell(cell.config, cell.folder)
        except forensics.NotFiniteError as error:
            print(f"  it diverged: {error}")
            return record.read_same(cell.folder, cell.config)
        if done.status != "finished":
            return None
    done = dataclasses.replace(done, metrics=tuple(_measure(cell, done)), evaluated_step=done.num_steps)
    record.write(cell.folder, done)
    return done


def _measure(cell: Cell, done: Record) -> Iterator[Metric]:
    """The loss by every average with which it is finite."""
    experiment = build.experiment(cell.config)
    selection = experiment.splits.selection
    assert selection is not None, "check has refused this"
    train_state = checkpoints.restore(cell.folder / "checkpoints", experiment.abstract_state(), step=done.num_steps)
    with watchdog.Watchdog(cell.config.run.stuck_after_seconds) as dog:
        loss = validation.make_own_loss(experiment, selection, cell.config.compare.select.num_levels, dog.beat)
        for average, params in state.averages(train_state).items():
            value, protocol = loss(params), _protocol(cell.config) | {"average": average}
            if math.isfinite(value):
                yield Metric(f"{NAME}, {average} average", value, None, None, "", False, protocol)


def _is_measured(cell: Cell, done: Record) -> bool:
    protocols = [{key: one.protocol[key] for key in one.protocol if key != "average"} for one in done.metrics]
    return done.evaluated_step == cell.config.run.num_steps and all(one == _protocol(cell.config) for one in protocols)


def _protocol(config: Config) -> dict[str, Any]:
    return {
        "split": "selection",
        "clips": config.data.num_selection,
        "levels": config.compare.select.num_levels,
        "seed": build.seed_of(config, "evaluation"),
    }


def _diverged(cell: Cell) -> bool:
    return (cell.folder / forensics.FILE_NAME).exists()


def tried(cell: Cell) -> Tried:
    """What a trial that was run came to."""
    done = record.read_same(cell.folder, cell.config)
    assert done is not None, f"{cell.folder} was run and has no record"
    losses = {metric.protocol["average"]: metric.value for metric in done.metrics}
    return Tried(cell.factor, cell.config.optimizer.learning_rate, {} if _diverged(cell) else losses)


def next_factor(found: Sequence[Tried], asked: Sequence[float], max_more: int) -> float | None:
    """The factor that must be tried besides, as the best so far has none beyond it; None where it has, or where so many
    were added on that side already.
    """
    ordered = sorted(found, key=lambda one: one.factor)
    best = min(ordered, key=lambda one: one.best)
    if best.best == math.inf:
        raise ValueError(
            f"every learning rate that was tried diverged ({', '.join(f'{one.rate:g}' for one in ordered)}); lower "
            "config.optimizer.learning_rate of this arm"
        )
    if best is ordered[0]:
        added = sum(one.factor < asked[0] for one in ordered)
        return best.factor * asked[0] / asked[1] if added < max_more else None
    if best is ordered[-1]:
        added = sum(one.factor > asked[-1] for one in ordered)
        return best.factor * asked[-1] / asked[-2] if added < max_more else None
    return None


def chosen(title: str, found: Sequence[Tried]) -> Selection:
    """The best of what was tried."""
    return Selection(title, tuple(sorted(found, key=lambda one: one.factor)))
