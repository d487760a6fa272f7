"""The report as one HTML page that holds everything it shows: no network, readable without scripts, light and dark.

The page's frame, style and script are in web/; here its sections are made from a report.
"""

from __future__ import annotations

import base64
import html
import io
import string
from collections.abc import Callable, Sequence
from pathlib import Path

from einops import rearrange, repeat
from PIL import Image

from vdm.records import identity, plot
from vdm.records.comparison import Arm, Clips, Correlation, OverSeeds, PassLine, Report
from vdm.records.record import Metric, Record
from vdm.records.statistics import Interval

LevelTable = dict[str, tuple[tuple[float, float], ...]]  # name -> (log_snr, value)

WEB = Path(__file__).with_name("web")
CORRELATION = "correlation"  # the unit of a number in [-1, 1]
NUM_SLOTS = 6  # colours and dashes in report.css
FRAME_RATES = (2, 4, 8, 12, 24)
ARROWS = {True: " ↑", False: " ↓", None: ""}
RELATIONS = {">=": "≥", "<=": "≤"}


def render(report: Report) -> str:
    """The whole page. Every word that comes from the report is escaped."""
    sections = (
        _verdicts(report),
        _player(report),
        _metrics(report),
        _curves(report),
        _pass_lines(report),
        _configs(report),
        _notes(report),
        _provenance(report),
    )
    return string.Template((WEB / "report.html").read_text()).substitute(
        title=html.escape(report.title),
        question=html.escape(report.question),
        command=html.escape(report.command),
        tally=_tally(report.pass_lines),
        sections="\n".join(filter(None, sections)),
        style=(WEB / "report.css").read_text(),
        script=(WEB / "report.js").read_text(),
    )


def sheet(clips: Clips) -> str:
    """A PNG as a data URI: clips side by side, their frames one under the other."""
    image = rearrange(clips, "n f h w c -> (f h) (n w) c")
    rgb = image if image.shape[-1] == 3 else repeat(image, "h w 1 -> h w 3")
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _tally(lines: Sequence[PassLine]) -> str:
    if not lines:
        return ""
    passed = sum(line.passed for line in lines)
    kind = "pass" if passed == len(lines) else "fail"
    return f'<a class="{kind}" href="#pass-lines">{passed} of {len(lines)} pass lines hold</a>'


def _verdicts(report: Report) -> str:
    pairs = list(dict.fromkeys((entry.first, entry.second) for entry in (*report.comparisons, *report.correlations)))
    slots = {arm.name: index % NUM_SLOTS for index, arm in enumerate(report.arms)}
    cards = [_seeds_card(entry, "these") for entry in report.over_seeds]
    cards += [_seeds_card(entry, "the healthy run's") for entry in report.healthy.over_seeds]
    cards += [_card(report, slots, *pair) for pair in pairs]
    if not cards:
        return ""
    return (
        '<section><h2>Do the arms differ?</h2><p class="hint">Differences of the first arm minus the second, with 95 % '
        "intervals. Arms are separated where seeds of training tell them apart, corrected for all pairs shown (Holm): "
        "in at most 5 % of such reports is any of them called so by chance; not separated means "
        "that so few seeds cannot tell, not that the arms are equal. An interval over samples, drawn from the same "
        "noise, is about two trained networks: it does not know how much another seed would change.</p>"
        f'<div class="cards">{"".join(cards)}</div></section>'
    )


def _seeds_card(entry: OverSeeds, whose: str) -> str:
    pair = html.escape(f"{entry.first} vs {entry.second}, over {whose} {len(entry.by_seed)} seeds")
    head = f'<div class="pair">{pair}</div><div class="verdict">{entry.verdict.capitalize()}</div>'
    by_seed = ", ".join(_number(value, entry.unit) for value in entry.by_seed)
    row = _difference(entry.metric, entry.difference, entry.unit)
    chance = "" if entry.p_value is None else f"<dd>p = {entry.p_value:.2g}, corrected for all pairs</dd>"
    return f'<article class="card">{head}<dl>{row}<dd>by seed: {by_seed}</dd>{chance}</dl></article>'


