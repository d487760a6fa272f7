"""The scores of a report: a table for the arms' own samplers, one for each sampler that all arms share, and curves of
scores over network evaluations. Rankings by the one and by the other are never mixed.
"""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vdm.records import identity, page_curves, plot, statistics
from vdm.records import page_parts as parts
from vdm.records.comparison import Arm, Report
from vdm.records.page_links import Links
from vdm.records.record import OWN, Metric

Found = Sequence[Metric | None]  # one quantity, arm by arm


def render(report: Report, links: Links) -> str:
    """The section; empty where nothing was measured."""
    metrics = [metric for arm in report.arms for metric in arm.record.metrics]
    if not metrics:
        return ""
    own, *shared = [_table(report.arms, sampling, links) for sampling in samplings(metrics)]
    by_evaluations = charts(report.arms, "network evaluations", lambda arm, number: number)
    drawn_alike = (
        '<h3>By samplers that the arms share</h3><p class="hint">One sampler on one grid of noise levels, from the '
        "same noise: what is left is the networks. An arm's rank here says nothing of its rank by its own sampler.</p>"
        f"{''.join(shared)}{by_evaluations}"
    )
    return (
        '<section><h2>Scores of the samples</h2><p class="hint">Every arm by its own sampler, with 95 % intervals: of '
        "a run over samples, of a mean over seeds of training (Student). ↑ higher is better, ↓ lower is better; a "
        f"click on a title sorts.</p>{own}"
        f"{drawn_alike if shared else ''}{_list(links)}</section>"
    )


def samplings(metrics: Sequence[Metric]) -> tuple[str, ...]:
    """What drew the clips: the own sampler first."""
    return tuple(dict.fromkeys([OWN, *(metric.sampling for metric in metrics)]))


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


def _table(arms: Sequence[Arm], sampling: str, links: Links) -> str:
    """Of every run; where an arm has several, of their means, and the runs folded away."""
    found, slots = by_quantity(arms, sampling), parts.slots(arms)
    if not found:
        return ""
    head = "".join(_title(name, metrics, links) for name, metrics in found.items())
    rows = "".join(
        f'<tr><th scope="row">{links.run(arm, slot)}</th>'
        f"{''.join(_cell(metrics[index]) for metrics in found.values())}</tr>"
        for index, (slot, arm) in enumerate(zip(slots, arms, strict=True))
    )
    forests = "".join(f"<td>{_forest(slots, metrics)}</td>" for metrics in found.values())
    first = first_of(next(iter(found.values())))
    caption = "" if sampling == OWN else f"<caption>{html.escape(_words(first))}</caption>"
    foot, by_number = f"<tfoot><tr><td></td>{forests}</tr></tfoot>", _by_number(arms, found)
    if len(parts.legend(arms)) == len(arms):
        every = parts.sortable(f"{caption}<thead><tr><th>arm</th>{head}</tr></thead><tbody>{rows}</tbody>{foot}")
        return every + by_number
    means = "".join(_mean_row(slot, title, slots, found, links) for slot, title in parts.legend(arms))
    every = parts.sortable(f"<thead><tr><th>run</th>{head}</tr></thead><tbody>{rows}</tbody>{foot}")
    of_means = f"{caption}<thead><tr><th>arm, mean over seeds</th>{head}</tr></thead><tbody>{means}</tbody>"
    return parts.sortable(of_means) + parts.folded("Every run", every) + by_number


def _mean_row(slot: int, title: str, slots: Sequence[int], found: Mapping[str, Found], links: Links) -> str:
    cells = []
    for metrics in found.values():
        measured = [metric for of, metric in zip(slots, metrics, strict=True) if of == slot and metric is not None]
        if len(measured) < 2:
            cells.append(_cell(measured[0] if measured else None))
            continue
        over, unit = statistics.mean_of_few(np.array([metric.value for metric in measured])), measured[0].unit
        limits = over.limits(functools.partial(parts.number, unit=unit))
        text = f"{parts.value(over.estimate, unit)}<small>{limits}</small>{_worth(measured)}"
        cells.append(parts.number_cell(over.estimate, text))
    return f'<tr><th scope="row">{links.arm(title, slot)}</th>{"".join(cells)}</tr>'


