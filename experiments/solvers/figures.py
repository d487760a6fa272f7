"""The figures of the README, as SVG, made from the records alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import drawing
from experiments.solvers import records

Record = dict[str, Any]
COLOURS = plt.get_cmap("tab20").colors  # pyright: ignore[reportAttributeAccessIssue]
SPACED = {"log_snr": "even in log-SNR", "time": "even in t"}


def draw(part: str, record: Record) -> None:
    """Writes figures/<part>.svg."""
    path = records.HERE / "figures" / f"{part}.svg"
    drawing.write(path, lambda: FIGURES[part](record), "experiments.solvers")


def ode(record: Record) -> Figure:
    shown = (("cosine", "log_snr"), ("vp_linear", "time"), ("flow", "time"), ("edm", "time"))
    figure, axes = _panels(2, len(shown), share="row")
    samplers = list(dict.fromkeys(row["sampler"] for row in record["rows"]))
    measures = {"gaussian": ("rms", "RMS error"), "mixture": ("median", "error of the median clip")}
    for panels, (world, (measure, label)) in zip(axes, measures.items(), strict=True):
        for panel, (schedule, spacing) in zip(panels, shown, strict=True):
            for row in record["rows"]:
                here = row["world"] == world and row["schedule"] == schedule
                if here and row["spacing"] in (spacing, "adaptive") and row["sampler"] != "dpm_solver 1":
                    colour = COLOURS[2 * samplers.index(row["sampler"])]
                    panel.loglog(row["nfe"], row[measure], "o-", color=colour, label=row["sampler"])
            panel.set(title=f"{world}: {schedule}, {SPACED[spacing]}", xlabel="NFE", ylim=(1e-7, 10))
        panels[0].set_ylabel(label)
    return _finish(figure, axes[0][0])


def sde(record: Record) -> Figure:
    shown = (("cosine", "log_snr"), ("cosine", "time"), ("flow", "time"), ("edm", "log_snr"))
    figure, axes = _panels(1, len(shown), share="row")
    samplers = list(dict.fromkeys(row["sampler"] for row in record["rows"]))
    for panel, (schedule, spacing) in zip(axes[0], shown, strict=True):
        for row in record["rows"]:
            if (row["schedule"], row["spacing"]) == (schedule, spacing):
                line = "--" if row["sampler"] in ("ddim eta 0", "dpm_solver 2") else "-"
                colour = COLOURS[samplers.index(row["sampler"])]
                panel.loglog(row["nfe"], row["error"], "o" + line, color=colour, label=row["sampler"])
        panel.set(title=f"{schedule}, {SPACED[spacing]}", xlabel="NFE", ylim=(1e-5, 10))
    axes[0][0].set_ylabel("relative error of the covariance")
    return _finish(figure, axes[0][0])


def likelihood(record: Record) -> Figure:
    figure, ((first, second),) = _panels(1, 2, width=4.2)
    for index, row in enumerate(row for row in record["rows"] if row["part"] == "tolerance"):
        line = "o-" if row["world"] == "gaussian" else "s--"
        first.loglog(
            row["nfe"], row["error"], line, color=COLOURS[2 * (index % 3)], label=f"{row['world']}, {row['schedule']}"
        )
    first.set(xlabel="evaluations of the velocity", ylabel="mean |error| of log p, nats per clip")
    shown = [row for row in record["rows"] if row["part"] == "probes" and row["schedule"] == "cosine"]
    for index, row in enumerate(shown):
        colour, name = COLOURS[2 * index], f"{row['world']}, {row['kind']}"
        second.loglog(row["probes"], row["error"], "o-", color=colour, label=f"{name}: error")
        second.loglog(row["probes"][1:], row["stated"][1:], "x:", color=colour, label=f"{name}: stated")
    second.set(xlabel="probes m", ylabel="RMS, nats per clip")
    first.legend()
    second.legend()
    return figure


def bound(record: Record) -> Figure:
    figure, ((first, second),) = _panels(1, 2, width=4.2)
    colours, lines = {"lower": 0, "middle": 2, "upper": 4}, {"cosine": "o-", "vp_linear": "s--"}
    for row in record["rows"]:
        line = lines[row["schedule"]]
        if row["part"] == "discrete":
            name = f"{row['schedule']}, {row['variance']} variance"
            first.loglog(row["steps"], row["gap"], line, color=COLOURS[colours[row["variance"]]], label=name)
        else:
            second.semilogy(row["log_snr_max"], row["gap"], line, label=row["schedule"])
    first.set(xlabel="steps T", ylabel="bound minus -log p, nats per clip", title="discrete")
    second.set(xlabel="log-SNR at which it decodes", title="continuous")
    first.legend()
    second.legend()
    return figure


def weights(record: Record) -> Figure:
    figure, axes = _panels(1, 3, width=3.6, share="all")
    groups = np.array_split(np.arange(len(record["rows"])), 3)
    for panel, group in zip(axes[0], groups, strict=True):
        for place, index in enumerate(group):
            row = record["rows"][index]
            weight = np.array([np.nan if value is None else value for value in row["weight"]])
            weight[weight == 0.0] = np.nan
            panel.semilogy(row["log_snr"], weight, color=COLOURS[2 * place], label=row["objective"])
        panel.set(xlabel="log-SNR", ylim=(1e-6, 2))
        panel.legend()
    axes[0][0].set_ylabel("effective weight, integral one")
    return figure


def training(record: Record) -> Figure:
    figure, axes = _panels(2, 4, width=3.4)
    names = list(dict.fromkeys(row["objective"] for row in record["rows"]))
    edges = record["settings"]["edges"]
    middles = [edges[0] - 1.0, *np.convolve(edges, (0.5, 0.5), "valid"), edges[-1] + 1.0]
    for panels, world in zip(axes, ("gaussian", "mixture"), strict=True):
        excess, score, *gradient = panels
        for row in record["rows"]:
            if row["world"] != world:
                continue
            index = names.index(row["objective"])
            options: dict[str, Any] = {"color": COLOURS[index % 20], "ls": "-" if index < 20 else ":"}
            excess.loglog(row["steps"], row["excess"]["v"], label=row["objective"], **options)
            score.semilogy(record["settings"]["log_snrs"], row["score"], **options)
            for panel, measured in zip(gradient, row["gradient"], strict=True):
                panel.semilogy(middles, measured["within"], **options)
        smallest = record["settings"]["smallest_noise_error"][world]
        score.semilogy(record["settings"]["log_snrs"], smallest, "k--", label="smallest possible error")
        excess.axhline(0.01, color="k", lw=0.6)
        excess.set(xlabel="steps", ylabel=f"{world}: excess (v)")
        score.set(xlabel="log-SNR", ylabel="error of sigma x score")
        score.legend()
        for panel, step in zip(gradient, record["settings"]["gradient_steps"], strict=True):
            panel.set(xlabel="log-SNR", ylabel=f"gradient variance, step {step}")
    return _finish(figure, axes[0][0])


FIGURES: dict[str, Callable[[Record], Figure]] = {
    "ode": ode,
    "sde": sde,
    "likelihood": likelihood,
    "bound": bound,
    "weights": weights,
    "training": training,
}


def _panels(rows: int, columns: int, width: float = 2.7, share: Any = False) -> tuple[Figure, Any]:
    size = (width * columns, 2.6 * rows + 0.2)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", sharey=share)


def _finish(figure: Figure, labelled: Axes) -> Figure:
    """One legend for all panels, below them."""
    handles, labels = labelled.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=7)
    return figure
