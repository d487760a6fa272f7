"""The charts of a report: curves over steps and over noise levels; an arm is a line, its seeds a band around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from vdm.records import curves, plot
from vdm.records import page_parts as parts
from vdm.records.comparison import Arm, Report
from vdm.records.page_links import Links
from vdm.records.record import PER_LOG_SNR, Record

Points = Sequence[tuple[float, float]]
Tables = Mapping[str, Points]  # name -> (step or log_snr, value)


def render(report: Report, links: Links) -> str:
    """The section."""
    charts = [
        *_charts(report, "step", "{}", lambda record: record.curves),
        *_charts(report, "log-SNR", "{}: at the end, by noise level", lambda record: record.level_losses),
        *_excess(report),
        *_charts(report, "log-SNR", "{}: what each objective weighs", _effective_weights),
    ]
    legend = "".join(links.arm(title, slot) for slot, title in parts.legend(report.arms))
    grey = " The grey band is a healthy run." if report.healthy.bands else ""
    seeds = " A line is the mean over seeds, its band all of them." if _has_seeds(report.arms) else ""
    return (
        '<section><h2>Learning curves</h2><p class="hint">By optimiser step, then by noise level: log-SNR is high '
        f'where a clip is almost clean.{seeds}{grey}</p><div class="legend">{legend}</div>'
        f'<div class="charts">{"".join(charts)}</div></section>'
    )


def lines(arms: Sequence[Arm], points_of: Callable[[Arm], Points]) -> list[plot.Line]:
    """A line for each arm of the grid that has points: the mean over its seeds, at what all of them have."""
    by_slot: dict[int, list[Points]] = {}
    for slot, arm in zip(parts.slots(arms), arms, strict=True):
        if points := points_of(arm):
            by_slot.setdefault(slot, []).append(points)
    drawn = []
    for slot, of_slot in by_slot.items():
        rows = curves.together(of_slot).items()
        band = [(x, min(values), max(values)) for x, values in rows] if len(of_slot) > 1 else []
        if rows:
            drawn.append(plot.Line(slot, [(x, sum(values) / len(values)) for x, values in rows], band))
    return drawn


def _charts(report: Report, x_label: str, title: str, tables: Callable[[Record], Tables]) -> list[str]:
    charts = []
    for name in dict.fromkeys(name for arm in report.arms for name, points in tables(arm.record).items() if points):
        drawn = lines(report.arms, lambda arm, name=name: tables(arm.record).get(name, ()))
        if drawn:
            grey = report.healthy.bands.get(name, ()) if x_label == "step" else ()
            charts.append(parts.figure(title.format(name), plot.chart(name, x_label, drawn, grey)))
    return charts


def _excess(report: Report) -> list[str]:
    """Bits per dimension and unit of log-SNR beyond the best arm's in the same seed. An arm is blank at levels that it
    was not trained at, and left out where it was not trained at all.
    """
    of_slots: dict[int, dict[int, Points]] = {}
    for slot, arm in zip(parts.slots(report.arms), report.arms, strict=True):
        if arm.record.num_steps and (points := arm.record.level_losses.get(PER_LOG_SNR)):
            of_slots.setdefault(slot, {})[arm.record.seeds.get("config", 0)] = points
    if len(of_slots) < 2:
        return []
    apart = []
    for slot, rows in curves.excess(of_slots).items():
        band = [(x, low, high) for x, low, _, high in rows] if len(of_slots[slot]) > 1 else []
        if rows:
            apart.append(plot.Line(slot, [(x, mean) for x, _, mean, _ in rows], band))
    if not apart:
        return []
    title = f"{PER_LOG_SNR}: minus the best arm's"
    return [parts.figure(title, plot.chart(title, "log-SNR", apart))]


def _effective_weights(record: Record) -> Tables:
    weight = record.effective_weight
    return {"weight on the noise error × density": tuple(zip(weight.log_snr, weight.weight, strict=True))}


def _has_seeds(arms: Sequence[Arm]) -> bool:
    return len(set(parts.slots(arms))) < len(arms)
