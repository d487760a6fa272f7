"""Score a trained run: losses on held-out clips per noise level, what an oracle reads from its samples, FVD and kin.

The losses are taken with the averaged parameters of the newest checkpoint, at the fixed levels
`config.evaluation.log_snrs` with fixed noise, so that two runs can be compared to the last digit. Where the data have
an oracle (moving shapes), it judges `config.evaluation.num_samples` samples: how many are valid clips, why the others
are not, whether all directions of motion and all classes are there, and, where the network is told a class, how many
show it. The scores that `config.scores` asks for (FVD, KVD, ...) are taken of its own number of samples. Both are done
once more for each of `config.scores.samplings`, from the same noise. All go into DIR/record.json with their protocol,
the oracle's samples into DIR/evaluation/<step>/, those of a sampling into a folder of its name there. With another
`config.sampler`, `config.evaluation` or draw of `config.vary` than the run's own it prints its numbers and leaves the
record alone.

Example: python -m vdm evaluate --config=configs/demo.py --workdir=runs/shapes
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from vdm import build, likelihoods, sample, scoring, validation
from vdm.measures import Measure, measures_of
from vdm.metrics.oracles import ShapeOracle
from vdm.metrics.protocol import PRESETS
from vdm.records import identity, record, statistics
from vdm.records.record import OWN, Metric, Record
from vdm.runtime import distributed, watchdog
from vdm.types import Config, Params

OPTIONS = (
    ("checkpoint_step", 0, "of the checkpoint; 0: the newest"),
    ("i3d_weights", "", "of I3D for fvd and kvd: i3d_pretrained_400.pt or i3d_torchscript.pt; empty: the package's"),
)
VALID = "valid clips"  # the metric that arms are compared by
DIRECTIONS = "direction total variation"
CLASSES = "class total variation"
ASKED = "valid clips of the class asked for"
FPS = 8  # of the sample files


def main(config: Config, workdir: str, *, checkpoint_step: int, i3d_weights: str) -> int:
    done = evaluate(config, workdir, checkpoint_step or None, i3d_weights)
    for name, losses in done.level_losses.items():
        print(f"{name}: " + ", ".join(f"{log_snr:g}: {loss:.4g}" for log_snr, loss in losses))
    for metric in done.metrics:
        interval = "" if metric.low is None else f"  (95 %: {metric.low:.4g} to {metric.high:.4g})"
        print(f"{metric.name}: {metric.value:.4g}{interval}{_worth(metric)}")
    if remark := _remark(config.scores.preset):
        print(remark)
    return 0


def _worth(metric: Metric) -> str:
    floor = "" if metric.floor is None else f"; the data themselves: {metric.floor:.4g}"
    return floor if metric.at_infinity is None else f"{floor}; at infinitely many samples: {metric.at_infinity:.4g}"


def _remark(preset: str) -> str:
    """What must be known of a published protocol's numbers, beside those of a run that followed it."""
    about = PRESETS[preset].remark if preset else ""
    return f"{preset}: {about}" if about else ""


def evaluate(config: Config, workdir: epath.PathLike, step: int | None = None, i3d_weights: str = "") -> Record:
    """Scores a checkpoint and returns the run's record with the scores in it, which is also written.

    Raises:
      ValueError: no record or checkpoint of this config in the work directory, or weights as in `measures_of`.
    """
    before = record.read(workdir)
    if before is None:
        raise ValueError(
            f"{workdir} holds no record.json; train first: python -m vdm train --config=... --workdir={workdir}"
        )
    measures = measures_of(config, i3d_weights)
    likelihoods.check_options(config)
    experiment, params, step = sample.restore(config, workdir, step)
    scoring.check(experiment, measures)
    likelihoods.check(experiment)
    samplings = {OWN: experiment} | build.samplings(experiment)
    since = time.monotonic()
    with watchdog.Watchdog(config.run.stuck_after_seconds) as dog:
        with jax.set_mesh(experiment.mesh):
            losses = validation.make_validation(experiment, dog.beat)(params)
        scorer = scoring.make_scorer(experiment, measures, dog.beat) if measures else None
        drawn = {name: draw(sampled, params, scorer, dog.beat) for name, sampled in samplings.items()}
        metrics = [of_sampling(metric, name, samplings[name]) for name, (_, found) in drawn.items() for metric in found]
        bits, curve = likelihoods.measure(experiment, params, dog.beat)
    levels = {name: tuple(points) for name, points in losses.items()} | curve
    if identity.identity_hash(config) != before.identity_hash:
        print("The record is left as it is: this evaluation's config is not the run's own.")
        return dataclasses.replace(before, metrics=(*metrics, *bits), level_losses=levels, evaluated_step=step)
    scored = dataclasses.replace(before, **_kept(before, step, (*metrics, *bits), levels), evaluated_step=step)
    if distributed.is_writer():
        for name, (clips, _) in drawn.items():
            sample.write(folder_of(workdir, step, name), clips, FPS, samplings[name].sampler.task.given)
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


