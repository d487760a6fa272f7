"""What the arms of a report cost: training in FLOPs and device-hours, and held-out losses against what was spent."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence

from vdm.records import page_curves, plot
from vdm.records import page_parts as parts
from vdm.records.comparison import Arm, Report
from vdm.records.record import Record

TRAINING = ("compile", "train", "validate", "sample")  # of a record's timings, what a run spends before it is evaluated


@dataclasses.dataclass(frozen=True)
class Cost:
    """Means over the runs of an arm of the grid.

    Attributes:
      flops: of the model in training, with nothing computed twice.
      training, evaluation: device-hours.
    """

    slot: int
    title: str
    num_steps: int
    flops: float
    training: float
    evaluation: float


def costs(arms: Sequence[Arm]) -> list[Cost]:
    """Of the arms that are trained and whose FLOPs are known."""
    found = []
    for slot, title in parts.legend(arms):
        runs = [arm for arm, of in zip(arms, parts.slots(arms), strict=True) if of == slot and arm.flops]
        if runs:
            hours = [(device_hours(arm.record, TRAINING), device_hours(arm.record, ("evaluate",))) for arm in runs]
            spent = [(arm.flops or 0.0, *of_run) for arm, of_run in zip(runs, hours, strict=True)]
            means = (sum(values) / len(runs) for values in zip(*spent, strict=True))
            found.append(Cost(slot, title, runs[0].record.num_steps, *means))
    return found


def device_hours(record: Record, names: Sequence[str]) -> float:
    """Of all devices of the run together."""
    devices = sum(record.starts[-1].environment.devices.values())
    return devices * sum(record.timings.get(name, 0.0) for name in names) / 3600


def render(report: Report) -> str:
    """The section; empty where nothing was counted."""
    found = costs(report.arms)
    if not found:
        return ""
    titles = ("steps", "FLOPs of the model in training", "device-hours of training", "of evaluation")
    head = "".join(map(parts.sort_title, titles))
    rows = "".join(
        f'<tr><th scope="row">{parts.key(one.slot, one.title)}</th>'
        + "".join(
            parts.number_cell(amount, html.escape(plot.number(amount)))
            for amount in (one.num_steps, one.flops, one.training, one.evaluation)
        )
        + "</tr>"
        for one in found
    )
    table = parts.sortable(f"<thead><tr><th>arm, mean over runs</th>{head}</tr></thead><tbody>{rows}</tbody>")
    return (
        '<section><h2>What it cost</h2><p class="hint">Of the runs that are compared, without those in which learning '
        "rates were tried. A device is an accelerator, or the cores that a run on a CPU was given.</p>"
        f"{table}{_charts(report.arms, found)}</section>"
    )


def _charts(arms: Sequence[Arm], found: Sequence[Cost]) -> str:
    """Held-out losses against FLOPs, where arms differ in those of a step: else the charts over steps are the same."""
    a_step = [one.flops / one.num_steps for one in found]
    if max(a_step) < 1.01 * min(a_step):
        return ""
    charts = []
    names = dict.fromkeys(name for arm in arms for name in arm.record.curves if name.startswith("validation/"))
    for name in names:
        drawn = page_curves.lines(arms, lambda arm, name=name: _by_flops(arm, name))
        if drawn:
            charts.append(parts.figure(f"{name}, by FLOPs", plot.chart(name, "FLOPs of the model", drawn)))
    return f'<div class="charts">{"".join(charts)}</div>'


def _by_flops(arm: Arm, name: str) -> list[tuple[float, float]]:
    if not arm.flops:
        return []
    of_step = arm.flops / arm.record.num_steps
    return [(step * of_step, value) for step, value in arm.record.curves.get(name, ())]
