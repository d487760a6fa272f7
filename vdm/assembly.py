"""The report of finished runs, assembled from their records and samples."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from data import pipeline
from vdm import build, evaluate, sample
from vdm.arms import Cell, name_of, outcomes, samples_of
from vdm.metrics.oracles import ShapeOracle
from vdm.records import comparison, identity, statistics
from vdm.records.comparison import Arm, Comparison, Correlation, OverSeeds, PassLine, Report
from vdm.records.record import Metric, Record
from vdm.types import Config

MIN_PAIRS = 3  # clips of both arms, for an interval of their correlation
SAME = {  # what else arms may share -> the section of the config that says so
    "network": "network.",
    "optimiser": "optimizer.",
    "number of steps": "run.num_steps",
    "sampler": "sampler.",
}


def assemble(
    config: Config, grid: list[Cell], records: dict[str, list[Record]], step_flops: Mapping[str, float]
) -> Report:
    """The report of finished runs: their records, the first clips of each, and the intervals between the arms.

    Args:
      step_flops: arm -> FLOPs of a step.
    """
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
        shown, flops = samples[name][: config.compare.num_shown], step_flops[cell.arm] * done.num_steps
        arms.append(Arm(name, title, about.description, done, shown, flops, about.title))
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


def read_samples(cell: Cell) -> sample.Clips:
    """The clips that the cell's evaluation left."""
    return sample.read(samples_of(cell))


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
        values = {title: [metric.value for metric in metrics] for title, metrics in measured.items()}
        (unit,) = {metric.unit for metrics in measured.values() for metric in metrics} or {""}
        entries += comparison.paired(outcome, values, unit)
    return comparison.corrected(entries)


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
