"""What the sections of a report's page are made of: numbers, intervals, the mark of an arm."""

from __future__ import annotations

import functools
import html
from collections.abc import Sequence

from vdm.records import plot
from vdm.records.comparison import Arm, Tried
from vdm.records.statistics import Interval

CORRELATION = "correlation"  # the unit of a number in [-1, 1]
ARROWS = {True: " ↑", False: " ↓", None: ""}


def slots(arms: Sequence[Arm]) -> tuple[int, ...]:
    """The slot of every arm (0, 1, ...): those of one group, which differ in their seeds, have the same."""
    groups = list(dict.fromkeys(arm.group or arm.title for arm in arms))
    return tuple(groups.index(arm.group or arm.title) for arm in arms)


def legend(arms: Sequence[Arm]) -> tuple[tuple[int, str], ...]:
    """(slot, title) of every group."""
    return tuple(dict.fromkeys(zip(slots(arms), (arm.group or arm.title for arm in arms), strict=True)))


def figure(title: str, chart: str) -> str:
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{chart}</figure>"


def key(slot: int, title: str) -> str:
    return f'<span class="key">{swatch(slot)}{html.escape(title)}</span>'


def swatch(slot: int) -> str:
    return (
        f'<svg class="slot{slot % plot.NUM_SLOTS}" width="22" height="8" viewBox="0 0 22 8" aria-hidden="true">'
        f'<line class="line" x1="1" x2="21" y1="4" y2="4"/></svg>'
    )


def interval(found: Interval, unit: str, signed: bool = False) -> str:
    show = functools.partial(number, unit=unit)
    sign = "+" if signed and found.estimate > 0 else ""
    shown = {"%": "points", CORRELATION: ""}.get(unit, html.escape(unit))
    return f"<span>{sign}{show(found.estimate)} {shown} <small>({found.limits(show)})</small></span>"


def value(amount: float, unit: str) -> str:
    return f"{number(amount, unit)} {html.escape(unit)}".rstrip()


def number(amount: float, unit: str) -> str:
    """Shares in per cent to one decimal, correlations to two, all else to three significant digits."""
    if unit == "%":
        text = f"{100 * amount:.1f}"
    elif unit == CORRELATION:
        text = f"{amount:.2f}"
    else:
        text = plot.number(amount)
    return text.replace("-", "−")


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def tried(one: Tried) -> str:
    """A learning rate with its losses, by the long and by the short average."""
    return f"{one.rate:.3g}: {' and '.join(map(plot.number, one.losses.values())) or 'diverged'}"


def sortable(table: str) -> str:
    """The table's content in a table that sorts by a click on a title, and scrolls where it is too wide."""
    return f'<div class="scroll"><table class="sortable">{table}</table></div>'


def sort_title(words: str, beneath: str = "") -> str:
    return f'<th aria-sort="none"><button type="button">{words}</button>{beneath}</th>'


def number_cell(amount: float | None, text: str) -> str:
    """A cell that sorts by its number, the last where it has none."""
    data = "" if amount is None else f' data-value="{amount!r}"'
    return f'<td class="num"{data}>{text}</td>'


def folded(title: str, content: str) -> str:
    return f'<details class="folded"><summary>{title}</summary>{content}</details>' if content else ""
