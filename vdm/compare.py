"""Train and evaluate a grid of configs on the same data and noise, and report them side by side.

The grid is `config.compare`: every arm changes some keys of the config (none of its data), and is run once per seed in
DIR/<arm>/seed_<n>/; the report lists what the arms share and in what they differ. What is recorded as finished is not
run again and what was stopped goes on, so the same command continues an interrupted comparison. Writes DIR/report.json
and DIR/report.html (self-contained: samples from the same noise in step, learning curves, tables), and prints the lines
to pass.

Example: python -m vdm compare --config=configs/demo.py --workdir=runs/demo
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from etils import epath
from rich.console import Console
from rich.table import Table

from data import pipeline
from vdm import build, evaluate, likelihoods, sample, train
from vdm.metrics.oracles import ShapeOracle
from vdm.records import comparison, identity, record, report, statistics
from vdm.records.comparison import Arm, Comparison, Correlation, Healthy, OverSeeds, PassLine, Report
from vdm.records.record import Metric, Record
from vdm.records.statistics import Interval
from vdm.runtime import processes
from vdm.runtime.processes import JobFailed
from vdm.types import Config

MIN_PAIRS = 3  # clips of both arms, for an interval of their correlation
SHARED = {"data", "evaluation", "seed", "name", "compare"}  # sections of the config that no arm changes
SAME = {  # what else arms may share -> the section of the config that says so
    "network": "network.",
    "optimiser": "optimizer.",
    "number of steps": "run.num_steps",
    "sampler": "sampler.",
}
OPTIONS = ()


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    arm: str
    seed: int
    config: Config
    folder: epath.Path


def main(config: Config, workdir: str) -> int:
    done = compare(config, workdir)
    if done is None:
        print("Stopped; the same command goes on from here.")
        return processes.STOPPED
    print_report(done, epath.Path(workdir))
    return 0 if all(line.passed for line in done.pass_lines) else 1


def compare(config: Config, workdir: epath.PathLike) -> Report | None:
    """Runs what is not recorded and writes the report; None after a SIGTERM.

    Raises:
      ValueError: any arm's config cannot work, before the first one is trained.
      JobFailed: an arm failed while it ran.
    """
    since = time.monotonic()
    folder = epath.Path(workdir)
    if jax.process_count() > 1:
        raise ValueError(
            "a comparison starts its runs itself and is one process; with several, train and evaluate each arm"
        )
    grid = list(cells(config, folder))
    check_lines(config)
    healthy = report.read_healthy(config.compare.healthy) if config.compare.healthy else Healthy()
    for cell in grid:
        record.read_same(cell.folder, cell.config)
    for cell in grid:
        check_validation(build.experiment(cell.config))
    if not run_all(grid, config.compare.parallel):
        return None
    records: dict[str, list[Record]] = {}
    for cell in grid:
        done = record.read_same(cell.folder, cell.config)
        assert done is not None, f"{cell.folder} was run and has no record"
        records.setdefault(cell.arm, []).append(done)
    made = assemble(config, grid, records)
    timings = {"this start of the comparison": time.monotonic() - since}
    made = dataclasses.replace(made, healthy=healthy, timings=timings)
    report.write(folder, made)
    return made


def cells(config: Config, folder: epath.Path) -> Iterator[Cell]:
    """The grid, seed by seed, so that one repetition of all arms is complete as early as possible.

    Raises:
      ValueError: there are no arms, or one changes what all must share or a key that the config does not have.
    """
    arms, seeds = config.compare.arms, config.compare.seeds
    if not arms or not seeds or len(set(arms)) < len(arms) or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"config.compare needs arms and seeds, each of them once; given {arms} and {seeds}. See configs/demo.py"
        )
    if config.compare.parallel < 1:
        raise ValueError(f"config.compare.parallel is {config.compare.parallel}; it must be at least 1")
    for seed, name in itertools.product(config.compare.seeds, config.compare.arms):
        arm = build.lookup(dict(config.compare.arm), name, "compare.arms")
        changed = config.copy_and_resolve_references()
        shared = sorted(set(arm.changes) & SHARED)
        if shared:
            raise ValueError(
                f"config.compare.arm.{name} changes {', '.join(shared)}: all arms of a comparison share "
                f"{', '.join(sorted(SHARED))}; set it for all of them, or make two comparisons"
            )
        try:
            changed.update(arm.changes)
        except (KeyError, TypeError) as error:
            raise ValueError(f"config.compare.arm.{name}.changes: {error}. configs/base.py lists every key") from error
        changed.seed = seed
        changed.name = f"{config.name}/{name}"
        yield Cell(name, seed, changed, folder / name / f"seed_{seed}")


def run_all(grid: list[Cell], at_once: int) -> bool:
    """Runs every cell, on a CPU `at_once` at a time (one run fills an accelerator); False after a SIGTERM.

    Raises:
      JobFailed: a cell failed in its process; names its log.
    """
    if at_once == 1 or jax.default_backend() != "cpu":
        return all(run(cell) is not None for cell in grid)
    jobs = [
        processes.Job(
            f"{cell.arm}, seed {cell.seed}", functools.partial(run_for_exit_code, cell), Path(cell.folder / "log.txt")
        )
        for cell in grid
    ]
    codes = processes.run(jobs, at_once)
    for job in jobs:
        if codes.get(job.name, processes.STOPPED) not in (0, processes.STOPPED):
            raise JobFailed(f"{job.name} failed; {job.log} ends with: {processes.last_line(job.log)}")
    return all(codes.get(job.name) == 0 for job in jobs)


def run_for_exit_code(cell: Cell) -> int:
    """`run` in a process of its own."""
    return processes.STOPPED if run(cell) is None else 0


def run(cell: Cell) -> Record | None:
    """Trains and evaluates one cell, or what of it is missing; None after a SIGTERM."""
    print(f"{cell.arm}, seed {cell.seed}: {cell.folder}")
    before = record.read_same(cell.folder, cell.config)
    if before is None or before.status != "finished" or before.num_steps != cell.config.run.num_steps:
        before = train.train(cell.config, cell.folder)
        if before.status != "finished":
            return None
    else:
        print("  recorded as trained")
    lacking = set(will_measure(cell.config)) - {metric.name for metric in before.metrics}
    if before.evaluated_step != before.num_steps or lacking or not sample.written(samples_of(cell)):
        before = evaluate.evaluate(cell.config, cell.folder)
    return before


def assemble(config: Config, grid: list[Cell], records: dict[str, list[Record]]) -> Report:
    """The report of finished runs: their records, the first clips of each, and the intervals between the arms."""
    experiment = build.experiment(config)
    samples = {name_of(cell, config): read_samples(cell) for cell in grid}
    real = real_clips(experiment, config.evaluation.num_samples)
    oracle = build.oracle(config)
    arms = []
    for cell, done in zip(
        grid, [records[cell.arm][config.compare.seeds.index(cell.seed)] for cell in grid], strict=True
    ):
        about, name = config.compare.arm[cell.arm], name_of(cell, config)
        title = about.title if len(config.compare.seeds) == 1 else f"{about.title}, seed {cell.seed}"
        arms.append(Arm(name, title, about.description, done, samples[name][: config.compare.num_shown]))
    lines = [line for cell, arm in zip(grid, arms, strict=True) for line in expected(config.compare.arm[cell.arm], arm)]
    if oracle is not None:
        lines = [*controls(oracle, real), *lines]
    return Report(
        title=config.name,
        question=config.compare.question,
        command=command(),
        arms=tuple(arms),
        real=real[: config.compare.num_shown],
        comparisons=tuple(differences(grid, config, samples, oracle)),
        correlations=tuple(correlations(grid, config, samples)),
        pass_lines=tuple(lines),
        over_seeds=over_seeds(config, records),
        notes=tuple(notes(config, grid)),
    )


def name_of(cell: Cell, config: Config) -> str:
    """The arm's name, with the seed where there are several."""
    return cell.arm if len(config.compare.seeds) == 1 else f"{cell.arm}_seed_{cell.seed}"


