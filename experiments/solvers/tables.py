"""The tables of the README, made from the records alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from experiments.solvers import records
from vdm.records.readme import replace_block, table

PAGE = records.HERE / "README.md"
SCHEDULES = ("cosine", "vp_linear", "flow", "edm")
Record = dict[str, Any]


def page(text: str, part: str, record: Record) -> str:
    """The README with the tables of a part between its markers."""
    made = TABLES[part](record)
    versions = record["environment"]["versions"]
    made += (
        f"\n\n{record['seconds']} s on {record['environment']['num_cpus']} CPU cores with jax {versions['jax']}, Python"
        f" {versions['python']}; from [the record](records/{part}.json).\n\n"
        f"![{ALT[part]}](figures/{part}.svg)"
    )
    return replace_block(text, part, made)


def ode(record: Record) -> str:
    rows, budgets = record["rows"], (16, 64, 256)
    parts = []
    for world, title in (("gaussian", "Gaussian video"), ("mixture", "Mixture video")):
        common = _where(rows, world=world, schedule="cosine", spacing="log_snr")
        lines = []
        for row in common:
            cells = [_number(_at(row, "nfe", "rms", budget)) for budget in budgets]
            cells += [_number(_at(row, "nfe", "median", budget)) for budget in budgets]
            cells.append(_number(_order(row["nfe"], row["median"]), 2))
            if world == "mixture":
                cells.append(", ".join(str(_at(row, "nfe", "misplaced", budget)) for budget in budgets))
            lines.append([row["sampler"], *cells])
        head = ["sampler", *(f"RMS, {n} NFE" for n in budgets), *(f"median clip, {n}" for n in budgets), "order"]
        head += ["misplaced clips"] if world == "mixture" else []
        parts.append(f"{title}, cosine schedule, steps even in log-SNR:\n\n{table(head, lines)}")
    for world, title in (("gaussian", "Gaussian video, RMS"), ("mixture", "Mixture video, median clip")):
        measure = "rms" if world == "gaussian" else "median"
        lines = []
        for sampler in dict.fromkeys(row["sampler"] for row in rows if row["spacing"] != "adaptive"):
            cells = [
                _number(
                    _at(_one(rows, world=world, schedule=name, spacing=spacing, sampler=sampler), "nfe", measure, 64)
                )
                for spacing in ("log_snr", "time")
                for name in SCHEDULES
            ]
            lines.append([sampler, *cells])
        head = ["sampler", *(f"{spacing}, {name}" for spacing in ("log-SNR", "t") for name in SCHEDULES)]
        parts.append(f"{title} at 64 NFE, steps even in log-SNR or in the schedule's own t:\n\n{table(head, lines)}")
    lines = [
        [row["world"], row["schedule"]]
        + [f"{_number(error)} ({nfe:.0f})" for nfe, error in zip(row["nfe"], row["rms"], strict=True)]
        for row in _where(rows, spacing="adaptive")
    ]
    tolerances = _where(rows, spacing="adaptive")[0]["rtol"]
    head = ["world", "schedule", *(f"rtol {tolerance:g}" for tolerance in tolerances)]
    parts.append(f"Adaptive solver, RMS (mean NFE):\n\n{table(head, lines)}")
    gaps = ", ".join(f"{_number(gap)} ({name})" for name, gap in record["settings"]["reference_gap"].items())
    return "\n\n".join([*parts, f"Two routes to the exact endpoint are apart by an RMS of {gaps}."])


def sde(record: Record) -> str:
    columns = [("cosine", "log_snr", n) for n in (16, 64, 256)] + [
        ("cosine", "time", 256),
        ("vp_linear", "time", 256),
        ("flow", "time", 256),
        ("edm", "log_snr", 256),
        ("edm", "time", 256),
    ]
    lines = []
    for sampler in dict.fromkeys(row["sampler"] for row in record["rows"]):
        found = {(row["schedule"], row["spacing"]): row for row in _where(record["rows"], sampler=sampler)}
        cells = [_number(_at(found[name, spacing], "nfe", "error", n)) for name, spacing, n in columns]
        row = found["cosine", "log_snr"]
        lines.append([sampler, *cells, _number(_order(row["nfe"], row["error"]), 2)])
    head = ["sampler", *(f"{name}, {'log-SNR' if spacing == 'log_snr' else 't'}, {n}" for name, spacing, n in columns)]
    return (
        "Relative error of the final covariance (Frobenius norm) by schedule, even steps in, NFE; order of the first"
        f" three columns' curve between its last two points:\n\n{table([*head, 'order'], lines)}"
    )


def likelihood(record: Record) -> str:
    tolerance = _where(record["rows"], part="tolerance")
    shown = (1e-2, 1e-4, 1e-6, 1e-8)
    lines = []
    for row in tolerance:
        cells = [f"{_number(_at(row, 'rtol', 'error', t))} ({_at(row, 'rtol', 'nfe', t):.0f})" for t in shown]
        gap = _number(row["prior_gap"]) if row["world"] == "gaussian" else "in the error"
        lines.append([row["world"], row["schedule"], *cells, gap])
    first = table(["world", "schedule", *(f"rtol {t:g}" for t in shown), "prior's mismatch"], lines)
    lines = []
    for row in _where(record["rows"], part="probes"):
        cells = [
            f"{_number(error)} ({_number(stated)})" for error, stated in zip(row["error"], row["stated"], strict=True)
        ]
        within = ", ".join("-" if share is None else f"{share:.0%}" for share in row["within_two"])
        lines.append([row["world"], row["schedule"], row["kind"], *cells, within])
    probes = _where(record["rows"], part="probes")[0]["probes"]
    head = ["world", "schedule", "probes", *(f"m = {m}" for m in probes), "within 2 stated"]
    return (
        f"Mean absolute error of log p, nats per clip (mean NFE), exact divergence:\n\n{first}\n\n"
        f"Hutchinson's estimate, RMS error (RMS of the stated standard error), nats per clip:\n\n{table(head, lines)}"
    )


def bound(record: Record) -> str:
    steps = (4, 16, 64, 256, 1024)
    lines = [
        [row["schedule"], row["variance"], *(_number(_at(row, "steps", "gap", n)) for n in steps)]
        for row in _where(record["rows"], part="discrete")
    ]
    first = table(["schedule", "variance", *(f"T = {n}" for n in steps)], lines)
    continuous = _where(record["rows"], part="continuous")
    lines = [[row["schedule"], *(_number(gap) for gap in row["gap"])] for row in continuous]
    head = ["schedule", *(f"log-SNR {log_snr:g}" for log_snr in continuous[0]["log_snr_max"])]
    return (
        f"Discrete bound minus -log p ({record['settings']['entropy']:.3f} nats in the mean), nats per clip:\n\n{first}"
        f"\n\nContinuous bound minus -log p by the log-SNR at which it decodes:\n\n{table(head, lines)}"
    )


def weights(record: Record) -> str:
    lines = [
        [row["objective"], *(f"{value:.1f}" for value in (*row["weight_quantiles"], *row["loss_quantiles"]))]
        for row in record["rows"]
    ]
    head = ["objective", "10 % of the weight", "50 %", "90 %", "10 % of the least loss", "50 %", "90 %"]
    return f"log-SNR below which so much lies, between -14 and 14:\n\n{table(head, lines)}"


def training(record: Record) -> str:
    parts = []
    for world, title in (("gaussian", "Gaussian video, gated linear map"), ("mixture", "Mixture video, perceptron")):
        lines = []
        for row in _where(record["rows"], world=world):
            cells = [_steps(row["steps_to"]["v"][target]) for target in ("0.1", "0.02", "0.01")]
            cells.append(_steps(row["steps_to"]["noise"]["0.01"]))
            cells += [_spread(row["final"][yardstick], 100.0) for yardstick in ("v", "noise")]
            ratios = (row["gradient"][when]["batch"][1] for when in (0, 1))
            cells += [_number(ratio) if ratio > 0 else "not resolved" for ratio in ratios]
            lines.append([row["objective"], *cells])
        lines.sort(key=lambda cells: float(cells[5].split()[0]))
        head = ["objective", "steps to 10 %, v", "2 %, v", "1 %, v", "1 %, noise", "final v, %", "final noise, %"]
        first, later = record["settings"]["gradient_steps"]
        head += [f"gradient's noise, step {first}", f"step {later}"]
        parts.append(f"{title}:\n\n{table(head, lines)}")
    return "\n\n".join(parts)


TABLES: dict[str, Callable[[Record], str]] = {
    "ode": ode,
    "sde": sde,
    "likelihood": likelihood,
    "bound": bound,
    "weights": weights,
    "training": training,
}
ALT = {
    "ode": "Error against number of function evaluations, for each deterministic sampler",
    "sde": "Error of the covariance against number of function evaluations, for each stochastic sampler",
    "likelihood": "Error of log p against evaluations of the velocity, and against probes",
    "bound": "Gap of the discrete bound against T, and of the continuous bound against the log-SNR at which it decodes",
    "weights": "Effective weight of every objective against log-SNR",
    "training": "Excess over the optimum against steps, error of the score and gradient variance against log-SNR",
}


def _where(rows: list[Record], **wanted: Any) -> list[Record]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _one(rows: list[Record], **wanted: Any) -> Record:
    (row,) = _where(rows, **wanted)
    return row


def _at(row: Record, axis: str, values: str, where: float) -> Any:
    return row[values][row[axis].index(where)]


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def _order(sizes: Sequence[float], errors: Sequence[float]) -> float:
    """Of convergence, from the last two points."""
    return -math.log(errors[-1] / errors[-2]) / math.log(sizes[-1] / sizes[-2])


def _steps(quartiles: Sequence[float | None]) -> str:
    low, median, high = ("never" if value is None else f"{value:.0f}" for value in quartiles)
    return median if low == high else f"{median} ({low} to {high})"


def _spread(quartiles: Sequence[float], factor: float) -> str:
    low, median, high = (f"{factor * value:.3g}" for value in quartiles)
    return f"{median} ({low} to {high})"
