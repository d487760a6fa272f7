"""What the arms of a report cost: training in FLOPs and device-hours beside the primary outcomes, and scores and
held-out losses against what was spent.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence

from vdm.records import page_curves, page_scores, plot
from vdm.records import page_parts as parts
from vdm.records.comparison import Arm, Report
from vdm.records.page_links import Links
from vdm.records.record import OWN, Metric, Record

TRAINING = ("compile", "train", "validate", "sample")  # of a record's timings, what a run spends before it is evaluated
TITLES = ("steps", "FLOPs of the model in training", "device-hours of training", "of evaluation", "FLOPs of a sample")
FORWARD_SHARE = 1 / 3  # of a step's FLOPs: the backward pass takes twice those of the forward one


@dataclasses.dataclass(frozen=True)
class Cost:
    """Means over the runs of an arm of the grid.

    Attributes:
      flops: of the model in training, with nothing computed twice.
      training, evaluation: device-hours.
      sample: FLOPs of a clip by the arm's own sampler; None where its number of evaluations is not known.
      outcomes: metric -> its mean, of those that all its runs have.
    """

    slot: int
    title: str
    num_steps: int
    flops: float
    training: float
    evaluation: float
    sample: float | None
    outcomes: Mapping[str, float]

    @property
    def amounts(self) -> tuple[float | None, ...]:
        """In the order of `TITLES`."""
        return (self.num_steps, self.flops, self.training, self.evaluation, self.sample)


def costs(report: Report) -> list[Cost]:
    """Of the arms that are trained and whose FLOPs are known."""
    found, arms = [], report.arms
    for slot, title in parts.legend(arms):
        runs = [arm for arm, of in zip(arms, parts.slots(arms), strict=True) if of == slot and arm.flops]
        if runs:
            hours = [(device_hours(arm.record, TRAINING), device_hours(arm.record, ("evaluate",))) for arm in runs]
            spent = [(arm.flops or 0.0, *of_run) for arm, of_run in zip(runs, hours, strict=True)]
            flops, training, evaluation = (sum(values) / len(runs) for values in zip(*spent, strict=True))
            scores = [{metric.name: metric.value for metric in arm.record.metrics} for arm in runs]
            reached = {
                name: sum(of_run[name] for of_run in scores) / len(runs)
                for name in outcomes(report)
                if all(name in of_run for of_run in scores)
            }
            steps, sample = runs[0].record.num_steps, _own_sample(runs[0])
            found.append(Cost(slot, title, steps, flops, training, evaluation, sample, reached))
    return found


def outcomes(report: Report) -> dict[str, Metric]:
    """The metrics that arms are compared by, over seeds or, where there is one, over samples; one of each."""
    measured = {metric.name: metric for arm in report.arms for metric in arm.record.metrics}
    compared = dict.fromkeys(entry.metric for entry in report.over_seeds or report.comparisons)
    return {name: measured[name] for name in compared if name in measured}


def device_hours(record: Record, names: Sequence[str]) -> float:
    """Of all devices of the run together."""
    devices = sum(record.starts[-1].environment.devices.values())
    return devices * sum(record.timings.get(name, 0.0) for name in names) / 3600


def sample_flops(arm: Arm, evaluations: float) -> float | None:
    """About those of a clip that takes so many evaluations of the network; None where a step's were not counted."""
    if not arm.flops:
        return None
    clips = arm.record.num_steps * arm.record.config["data"]["batch_size"]
    return evaluations * FORWARD_SHARE * arm.flops / clips


def _own_sample(arm: Arm) -> float | None:
    counts = [one.protocol.get("network_evaluations") for one in arm.record.metrics if one.sampling == OWN]
    known = [count for count in counts if count]
    return sample_flops(arm, known[0]) if known else None


def render(report: Report, links: Links) -> str:
    """The section; empty where nothing was counted."""
    found = costs(report)
    if not found:
        return ""
    reached = outcomes(report)
    titles = [parts.sort_title(title) for title in TITLES]
    titles += [
        parts.sort_title(f"{html.escape(name)}{parts.ARROWS[one.higher_is_better]}", links.protocol(name))
        for name, one in reached.items()
    ]
    rows = []
    for one in found:
        cells = [parts.number_cell(amount, "–" if amount is None else plot.number(amount)) for amount in one.amounts]
        for name, metric in reached.items():
            value = one.outcomes.get(name)
            cells.append(parts.number_cell(value, "–" if value is None else parts.value(value, metric.unit)))
        rows.append(f'<tr><th scope="row">{links.arm(one.title, one.slot)}</th>{"".join(cells)}</tr>')
    head = f"<thead><tr><th>arm, mean over runs</th>{''.join(titles)}</tr></thead>"
    table = parts.sortable(f"{head}<tbody>{''.join(rows)}</tbody>")
    return (
        '<section><h2>What it cost</h2><p class="hint">Of the runs that are compared, without those in which learning '
        "rates were tried. A device is an accelerator, or the cores that a run on a CPU was given. FLOPs of a sample "
        "are the network's evaluations, each a third of what a clip takes in a step of training.</p>"
        f"{table}{page_scores.charts(report.arms, 'FLOPs', sample_flops)}{_losses(report.arms, found)}</section>"
    )


def _losses(arms: Sequence[Arm], found: Sequence[Cost]) -> str:
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