def read_samples(cell: Cell) -> sample.Clips:
    """The clips that the cell's evaluation left."""
    return sample.read(samples_of(cell))


def samples_of(cell: Cell) -> epath.Path:
    return evaluate.folder_of(cell.folder, cell.config.run.num_steps)


def real_clips(experiment: build.Experiment, count: int) -> sample.Clips:
    """The first clips of the validation split."""
    batches = pipeline.fixed(experiment.splits.validation, min(count, len(experiment.splits.validation)), count)
    return np.concatenate([batch["video"] for batch in batches])


def pairs(grid: list[Cell]) -> Iterator[tuple[Cell, Cell]]:
    """All pairs of arms that were trained, of one seed each: their samples start from the same noise."""
    trained = (cell for cell in grid if cell.config.run.num_steps)
    return ((one, two) for one, two in itertools.combinations(trained, 2) if one.seed == two.seed)


def differences(
    grid: list[Cell], config: Config, samples: dict[str, sample.Clips], oracle: ShapeOracle | None
) -> Iterator[Comparison]:
    """The arms' shares of valid clips, subtracted, with intervals over pairs of samples."""
    if oracle is None:
        return
    valid = {name: oracle.read(clips).valid for name, clips in samples.items()}
    for one, two in pairs(grid):
        first, second = name_of(one, config), name_of(two, config)
        interval = statistics.paired_proportion_difference(valid[first], valid[second])
        yield Comparison(evaluate.VALID, first, second, interval, "%")


