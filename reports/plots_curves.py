"""Plots over a setting, and of points: sweep curves, Pareto fronts, rooflines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..simulator.result import Result
from ..simulator.sweep import Outcome
from ..workloads.errors import InputError
from .plots_data import Curves, Front, Roof, curves_of, fronts_of, roofs_of, word_of
from .plots_rows import demand, short_names
from .plots_style import (
    EDGE,
    GREEN,
    REFERENCE,
    SMALL,
    clean,
    drawing,
    line_of,
    number,
    plain_axis,
    plot_path,
    powers,
    wide,
)  # fmt: skip
from .rows import Row, sweep_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEGEND_CHARACTERS = 36  # longer names stand one below the other
LEGEND_MOST = 64  # characters of a name
MOST_FIELDS = 6  # of a plot of curves
MOST_NAMED = 12  # points of a front that have their name beside them
PANELS = (  # column, title, factor
    ("speedup", "speed-up", 1.0),
    ("latency_per_sample_us", "latency a sample, us", 1.0),
    ("energy_per_sample_uj", "energy a sample, uJ", 1.0),
    ("load_balance", "load balance, %", 100.0),
)
OUTCOME_PANELS = (
    ("speedup", "speed-up", 1.0),
    ("load_balance", "load balance, %", 100.0),
    ("padding_ratio", "padding of entries, %", 100.0),
    ("energy_uj", "energy, uJ", 1.0),
)


def plot_sweep(outcomes: Sequence[Outcome], x: str, path: str | Path) -> Path:
    """Return ``path``, which now shows what the setting ``x`` does: speed-up, balance, padding and energy.

    One line a trace, machine and combination of the other settings. Speed-ups are over the first finished case of the
    line; over ``pe_count`` the ideal is drawn as well. Raises InputError where no finished case has the setting.
    """
    path = plot_path(path)
    lines = _lines(outcomes, x)
    if not lines:
        known = ", ".join(dict.fromkeys(name for outcome in outcomes for name in outcome.case.settings)) or "none"
        raise InputError(f"{path}: a plot over {x!r} needs a finished case with that setting; settings: {known}")
    curves = Curves(x, {name: [(row[x], row) for row in line] for name, line in lines.items()}, len(lines))
    rows = [row for line in lines.values() for row in line]
    panels = [panel for panel in OUTCOME_PANELS if any(row.get(panel[0]) for row in rows)]
    with drawing(path, 3.5 * min(2, len(panels)), 2.7 * -(-len(panels) // 2) + _legend_inches(curves.lines)) as figure:
        axes = np.ravel(figure.subplots(-(-len(panels) // 2), min(2, len(panels)), squeeze=False))
        for ax, (column, title, factor) in zip(axes, panels, strict=False):
            _draw_curves(ax, curves, column, title, factor, ideal=column == "speedup" and x == "pe_count")
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        columns = _legend_columns(curves.lines)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns)
    return path


def plot_curves(results: Sequence[Result], path: str | Path, over: str | None = None) -> Path:
    """Return ``path``, which now shows what the settings do in which ``results`` differ that are alike otherwise.

    A row of panels for each such field, or for the field ``over`` alone. Raises InputError where there is none.
    """
    path = plot_path(path)
    demand(results, path)
    found = curves_of(results)
    fields = [curves.field for curves in found]
    if not found:
        raise InputError(f"{path}: a plot of a sweep needs runs of one trace that differ in a setting, and has none")
    if over is not None and over not in fields:
        raise InputError(f"{path}: --over must be a setting in which results differ, not {over!r}: {', '.join(fields)}")
    shown = [curves for curves in found if over in (None, curves.field)][:MOST_FIELDS]
    rows = [row for curves in shown for line in curves.lines.values() for _, row in line]
    panels = [panel for panel in PANELS if any(row.get(panel[0]) is not None for row in rows)]
    longest = max(len(clean(name, LEGEND_MOST)) for curves in shown for name in curves.lines)
    with drawing(path, 0.9 + 2.7 * len(panels) + 0.068 * longest, 2.6 * len(shown)) as figure:
        for axes, curves in zip(figure.subplots(len(shown), len(panels), squeeze=False), shown, strict=True):
            for ax, (column, title, factor) in zip(axes, panels, strict=True):
                _draw_curves(ax, curves, column, title, factor)
            some = f"{len(curves.lines)} of {curves.found:,} lines" if curves.found > len(curves.lines) else None
            lines = axes[0].get_legend_handles_labels()
            axes[-1].legend(*lines, loc="upper left", bbox_to_anchor=(1.02, 1.04), title=some, alignment="left")
    return path


def plot_pareto(results: Sequence[Result], path: str | Path) -> Path:
    """Return ``path``, which now shows latency against energy, and against accuracy, with what no other result beats.

    A panel a network and energy table. Raises InputError where fewer than two results compare.
    """
    path = plot_path(path)
    demand(results, path)
    fronts = fronts_of(results, short_names(results))
    if not fronts:
        raise InputError(
            f"{path}: a plot of a front needs two results of one network with energies of one table, or with "
            "accuracies, and has none"
        )
    with drawing(path, 8.2, 3.3 * len(fronts)) as figure:
        for ax, front in zip(np.ravel(figure.subplots(len(fronts), 1, squeeze=False)), fronts, strict=True):
            _draw_front(ax, front)
    return path


def plot_roofline(results: Sequence[Result], path: str | Path) -> Path:
    """Return ``path``, which now shows the layers of ``results`` under the roofs of their machines, a panel a machine.

    Raises InputError where no machine has bounds.
    """
    path = plot_path(path)
    demand(results, path)
    roofs = roofs_of(results)
    if not roofs:
        raise InputError(
            f"{path}: a roofline needs a machine with bounds, as a tensor core, and none of these has them"
        )
    across = 3 if len(roofs) > 4 else min(2, len(roofs))
    traces = list(dict.fromkeys(trace for roof in roofs for trace, _ in roof.layers))
    columns = 1 if max(map(len, traces)) > 30 else across
    inches = 0.2 * -(-len(traces) // columns)
    with drawing(path, (4.4 if across < 3 else 3.6) * across, -(-len(roofs) // across) * 2.9 + inches) as figure:
        axes = np.ravel(figure.subplots(-(-len(roofs) // across), across, squeeze=False))
        for ax, roof in zip(axes, roofs, strict=False):
            _draw_roof(ax, roof, traces)
        for ax in axes[len(roofs) :]:
            ax.set_axis_off()
        found = {label: mark for ax in axes for mark, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns)
    return path


def _draw_curves(ax: Axes, curves: Curves, column: str, title: str, factor: float, ideal: bool = False) -> None:
    heights = [0.0]
    numeric = curves.numeric
    values = sorted({float(value) for value in curves.values}) if numeric else []
    if ideal and numeric:
        first = float(next(value for line in curves.lines.values() for value, _ in line))
        ends = np.array([values[0], values[-1]])
        ax.plot(ends, ends / first, color=REFERENCE, linestyle="--", linewidth=1, label="ideal")
    words = {word: float(place) for place, word in enumerate(curves.words)}
    for index, (name, line) in enumerate(curves.lines.items()):
        points = sorted(
            (float(value) if numeric else words[word_of(value)], factor * row[column])
            for value, row in line
            if row.get(column) is not None
        )
        if points:
            look = line_of(index) | {"clip_on": False, "label": clean(name, LEGEND_MOST)}
            ax.plot([x for x, _ in points], [y for _, y in points], **look)
            heights += [y for _, y in points]
    ax.set_title(title, loc="left")
    ax.set_xlabel(curves.field)
    if len(heights) == 1:
        ax.set_axis_off()  # nothing is known of it
        ax.set_title("", loc="left")
    if numeric:
        if wide(values, 8):
            powers(ax.xaxis, 2)
        else:
            plain_axis(ax.xaxis)
        if len(values) <= 10 and _apart(values):
            ax.set_xticks(values, [number(value) for value in values])
    else:
        ax.set_xticks(list(words.values()), [clean(word, 14) for word in words])
        ax.margins(x=0.15)
    if column == "speedup" and numeric and max(heights) > 8:
        powers(ax.yaxis, 2)
    else:
        plain_axis(ax.yaxis)
        ax.set_ylim(0, 100 if column == "load_balance" else 1.08 * max(heights) or 1)


def _apart(values: Sequence[float]) -> bool:
    """Tell whether words at ``values`` would not overlap on the axis that they get."""
    places = np.log2(values) if wide(values, 8) else np.asarray(values)
    span = float(places[-1] - places[0]) or 1.0
    return bool((np.diff(places) > 0.075 * span).all())


def _draw_front(ax: Axes, front: Front) -> None:
    best = set(front.front)
    rest = [point for place, point in enumerate(front.points) if place not in best]
    if rest:
        ax.scatter(
            [x for x, _ in rest], [y for _, y in rest], s=16, color=REFERENCE, linewidths=0, label="beaten in both"
        )
    line = [front.points[place] for place in front.front]
    ax.plot(*zip(*line, strict=True), color=GREEN, marker="D", markersize=5, markeredgecolor=EDGE, label="Pareto front")
    xs, ys = [x for x, _ in front.points], [y for _, y in front.points]
    if wide(xs, 8):
        powers(ax.xaxis)
    else:
        plain_axis(ax.xaxis)
    if front.sign == 1 and wide(ys, 30):
        powers(ax.yaxis)
    else:
        plain_axis(ax.yaxis)
    ax.margins(x=0.06, y=0.12)
    ax.set_xlabel(front.x)
    ax.set_ylabel(front.y)
    alike: dict[tuple[float, float], list[str]] = {}
    for place in front.front:
        alike.setdefault(front.points[place], []).append(front.names[place])
    spots = list(alike.items())[:: -(-len(alike) // MOST_NAMED)]
    key = []
    for place, (point, names) in enumerate(spots, 1):
        ax.annotate(str(place), point, (5, 5 * front.sign - 3), textcoords="offset points", fontsize=SMALL)
        more = f", and {len(names) - 1:,} alike" if len(names) > 1 else ""
        key.append(f"{place}  {clean(names[0], 56)}{more}")
    ax.set_title(clean(", ".join(part for part in (front.of, front.table) if part), 60), loc="left")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    ax.text(1.03, 0.78 if rest else 0.86, "\n".join(key), transform=ax.transAxes, va="top", fontsize=SMALL)


def _draw_roof(ax: Axes, roof: Roof, traces: Sequence[str]) -> None:
    ax.plot(*zip(*roof.line, strict=True), color="black", linewidth=1.4)
    for trace, dots in roof.layers:
        if dots:
            look = line_of(traces.index(trace)) | {"linestyle": "none", "alpha": 0.85}
            ax.plot([x for _, x, _ in dots], [y for _, _, y in dots], label=clean(trace, 44), **look)
    powers(ax.xaxis)
    powers(ax.yaxis)
    ax.set_title(clean(roof.machine, 44), loc="left")
    ax.set_xlabel("MACs a byte to and from HBM")
    ax.set_ylabel("useful GMACs/s")


def _legend_columns(lines: dict[str, list[tuple[object, Row]]]) -> int:
    return 2 if max(map(len, lines)) <= LEGEND_CHARACTERS else 1


def _legend_inches(lines: dict[str, list[tuple[object, Row]]]) -> float:
    return 0.22 * -(-(len(lines) + 1) // _legend_columns(lines))


def _lines(outcomes: Sequence[Outcome], x: str) -> dict[str, list[Row]]:
    """Return the rows of finished cases that have the setting ``x`` by the name of their line, speed-ups per line."""
    rows = [
        row | {"case": outcome.case}
        for row, outcome in zip(sweep_rows(outcomes), outcomes, strict=True)
        if outcome.result is not None and x in outcome.case.settings
    ]
    names = [name for name in ("trace", "machine") if len({row[name] for row in rows}) > 1]
    settings = dict.fromkeys(name for row in rows for name in row["case"].settings if name != x)
    others = [name for name in settings if len({str(row.get(name)) for row in rows}) > 1]
    lines: dict[str, list[Row]] = {}
    for row in rows:
        plain = [str(row[name]) for name in names] + [f"{name}={row.get(name)}" for name in others]
        line = lines.setdefault(", ".join(plain) or f"{row['trace']} on {row['machine']}", [])
        first = line[0] if line else row
        line.append(row | {"speedup": first["latency_us"] / row["latency_us"] if row["latency_us"] else None})
    return lines
