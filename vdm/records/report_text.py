"""A report as text: `report.md` for people, with the verdicts and every score, and `report.csv`, a line a number."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence

from vdm.records import identity, plot
from vdm.records.comparison import Arm, OverSeeds, Report
from vdm.records.page_parts import tried
from vdm.records.page_scores import by_quantity, protocols, samplings
from vdm.records.record import OWN, Metric

COLUMNS = ("arm", "run", "seed", "metric", "sampling", "network_evaluations", "value", "low", "high", "unit")
COLUMNS += ("floor", "at_infinity", "protocol")


def markdown(report: Report) -> str:
    """The question, what was found and the scores. Every word that comes from the report is escaped."""
    metrics = [metric for arm in report.arms for metric in arm.record.metrics]
    numbers = {protocol: number for number, protocol in enumerate(protocols(metrics), start=1)}
    sections = (
        f"# {_word(report.title)}\n\n{_word(report.question)}",
        _verdicts("Over seeds of training", report.over_seeds),
        _verdicts("Over seeds of training, of a healthy run", report.healthy.over_seeds),
        *(_table(report.arms, sampling, numbers) for sampling in samplings(metrics)),
        _lines(report),
        _rates(report),
        _spreads(report),
        "\n".join(f"- {_word(note)}" for note in report.notes),
        _protocols(numbers),
        f"Made by `{_word(report.command)}`; `report.json` has every number with its record.",
    )
    return "\n\n".join(filter(None, sections)) + "\n"


def table(report: Report) -> str:
    """CSV of all scores with their protocols: floats to the last digit, shares in [0, 1]."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for arm in report.arms:
        for metric in arm.record.metrics:
            writer.writerow(
                {
                    "arm": arm.name,
                    "run": arm.record.identity_hash,
                    "seed": arm.record.seeds.get("config"),
                    "metric": metric.quantity,
                    "sampling": metric.sampling,
                    "network_evaluations": metric.protocol.get("network_evaluations"),
                    **{name: getattr(metric, name) for name in ("value", "low", "high", "unit", "floor")},
                    "at_infinity": metric.at_infinity,
                    "protocol": identity.canonical_json(metric.protocol),
                }
            )
    return out.getvalue()


def _verdicts(title: str, entries: Sequence[OverSeeds]) -> str:
    if not entries:
        return ""
    rows = ["| metric | first | second | first minus second | 95 % | p (Holm) | r over seeds | |", "|---" * 8 + "|"]
    for entry in entries:
        low, mean, high = (
            _number(value, entry.unit)
            for value in (entry.difference.low, entry.difference.estimate, entry.difference.high)
        )
        chance = "" if entry.p_value is None else f"{entry.p_value:.2g}"
        names = " | ".join(map(_word, (entry.metric, entry.first, entry.second)))
        together = "" if entry.correlation is None else f"{entry.correlation:.2f}"
        rows.append(f"| {names} | {mean} | {low} to {high} | {chance} | {together} | {entry.verdict} |")
    return f"## {title}\n\n" + "\n".join(rows)


def _table(arms: Sequence[Arm], sampling: str, numbers: Mapping[str, int]) -> str:
    found = by_quantity(arms, sampling)
    if not found:
        return ""
    title = "by each arm's own sampler" if sampling == OWN else f"by {_word(sampling)}, which all arms share"
    firsts = [next(metric for metric in metrics if metric is not None) for metrics in found.values()]
    heads = [f"{_word(first.quantity)} [{numbers[identity.canonical_json(first.protocol)]}]" for first in firsts]
    rows = [f"| arm | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for slot, arm in enumerate(arms):
        rows.append(f"| {_word(arm.title)} | {' | '.join(_cell(metrics[slot]) for metrics in found.values())} |")
    return f"## Scores {title}\n\n" + "\n".join(rows)


def _cell(metric: Metric | None) -> str:
    if metric is None:
        return "–"
    text = _number(metric.value, metric.unit)
    if metric.low is not None and metric.high is not None:
        text += f" ({_number(metric.low, metric.unit)} to {_number(metric.high, metric.unit)})"
    return text if metric.floor is None else f"{text}; the data {_number(metric.floor, metric.unit)}"


def _lines(report: Report) -> str:
    if not report.pass_lines:
        return ""
    rows = ["| line to pass | of | measured | limit | |", "|---|---|---|---|---|"]
    for line in report.pass_lines:
        values = _number(line.value, line.unit), f"{line.relation} {_number(line.limit, line.unit)}"
        mark = "passed" if line.passed else "NOT passed"
        rows.append(f"| {_word(line.what)} | {_word(line.arm)} | {' | '.join(values)} | {mark} |")
    return "## Lines to pass\n\n" + "\n".join(rows)


def _rates(report: Report) -> str:
    if not report.selections:
        return ""
    rows = ["| arm | learning rate | interior | average | own loss on the selection split, by rate |", "|---" * 5 + "|"]
    for entry in report.selections:
        rates = ", ".join(map(tried, entry.tried))
        interior = "yes" if entry.is_interior else "NO"
        rows.append(f"| {_word(entry.arm)} | {entry.chosen.rate:.3g} | {interior} | {entry.average} | {rates} |")
    return "## Learning rates\n\n" + "\n".join(rows)


def _spreads(report: Report) -> str:
    if not report.spreads:
        return ""
    rows = ["| metric | arm | drawn anew | standard deviation | values |", "|---" * 5 + "|"]
    for entry in report.spreads:
        values = ", ".join(_number(value, entry.unit) for value in entry.values)
        words = " | ".join(map(_word, (entry.metric, entry.arm, entry.part)))
        rows.append(f"| {words} | {_number(entry.standard_deviation, entry.unit)} | {values} |")
    return "## What chance changes\n\n" + "\n".join(rows)


def _protocols(numbers: Mapping[str, int]) -> str:
    """Each on a line of its own: JSON without line breaks cannot leave its fence."""
    if not numbers:
        return ""
    items = (f"{number}.\n\n```json\n{protocol}\n```" for protocol, number in numbers.items())
    return "## Protocols\n\n" + "\n\n".join(items)


def _number(value: float, unit: str) -> str:
    return f"{100 * value:.1f} %" if unit == "%" else f"{plot.number(value)} {_word(unit)}".rstrip()


def _word(text: str) -> str:
    """In a cell of a table: on one line, and no mark-up."""
    return html.escape(" ".join(text.split())).replace("|", "&#124;").replace("`", "&#96;")