def correlations(grid: list[Cell], config: Config, samples: dict[str, sample.Clips]) -> Iterator[Correlation]:
    """How alike the arms' samples from the same noise are; nothing for an arm whose clips are nearly all constant."""
    for one, two in pairs(grid):
        first, second = name_of(one, config), name_of(two, config)
        if any(np.ptp(samples[name], axis=(1, 2, 3, 4)).astype(bool).sum() < MIN_PAIRS for name in (first, second)):
            continue
        yield comparison.correlate(first, second, samples[first], samples[second], config.seed)


def expected(about: Config, arm: Arm) -> Iterator[PassLine]:
    """The lines that the config draws for an arm."""
    measured = {metric.name: metric for metric in arm.record.metrics}
    for name, at_least, limit in (
        *((name, True, limit) for name, limit in about.at_least.items()),
        *((name, False, limit) for name, limit in about.at_most.items()),
    ):
        yield PassLine(name, arm.title, measured[name].value, ">=" if at_least else "<=", limit, measured[name].unit)


def check_lines(config: Config) -> None:
    """Raises ValueError for a line about a metric that will not be measured, before anything is."""
    measured = will_measure(config)
    for name in config.compare.outcomes:
        if name not in measured:
            raise ValueError(
                f"config.compare.outcomes names {name!r}; what will be measured is: "
                f"{', '.join(measured) or 'nothing'}. config.scores asks for more"
            )
    for arm in config.compare.arms:
        about = config.compare.arm[arm]
        for name in (*about.at_least, *about.at_most):
            if name not in measured:
                raise ValueError(
                    f"config.compare.arm.{arm} draws a line for {name!r}; what will be measured is: "
                    f"{', '.join(measured) or 'nothing, these data have no oracle'}"
                )


def will_measure(config: Config) -> tuple[str, ...]:
    """The names of the metrics that every run will have."""
    of_oracle = (evaluate.VALID, evaluate.DIRECTIONS) if build.oracle(config) is not None else ()
    of_bits = (likelihoods.TITLES[name] for name in config.scores.likelihoods)
    return (*of_oracle, *(build.title_of(config, name) for name in config.scores.metrics), *of_bits)


def check_validation(experiment: build.Experiment) -> None:
    """Raises ValueError where the validation split has too few clips to stand beside the samples."""
    wanted = experiment.config.evaluation.num_samples if build.oracle(experiment.config) is not None else 1
    held = len(experiment.splits.validation)
    if held < wanted:
        raise ValueError(
            f"the validation split has {held} clips, and the report needs {wanted} real ones beside the samples; hold "
            "more clips out, or lower config.evaluation.num_samples"
        )


