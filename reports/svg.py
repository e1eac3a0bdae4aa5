"""Drawings for a page: stacked bars, heat maps and charts as inline SVG, whose colours the page's style sheet gives.

Every drawing is 360 units wide, which a phone shows at full size. Fills are classes ``f0`` to ``f7``, in the order of
`gossamer.reports.plots_style.FILLS`; from the ninth on they are hatched. Hover texts say the figure behind each mark.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .plots_style import CAUSES, FILLS

WIDTH = 360
SHADES = 10  # of a heat map
TICKS = 5  # about as many fit below a chart
HEAT_LEFT = 96  # room for the names of rows
HEADS = 9  # about as many fit below the columns of a heat map
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
Number = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """Points of one name in a chart; ``titles`` are hover texts, one a point; ``style``: dots, line, both or dashed."""

    name: str
    points: Sequence[tuple[float, float]]
    titles: Sequence[str] = field(default=())
    style: str = "both"
    group: int | None = None  # the colour, where it is not that of the series' place


def text(value: object) -> str:
    """Return ``value`` as text that is safe anywhere in a page: markup escaped, control characters replaced."""
    return html.escape(UNPRINTABLE.sub("\ufffd", str(value)), quote=True)


def palette(labels: Iterable[str]) -> dict[str, int]:
    """Return a fill for each of ``labels``: that of the plots where they have one, else the next that is free."""
    labels = list(dict.fromkeys(labels))
    fills: dict[str, int] = {}
    for label in labels:
        if label in CAUSES and (index := FILLS.index(CAUSES[label])) not in fills.values():
            fills[label] = index
    free = (index for index in range(10**9) if index not in set(fills.values()))
    return {label: fills[label] if label in fills else fills.setdefault(label, next(free)) for label in labels}


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Return a legend of (class, name): it wraps where a line is full."""
    items = "".join(f'<li><i class="{mark}"></i>{text(name)}</li>' for mark, name in entries)
    return f'<ul class="legend">{items}</ul>'


def fill(index: int) -> str:
    """Return the class of the fill number ``index``."""
    return f"f{index % len(FILLS)}" + (" hatched" if index >= len(FILLS) else "")


def stacked_bars(names: Sequence[str], bars: Sequence[dict[str, float]], unit: str, number: Number) -> str:
    """Return one bar a name, stacked, the total beside it; shares of its own total where a bar would be too small."""
    totals = np.array([math.fsum(bar.values()) for bar in bars])
    seen = totals[totals > 0]
    shares = bool(seen.size) and bool(seen.max() > 20 * seen.min())
    fills = palette(label for bar in bars for label in bar if any(other.get(label) for other in bars))
    longest = float(seen.max()) if seen.size else 1.0
    room = WIDTH - 74
    parts = []
    for row, (name, bar, total) in enumerate(zip(names, bars, totals, strict=True)):
        top = 30 * row
        parts.append(f'<text x="0" y="{top + 10}">{text(_shorten(name, 62))}</text>')
        scale = room / (total if shares else longest) if total else 0.0
        left = 0.0
        for label, index in fills.items():
            value = bar.get(label, 0.0)
            width = value * scale
            if width < 0.05:
                continue
            box = f'x="{left:.1f}" y="{top + 13}" width="{width:.1f}" height="11"'
            title = text(f"{label.replace('_', ' ')}: {number(value)} ({value / total:.1%})")
            parts.append(f'<rect class="f{index % len(FILLS)}" {box}><title>{title}</title></rect>')
            if index >= len(FILLS):
                parts.append(f'<rect class="hatch" {box}/>')
            left += width
        parts.append(f'<text x="{left + 4:.1f}" y="{top + 22}">{text(number(float(total)))}</text>')
    caption = f"{unit}; bars are shares of the total beside them" if shares else unit
    keys = legend((fill(index), label.replace("_", " ")) for label, index in fills.items())
    return _figure(caption, 30 * len(bars), "".join(parts), keys)


