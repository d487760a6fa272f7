"""Small SVG charts for the report; they inherit the page's font and colours, so that light and dark need one file.

An arm keeps one slot in every chart; report.css gives the slot its colour and its dash, so that lines differ without
colour too.
"""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Sequence

NUM_SLOTS = 12  # colours with dashes in report.css; the slots of more arms take them again
WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 34
MAX_POINTS = 500  # drawn per line; report.json holds them all
LOG_FROM_RATIO = 8  # a positive quantity that spans more is drawn on a logarithmic axis


@dataclasses.dataclass(frozen=True)
class Line:
    """One curve: its arm's slot, its points, x increasing, and (x, low, high) of a band around them."""

    slot: int
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()


@dataclasses.dataclass(frozen=True)
class Axis:
    """Maps values to pixels. Logarithmic axes need positive limits."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        low, high, value = (map(math.log10, (self.low, self.high, value))) if self.log else (self.low, self.high, value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        return _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)


def chart(
    title: str,
    x_label: str,
    lines: Sequence[Line],
    band: Sequence[tuple[int, float, float]] = (),
    log_x: bool = False,
) -> str:
    """A line chart, logarithmic in y where values are positive and span much; `band` is (x, low, high), behind it."""
    bands = [*band, *(limits for line in lines for limits in line.band)]
    xs = [x for line in lines for x, _ in line.points] + [x for x, _, _ in bands]
    ys = [y for line in lines for _, y in line.points] + [y for _, *limits in bands for y in limits]
    x_axis = Axis(*_padded(min(xs), max(xs), 0.0, log_x), LEFT, WIDTH - RIGHT, log_x)
    log = min(ys) > 0 and max(ys) / min(ys) > LOG_FROM_RATIO
    y_axis = Axis(*_padded(min(ys), max(ys), 0.06, log), HEIGHT - BOTTOM, TOP, log)
    body = [_grid(x_axis, y_axis, x_label)]
    if band:
        body.append(f'<polygon class="band" points="{_path(_outline(band), x_axis, y_axis)}"/>')
    for line in lines:
        if line.band:
            outline = _path(_outline(line.band), x_axis, y_axis)
            body.append(f'<polygon class="spread slot{line.slot % NUM_SLOTS}" points="{outline}"/>')
        points = _thinned(line.points)
        body.append(f'<polyline class="line slot{line.slot % NUM_SLOTS}" points="{_path(points, x_axis, y_axis)}"/>')
        if len(points) <= 12:
            body += [
                f'<circle class="dot slot{line.slot % NUM_SLOTS}" cx="{x_axis(x):.1f}" cy="{y_axis(y):.1f}" r="2.6"/>'
                for x, y in points
            ]
    scale = "logarithmic" if log else "linear"
    label = html.escape(f"{title}, by {x_label}; {scale} axis")
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(body)}</svg>'


def intervals(rows: Sequence[tuple[int, float, float, float]], limits: tuple[float, float], zero: bool = False) -> str:
    """A forest plot without axis: (slot, low, estimate, high) a row, on one scale; `zero` marks no difference."""
    width, row_height = 170, 13
    axis = Axis(*_padded(*limits, 0.04, log=False), 4, width - 4, log=False)
    height = row_height * len(rows)
    body = [f'<line class="zero" x1="{axis(0):.1f}" x2="{axis(0):.1f}" y1="0" y2="{height}"/>'] if zero else []
    for index, (slot, low, estimate, high) in enumerate(rows):
        y = row_height * (index + 0.5)
        body.append(
            f'<line class="bar slot{slot % NUM_SLOTS}" x1="{axis(low):.1f}" x2="{axis(high):.1f}" y1="{y}" y2="{y}"/>'
        )
        body.append(f'<circle class="dot slot{slot % NUM_SLOTS}" cx="{axis(estimate):.1f}" cy="{y}" r="3.4"/>')
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg class="forest" {size} aria-hidden="true">{"".join(body)}</svg>'


def number(value: float) -> str:
    """Three significant digits, without an exponent where a reader needs none."""
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    if -2 < digits < 6:
        text = f"{value:,.{max(digits, 0)}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.2e}"


def _grid(x_axis: Axis, y_axis: Axis, x_label: str) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick in y_axis.ticks():
        y = y_axis(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(LEFT - 6, y + 3.5, "end", _tick(tick)))
    parts += [_text(x_axis(tick), bottom + 14, "middle", _tick(tick)) for tick in x_axis.ticks()]
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(_text((LEFT + right) / 2, HEIGHT - 5, "middle", html.escape(x_label)))
    return "".join(parts)


def _text(x: float, y: float, anchor: str, words: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def _tick(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.6g}".replace("-", "−")


def _path(points: Sequence[tuple[float, float]], x_axis: Axis, y_axis: Axis) -> str:
    return " ".join(f"{x_axis(x):.1f},{y_axis(y):.1f}" for x, y in points)


def _outline(band: Sequence[tuple[float, float, float]]) -> list[tuple[float, float]]:
    return [(x, high) for x, _, high in band] + [(x, low) for x, low, _ in reversed(band)]


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    stride = math.ceil(len(points) / MAX_POINTS)
    return [*points[:-1:stride], points[-1]]


def _padded(low: float, high: float, share: float, log: bool) -> tuple[float, float]:
    """Limits that leave a margin; a single value gets room on both sides."""
    if low == high:
        return (low / 2, high * 2) if log else (low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2)
    if log:
        margin = (high / low) ** share
        return low / margin, high * margin
    return low - share * (high - low), high + share * (high - low)


def _linear_ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 4
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten; 2 and 5 times those where fewer than three would show."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    decades = [10.0**power for power in powers if low <= 10.0**power <= high]
    if len(decades) >= 3:
        return decades[:: math.ceil(len(decades) / 5)]
    return [factor * 10.0**power for power in powers for factor in (1, 2, 5) if low <= factor * 10.0**power <= high]
