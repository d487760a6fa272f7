"""What is kept of a study: every run's numbers, without its learning curves.

A seed of all arms is added at a time, with the rates that were chosen before the first one, so that a study goes on
from its record alone, on any machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from configs import base
from experiments.objectives import grid
from vdm import build
from vdm.diffusion import objectives, schedules
from vdm.records import identity, schema
from vdm.records.comparison import Arm, Report, Selection, Tried
from vdm.records.record import PER_LOG_SNR, Curve
from vdm.runtime import mesh as meshes
from vdm.types import Config

HERE = Path(__file__).parent
ERROR = "validation/noise_error "  # of the curves over steps, one for each level
NUM_WEIGHTS = 69  # log-SNRs of an effective weight, over grid.RANGE


def file_of(study: str) -> Path:
    return HERE / "records" / f"{study}.json"


def records() -> dict[str, dict[str, Any]]:
    """Those that there are, by study."""
    return {study: json.loads(file_of(study).read_text()) for study in grid.STUDIES if file_of(study).exists()}


def kept(study: str) -> dict[str, Any]:
    """The record of the study as it is now; empty where there is none, or one of other settings."""
    found = records()
    return found[study] if study in found and found[study]["grid"] == hash_of(study) else {}


def missing(study: str) -> list[int]:
    """Seeds of the study as it is now that are not recorded."""
    found = {run["seed"] for run in kept(study).get("runs", ())}
    return [seed for seed in grid.get_config(study).compare.seeds if seed not in found]


def chosen(study: str) -> dict[str, Selection] | None:
    """Arm -> the rate and average that are recorded for it; None where no seed is."""
    record = kept(study)
    if not record:
        return None
    found = {one["arm"]: _selection(one) for one in record["selections"]}
    options = grid.get_config(study).compare
    return {name: found[options.arm[name].title] for name in options.arms}


def _selection(one: Mapping[str, Any]) -> Selection:
    return Selection(one["arm"], tuple(Tried(**tried) for tried in one["tried"]))


def hash_of(study: str) -> str:
    """Of all that a study's config says, whatever is recorded."""
    return hashlib.sha256(json.dumps(grid.get_config(study).to_dict(), sort_keys=True).encode()).hexdigest()[:12]


def write(study: str, report: Report, more: Mapping[str, Any]) -> None:
    """Adds the report's runs to the record; `more` is what the study measured besides."""
    asked = {"study": study, "grid": hash_of(study), "seeds_asked_for": list(grid.get_config(study).compare.seeds)}
    made = asked | joined(kept(study), report) | dict(more)
    file_of(study).parent.mkdir(exist_ok=True)
    file_of(study).write_text(schema.dumps(made, study))


def joined(before: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """The runs of a record (it may be empty) and of a report, with scores and curve over log-SNR; effective weights;
    what was chosen; protocols and environments by their number.
    """
    found = [metric.protocol for arm in report.arms for metric in arm.record.metrics]
    protocols = _unique([*before.get("protocols", ()), *found])
    environments = _unique([*before.get("environments", ()), *(_environment(arm) for arm in report.arms)])
    return {
        "question": report.question,
        "environments": [json.loads(environment) for environment in environments],
        "protocols": [json.loads(protocol) for protocol in protocols],
        "runs": [*before.get("runs", ()), *(_run(arm, protocols, environments) for arm in report.arms)],
        "weights": weights(report),
        "selections": [
            {"arm": one.arm, "rate": one.chosen.rate, "average": one.average, "is_interior": one.is_interior}
            | {"tried": [dataclasses.asdict(each) for each in one.tried]}
            for one in report.selections
        ],
    }


def _unique(values: Iterable[Mapping[str, Any]]) -> list[str]:
    """As JSON, in the order in which they came first."""
    return list(dict.fromkeys(identity.canonical_json(value) for value in values))


def _environment(arm: Arm) -> dict[str, Any]:
    """Where the run ended."""
    return dataclasses.asdict(arm.record.starts[-1].environment)


def _run(arm: Arm, protocols: list[str], environments: list[str]) -> dict[str, Any]:
    done = arm.record
    scores = [
        {"name": metric.name, "value": metric.value, "low": metric.low, "high": metric.high, "unit": metric.unit}
        | {"protocol": protocols.index(identity.canonical_json(metric.protocol))}
        for metric in done.metrics
        if not metric.name.startswith("fail: ")
    ]
    return {
        "arm": arm.group or arm.title,
        "seed": done.seeds["config"],
        "environment": environments.index(identity.canonical_json(_environment(arm))),
        "identity_hash": done.identity_hash,
        "num_steps": done.num_steps,
        "num_parameters": done.num_parameters,
        "flops": arm.flops,
        "timings": done.timings,
        "metrics": scores,
        "bits_per_log_snr": done.level_losses[PER_LOG_SNR],
        "noise_error": _mean_error(done.curves),
    }


def _mean_error(curves: Mapping[str, Curve]) -> list[tuple[int, float]]:
    """(step, mean over the fixed levels) on held-out clips."""
    found = [curve for name, curve in curves.items() if name.startswith(ERROR)]
    return [(points[0][0], float(np.mean([error for _, error in points]))) for points in zip(*found, strict=True)]


def weights(report: Report) -> dict[str, list[tuple[float, float]]]:
    """Arm -> (log_snr, effective weight), with an integral of one over what it reaches of grid.RANGE."""
    first: dict[str, Mapping[str, Any]] = {}
    for arm in report.arms:
        first.setdefault(arm.group or arm.title, arm.record.config)
    return {title: _weight(identity.rebuild(base.get_config(), config)) for title, config in first.items()}


def _weight(config: Config) -> list[tuple[float, float]]:
    made = build.model(config, meshes.make_mesh(), num_channels=3, num_classes=None)
    ends = schedules.log_snr(made.objective.schedule, jnp.array(made.objective.times.ends(made.objective.schedule)))
    high, low = np.asarray(ends, np.float64)
    log_snrs = np.linspace(*grid.RANGE, NUM_WEIGHTS)
    log_snrs = log_snrs[(log_snrs >= low) & (log_snrs <= high)]
    weight = np.asarray(objectives.effective_weight(made.objective, jnp.asarray(log_snrs, jnp.float32)), np.float64)
    return list(zip(log_snrs.tolist(), (weight / np.trapezoid(weight, log_snrs)).tolist(), strict=True))
