"""The figure of the README, as SVG, made from the record alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments import drawing
from experiments.objectives import grid, tables

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
    for arm, (log_snr, low, mean, high) in excess(record).items():
        below.fill_between(log_snr, low, high, color=colours[arm], alpha=0.2, linewidth=0)
        below.plot(log_snr, mean, color=colours[arm], label=arm)
    above.set(ylabel="effective weight, integral 1", xlim=grid.RANGE, ylim=(1e-4, 3.0))
    below.set(xlabel="log-SNR", ylabel="bits/dim per log-SNR\nabove the best")
    below.set_yscale("symlog", linthresh=1e-4)
    below.set_ylim(bottom=0.0)
    handles, titles = above.get_legend_handles_labels()
    figure.legend(handles, titles, loc="outside upper center", ncols=4)
    return figure


def excess(record: Mapping[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Arm -> (log_snr, lowest, mean, highest over seeds) of its bits/dim per log-SNR, minus those of the best arm there
    (the one with the lowest mean) in the same seed.
    """
    curves = {}
    for arm in tables.arms(record):
        of_seeds = np.array([run["bits_per_log_snr"] for run in tables.runs(record, arm)])  # [seeds, levels, 2]
        curves[arm] = of_seeds[0, :, 0], of_seeds[:, :, 1]
    best: dict[float, np.ndarray] = {}
    for log_snr, values in curves.values():
        for level, of_level in zip(log_snr.tolist(), values.T, strict=True):
            if level not in best or of_level.mean() < best[level].mean():
                best[level] = of_level
    found = {}
    for arm, (log_snr, values) in curves.items():
        apart = values - np.stack([best[level] for level in log_snr.tolist()], axis=1)
        found[arm] = log_snr, apart.min(axis=0), apart.mean(axis=0), apart.max(axis=0)
    return found
