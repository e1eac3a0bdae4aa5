"""Plots of results as bars: the summary, cycles by cause, energy by part, and machines side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..simulator.result import LayerResult, Result, Totals
from ..workloads.errors import InputError
from .comparison import baselines, summary_rows
from .plots_data import energy_parts, per_unit
from .plots_rows import (
    MOST_ROWS,
    after,
    cut,
    demand,
    label_inches,
    leave_room,
    machine_of,
    name_rows,
    row_inches,
    row_names,
    short_names,
    tables_of,
)  # fmt: skip
from .plots_style import (
    BARS,
    BLUE,
    CAUSES,
    GREEN,
    ORANGE,
    PURPLE,
    REFERENCE,
    SKY,
    SMALL,
    clean,
    drawing,
    fill_of,
    number,
    plain_axis,
    plot_path,
    wide,
)  # fmt: skip
from .reading import result_names
from .rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURES: tuple[tuple[str, str, str, float], ...] = (  # column, title, colour, factor
    ("speedup", "speed-up", BLUE, 1.0),
    ("latency_per_sample_us", "latency a sample, us", ORANGE, 1.0),
    ("energy_per_sample_uj", "energy a sample, uJ", GREEN, 1.0),
    ("load_balance", "load balance, %", SKY, 100.0),
    ("accuracy", "accuracy, %", PURPLE, 100.0),
)
MOST_BARS = 8  # of a group
Bars = Sequence[dict[str, float]]


def plot_summary(results: Sequence[Result], path: str | Path) -> Path:
    """Return ``path``, which now shows speed-up, latency, energy, balance and accuracy of ``results``, a row each.

    Speed-ups are over the first result of a dense trace, of the same network where the traces name one, else over the
    first result.
    """
    path = plot_path(path)
    demand(results, path)
    rows, names = summary_rows(results), result_names(results)
    held_against = {id(result) for result in baselines(results).values()}
    base = [name for name, result in zip(names, results, strict=True) if id(result) in held_against]
    panels = [one for one in MEASURES if any(row.get(one[0]) is not None for row in rows)]
    panels = [one for one in panels if one[0] != "speedup" or len(results) > 1]
    note = ", ".join(part for part in (machine_of(results), cut(results)) if part)
    rows, names = rows[:MOST_ROWS], row_names(short_names(results)[:MOST_ROWS])
    with drawing(path, label_inches(names) + 1.9 * len(panels) + 0.3, 0.95 + row_inches(names)) as figure:
        axes = np.ravel(figure.subplots(1, len(panels), sharey=True, squeeze=False))
        for ax, (column, title, colour, factor) in zip(axes, panels, strict=True):
            values = [None if row.get(column) is None else factor * row[column] for row in rows]
            _bars(ax, values, colour)
            ax.set_title(title, loc="left")
            if column == "speedup":
                ax.axvline(1, color=REFERENCE, linestyle="--", linewidth=1)
        name_rows(axes[0], names)
        if panels[0][0] == "speedup":
            axes[0].set_xlabel(f"over {clean(base[0], 34)}" if len(base) == 1 else "each network over its own first")
        _warn_of_tables(axes, panels, rows)
        if note:
            figure.suptitle(note)
    return path


def plot_causes(results: Sequence[Result], path: str | Path) -> Path:
    """Return ``path``, which now shows where the cycles and the energy of ``results`` went: one bar each, stacked.

    Cycles are those of the machine's computing units, per unit: the length of a bar is the result's time in cycles.
    """
    path = plot_path(path)
    demand(results, path)
    names, some = row_names(short_names(results[:MOST_ROWS])), results[:MOST_ROWS]
    cycles = [per_unit(result.total) for result in some]
    energies = [energy_parts(result.total) for result in some]
    height = 0.9 + max(row_inches(names), 0.2 * max(len(_labels(cycles)), len(_labels(energies))))
    with drawing(path, label_inches(names) + 9.6, height) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        _stack(left, cycles, CAUSES, "cycles a unit, by cause")
        _stack(right, energies, {}, "energy by part, uJ")
        name_rows(left, names)
        left.set_title(machine_of(results) or cut(results), loc="left")
        right.set_title(tables_of(results), loc="left")
    return path


def plot_cycles(results: Sequence[Result], path: str | Path) -> Path:
    """Return ``path``, which now shows cycles by cause: a bar a result, or of a single result a bar a layer."""
    return _by_part(results, path, per_unit, CAUSES, "cycles a unit, by cause", lambda _: "")


def plot_energy(results: Sequence[Result], path: str | Path) -> Path:
    """Return ``path``, which now shows energy by part: a bar a result, or of a single result a bar a layer.

    Raises InputError where no result has an energy table.
    """
    if results and all(result.total.energy_j is None for result in results):
        raise InputError(f"{path}: a plot of energy needs a result with an energy table, and none of these has one")
    return _by_part(results, path, energy_parts, {}, "energy by part, uJ", tables_of)


def plot_compare(results: Sequence[Result], path: str | Path) -> Path:
    """Return ``path``, which now sets machines side by side on each trace: latency, energy and load balance.

    Of many machines each is a group of bars, one a trace, instead of a trace a group of one a machine.
    """
    path = plot_path(path)
    demand(results, path)
    rows, names = summary_rows(results)[:MOST_ROWS], result_names(results)[:MOST_ROWS]
    groups = [result.trace.name for result in results[:MOST_ROWS]]
    bars = [name.removeprefix(f"{trace} on ") for name, trace in zip(names, groups, strict=True)]
    if len(set(bars)) > MOST_BARS:
        groups, bars = bars, groups
    kinds, places = list(dict.fromkeys(bars)), {name: at for at, name in enumerate(dict.fromkeys(groups))}
    panels = [one for one in MEASURES[1:4] if any(row.get(one[0]) is not None for row in rows)]
    thick = 0.8 / len(kinds)
    legend_columns = 1 if max(map(len, kinds)) > 36 else 2 if max(map(len, kinds)) > 18 else 4
    labels = [clean(name) for name in places]
    inches = len(places) * max(0.25, 0.19 * len(kinds) + 0.1)
    legend = 0.2 * -(-len(kinds) // legend_columns)
    with drawing(path, label_inches(labels) + 2.7 * len(panels), 0.85 + inches + legend) as figure:
        axes = np.ravel(figure.subplots(1, len(panels), sharey=True, squeeze=False))
        for ax, (column, title, _, factor) in zip(axes, panels, strict=True):
            found = [
                (bar, places[group], factor * row[column])
                for group, bar, row in zip(groups, bars, rows, strict=True)
                if row.get(column) is not None
            ]
            for index, kind in enumerate(kinds):
                shift = (index - (len(kinds) - 1) / 2) * thick
                mine = [(at + shift, value) for bar, at, value in found if bar == kind]
                values = [value for _, value in mine]
                ax.barh([at for at, _ in mine], values, 0.92 * thick, label=clean(kind), **fill_of(index))
                for at, value in mine:
                    ax.text(value, at, f" {number(value)}", va="center", fontsize=SMALL - 1)
            values = [value for _, _, value in found]
            leave_room(ax, values, wide(values, 50))
            ax.set_title(title, loc="left")
        name_rows(axes[0], labels)
        _warn_of_tables(axes, panels, rows)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=legend_columns)
        if cut(results):
            figure.suptitle(cut(results))
    return path


def _warn_of_tables(axes: Iterable[Axes], panels: Sequence[tuple[str, str, str, float]], rows: Sequence[Row]) -> None:
    if len({row["energy_table"] for row in rows if row["energy_table"]}) > 1:
        for ax, (column, *_) in zip(axes, panels, strict=True):
            if column == "energy_per_sample_uj":
                ax.set_xlabel("of several tables:\ndo not compare")


def _by_part(
    results: Sequence[Result],
    path: str | Path,
    parts: Callable[[Totals | LayerResult], dict[str, float]],
    colours: Mapping[str, str],
    unit: str,
    title: Callable[[Sequence[Result]], str],
) -> Path:
    path = plot_path(path)
    demand(results, path)
    if len(results) == 1:
        layers = results[0].layers[:MOST_ROWS]
        bars, names = [parts(layer) for layer in layers], [layer.name for layer in layers]
        head = clean(f"{results[0].trace.name} on {results[0].machine.name}", 70)
        if len(results[0].layers) > len(layers):
            head += f", the first {MOST_ROWS} of {len(results[0].layers):,} layers"
    else:
        bars, names = [parts(result.total) for result in results[:MOST_ROWS]], short_names(results[:MOST_ROWS])
        head = machine_of(results) + after(cut(results))
    names = row_names(names)
    height = 0.9 + max(row_inches(names), 0.2 * len(_labels(bars)))
    with drawing(path, label_inches(names) + 5.9, height) as figure:
        ax = figure.subplots()
        _stack(ax, bars, colours, unit)
        name_rows(ax, names)
        ax.set_title(", ".join(part for part in (head, title(results)) if part), loc="left")
    return path


def _stack(ax: Axes, bars: Bars, colours: Mapping[str, str], unit: str) -> None:
    """Draw stacked bars with their totals; where a bar would be too small to see, all are shares of their own total."""
    totals = np.array([math.fsum(bar.values()) for bar in bars])
    seen = totals[totals > 0]
    shares = bool(seen.size) and bool(seen.max() > 20 * seen.min())
    scale = np.divide(100.0, totals, out=np.zeros(len(totals)), where=totals > 0) if shares else np.ones(len(totals))
    left = np.zeros(len(bars))
    for label, look in _looks(_labels(bars), colours).items():
        widths = scale * [bar.get(label, 0.0) for bar in bars]
        ax.barh(np.arange(len(bars)), widths, 0.7, left=left, label=label.replace("_", " "), **look)
        left = left + widths
    for at, (end, total) in enumerate(zip(left, totals, strict=True)):
        if total:
            ax.text(end, at, f" {total:,.0f}" if total >= 1000 else f" {total:.4g}", va="center", fontsize=SMALL)
    ax.set_xlim(0, 1.22 * max(float(left.max()), 1e-12))  # room for the totals
    ax.set_xlabel(f"{unit}; % of the total beside each bar" if shares else unit)
    ax.locator_params(axis="x", nbins=5)
    plain_axis(ax.xaxis)
    if left.any():
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _looks(labels: Sequence[str], colours: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return how each label is drawn, no two alike: in its own colour where it has one that is free, else the next."""
    looks: dict[str, dict[str, Any]] = {}
    for label in labels:
        if label in colours and colours[label] not in [look["color"] for look in looks.values()]:
            looks[label] = {"color": colours[label], **BARS}
    taken = [look["color"] for look in looks.values()]
    free = (look for look in map(fill_of, range(10**6)) if look.get("hatch") or look["color"] not in taken)
    return {label: looks[label] if label in looks else next(free) for label in labels}


def _bars(ax: Axes, values: Sequence[float | None], colour: str) -> None:
    known = [value for value in values if value is not None]
    for at, value in enumerate(values):
        if value is not None:
            ax.barh(at, value, 0.7, color=colour, **BARS)
            ax.text(value, at, f" {number(value)}", va="center", fontsize=SMALL)
    leave_room(ax, known, wide(known, 50))


def _labels(bars: Bars) -> list[str]:
    """Return the names of the parts that any of the ``bars`` has, in order."""
    return [label for label in dict.fromkeys(key for bar in bars for key in bar) if any(bar.get(label) for bar in bars)]