def _card(report: Report, slots: dict[str, int], first: str, second: str) -> str:
    comparisons = [entry for entry in report.comparisons if (entry.first, entry.second) == (first, second)]
    correlations = [entry for entry in report.correlations if (entry.first, entry.second) == (first, second)]
    titles = {arm.name: arm.title for arm in report.arms}
    pair = " vs ".join(_key(slots[name], titles[name]) for name in (first, second))
    rows = [_difference(f"{entry.metric}, over samples", entry.difference, entry.unit) for entry in comparisons]
    rows += map(_correlation, correlations)
    return f'<article class="card"><div class="pair">{pair}</div><dl>{"".join(rows)}</dl></article>'


def _difference(what: str, difference: Interval, unit: str) -> str:
    bound = max(abs(difference.low), abs(difference.high), 1e-12)
    row = (2, difference.low, difference.estimate, difference.high)
    forest = plot.intervals([row], (-bound, bound), zero=True)
    return f"<dt>{html.escape(what)}</dt><dd>{_interval(difference, unit, signed=True)}{forest}</dd>"


def _correlation(entry: Correlation) -> str:
    left_out = f", {entry.num_constant} constant left out" if entry.num_constant else ""
    return (
        f"<dt>pixel correlation of their samples ({entry.num_clips} clips{left_out})</dt>"
        f"<dd>from the same noise: {_interval(entry.same_noise, CORRELATION)}</dd>"
        f"<dd>from different noise: {_interval(entry.other_noise, CORRELATION)}</dd>"
    )


def _player(report: Report) -> str:
    num_frames, height, width = report.real.shape[1:4]
    rows = [("Real data", "clips of the data, no counterparts of the samples below", report.real, "")]
    rows += [
        (arm.title, arm.description, arm.videos, _swatch(index % NUM_SLOTS)) for index, arm in enumerate(report.arms)
    ]
    rates = "".join(f'<option value="{rate}"{" selected" * (rate == 8)}>{rate} fps</option>' for rate in FRAME_RATES)
    return string.Template((WEB / "player.html").read_text()).substitute(
        width=width,
        height=height,
        num_frames=num_frames,
        last_frame=num_frames - 1,
        num_clips=max(len(clips) for _, _, clips, _ in rows),
        rates=rates,
        rows="".join(_clips_row(*row) for row in rows),
        strips="".join(
            _player_row(_who(title, "", mark), '<div class="clips strip"></div>') for title, _, _, mark in rows
        ),
    )


def _clips_row(title: str, text: str, clips: Clips, mark: str) -> str:
    words = html.escape(f"{title}: clips side by side, frames downwards")
    return _player_row(_who(title, text, mark), f'<div><img class="sheet" alt="{words}" src="{sheet(clips)}"></div>')


def _player_row(who: str, content: str) -> str:
    return f'<div class="row"><div class="who">{who}</div>{content}</div>'


def _who(title: str, text: str, mark: str) -> str:
    small = f"<small>{html.escape(text)}</small>" if text else ""
    return f'<span class="key">{mark}{html.escape(title)}</span>{small}'


def _metrics(report: Report) -> str:
    names = list(dict.fromkeys(metric.name for arm in report.arms for metric in arm.record.metrics))
    if not names:
        return ""
    head = "".join(f"<th>{_key(index % NUM_SLOTS, arm.title)}</th>" for index, arm in enumerate(report.arms))
    rows = "".join(_metric_row(name, report.arms) for name in names)
    return (
        '<section><h2>Scores of the samples</h2><p class="hint">With 95 % intervals over samples; '
        "↑ higher is better, ↓ lower is better.</p>"
        f'<div class="scroll"><table><tr><th>score</th>{head}<th></th></tr>{rows}</table></div></section>'
    )


def _metric_row(name: str, arms: Sequence[Arm]) -> str:
    found = [next((metric for metric in arm.record.metrics if metric.name == name), None) for arm in arms]
    first = next(metric for metric in found if metric is not None)
    protocol = ", ".join(f"{key} {_plain(value)}" for key, value in first.protocol.items())
    bars = [
        (slot % NUM_SLOTS, *_limits(metric)[:1], metric.value, *_limits(metric)[1:])
        for slot, metric in enumerate(found)
        if metric is not None
    ]
    limits = (0.0, 1.0) if first.unit == "%" else (min(bar[1] for bar in bars), max(bar[3] for bar in bars))
    cells = "".join(f'<td class="num">{_metric(metric)}</td>' for metric in found)
    what = f"{html.escape(name)}{ARROWS[first.higher_is_better]}<small>{html.escape(protocol)}</small>"
    return f'<tr><td class="what">{what}</td>{cells}<td>{plot.intervals(bars, limits)}</td></tr>'