def folder_of(workdir: epath.PathLike, step: int, sampling: str = OWN) -> epath.Path:
    """Where the samples lie that the record's metrics were read from."""
    folder = sample.folder_of(workdir, step, "evaluation")
    return folder if sampling == OWN else folder / sampling


def draw(
    experiment: build.Experiment, params: Params, scorer: scoring.Scorer | None, beat: Callable[[], None]
) -> tuple[sample.Clips, tuple[Metric, ...]]:
    """The clips that the oracle reads, and what it and the scorer say of the sampler's clips."""
    config = experiment.config
    num_read = config.evaluation.num_samples
    num_scored = 0 if scorer is None else config.scores.num_samples * config.scores.repeats
    read, looked, done = [], [], 0
    for clips in sample.make_draw_in_batches(experiment, beat)(params, max(num_read, num_scored)):
        if done < num_read:
            read.append(clips[: num_read - done])
        if scorer is not None and done < num_scored:
            looked.append(scorer.look(clips[: num_scored - done]))
        done += len(clips)
    kept = np.concatenate(read)
    return kept, (*oracle_metrics(experiment, kept), *(() if scorer is None else scorer.scores(looked)))


def of_sampling(metric: Metric, name: str, experiment: build.Experiment) -> Metric:
    """The metric with what its clips were drawn by."""
    protocol = metric.protocol | _drawn_by(name, experiment)
    return dataclasses.replace(metric, name=record.name_by(metric.name, name), protocol=protocol)


def _drawn_by(name: str, experiment: build.Experiment) -> dict[str, Any]:
    """What a sampling adds to a protocol.

    Own samplers may differ between runs that are compared, as long as they take the same number of evaluations.
    """
    about = {
        "sampling": name,
        "network_evaluations": experiment.sampler.num_evaluations,
        "parameters": "average",  # which one was chosen for a run is said by its config
    }
    if experiment.sampler.task.given:
        about |= {"task": sampler_of(experiment.config)["task"]}
    return about if name == OWN else about | {"sampler": sampler_of(experiment.config)}


def sampler_of(config: Config) -> dict[str, Any]:
    """The config's sampler as protocols have it."""
    return identity.identity({"sampler": config.sampler})["sampler"]


def oracle_metrics(experiment: build.Experiment, clips: sample.Clips) -> tuple[Metric, ...]:
    """What the oracle of the data says of samples; nothing where the data have none."""
    oracle = build.oracle(experiment.config)
    if oracle is None:
        return ()
    reading = oracle.read(clips)
    protocol = _oracle_protocol(experiment, oracle, len(clips))
    shares = {VALID: reading.valid}
    if experiment.num_classes is not None:
        asked = sample.classes_asked_for(experiment, np.arange(len(clips)))
        shares[ASKED] = reading.valid & (oracle.classes(reading) == asked)
    metrics = []
    for name, holds in shares.items():
        share = statistics.proportion(int(holds.sum()), len(clips))
        metrics.append(Metric(name, share.estimate, share.low, share.high, "%", True, protocol))
    for name, apart in ((DIRECTIONS, oracle.directions_apart(reading)), (CLASSES, oracle.classes_apart(reading))):
        metrics.append(Metric(name, apart.total_variation, None, None, "", False, protocol, floor=apart.floor))
    for reason, passed in reading.checks.items():
        metrics.append(Metric(f"fail: {reason}", float(np.mean(~passed)), None, None, "%", False, protocol))
    return tuple(metrics)


def _oracle_protocol(experiment: build.Experiment, oracle: ShapeOracle, num_samples: int) -> dict[str, Any]:
    return {
        "samples": num_samples,
        "frames": experiment.config.data.num_frames,
        "seed": experiment.seed_of("sample"),
        "oracle": oracle.protocol,
    }


def expected(experiment: build.Experiment, measures: Sequence[Measure]) -> dict[str, dict[str, Any]]:
    """Every metric that `evaluate` gives a run -> its protocol; without the counts of why clips failed, and CLASSES,
    which studies that go on from their records do not have of all runs.
    """
    config, oracle = experiment.config, build.oracle(experiment.config)
    of_samples = {measure.title: scoring.recorded_protocol(config, measure) for measure in measures}
    if oracle is not None:
        names = (VALID, DIRECTIONS) if experiment.num_classes is None else (VALID, ASKED, DIRECTIONS)
        of_samples |= dict.fromkeys(names, _oracle_protocol(experiment, oracle, config.evaluation.num_samples))
    found = {
        record.name_by(name, sampling): protocol | _drawn_by(sampling, sampled)
        for sampling, sampled in ({OWN: experiment} | build.samplings(experiment)).items()
        for name, protocol in of_samples.items()
    }
    return found | {
        likelihoods.TITLES[name]: likelihoods.protocol_of(experiment, name) for name in config.scores.likelihoods
    }
