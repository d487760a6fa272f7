"""The table of the README, from the record."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import binom

from experiments.speed.works import KINDS, SIDES, SIZES
from vdm.records.readme import table

TITLES = {"ours": "ours", "eager": "PyTorch", "compiled": "torch.compile"}
HEADER = ["work", "dim (multipliers), clips", "parameters"]


def pairs(records: Mapping[str, Mapping[str, Any]]) -> str:
    if not records:
        return "Not computed yet."
    peers = [side for side in SIDES if side != "ours"]
    header = [*HEADER, "ours, ms", *(f"{TITLES[side]}: times ours" for side in peers)]
    for what in ("peak memory, GB", "first call, s"):
        header += [f"{what}: {TITLES[side]}" for side in SIDES]
    return table(header, [_row(record, peers) for record in records.values()])


def _row(record: Mapping[str, Any], peers: Sequence[str]) -> list[str]:
    sides = record["sides"]
    ours = sides["ours"]
    counts = {side["parameters"] for side in sides.values()}
    assert len(counts) == 1, f"not the same network: {counts} parameters"
    return [
        KINDS[record["kind"]],
        SIZES[record["size"]].title,
        f"{counts.pop():,}",
        f"{1e3 * statistics.median(ours['seconds']):.0f}",
        *(ratio(ours["seconds"], sides[peer]["seconds"]) for peer in peers),
        *(f"{sides[side]['peak_bytes'] / 1e9:.1f}" for side in SIDES),
        *(f"{sides[side]['first_call']:.0f}" for side in SIDES),
    ]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median of theirs / ours over rounds, and the binomial interval of the median of such ratios (95 %)."""
    found = sorted(their / our for our, their in zip(ours, theirs, strict=True))
    outside = max(0, int(binom.ppf(0.025, len(found), 0.5)) - 1)  # on either side
    return f"{statistics.median(found):.2f} ({found[outside]:.2f} to {found[-1 - outside]:.2f})"
