"""What is kept of a study: every run's numbers, without its learning curves.

A seed of all arms is added at a time, with the rates that were chosen before the first one, so that a study goes on
from its record alone, on any machine.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from configs import base
from experiments.objectives import grid
from vdm import arms, build, evaluate
from vdm.diffusion import objectives, schedules
from vdm.measures import measures_of
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
    """The record of the study without arms that are not as they are now; empty where none is left."""
    found, now = records().get(study, {}), keys(study)
    current = {title: key for title, key in found.get("keys", {}).items() if now.get(title) == key}
    if not current:
        return {}
    runs, selections = ([one for one in found[name] if one["arm"] in current] for name in ("runs", "selections"))
    weights = {title: points for title, points in found["weights"].items() if title in current}
    return found | {"keys": current, "runs": runs, "selections": selections, "weights": weights}


def missing(study: str) -> dict[int, list[str]]:
    """Seed -> arms of the study as it is now that are not recorded; without seeds of which all are."""
    found = {(run["seed"], run["arm"]) for run in kept(study).get("runs", ())}
    options = grid.get_config(study).compare
    waiting = {
        seed: [name for name in options.arms if (seed, options.arm[name].title) not in found] for seed in options.seeds
    }
    return {seed: names for seed, names in waiting.items() if names}


def chosen(study: str) -> dict[str, Selection]:
    """Arm -> the rate and average that are recorded for it, where they are."""
    found = {one["arm"]: _selection(one) for one in kept(study).get("selections", ())}
    options = grid.get_config(study).compare
    return {name: found[title] for name in options.arms if (title := options.arm[name].title) in found}


def _selection(one: Mapping[str, Any]) -> Selection:
    return Selection(one["arm"], tuple(Tried(**tried) for tried in one["tried"]))


def complete() -> dict[str, dict[str, Any]]:
    """The records without seeds that some of their arms lack; by study."""
    found = {}
    for study, record in records().items():
        seeds = [{run["seed"] for run in record["runs"] if run["arm"] == title} for title in record["keys"]]
        if whole := set.intersection(*seeds):
            found[study] = record | {"runs": [run for run in record["runs"] if run["seed"] in whole]}
    return found


@functools.cache
def keys(study: str) -> dict[str, str]:
    """Arm's title -> hash of all that its numbers depend on: the run, how its rate is chosen, what is measured."""
    config = grid.get_config(study)
    found = {}
    for name in config.compare.arms:
        of_arm = arms.config_of(config, name, config.compare.seeds[0])
        measured = evaluate.expected(build.experiment(of_arm), measures_of(of_arm))
        said = identity.canonical_json([identity.identity(of_arm), config.compare.select.to_dict(), measured])
        found[config.compare.arm[name].title] = hashlib.sha256(said.encode()).hexdigest()[:12]
    return found


def write(study: str, report: Report, more: Mapping[str, Any]) -> None:
    """Adds the report's runs to the record; `more` is what the study measured besides."""
    _write(study, joined(kept(study), report) | dict(more))


def write_chosen(study: str, selections: Iterable[Selection]) -> None:
    """Adds rates and averages that were chosen, before anything was run with them, to the record."""
    before = kept(study) or {"environments": [], "protocols": [], "runs": [], "weights": {}, "selections": []}
    _write(study, before | {"selections": [*before["selections"], *map(_selected, selections)]})


def _write(study: str, made: Mapping[str, Any]) -> None:
    options = grid.get_config(study).compare
    asked = {"study": study, "question": options.question, "keys": keys(study), "seeds_asked_for": list(options.seeds)}
    made = asked | dict(made) | asked  # it comes first, and is what is asked now
    order = list(asked["keys"])
    made["runs"].sort(key=lambda run: (run["seed"], order.index(run["arm"])))
    file_of(study).parent.mkdir(exist_ok=True)
    file_of(study).write_text(schema.dumps(made, study))


def joined(before: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """The runs of a record (it may be empty) and of a report, which come before the record's of the same arm and seed:
    with scores and curve over log-SNR; effective weights; what was chosen; protocols and environments by their number.
    """
    found = [metric.protocol for arm in report.arms for metric in arm.record.metrics]
    protocols = _unique([*before.get("protocols", ()), *found])
    again = {(_title(arm), arm.record.seeds["config"]) for arm in report.arms}
    titles = {title for title, _ in again}
    earlier = [run for run in before.get("runs", ()) if (run["arm"], run["seed"]) not in again]
    environments = _unique([*before.get("environments", ()), *(_environment(arm) for arm in report.arms)])
    return {
        "environments": [json.loads(environment) for environment in environments],
        "protocols": [json.loads(protocol) for protocol in protocols],
        "runs": [*earlier, *(_run(arm, protocols, environments) for arm in report.arms)],
        "weights": before.get("weights", {}) | weights(report),
        "selections": [one for one in before.get("selections", ()) if one["arm"] not in titles]
        + [_selected(one) for one in report.selections],
    }


def _selected(one: Selection) -> dict[str, Any]:
    return {
        "arm": one.arm,
        "rate": one.chosen.rate,
        "average": one.average,
        "is_interior": one.is_interior,
        "tried": [dataclasses.asdict(each) for each in one.tried],
    }


def _unique(values: Iterable[Mapping[str, Any]]) -> list[str]:
    """As JSON, in the order in which they came first."""
    return list(dict.fromkeys(identity.canonical_json(value) for value in values))


def _title(arm: Arm) -> str:
    return arm.group or arm.title


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
        "arm": _title(arm),
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
        first.setdefault(_title(arm), arm.record.config)
    return {title: _weight(identity.rebuild(base.get_config(), config)) for title, config in first.items()}


def _weight(config: Config) -> list[tuple[float, float]]:
    made = build.model(config, meshes.make_mesh(), num_channels=3, num_classes=None)
    ends = schedules.log_snr(made.objective.schedule, jnp.array(made.objective.times.ends(made.objective.schedule)))
    high, low = np.asarray(ends, np.float64)
    log_snrs = np.linspace(*grid.RANGE, NUM_WEIGHTS)
    log_snrs = log_snrs[(log_snrs >= low) & (log_snrs <= high)]
    weight = np.asarray(objectives.effective_weight(made.objective, jnp.asarray(log_snrs, jnp.float32)), np.float64)
    return list(zip(log_snrs.tolist(), (weight / np.trapezoid(weight, log_snrs)).tolist(), strict=True))
