"""Score a trained run: losses on held-out clips per noise level, what an oracle reads from its samples, FVD and kin.

The losses are taken with the averaged parameters of the newest checkpoint, at the fixed levels
`config.evaluation.log_snrs` with fixed noise, so that two runs can be compared to the last digit. Where the data have
an oracle (moving shapes), it judges `config.evaluation.num_samples` samples: how many are valid clips, why the others
are not, and whether all directions of motion are there. The scores that `config.scores` asks for (FVD, KVD, ...) are
taken of its own number of samples. All go into DIR/record.json with their protocol, the oracle's samples into
DIR/evaluation/<step>/. With another `config.sampler` or `config.evaluation` than the run's own it prints its
numbers and leaves the record alone.

Example: python -m vdm evaluate --config=configs/demo.py --workdir=runs/shapes
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
from etils import epath

from vdm import build, likelihoods, sample, scoring, validation
from vdm.records import identity, record, statistics
from vdm.records.record import Metric, Record
from vdm.runtime import distributed, watchdog
from vdm.types import Config

OPTIONS = (
    ("checkpoint_step", 0, "of the checkpoint; 0: the newest"),
    ("i3d_weights", "", "of I3D for fvd and kvd: i3d_pretrained_400.pt or i3d_torchscript.pt; empty: the package's"),
)
VALID = "valid clips"  # the metric that arms are compared by
DIRECTIONS = "direction total variation"
FPS = 8  # of the sample files


def main(config: Config, workdir: str, *, checkpoint_step: int, i3d_weights: str) -> int:
    done = evaluate(config, workdir, checkpoint_step or None, i3d_weights)
    for name, losses in done.level_losses.items():
        print(f"{name}: " + ", ".join(f"{log_snr:g}: {loss:.4g}" for log_snr, loss in losses))
    for metric in done.metrics:
        interval = "" if metric.low is None else f"  (95 %: {metric.low:.4g} to {metric.high:.4g})"
        print(f"{metric.name}: {metric.value:.4g}{interval}{_worth(metric)}")
    return 0


def _worth(metric: Metric) -> str:
    floor = "" if metric.floor is None else f"; the data themselves: {metric.floor:.4g}"
    return floor if metric.at_infinity is None else f"{floor}; at infinitely many samples: {metric.at_infinity:.4g}"


def evaluate(config: Config, workdir: epath.PathLike, step: int | None = None, i3d_weights: str = "") -> Record:
    """Scores a checkpoint and returns the run's record with the scores in it, which is also written.

    Raises:
      ValueError: no record or checkpoint of this config in the work directory, or weights as in `build.measures`.
    """
    before = record.read(workdir)
    if before is None:
        raise ValueError(
            f"{workdir} holds no record.json; train first: python -m vdm train --config=... --workdir={workdir}"
        )
    measures = build.measures(config, i3d_weights)
    likelihoods.check_options(config)
    experiment, params, step = sample.restore(config, workdir, step)
    scoring.check(experiment, measures)
    likelihoods.check(experiment)
    since = time.monotonic()
    with watchdog.Watchdog(config.run.stuck_after_seconds) as dog:
        with jax.set_mesh(experiment.mesh):
            losses = validation.make_validation(experiment, dog.beat)(params)
        scored_clips = config.scores.num_samples * config.scores.repeats if measures else 0
        draw = sample.make_draw(experiment, dog.beat)
        drawn = draw(params, max(config.evaluation.num_samples, scored_clips))
        clips = drawn[: config.evaluation.num_samples]
        metrics = (
            *oracle_metrics(experiment, clips),
            *scoring.score(experiment, measures, drawn[:scored_clips], dog.beat),
        )
        bits, curve = likelihoods.measure(experiment, params, dog.beat)
    levels = {name: tuple(points) for name, points in losses.items()} | curve
    scored = dataclasses.replace(before, **_kept(before, step, (*metrics, *bits), levels), evaluated_step=step)
    if identity.identity_hash(config) != before.identity_hash:
        print("The record is left as it is: this evaluation's config is not the run's own.")
        return scored
    if distributed.is_writer():
        sample.write(folder_of(workdir, step), clips, FPS)
        scored = record.spend(scored, "evaluate", time.monotonic() - since)
        record.write(workdir, scored)
    return scored


def _kept(
    before: Record, step: int, metrics: tuple[Metric, ...], levels: dict[str, tuple[tuple[float, float], ...]]
) -> dict[str, Any]:
    """The new numbers, and those of earlier evaluations of the same step that were not measured again."""
    if before.evaluated_step != step:
        return {"metrics": metrics, "level_losses": levels}
    measured = {metric.name for metric in metrics}
    earlier = tuple(metric for metric in before.metrics if metric.name not in measured)
    return {"metrics": (*metrics, *earlier), "level_losses": before.level_losses | levels}


def folder_of(workdir: epath.PathLike, step: int) -> epath.Path:
    """Where the samples lie that the record's metrics were read from."""
    return sample.folder_of(workdir, step, "evaluation")


def oracle_metrics(experiment: build.Experiment, clips: sample.Clips) -> tuple[Metric, ...]:
    """What the oracle of the data says of samples; nothing where the data have none."""
    oracle = build.oracle(experiment.config)
    if oracle is None:
        return ()
    reading = oracle.read(clips)
    summary = oracle.summary(reading)
    config = experiment.config
    protocol: dict[str, Any] = {
        "samples": len(clips),
        "frames": config.data.num_frames,
        "sampler": identity.resolve({"sampler": config.sampler})["sampler"],
        "network_evaluations": experiment.sampler.num_evaluations,
        "parameters": "average",
        "seed": config.seed,
        "oracle": oracle.protocol,
    }
    share = statistics.proportion(int(reading.valid.sum()), len(clips))
    valid = Metric(VALID, share.estimate, share.low, share.high, "%", True, protocol)
    distance = Metric(DIRECTIONS, summary["direction_total_variation"], None, None, "", False, protocol)
    failed = [
        Metric(f"fail: {reason}", count / len(clips), None, None, "%", False, protocol)
        for reason, count in summary["failed"].items()
    ]
    return (valid, distance, *failed)