def _worth(measured: Sequence[Metric]) -> str:
    """What else a score, or a mean of several, is to be read by, where all of them have it."""
    told = ""
    of_data, at_infinity = ([getattr(metric, name) for metric in measured] for name in ("floor", "at_infinity"))
    for words, values in (("the data", of_data), ("of infinitely many", at_infinity)):
        if None not in values:
            told += f"<small>{words}: {parts.number(float(np.mean(values)), measured[0].unit)}</small>"
    return told


def _by_number(arms: Sequence[Arm], found: Mapping[str, Found]) -> str:
    """Scores over one through the number of clips that they depend on: at zero lies what a straight line leads to."""
    charts = []
    for name, metrics in found.items():
        curves = {arm.name: _bias(metric) for arm, metric in zip(arms, metrics, strict=True) if metric is not None}
        drawn = page_curves.lines(arms, lambda arm, curves=curves: curves.get(arm.name, ()))
        if drawn:
            charts.append(parts.figure(f"{name}, by the number of clips", plot.chart(name, "1 / clips", drawn)))
    return parts.folded("By the number of clips", f'<div class="charts">{"".join(charts)}</div>' if charts else "")


def _bias(metric: Metric) -> page_curves.Points:
    curve = [(1 / number, value) for number, value in metric.by_number or ()]
    return curve if not curve or metric.at_infinity is None else [(0.0, metric.at_infinity), *curve]


def _words(metric: Metric) -> str:
    sampler, evaluations = metric.protocol.get("sampler", {}), metric.protocol.get("network_evaluations")
    return f"{metric.sampling}: {sampler.get('name')}, {evaluations} network evaluations a clip"


def _title(name: str, metrics: Found, links: Links) -> str:
    first = first_of(metrics)
    title = f"{html.escape(name)}{parts.ARROWS[first.higher_is_better]}"
    return parts.sort_title(title, links.protocol(first.name))


def _cell(metric: Metric | None) -> str:
    if metric is None:
        return parts.number_cell(None, "–")
    text = parts.value(metric.value, metric.unit)
    if metric.low is not None and metric.high is not None:
        text += f"<small>{parts.number(metric.low, metric.unit)} to {parts.number(metric.high, metric.unit)}</small>"
    return parts.number_cell(metric.value, f"{text}{_worth([metric])}")


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


def charts(arms: Sequence[Arm], x_label: str, of: Callable[[Arm, float], float | None]) -> str:
    """A chart for each quantity and sampler that was run with several numbers of steps.

    Args:
      of: an arm and a number of network evaluations a clip -> the place on the axis; None: it has none.
    """
    made = []
    for (quantity, sampler, _), of_arms in _by_evaluations(arms).items():

        def points(arm: Arm, of_arms: Mapping[str, page_curves.Points] = of_arms) -> page_curves.Points:
            return [(x, value) for number, value in of_arms.get(arm.name, ()) if (x := of(arm, number)) is not None]

        drawn, title = page_curves.lines(arms, points), f"{quantity}, by {x_label} of {sampler}"
        if any(len(line.points) > 1 for line in drawn):
            made.append(parts.figure(title, plot.chart(title, f"{x_label} a clip", drawn, log_x=True)))
    return f'<div class="charts">{"".join(made)}</div>' if made else ""


def _by_evaluations(arms: Sequence[Arm]) -> dict[tuple[str, str, str], dict[str, page_curves.Points]]:
    """(quantity, name of a sampler that arms share, all of it but its steps) -> arm's name -> (evaluations, value)."""
    curves: dict[tuple[str, str, str], dict[str, list[tuple[float, float]]]] = {}
    for arm in arms:
        for metric in arm.record.metrics:
            if metric.sampling == OWN or not metric.protocol.get("network_evaluations"):
                continue
            sampler = metric.protocol["sampler"]
            family = identity.canonical_json({key: entry for key, entry in sampler.items() if key != "num_steps"})
            of_arms = curves.setdefault((metric.quantity, sampler["name"], family), {})
            of_arms.setdefault(arm.name, []).append((metric.protocol["network_evaluations"], metric.value))
    return {key: {name: sorted(points) for name, points in of_arms.items()} for key, of_arms in curves.items()}


def _list(links: Links) -> str:
    items = "".join(
        f'<li id="protocol-{number}"><code>{html.escape(text)}</code></li>'
        for number, text in dict(links.protocols.values()).items()
    )
    return parts.folded("The protocols", f"<ol>{items}</ol>")
