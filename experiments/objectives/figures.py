"""The figure of the README, as SVG, made from the record alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from experiments.objectives import grid, tables

FILE = Path(__file__).parent / "figures" / "presets.svg"
COLOURS = plt.get_cmap("tab10").colors  # pyright: ignore[reportAttributeAccessIssue]
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "experiments.objectives",  # the same record gives the same file
    "font.size": 8,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "legend.fontsize": 7,
    "legend.frameon": False,
}


def draw(record: Mapping[str, Any]) -> None:
    """Writes the figure: what each objective weighs, and above what the best of them loses, at each log-SNR."""
    with plt.rc_context(STYLE):
        figure, (above, below) = plt.subplots(2, 1, figsize=(7.0, 5.2), sharex=True, layout="constrained")
        for index, (arm, points) in enumerate(record["weights"].items()):
            above.semilogy(*zip(*points, strict=True), color=COLOURS[index], label=arm)
        for index, (arm, (log_snr, low, mean, high)) in enumerate(excess(record).items()):
            below.fill_between(log_snr, low, high, color=COLOURS[index], alpha=0.2, linewidth=0)
            below.plot(log_snr, mean, color=COLOURS[index], label=arm)
        above.set(ylabel="effective weight, integral 1", xlim=grid.RANGE, ylim=(1e-4, 3.0))
        below.set(xlabel="log-SNR", ylabel="bits/dim per log-SNR above the best")
        below.set_yscale("symlog", linthresh=1e-4)
        above.legend(ncols=4)
        FILE.parent.mkdir(exist_ok=True)
        figure.savefig(FILE, metadata={"Date": None})
        plt.close(figure)


def excess(record: Mapping[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Arm -> (log_snr, lowest, mean, highest over seeds) of its bits/dim per log-SNR, minus those of the best arm."""
    curves = {}
    for arm in tables.arms(record):
        of_seeds = np.array([run["bits_per_log_snr"] for run in tables.runs(record, arm)])  # [seeds, levels, 2]
        curves[arm] = of_seeds[0, :, 0], of_seeds[:, :, 1]
    best: dict[float, float] = {}
    for log_snr, values in curves.values():
        for level, mean in zip(log_snr.tolist(), values.mean(axis=0), strict=True):
            best[level] = min(mean, best.get(level, np.inf))
    found = {}
    for arm, (log_snr, values) in curves.items():
        apart = values - np.array([best[level] for level in log_snr.tolist()])
        found[arm] = log_snr, apart.min(axis=0), apart.mean(axis=0), apart.max(axis=0)
    return found
