"""The figure of the README, as SVG, made from the record alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from experiments import drawing
from experiments.objectives import grid, tables
from vdm.records import curves

FILE = Path(__file__).parent / "figures" / "presets.svg"
COLOURS = plt.get_cmap("tab10").colors  # pyright: ignore[reportAttributeAccessIssue]


def draw(record: Mapping[str, Any]) -> None:
    """Writes the figure."""
    drawing.write(FILE, lambda: panels(record), "experiments.objectives")


def panels(record: Mapping[str, Any]) -> Figure:
    """What each objective weighs, and below it what it loses to the best of them, at each log-SNR."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.0, 5.2), sharex=True, layout="constrained")
    colours = dict(zip(tables.arms(record), COLOURS, strict=False))
    for arm, points in record["weights"].items():
        above.semilogy(*zip(*points, strict=True), color=colours[arm], label=arm)
    for arm, rows in curves.excess({arm: of_seeds(record, arm) for arm in colours}).items():
        log_snr, low, mean, high = zip(*rows, strict=True)
        below.fill_between(log_snr, low, high, color=colours[arm], alpha=0.2, linewidth=0)
        below.plot(log_snr, mean, color=colours[arm], label=arm)
    above.set(ylabel="effective weight, integral 1", xlim=grid.RANGE, ylim=(1e-4, 3.0))
    below.set(xlabel="log-SNR", ylabel="bits/dim per log-SNR\nabove the best")
    below.set_yscale("symlog", linthresh=1e-4)
    below.set_ylim(bottom=0.0)
    handles, titles = above.get_legend_handles_labels()
    figure.legend(handles, titles, loc="outside upper center", ncols=4)
    return figure


def of_seeds(record: Mapping[str, Any], arm: str) -> dict[int, list[tuple[float, float]]]:
    """Seed -> (log_snr, bits/dim per log-SNR)."""
    return {
        run["seed"]: [(log_snr, bits) for log_snr, bits in run["bits_per_log_snr"]] for run in tables.runs(record, arm)
    }