def _limits(metric: Metric) -> tuple[float, float]:
    return (metric.value if metric.low is None else metric.low, metric.value if metric.high is None else metric.high)


def _metric(metric: Metric | None) -> str:
    if metric is None:
        return "–"
    value = _value(metric.value, metric.unit)
    if metric.low is not None and metric.high is not None:
        value += f"<small>{_number(metric.low, metric.unit)} to {_number(metric.high, metric.unit)}</small>"
    if metric.floor is not None:
        value += f"<small>the data: {_number(metric.floor, metric.unit)}</small>"
    return value


def _curves(report: Report) -> str:
    figures = [
        *_step_charts(report),
        *_level_charts(report, "loss at the end, by noise level", lambda record: record.level_losses),
        *_level_charts(report, "what each objective weighs", _effective_weights),
    ]
    legend = "".join(_key(index % NUM_SLOTS, arm.title) for index, arm in enumerate(report.arms))
    grey = " The grey band is a healthy run." if report.healthy.bands else ""
    return (
        '<section><h2>Learning curves</h2><p class="hint">By optimiser step, then by noise level: log-SNR is high '
        f'where a clip is almost clean.{grey}</p><div class="legend">{legend}</div>'
        f'<div class="charts">{"".join(figures)}</div></section>'
    )


def _effective_weights(record: Record) -> LevelTable:
    weight = record.effective_weight
    return {"weight on the noise error × density": tuple(zip(weight.log_snr, weight.weight, strict=True))}


def _step_charts(report: Report) -> list[str]:
    names = dict.fromkeys(name for arm in report.arms for name, curve in arm.record.curves.items() if curve)
    charts = []
    for name in names:
        curves = [(index, arm.record.curves.get(name, ())) for index, arm in enumerate(report.arms)]
        lines = [plot.Line(index % NUM_SLOTS, points) for index, points in curves if points]
        charts.append(_figure(name, plot.chart(name, "step", lines, report.healthy.bands.get(name, ()))))
    return charts


def _level_charts(
    report: Report, title: str, levels: Callable[[Record], dict[str, tuple[tuple[float, float], ...]]]
) -> list[str]:
    tables = [levels(arm.record) for arm in report.arms]
    charts = []
    for name in dict.fromkeys(name for table in tables for name, points in table.items() if points):
        lines = [plot.Line(slot % NUM_SLOTS, table[name]) for slot, table in enumerate(tables) if table.get(name)]
        charts.append(_figure(f"{name}: {title}", plot.chart(name, "log-SNR", lines)))
    return charts


def _figure(title: str, chart: str) -> str:
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{chart}</figure>"


def _pass_lines(report: Report) -> str:
    if not report.pass_lines:
        return ""
    rows = "".join(map(_pass_line, report.pass_lines))
    return (
        '<section id="pass-lines"><h2>Pass lines</h2><p class="hint">Drawn before the run.</p><div class="scroll">'
        "<table><tr><th>line</th><th>measured on</th><th>value</th><th>limit</th><th></th></tr>"
        f"{rows}</table></div></section>"
    )


def _pass_line(line: PassLine) -> str:
    mark = '<span class="pass">✓ pass</span>' if line.passed else '<span class="fail">✗ fail</span>'
    limit = f"{RELATIONS[line.relation]} {_value(line.limit, line.unit)}"
    words = "".join(f"<td>{html.escape(word)}</td>" for word in (line.what, line.arm))
    numbers = "".join(f'<td class="num">{number}</td>' for number in (_value(line.value, line.unit), limit))
    return f"<tr>{words}{numbers}<td>{mark}</td></tr>"


def _configs(report: Report) -> str:
    keys = identity.differing_keys([arm.record.config for arm in report.arms])
    if not keys:
        return ""
    head = "".join(f"<th>{_key(index % NUM_SLOTS, arm.title)}</th>" for index, arm in enumerate(report.arms))
    rows = "".join(
        _text_row(key, [value if value != "(absent)" else "–" for value in values]) for key, values in keys.items()
    )
    return (
        '<section><h2>What differs between the arms</h2><p class="hint">Every config key on which the arms disagree; '
        "all others are equal. A dash: the chosen option has no such key.</p>"
        f'<div class="scroll"><table class="wide"><tr><th>config key</th>{head}</tr>{rows}</table></div></section>'
    )