def heat_map(
    names: Sequence[str],
    rows: Sequence[np.ndarray],
    caption: str,
    *,
    top: float = 100.0,
    left: float = HEAT_LEFT,
    heads: Sequence[str] = (),
    hints: Sequence[Sequence[str]] = (),
) -> str:
    """Return one row of cells a name, dark where a value is large; ``rows`` are shares from 0 to 1.

    ``top``: what a share of 1 is, in %. ``left``: room for the names. ``heads`` stand below the columns, as many as
    fit; ``hints`` are hover texts, one a cell.
    """
    columns = max((len(row) for row in rows), default=1)
    height, cell = 12, (WIDTH - left) / columns
    shades: list[list[str]] = [[] for _ in range(SHADES)]
    labels = []
    for at, (name, row) in enumerate(zip(names, rows, strict=True)):
        shown = _shorten(name, int(left / 6))
        whole = "" if shown == name else f"<title>{text(name)}</title>"
        labels.append(f'<text x="0" y="{height * at + 10}">{text(shown)}{whole}</text>')
        levels = np.minimum((np.clip(row, 0.0, 1.0) * SHADES).astype(int), SHADES - 1)
        starts = np.flatnonzero(np.diff(levels, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(levels)], strict=False):  # a row may be empty
            shades[levels[start]].append(f"M{start} {at}.5h{end - start}")
    paths = "".join(f'<path class="h{level}" d="{"".join(d)}"/>' for level, d in enumerate(shades) if d)
    drawn = f'<g transform="translate({left:g} 0) scale({cell:.4f} {height})">{paths}</g>'
    for at, words in enumerate(hints):
        for place, hint in enumerate(words):
            box = f'x="{left + cell * place:.1f}" y="{height * at}" width="{cell:.1f}" height="{height}"'
            drawn += f'<rect class="hint" {box}><title>{text(hint)}</title></rect>'
    every = -(-len(heads) // HEADS) if heads else 1
    for place in range(0, len(heads), every):
        x, y = left + cell * (place + 0.5), height * len(rows) + 10
        drawn += f'<text class="mid" x="{x:.1f}" y="{y}">{text(heads[place])}</text>'
    keys = legend((f"h{level}", f"{level * top / SHADES:.3g} %") for level in range(0, SHADES, 3))
    return _figure(caption, height * len(rows) + (14 if heads else 0), "".join(labels) + drawn, keys)


def chart(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    log: str = "",
    ticks: Sequence[tuple[float, str]] = (),
    number: Number = lambda value: f"{value:,.6g}",
) -> str:
    """Return points and lines over two axes; ``log`` names those that are logarithmic, ``ticks`` replace those of x."""
    points = [point for one in series for point in one.points]
    height, left, top = 210, 46, 8
    x = _Axis([p[0] for p in points], left, WIDTH - 14, "x" in log)
    y = _Axis([p[1] for p in points], height - 34, top, "y" in log, from_zero=True)
    parts = [f'<path class="axis" d="M{left} {top}V{height - 34}H{WIDTH - 10}"/>']
    for value, word in ticks or [(value, tick(value)) for value in x.ticks()]:
        parts.append(f'<path class="grid" d="M{x.at(value):.1f} {top}V{height - 34}"/>')
        parts.append(f'<text class="mid" x="{x.at(value):.1f}" y="{height - 21}">{text(_shorten(word, 14))}</text>')
    for value in y.ticks():
        parts.append(f'<path class="grid" d="M{left} {y.at(value):.1f}H{WIDTH - 10}"/>')
        parts.append(f'<text class="end" x="{left - 4}" y="{y.at(value) + 3:.1f}">{text(tick(value))}</text>')
    for index, one in enumerate(series):
        group = index if one.group is None else one.group
        colour = f"s{group % len(FILLS)}"
        spots = [(x.at(a), y.at(b)) for a, b in one.points]
        if one.style != "dots" and len(spots) > 1:
            line = "dashed" if one.style == "dashed" else "line"
            parts.append(f'<path class="{line} {colour}" d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in spots)}"/>')
        if one.style in ("dots", "both"):
            titles = one.titles or [f"{one.name}: {number(a)}, {number(b)}" for a, b in one.points]
            for (a, b), title in zip(spots, titles, strict=True):
                shape = _marker(a, b, group // len(FILLS) + group)
                parts.append(f'<path class="dot f{group % len(FILLS)}" d="{shape}"><title>{text(title)}</title></path>')
    parts.append(f'<text class="mid" x="{(left + WIDTH) / 2:.0f}" y="{height - 6}">{text(x_label)}</text>')
    named = [(i if one.group is None else one.group, one) for i, one in enumerate(series) if one.name]
    keys = legend((f"f{group % len(FILLS)}", one.name) for group, one in named) if len(named) > 1 else ""
    return _figure(y_label, height, "".join(parts), keys)


def tick(value: float) -> str:
    """Return a number at an axis, as short as it can be."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return re.sub(r"e([+-])0*", lambda m: "e" + m[1].replace("+", ""), f"{value:.3g}")
    return f"{value:,.6g}" if abs(value) < 1000 else f"{value:,.0f}"


class _Axis:
    """Where values stand between two ends of a drawing."""

    def __init__(self, values: Sequence[float], start: float, end: float, log: bool, from_zero: bool = False) -> None:
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        self.log = log and low > 0
        if not self.log and from_zero and 0 < low <= 0.7 * high:
            low = 0.0
        if self.log:
            low, high = math.log10(low), math.log10(high)
        span = (high - low) or (abs(high) or 1.0)
        self.low = low if low == 0 else low - 0.04 * span
        self.high = high + 0.06 * span
        self.start, self.end = start, end

    def at(self, value: float) -> float:
        value = math.log10(value) if self.log else value
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.ceil(self.low), math.floor(self.high)
            if last - first >= 2:
                return [10.0**power for power in range(first, last + 1, -(-(last - first) // 5))]
            wide = [m * 10.0**p for p in range(first - 1, last + 1) for m in (1, 2, 5)]
            inside = [value for value in wide if self.low <= math.log10(value) <= self.high]
            return inside if len(inside) > 1 else [10 ** (self.low * (1 - f) + self.high * f) for f in (0.1, 0.9)]
        span = self.high - self.low
        power = 10.0 ** math.floor(math.log10(span / TICKS))
        step = next(m * power for m in (1, 2, 5, 10, 20) if m * power >= span / TICKS)
        first = math.ceil(self.low / step)
        return [step * n for n in range(first, first + 2 * TICKS + 2) if step * n <= self.high]


def _marker(a: float, b: float, kind: int) -> str:
    shapes = ("m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0", "m-3-3h6v6h-6z", "m0-3.8l3.6 6.6h-7.2z", "m0-4l4 4-4 4-4-4z")
    return f"M{a:.1f} {b:.1f}{shapes[kind % len(shapes)]}"


def _figure(caption: str, height: float, drawn: str, keys: str) -> str:
    picture = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{text(caption)}">{drawn}</svg>'
    return f"<figure><figcaption>{text(caption)}</figcaption>{picture}{keys}</figure>"


def _shorten(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most // 2 - 1]}\u2026{name[-(most - most // 2) :]}"