def controls(oracle: ShapeOracle, real: sample.Clips) -> tuple[PassLine, ...]:
    """Whether the oracle tells real clips from clips that hold the same frames in the wrong places."""
    generator = np.random.default_rng(0)
    count, num_frames = real.shape[:2]
    shuffled = np.stack([clip[generator.permutation(num_frames)] for clip in real])
    # frame f of clip i comes from clip i + f: every frame is real, and no two belong together
    mixed = real[(np.arange(count)[:, None] + np.arange(num_frames)) % count, np.arange(num_frames)]

    def line(title: str, clips: sample.Clips, relation: Literal[">=", "<="], limit: float) -> PassLine:
        return PassLine(evaluate.VALID, title, float(oracle.read(clips).valid.mean()), relation, limit, "%")

    return (
        line("real clips", real, ">=", 0.99),
        line("real clips, frames shuffled", shuffled, "<=", 0.05),
        line("frames of different clips", mixed, "<=", 0.01),
    )


def notes(config: Config, grid: list[Cell]) -> Iterator[str]:
    """What the comparison shows and what it does not."""
    trained = [cell.config for cell in grid if cell.config.run.num_steps]
    differing = [key for key in identity.differing_keys(trained) if key not in ("name", "seed")]
    if differing:
        same = ["data and their order", "noise of every step", "noise that clip i is drawn from"]
        same += [what for what, section in SAME.items() if not any(key.startswith(section) for key in differing)]
        yield f"The trained arms differ in {', '.join(differing)}. They share {', '.join(same)}."
    yield "The intervals over samples are about these networks; they do not know how much another seed would change."
    seeds = len(config.compare.seeds)
    yield "One seed is a demonstration, not a result." if seeds == 1 else f"Every arm was run with {seeds} seeds."


def over_seeds(config: Config, records: Mapping[str, list[Record]]) -> tuple[OverSeeds, ...]:
    """How the outcomes of each two trained arms differ from seed to seed; nothing for a single seed.

    Raises:
      ValueError: a run was not measured so.
    """
    if len(config.compare.seeds) == 1:
        return ()
    arms = {config.compare.arm[name].title: runs for name, runs in records.items() if runs[0].num_steps}
    entries = []
    for outcome in outcomes(config):
        measured = {title: [_metric(done, outcome) for done in runs] for title, runs in arms.items()}
        for one, two in itertools.combinations(measured, 2):
            by_seed = list(zip(measured[one], measured[two], strict=True))
            apart = tuple(first.value - second.value for first, second in by_seed)
            entries.append(OverSeeds(outcome, one, two, apart, by_seed[0][0].unit))
    return comparison.corrected(entries)


def outcomes(config: Config) -> tuple[str, ...]:
    """The metrics that give the verdict; where none are named, the share of valid clips if the data have an oracle."""
    return config.compare.outcomes or ((evaluate.VALID,) if build.oracle(config) is not None else ())


def _metric(done: Record, name: str) -> Metric:
    found = [metric for metric in done.metrics if metric.name == name]
    if not found:
        raise ValueError(
            f"config.compare.outcomes names {name!r}, and {done.name} was not measured so (seed "
            f"{done.seeds.get('config')}); it has: {', '.join(metric.name for metric in done.metrics)}"
        )
    return found[0]


def command() -> str:
    """What was typed, so that it can be typed again."""
    return shlex.join(["python", "-m", "vdm", *sys.argv[1:]])


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
        console.print(
            f"{entry.metric}: {entry.first} minus {entry.second} is {shown(entry.difference)}, over samples of these "
            "two networks"
        )
    for entries, whose in ((done.over_seeds, "these"), (done.healthy.over_seeds, "the healthy run's")):
        for entry in entries:
            console.print(
                f"{entry.metric}: {entry.first} minus {entry.second} is {shown(entry.difference)}, over {whose} "
                f"{len(entry.by_seed)} seeds of training: [bold]{entry.verdict}[/]"
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


def shown(difference: Interval) -> str:
    """A difference of shares with its interval."""
    return f"{difference.estimate:+.1%} (95 %: {difference.low:+.1%} to {difference.high:+.1%})"