def _text_row(key: str, values: Sequence[str]) -> str:
    """A row whose cells are joined where all arms agree."""
    if len(set(values)) == 1:
        cells = f'<td colspan="{len(values)}">{html.escape(values[0])}</td>'
    else:
        cells = "".join(f"<td>{html.escape(value)}</td>" for value in values)
    return f"<tr><td><code>{html.escape(key)}</code></td>{cells}</tr>"


def _notes(report: Report) -> str:
    if not report.notes:
        return ""
    items = "".join(f"<li>{html.escape(note)}</li>" for note in report.notes)
    return f'<section><h2>What this shows, and what it does not</h2><ul class="notes">{items}</ul></section>'


def _provenance(report: Report) -> str:
    tables = [_provenance_of(arm.record) for arm in report.arms]
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = "".join(_text_row(key, [table.get(key, "–") for table in tables]) for key in keys)
    head = "".join(f"<th>{_key(index % NUM_SLOTS, arm.title)}</th>" for index, arm in enumerate(report.arms))
    whole = ", ".join(f"{what} {_duration(seconds)}" for what, seconds in report.timings.items())
    summary = f'<p class="hint">The comparison as a whole: {html.escape(whole)}.</p>' if whole else ""
    return (
        f"<details open><summary>Where this comes from</summary>{summary}"
        f'<div class="scroll"><table class="wide"><tr><th></th>{head}</tr>{rows}</table></div></details>'
    )


def _provenance_of(record: Record) -> dict[str, str]:
    start, machine = record.starts[-1], record.starts[-1].environment
    code, commit = machine.code, machine.code.commit
    dirty = f", with changes {(code.diff_sha256 or '')[:12]}" if code.dirty else ""
    return {
        "run": f"{record.identity_hash} ({record.status}, {record.num_steps:,} steps, {len(record.starts)} start(s))",
        "parameters": f"{record.num_parameters:,}",
        "time": ", ".join(f"{what} {_duration(seconds)}" for what, seconds in record.timings.items()) or "–",
        "seeds": ", ".join(f"{purpose} {seed}" for purpose, seed in record.seeds.items()),
        "data": record.data_fingerprint,
        "commit": f"{commit}{dirty}" if commit else f"unknown: {code.note}",
        "lock": (machine.lock_sha256 or "none")[:12],
        "versions": ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
        "devices": ", ".join(f"{count} × {kind}" for kind, count in machine.devices.items()),
        "mesh": " × ".join(f"{axis} {size}" for axis, size in start.mesh.items()),
        "machine": f"{machine.platform}, {len(machine.affinity)} of {machine.num_cpus} cores, "
        f"{machine.num_processes} process(es)",
        "flags": " ".join(f"{name}={value}" for name, value in machine.flags.items()) or "none set",
        "started": start.time,
    }


def _key(slot: int, title: str) -> str:
    return f'<span class="key">{_swatch(slot)}{html.escape(title)}</span>'


def _swatch(slot: int) -> str:
    return (
        f'<svg class="slot{slot}" width="22" height="8" viewBox="0 0 22 8" aria-hidden="true">'
        f'<line class="line" x1="1" x2="21" y1="4" y2="4"/></svg>'
    )


def _interval(interval: Interval, unit: str, signed: bool = False) -> str:
    estimate, low, high = (_number(value, unit) for value in (interval.estimate, interval.low, interval.high))
    sign = "+" if signed and interval.estimate > 0 else ""
    shown = {"%": "points", CORRELATION: ""}.get(unit, html.escape(unit))
    return f"<span>{sign}{estimate} {shown} <small>({low} to {high})</small></span>"


def _value(value: float, unit: str) -> str:
    return f"{_number(value, unit)} {html.escape(unit)}".rstrip()


def _number(value: float, unit: str) -> str:
    """Shares in per cent to one decimal, correlations to two, all else to three significant digits."""
    if unit == "%":
        text = f"{100 * value:.1f}"
    elif unit == CORRELATION:
        text = f"{value:.2f}"
    else:
        text = plot.number(value)
    return text.replace("-", "−")


def _plain(value: object) -> str:
    return plot.number(value) if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
