"""The scores of a report: a table for the arms' own samplers, one for each sampler that all arms share, and curves of
scores over network evaluations. Rankings by the one and by the other are never mixed.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np

from vdm.records import identity, page_curves, plot, statistics
from vdm.records import page_parts as parts
from vdm.records.comparison import Arm, Report
from vdm.records.record import OWN, Metric

Found = Sequence[Metric | None]  # one quantity, arm by arm


def render(report: Report) -> str:
    """The section; empty where nothing was measured."""
    metrics = [metric for arm in report.arms for metric in arm.record.metrics]
    if not metrics:
        return ""
    numbers = numbered_protocols(metrics)
    own, *shared = [_table(report.arms, sampling, numbers) for sampling in samplings(metrics)]
    drawn_alike = (
        '<h3>By samplers that the arms share</h3><p class="hint">One sampler on one grid of noise levels, from the '
        "same noise: what is left is the networks. An arm's rank here says nothing of its rank by its own sampler.</p>"
        f"{''.join(shared)}{_charts(report.arms)}"
    )
    return (
        '<section><h2>Scores of the samples</h2><p class="hint">Every arm by its own sampler, with 95 % intervals: of '
        "a run over samples, of a mean over seeds of training (Student). ↑ higher is better, ↓ lower is better; a "
        f"click on a title sorts.</p>{own}"
        f"{drawn_alike if shared else ''}{_list(numbers)}</section>"
    )


def samplings(metrics: Sequence[Metric]) -> tuple[str, ...]:
    """What drew the clips: the own sampler first."""
    return tuple(dict.fromkeys([OWN, *(metric.sampling for metric in metrics)]))


def numbered_protocols(metrics: Sequence[Metric]) -> dict[str, int]:
    """Each distinct protocol, as text, and its number."""
    distinct = dict.fromkeys(identity.canonical_json(metric.protocol) for metric in metrics)
    return {protocol: number for number, protocol in enumerate(distinct, start=1)}


def first_of(metrics: Found) -> Metric:
    """That of the first arm which has one: unit, direction and protocol are those of all."""
    return next(metric for metric in metrics if metric is not None)


def by_quantity(arms: Sequence[Arm], sampling: str) -> dict[str, Found]:
    """Quantity -> its metric for each arm, None where an arm lacks it."""
    of_arms = [
        {metric.quantity: metric for metric in arm.record.metrics if metric.sampling == sampling} for arm in arms
    ]
    names = dict.fromkeys(name for of_arm in of_arms for name in of_arm)
    return {name: [of_arm.get(name) for of_arm in of_arms] for name in names}


def _table(arms: Sequence[Arm], sampling: str, numbers: Mapping[str, int]) -> str:
    """Of every run; where an arm has several, of their means, and the runs folded away."""
    found, slots = by_quantity(arms, sampling), parts.slots(arms)
    if not found:
        return ""
    head = "".join(_title(name, metrics, numbers) for name, metrics in found.items())
    rows = "".join(
        f'<tr><th scope="row"><a href="#{anchor(arm)}">{parts.key(slot, arm.title)}</a></th>'
        f"{''.join(_cell(metrics[index]) for metrics in found.values())}</tr>"
        for index, (slot, arm) in enumerate(zip(slots, arms, strict=True))
    )
    forests = "".join(f"<td>{_forest(slots, metrics)}</td>" for metrics in found.values())
    first = first_of(next(iter(found.values())))
    caption = "" if sampling == OWN else f"<caption>{html.escape(_words(first))}</caption>"
    foot = f"<tfoot><tr><td></td>{forests}</tr></tfoot>"
    if len(parts.legend(arms)) == len(arms):
        return parts.sortable(f"{caption}<thead><tr><th>arm</th>{head}</tr></thead><tbody>{rows}</tbody>{foot}")
    means = "".join(_mean_row(slot, title, slots, found) for slot, title in parts.legend(arms))
    every = parts.sortable(f"<thead><tr><th>run</th>{head}</tr></thead><tbody>{rows}</tbody>{foot}")
    of_means = f"{caption}<thead><tr><th>arm, mean over seeds</th>{head}</tr></thead><tbody>{means}</tbody>"
    return parts.sortable(of_means) + parts.folded("Every run", every)


def _mean_row(slot: int, title: str, slots: Sequence[int], found: Mapping[str, Found]) -> str:
    cells = []
    for metrics in found.values():
        measured = [metric for of, metric in zip(slots, metrics, strict=True) if of == slot and metric is not None]
        if len(measured) < 2:
            cells.append(_cell(measured[0] if measured else None))
            continue
        over, unit = statistics.mean_of_few(np.array([metric.value for metric in measured])), measured[0].unit
        limits = f"<small>{parts.number(over.low, unit)} to {parts.number(over.high, unit)}</small>"
        cells.append(parts.number_cell(over.estimate, f"{parts.value(over.estimate, unit)}{limits}"))
    return f'<tr><th scope="row">{parts.key(slot, title)}</th>{"".join(cells)}</tr>'


def anchor(arm: Arm) -> str:
    """Where the page tells what an arm's numbers come from."""
    return html.escape(f"run-{arm.name}")


