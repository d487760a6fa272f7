"""The report as one HTML page that holds everything it shows: no network, readable without scripts, light and dark.

The page's frame, style and script are in web/; here its sections are made from a report.
"""

from __future__ import annotations

import base64
import collections
import html
import io
import string
from collections.abc import Sequence
from pathlib import Path

from einops import rearrange, repeat
from PIL import Image

from vdm.records import identity, page_costs, page_curves, page_links, page_scores, plot
from vdm.records import page_parts as parts
from vdm.records.comparison import Arm, Clips, Correlation, OverSeeds, PassLine, Report
from vdm.records.page_links import Links
from vdm.records.statistics import Interval

WEB = Path(__file__).with_name("web")
MAX_CARDS = 6  # verdicts over seeds; more are a table
FRAME_RATES = (2, 4, 8, 12, 24)
RELATIONS = {">=": "≥", "<=": "≤"}


def render(report: Report) -> str:
    """The whole page. Every word that comes from the report is escaped."""
    links = page_links.of(report.arms)
    sections = (
        _verdicts(report, links),
        _player(report),
        page_scores.render(report, links),
        page_curves.render(report, links),
        page_costs.render(report, links),
        _pass_lines(report, links),
        _selections(report, links),
        _spreads(report, links),
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


def _verdicts(report: Report, links: Links) -> str:
    pairs = list(dict.fromkeys((entry.first, entry.second) for entry in (*report.comparisons, *report.correlations)))
    slots = dict(zip((arm.name for arm in report.arms), parts.slots(report.arms), strict=True))
    elsewhere = Links({}, {})  # the healthy run's numbers are of no run of this page
    over_seeds = [_seeds_card(entry, "these", links) for entry in report.over_seeds]
    healthy = [_seeds_card(entry, "the healthy run's", elsewhere) for entry in report.healthy.over_seeds]
    cards = [_card(report, slots, links, *pair) for pair in pairs]
    if not (over_seeds or healthy or cards):
        return ""
    if len(over_seeds) > MAX_CARDS:
        pairs_of_runs = parts.folded("Two runs of one seed at a time", _cards(cards))
        shown = f"{_seeds_table(report.over_seeds, links)}{_cards(healthy)}{pairs_of_runs}"
    else:
        shown = _cards([*over_seeds, *healthy, *cards])
    return (
        '<section><h2>Do the arms differ?</h2><p class="hint">Differences of the first arm minus the second, with 95 % '
        "intervals. Arms are separated where seeds of training tell them apart, corrected for all pairs shown (Holm): "
        "in at most 5 % of such reports is any of them called so by chance; not separated means "
        "that so few seeds cannot tell, not that the arms are equal. An interval over samples, drawn from the same "
        "noise, is about two trained networks: it does not know how much another seed would change.</p>"
        f"{shown}</section>"
    )


def _cards(cards: Sequence[str]) -> str:
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _seeds_table(entries: Sequence[OverSeeds], links: Links) -> str:
    numbers = ("first minus second", "p (Holm)", "correlation over seeds")
    buttons = "".join(map(parts.sort_title, numbers))
    head = f"<tr><th>first</th><th>second</th><th>metric</th>{buttons}<th></th></tr>"
    rows = []
    for entry in entries:
        whose = (links.arm(entry.first), links.arm(entry.second), links.metric(entry.metric))
        words = "".join(f"<td>{word}</td>" for word in whose)
        cells = (
            parts.number_cell(entry.difference.estimate, parts.interval(entry.difference, entry.unit, signed=True)),
            parts.number_cell(entry.p_value, "–" if entry.p_value is None else f"{entry.p_value:.2g}"),
            parts.number_cell(entry.correlation, "–" if entry.correlation is None else f"{entry.correlation:.2f}"),
        )
        rows.append(f"<tr>{words}{''.join(cells)}<td>{entry.verdict}</td></tr>")
    return parts.sortable(f"<thead>{head}</thead><tbody>{''.join(rows)}</tbody>")


def _seeds_card(entry: OverSeeds, whose: str, links: Links) -> str:
    pair = f"{links.arm(entry.first)} vs {links.arm(entry.second)}"
    pair += html.escape(f", over {whose} {len(entry.by_seed)} seeds")
    head = f'<div class="pair">{pair}</div><div class="verdict">{entry.verdict.capitalize()}</div>'
    by_seed = ", ".join(parts.number(value, entry.unit) for value in entry.by_seed)
    row = _difference(links.metric(entry.metric), entry.difference, entry.unit)
    chance = "" if entry.p_value is None else f"<dd>p = {entry.p_value:.2g}, corrected for all pairs</dd>"
    paired = "" if entry.correlation is None else f"<dd>the arms' correlation over seeds: {entry.correlation:.2f}</dd>"
    return f'<article class="card">{head}<dl>{row}<dd>by seed: {by_seed}</dd>{chance}{paired}</dl></article>'


def _card(report: Report, slots: dict[str, int], links: Links, first: str, second: str) -> str:
    comparisons = [entry for entry in report.comparisons if (entry.first, entry.second) == (first, second)]
    correlations = [entry for entry in report.correlations if (entry.first, entry.second) == (first, second)]
    arms = {arm.name: arm for arm in report.arms}
    pair = " vs ".join(links.run(arms[name], slots[name]) for name in (first, second))
    rows = [
        _difference(links.metric(entry.metric, ", over samples"), entry.difference, entry.unit) for entry in comparisons
    ]
    rows += map(_correlation, correlations)
    return f'<article class="card"><div class="pair">{pair}</div><dl>{"".join(rows)}</dl></article>'


def _difference(what: str, difference: Interval, unit: str) -> str:
    """`what` is HTML."""
    bound = max(abs(difference.low), abs(difference.high), 1e-12)
    row = (2, difference.low, difference.estimate, difference.high)
    forest = plot.intervals([row], (-bound, bound), zero=True)
    return f"<dt>{what}</dt><dd>{parts.interval(difference, unit, signed=True)}{forest}</dd>"


def _correlation(entry: Correlation) -> str:
    left_out = f", {entry.num_constant} constant left out" if entry.num_constant else ""
    return (
        f"<dt>pixel correlation of their samples ({entry.num_clips} clips{left_out})</dt>"
        f"<dd>from the same noise: {parts.interval(entry.same_noise, parts.CORRELATION)}</dd>"
        f"<dd>from different noise: {parts.interval(entry.other_noise, parts.CORRELATION)}</dd>"
    )


def _player(report: Report) -> str:
    """The clips of the data, and of the first run of every arm."""
    (num_frames, height, width), slots = report.real.shape[1:4], parts.slots(report.arms)
    rows = [("Real data", "clips of the data, no counterparts of the samples below", report.real, "")]
    firsts = [index for index, slot in enumerate(slots) if slot not in slots[:index]]
    for arm, slot in ((report.arms[index], slots[index]) for index in firsts):
        rows.append((arm.title, arm.description, arm.videos, parts.swatch(slot)))
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


def _pass_lines(report: Report, links: Links) -> str:
    if not report.pass_lines:
        return ""
    rows = "".join(_pass_line(line, links) for line in report.pass_lines)
    return (
        '<section id="pass-lines"><h2>Pass lines</h2><p class="hint">Drawn before the run.</p><div class="scroll">'
        "<table><tr><th>line</th><th>measured on</th><th>value</th><th>limit</th><th></th></tr>"
        f"{rows}</table></div></section>"
    )


def _pass_line(line: PassLine, links: Links) -> str:
    mark = '<span class="pass">✓ pass</span>' if line.passed else '<span class="fail">✗ fail</span>'
    limit = f"{RELATIONS[line.relation]} {parts.value(line.limit, line.unit)}"
    words = "".join(f"<td>{word}</td>" for word in (links.metric(line.what), links.arm(line.arm)))
    numbers = "".join(f'<td class="num">{number}</td>' for number in (parts.value(line.value, line.unit), limit))
    return f"<tr>{words}{numbers}<td>{mark}</td></tr>"


def _selections(report: Report, links: Links) -> str:
    if not report.selections:
        return ""
    slots, lines, rows = {title: slot for slot, title in parts.legend(report.arms)}, [], []
    for entry in report.selections:
        lines.append(plot.Line(slots[entry.arm], [(one.rate, one.best) for one in entry.tried if one.losses]))
        where = "" if entry.is_interior else ", the last that was tried on its side"
        cells = f'<td class="num">{entry.chosen.rate:.3g}{where}</td>'
        words = (entry.average, ", ".join(map(parts.tried, entry.tried)))
        cells += "".join(f"<td>{html.escape(word)}</td>" for word in words)
        rows.append(f'<tr><th scope="row">{links.arm(entry.arm, slots[entry.arm])}</th>{cells}</tr>')
    title = "own loss on the selection split, by learning rate"
    chart = parts.figure(title, plot.chart(title, "learning rate", lines, log_x=True))
    return (
        '<section><h2>Learning rates</h2><p class="hint">Chosen for each arm by the loss that it trains, on clips that '
        "no other number of this page has seen, in runs of another seed. Losses of different arms are not "
        f'comparable.</p><div class="charts">{chart}</div><div class="scroll"><table><tr><th>arm</th><th>rate</th>'
        f"<th>average</th><th>tried (loss by the long, the short average)</th></tr>{''.join(rows)}</table></div>"
        "</section>"
    )


def _spreads(report: Report, links: Links) -> str:
    if not report.spreads:
        return ""
    rows = []
    for entry in report.spreads:
        values = ", ".join(parts.number(value, entry.unit) for value in entry.values)
        whose = (links.metric(entry.metric), links.arm(entry.arm), html.escape(entry.part))
        words = "".join(f"<td>{word}</td>" for word in whose)
        deviation = parts.number(entry.standard_deviation, entry.unit)
        rows.append(f'<tr>{words}<td class="num">{deviation}</td><td class="num">{values}</td></tr>')
    return (
        '<section><h2>What chance changes</h2><p class="hint">Runs of one arm that differ in one part of the '
        "randomness, drawn anew, or in all of it. The standard deviation of so few is itself uncertain.</p>"
        '<div class="scroll"><table><tr><th>metric</th><th>arm</th><th>drawn anew</th><th>standard deviation</th>'
        f"<th>values</th></tr>{''.join(rows)}</table></div></section>"
    )


def _configs(report: Report) -> str:
    keys = identity.differing_keys([arm.record.config for arm in report.arms])
    if not keys:
        return ""
    slots = parts.slots(report.arms)
    head = "".join(f"<th>{parts.key(slot, arm.title)}</th>" for slot, arm in zip(slots, report.arms, strict=True))
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
    """A column for each run, those of an arm beside each other."""
    of_slots = sorted(zip(parts.slots(report.arms), report.arms, strict=True), key=lambda pair: pair[0])
    tables = [_provenance_of(arm) for _, arm in of_slots]
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = "".join(_text_row(key, [table.get(key, "–") for table in tables]) for key in keys)
    counts = collections.Counter(slot for slot, _ in of_slots)
    head = "".join(f'<th id="{page_links.of_run(arm)}">{parts.key(slot, arm.title)}</th>' for slot, arm in of_slots)
    if any(arm.group not in ("", arm.title) for arm in report.arms):
        grid = "".join(
            f'<th id="{page_links.of_slot(slot)}" colspan="{counts[slot]}">{parts.key(slot, title)}</th>'
            for slot, title in parts.legend(report.arms)
        )
        head = f"{grid}</tr><tr><th></th>{head}"
    whole = ", ".join(f"{what} {parts.duration(seconds)}" for what, seconds in report.timings.items())
    summary = f'<p class="hint">The comparison as a whole: {html.escape(whole)}.</p>' if whole else ""
    return (
        f"<details open><summary>Where this comes from</summary>{summary}"
        f'<div class="scroll"><table class="wide"><tr><th></th>{head}</tr>{rows}</table></div></details>'
    )


def _provenance_of(arm: Arm) -> dict[str, str]:
    record = arm.record
    start, machine = record.starts[-1], record.starts[-1].environment
    code, commit = machine.code, machine.code.commit
    dirty = f", with changes {(code.diff_sha256 or '')[:12]}" if code.dirty else ""
    return {
        "run": f"{record.identity_hash} ({record.status}, {record.num_steps:,} steps, {len(record.starts)} start(s))",
        "parameters": f"{record.num_parameters:,}",
        "training": "–" if arm.flops is None else f"{arm.flops:.3g} FLOPs of the model",
        "time": ", ".join(f"{what} {parts.duration(seconds)}" for what, seconds in record.timings.items()) or "–",
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
