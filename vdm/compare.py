"""Train and evaluate a grid of configs on the same data and noise, and report them side by side.

The grid is `config.compare`: every arm changes some keys of the config (none of its data), and is run once per seed in
DIR/<arm>/seed_<n>/, what tries its learning rates in DIR/<arm>/select/, repeats of one run in DIR/<arm>/vary/; the
report lists what the arms share and in what they differ. What is recorded as finished is not run again and what was
stopped goes on, so the same command continues an interrupted comparison. With --only=ARM it runs that arm alone, for a
launcher that starts one on every machine; the same command without it then makes the report. Every arm is sampled by
its own sampler and by each of `config.scores.samplings`, which all arms share; the two are never ranked together.
Writes DIR/report.html (self-contained: samples from the same noise in step, learning curves, tables), report.md,
report.csv and report.json, and prints the lines to pass.

Example: python -m vdm compare --config=configs/demo.py --workdir=runs/demo
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import jax
from etils import epath
from rich.console import Console
from rich.table import Table

from vdm import arms, assembly, build, effort, evaluate, likelihoods, sample, scoring, selection, train, variance
from vdm.arms import Cell
from vdm.measures import measures_of
from vdm.records import record, report
from vdm.records.comparison import Comparison, Healthy, OverSeeds, Report, Selection, Tried
from vdm.records.record import Record
from vdm.records.statistics import Interval
from vdm.runtime import processes
from vdm.runtime.processes import JobFailed
from vdm.types import Config

OPTIONS = (("only", "", "an arm, which is run without the others and without a report; empty: all"),)
Run = Callable[[Cell], Record | None]
Tell = Callable[[], None]


def main(config: Config, workdir: str, *, only: str) -> int:
    done = run_arm(config, workdir, only) if only else compare(config, workdir)
    if not done:
        print("Stopped; the same command goes on from here.")
        return processes.STOPPED
    if isinstance(done, bool):
        print(f"{only} is done; without --only={only} the same command makes the report of all arms.")
        return 0
    print_report(done, epath.Path(workdir))
    return 0 if all(line.passed for line in done.pass_lines) else 1


def compare(
    config: Config, workdir: epath.PathLike, chosen: Mapping[str, Selection] = MappingProxyType({})
) -> Report | None:
    """Runs what is not recorded and writes the report; None after a SIGTERM.

    Args:
      chosen: arm -> the learning rate and average that an earlier comparison chose for it; none is tried for these.

    Raises:
      ValueError: any arm's config cannot work, before the first one is trained.
      JobFailed: an arm failed while it ran.
    """
    since = time.monotonic()
    folder = epath.Path(workdir)
    plan = checked(config, folder, chosen)
    healthy = report.read_healthy(config.compare.healthy) if config.compare.healthy else Healthy()
    flops = {name: arms.step_flops(arms.config_of(config, name, 0)) for name in config.compare.arms}
    tell = teller(plan, flops)
    if tell is None:
        return None
    selected = select(config, folder, chosen, tell)
    if selected is None:
        return None
    grid = list(arms.cells(config, folder, selected))
    repeats = list(variance.cells(grid))
    for cell in (*grid, *repeats):
        record.read_same(cell.folder, cell.config)
    if not run_all(grid, after_first=tell) or not run_all(repeats, run_repeat):
        return None
    records = read_all([*grid, *repeats])
    by_arm = {name: [records[cell.folder] for cell in grid if cell.arm == name] for name in config.compare.arms}
    made = assembly.assemble(config, grid, by_arm, flops)
    timings = {"this start of the comparison": time.monotonic() - since}
    spreads = tuple(variance.spreads(config, grid, repeats, records))
    made = dataclasses.replace(
        made, healthy=healthy, timings=timings, selections=tuple(selected.values()), spreads=spreads
    )
    report.write(folder, made)
    return made


def run_arm(config: Config, workdir: epath.PathLike, name: str) -> bool:
    """What `compare` runs for one arm, or what of it is missing; False after a SIGTERM.

    Raises:
      ValueError: there is no such arm; any arm's config cannot work.
      JobFailed: a run failed, or is another process's.
    """
    folder = epath.Path(workdir)
    build.lookup(dict.fromkeys(config.compare.arms), name, "compare.arms")
    plan = [cell for cell in checked(config, folder) if cell.arm == name]
    tell = teller(plan, {name: arms.step_flops(arms.config_of(config, name, 0))})
    if tell is None:
        return False
    alone = config.copy_and_resolve_references()
    alone.compare.arms = (name,)
    selected = select(alone, folder, {}, tell)
    if selected is None:
        return False
    grid = list(arms.cells(config, folder, selected))
    own, repeats = ([cell for cell in cells if cell.arm == name] for cells in (grid, variance.cells(grid)))
    return run_all(own, after_first=tell) and run_all(repeats, run_repeat)


def read_all(cells: Sequence[Cell]) -> dict[epath.Path, Record]:
    """Folder -> the record of a cell that was run."""
    found = {}
    for cell in cells:
        done = record.read_same(cell.folder, cell.config)
        assert done is not None, f"{cell.folder} was run and has no record"
        found[cell.folder] = done
    return found


def checked(config: Config, folder: epath.Path, chosen: Mapping[str, Selection] = MappingProxyType({})) -> list[Cell]:
    """All runs as far as they are known: those that try learning rates, the grid with the arms' own rates, repeats.

    Args:
      chosen: as for `compare`.

    Raises:
      ValueError: any arm's config cannot work, its scores could not be computed or compared, or a folder holds another
        run.
    """
    if jax.process_count() > 1:
        raise ValueError(
            "a comparison starts its runs itself and is one process; with several, train and evaluate each arm"
        )
    likelihoods.check_options(config)
    grid = list(arms.cells(config, folder, chosen))
    selection.check(config)
    variance.check(config)
    factors = config.compare.select.factors
    to_try = [name for name in config.compare.arms if name not in chosen]
    trials = [cell for name in to_try for cell in selection.trials(config, folder, name, factors)]
    repeats = list(variance.cells(grid))
    for cell in trials or (*grid, *repeats):
        record.read_same(cell.folder, cell.config)
    experiments = [build.experiment(cell.config) for cell in grid if cell.seed == config.compare.seeds[0]]
    measures = measures_of(config)
    arms.check_lines(config, evaluate.expected(experiments[0], measures))
    for experiment in experiments:
        arms.check_validation(experiment)
        scoring.check(experiment, measures)
        likelihoods.check(experiment)
    arms.check_samplings(experiments)
    return [*trials, *grid, *(cell for cell in repeats if not variance.is_drawn_later(cell))]


def teller(plan: Sequence[Cell], flops: Mapping[str, float]) -> Tell | None:
    """Prints how much the comparison is; None after a SIGTERM.

    Returns:
      What says it anew after the first run, whose speed is then known, where it could only be estimated.
    """
    is_known = bool(effort.recorded(plan))
    if not effort.tell(plan, flops):
        return None
    return nothing if is_known else lambda: print(effort.words(plan, flops))


def nothing() -> None:
    """Says nothing."""


def select(
    config: Config, folder: epath.Path, chosen: Mapping[str, Selection], tell: Tell = nothing
) -> dict[str, Selection] | None:
    """The learning rate and average of every arm that is trained; {} where none are to be chosen, None after a SIGTERM.

    Args:
      chosen: arm -> what is known already.
      tell: called after the first trial that is run.

    Raises:
      ValueError: every rate of an arm diverged.
    """
    factors, names = tuple(config.compare.select.factors), config.compare.arms
    to_try = [name for name in names if name not in chosen]
    waiting = {name: list(selection.trials(config, folder, name, factors)) for name in to_try}
    found: dict[str, list[Tried]] = {name: [] for name, cells in waiting.items() if cells}
    while any(waiting.values()):
        running = [cell for cells in waiting.values() for cell in cells]
        if not run_all(running, selection.run, tell):
            return None
        tell = nothing
        for cell in running:
            found[cell.arm].append(selection.tried(cell))
        waiting = {}
        for name, tried in found.items():
            beyond = selection.next_factor(tried, factors, config.compare.select.max_more)
            waiting[name] = [] if beyond is None else list(selection.trials(config, folder, name, [beyond]))
    best = {name: selection.chosen(config.compare.arm[name].title, tried) for name, tried in found.items()}
    return {name: one for name in names if (one := chosen.get(name) or best.get(name))}


def run_cell(cell: Cell) -> Record | None:
    """Trains and evaluates one cell, or what of it is missing; None after a SIGTERM."""
    print(f"{cell.arm}, seed {cell.seed}: {cell.folder}")
    before = record.read_same(cell.folder, cell.config)
    if before is None or before.status != "finished" or before.num_steps != cell.config.run.num_steps:
        before = train.train_or_tell(cell.config, cell.folder)
        if before.status != "finished":
            return None
    else:
        print("  recorded as trained")
    is_measured = before.evaluated_step == before.num_steps and arms.is_measured(cell, before)
    if not is_measured or not sample.written(arms.samples_of(cell)):
        before = evaluate.evaluate(cell.config, cell.folder)
    return before


def run_all(cells: Sequence[Cell], run: Run = run_cell, after_first: Tell = nothing) -> bool:
    """Runs every cell, on a CPU several at a time; False after a SIGTERM.

    Args:
      run: what is done for a cell, None after a SIGTERM.
      after_first: called once, after the first cell that is done.

    Raises:
      JobFailed: a cell failed in its process, whose log is named, or is being run by another process.
    """
    if not cells or arms.at_once(cells[0].config) == 1:
        for number, cell in enumerate(cells):
            if for_exit_code(run, cell):
                return False
            if number == 0:
                after_first()
        return True
    jobs = [
        processes.Job(f"{cell.arm}, {cell.folder.name}", functools.partial(for_exit_code, run, cell), log_of(cell))
        for cell in cells
    ]
    codes = processes.run(jobs, arms.at_once(cells[0].config), after_first)
    for job in jobs:
        if codes.get(job.name, processes.STOPPED) not in (0, processes.STOPPED):
            raise JobFailed(f"{job.name} failed; {job.log} ends with: {processes.last_line(job.log)}")
    return all(codes.get(job.name) == 0 for job in jobs)


def log_of(cell: Cell) -> Path:
    """What a cell that ran in a process of its own has printed."""
    return Path(cell.folder / "log.txt")


def for_exit_code(run: Run, cell: Cell) -> int:
    """`run`, while no other process can run the cell."""
    with claim(cell):
        return processes.STOPPED if run(cell) is None else 0


def claim(cell: Cell) -> contextlib.AbstractContextManager[None]:
    """Nothing is claimed in a bucket, which knows no locks."""
    return contextlib.nullcontext() if "://" in str(cell.folder) else processes.claimed(Path(cell.folder))


def run_repeat(cell: Cell) -> Record | None:
    """A repeat of a run with a part drawn anew, see `variance`; None after a SIGTERM."""
    return variance.evaluate_again(cell) if variance.is_drawn_later(cell) else run_cell(cell)


def print_report(done: Report, folder: epath.Path) -> None:
    """The question, the lines to pass, the differences and where to look, on the terminal."""
    console = Console(width=120)
    console.print(done.question)
    table = Table("line to pass", "of", "measured", "limit", "", title=done.title)
    for line in done.pass_lines:
        show = "{:.1%}".format if line.unit == "%" else "{:.3g}".format
        mark = "[green]passed[/]" if line.passed else "[red]NOT passed[/]"
        table.add_row(line.what, line.arm, show(line.value), f"{line.relation} {show(line.limit)}", mark)
    console.print(table)
    for entry in done.comparisons:
        console.print(f"{told(entry)}, over samples of these two networks")
    for entries, whose in ((done.over_seeds, "these"), (done.healthy.over_seeds, "the healthy run's")):
        for entry in entries:
            console.print(
                f"{told(entry)}, over {whose} {len(entry.by_seed)} seeds of training: [bold]{entry.verdict}[/]"
            )
    for pair in done.correlations:
        console.print(
            f"pixel correlation of {pair.first} with {pair.second}: {pair.same_noise.estimate:.3f} from the same "
            f"noise, {pair.other_noise.estimate:.3f} from different noise"
        )
    minutes = sum(done.timings.values()) / 60
    console.print(f"This start of the comparison took {minutes:.1f} minutes (set-up apart).")
    for note in done.notes:
        console.print(note)
    console.print(f"The report: {folder / report.HTML_NAME}")


def told(entry: Comparison | OverSeeds) -> str:
    """A difference, and whose."""
    return f"{entry.metric}: {entry.first} minus {entry.second} is {shown(entry.difference, entry.unit)}"


def shown(difference: Interval, unit: str) -> str:
    """A difference with its interval, of shares in per cent."""
    show = "{:+.1%}".format if unit == "%" else "{:+.4g}".format
    return f"{show(difference.estimate)} (95 %: {difference.limits(show)})"
