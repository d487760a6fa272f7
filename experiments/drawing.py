"""How the studies' figures look, and how they are written: the same record gives the same file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

STYLE = {
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "legend.fontsize": 7,
    "legend.frameon": False,
}


def write(path: Path, make: Callable[[], Figure], salt: str) -> None:
    """Makes a figure in the common style and writes it as SVG; `salt` names its parts, so that they stay the same."""
    with plt.rc_context(STYLE | {"svg.hashsalt": salt}):
        figure = make()
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
