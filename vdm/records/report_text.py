"""A report as text: `report.md` for people, with the verdicts and every score, and `report.csv`, a line a number."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence

from vdm.records import identity, plot
from vdm.records.comparison import Arm, OverSeeds, Report
from vdm.records.page_costs import TITLES, costs, outcomes
from vdm.records.page_links import protocols
from vdm.records.page_parts import tried
from vdm.records.page_scores import by_quantity, first_of, samplings
from vdm.records.record import OWN, Metric

COLUMNS = ("arm", "run", "seed", "metric", "sampling", "network_evaluations", "value", "low", "high", "unit")
COLUMNS += ("floor", "at_infinity", "protocol")


def markdown(report: Report) -> str:
    """The question, what was found and the scores. Every word that comes from the report is escaped."""
    metrics = [metric for arm in report.arms for metric in arm.record.metrics]
    numbers = protocols(report.arms)
    sections = (
        f"# {_word(report.title)}\n\n{_word(report.question)}",
        _verdicts("Over seeds of training", report.over_seeds),
        _verdicts("Over seeds of training, of a healthy run", report.healthy.over_seeds),
        *(_table(report.arms, sampling, numbers) for sampling in samplings(metrics)),
        _costs(report),
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


def _section(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table under its title; nothing without rows."""
    if not rows:
        return ""
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return f"## {title}\n\n" + "\n".join(lines)


def _verdicts(title: str, entries: Sequence[OverSeeds]) -> str:
    heads = ("metric", "first", "second", "first minus second", "95 %", "p (Holm)", "r over seeds", "")
    return _section(title, heads, [_verdict(entry) for entry in entries])


def _verdict(entry: OverSeeds) -> Sequence[str]:
    difference = entry.difference
    mean, limits = _number(difference.estimate, entry.unit), difference.limits(lambda value: _number(value, entry.unit))
    chance = "" if entry.p_value is None else f"{entry.p_value:.2g}"
    together = "" if entry.correlation is None else f"{entry.correlation:.2f}"
    names = map(_word, (entry.metric, entry.first, entry.second))
    return (*names, mean, limits, chance, together, entry.verdict)


def _table(arms: Sequence[Arm], sampling: str, numbers: Mapping[str, tuple[int, str]]) -> str:
    found = by_quantity(arms, sampling)
    title = "by each arm's own sampler" if sampling == OWN else f"by {_word(sampling)}, which all arms share"
    firsts = map(first_of, found.values())
    heads = [f"{_word(first.quantity)} [{numbers[first.name][0]}]" for first in firsts]
    rows = [
        (_word(arm.title), *(_cell(metrics[index]) for metrics in found.values())) for index, arm in enumerate(arms)
    ]
    return _section(f"Scores {title}", ("arm", *heads), rows if found else ())


def _cell(metric: Metric | None) -> str:
    if metric is None:
        return "–"
    text = _number(metric.value, metric.unit)
    if metric.low is not None and metric.high is not None:
        text += f" ({_number(metric.low, metric.unit)} to {_number(metric.high, metric.unit)})"
    for words, worth in (("the data", metric.floor), ("of infinitely many", metric.at_infinity)):
        text += "" if worth is None else f"; {words} {_number(worth, metric.unit)}"
    return text


def _costs(report: Report) -> str:
    reached, rows = outcomes(report), []
    for one in costs(report):
        amounts = ["–" if amount is None else plot.number(amount) for amount in one.amounts]
        for name, metric in reached.items():
            amounts.append(_number(one.outcomes[name], metric.unit) if name in one.outcomes else "–")
        rows.append((_word(one.title), *amounts))
    return _section("What it cost", ("arm, mean over runs", *TITLES, *map(_word, reached)), rows)


def _lines(report: Report) -> str:
    rows = [
        (
            _word(line.what),
            _word(line.arm),
            _number(line.value, line.unit),
            f"{line.relation} {_number(line.limit, line.unit)}",
            "passed" if line.passed else "NOT passed",
        )
        for line in report.pass_lines
    ]
    return _section("Lines to pass", ("line to pass", "of", "measured", "limit", ""), rows)


def _rates(report: Report) -> str:
    rows = [
        (
            _word(entry.arm),
            f"{entry.chosen.rate:.3g}",
            "yes" if entry.is_interior else "NO",
            entry.average,
            ", ".join(map(tried, entry.tried)),
        )
        for entry in report.selections
    ]
    heads = ("arm", "learning rate", "interior", "average", "own loss on the selection split, by rate")
    return _section("Learning rates", heads, rows)


def _spreads(report: Report) -> str:
    rows = [
        (
            *map(_word, (entry.metric, entry.arm, entry.part)),
            _number(entry.standard_deviation, entry.unit),
            ", ".join(_number(value, entry.unit) for value in entry.values),
        )
        for entry in report.spreads
    ]
    heads = ("metric", "arm", "drawn anew", "standard deviation", "values")
    return _section("What chance changes", heads, rows)


def _protocols(numbers: Mapping[str, tuple[int, str]]) -> str:
    """Each on a line of its own: JSON without line breaks cannot leave its fence."""
    if not numbers:
        return ""
    items = (f"{number}.\n\n```json\n{protocol}\n```" for number, protocol in dict(numbers.values()).items())
    return "## Protocols\n\n" + "\n\n".join(items)


def _number(value: float, unit: str) -> str:
    return f"{100 * value:.1f} %" if unit == "%" else f"{plot.number(value)} {_word(unit)}".rstrip()


def _word(text: str) -> str:
    """In a cell of a table: on one line, and no mark-up."""
    return html.escape(" ".join(text.split())).replace("|", "&#124;").replace("`", "&#96;")