def _words(metric: Metric) -> str:
    sampler, evaluations = metric.protocol.get("sampler", {}), metric.protocol.get("network_evaluations")
    return f"{metric.sampling}: {sampler.get('name')}, {evaluations} network evaluations a clip"


def _title(name: str, metrics: Found, numbers: Mapping[str, int]) -> str:
    first = first_of(metrics)
    number = numbers[identity.canonical_json(first.protocol)]
    link = f'<small><a href="#protocol-{number}">protocol {number}</a></small>'
    return parts.sort_title(f"{html.escape(name)}{parts.ARROWS[first.higher_is_better]}", link)


def _cell(metric: Metric | None) -> str:
    if metric is None:
        return parts.number_cell(None, "–")
    text = parts.value(metric.value, metric.unit)
    if metric.low is not None and metric.high is not None:
        text += f"<small>{parts.number(metric.low, metric.unit)} to {parts.number(metric.high, metric.unit)}</small>"
    if metric.floor is not None:
        text += f"<small>the data: {parts.number(metric.floor, metric.unit)}</small>"
    return parts.number_cell(metric.value, text)


def _forest(slots: Sequence[int], metrics: Found) -> str:
    bars = [
        (slot, _or(metric.low, metric), metric.value, _or(metric.high, metric))
        for slot, metric in zip(slots, metrics, strict=True)
        if metric is not None
    ]
    limits = (0.0, 1.0) if first_of(metrics).unit == "%" else (min(bar[1] for bar in bars), max(bar[3] for bar in bars))
    return plot.intervals(bars, limits)


def _or(limit: float | None, metric: Metric) -> float:
    return metric.value if limit is None else limit


def _charts(arms: Sequence[Arm]) -> str:
    """Each quantity over the number of network evaluations, a chart for each sampler that was run with several."""
    curves: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for arm in arms:
        for metric in arm.record.metrics:
            if metric.sampling == OWN or not metric.protocol.get("network_evaluations"):
                continue
            sampler = metric.protocol["sampler"]
            family = identity.canonical_json({key: entry for key, entry in sampler.items() if key != "num_steps"})
            title = f"{metric.quantity}, by network evaluations of {sampler['name']}"
            points = curves.setdefault((title, family), {}).setdefault(arm.name, [])
            points.append((metric.protocol["network_evaluations"], metric.value))
    charts = []
    for (title, _), of_arms in curves.items():
        drawn = page_curves.lines(arms, lambda arm, of_arms=of_arms: sorted(of_arms.get(arm.name, ())))
        if any(len(line.points) > 1 for line in drawn):
            charts.append(parts.figure(title, plot.chart(title, "network evaluations a clip", drawn, log_x=True)))
    return f'<div class="charts">{"".join(charts)}</div>' if charts else ""


def _list(numbers: Mapping[str, int]) -> str:
    items = "".join(
        f'<li id="protocol-{number}"><code>{html.escape(text)}</code></li>' for text, number in numbers.items()
    )
    return parts.folded("The protocols", f"<ol>{items}</ol>")
