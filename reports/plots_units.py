"""Plots of a machine's units: how each was loaded, and how full their queues were."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..simulator.result import LayerResult, Result
from ..workloads.errors import InputError
from .plots_data import IDLE, levels_of, loads_of, over_time
from .plots_rows import (
    MOST_ROWS,
    after,
    colour_bar,
    cut,
    demand,
    heat_cells,
    label_inches,
    machine_of,
    name_rows,
    row_inches,
    row_names,
    short_names,
)  # fmt: skip
from .plots_style import BARS, CAUSES, EDGE, SKY, SMALL, clean, drawing, fill_of, line_of, plain_axis, plot_path
from .reading import result_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_MAPS = 8  # heat maps by layer in one plot; more results have a row each for all layers
MOST_TIMES = 6  # results whose queues are drawn over time
MOST_NAMED = 12  # layers that are named there


def plot_load(result: Result | Sequence[Result], path: str | Path) -> Path:
    """Return ``path``, which now shows the cycles in which each unit works; several results stand below one another.

    Work is useful, padding, or an empty column; the line is the mean, and what lies above it others wait for.
    """
    path = plot_path(path)
    results = [result] if isinstance(result, Result) else list(result)
    demand(results, path)
    with drawing(path, 7.5, 0.5 + 1.9 * len(results)) as figure:
        axes = np.ravel(figure.subplots(len(results), 1, sharey=True, squeeze=False))
        for ax, one in zip(axes, results, strict=True):
            kind, loads = _loads(one.layers)
            total = sum(loads.values(), np.zeros(1))
            base = np.zeros(len(total))
            for index, (cause, cycles) in enumerate(loads.items()):
                look = {**fill_of(index), **({"color": CAUSES[cause]} if cause in CAUSES else {}), **BARS}
                ax.bar(np.arange(len(total)), cycles, 0.85, bottom=base, label=cause, **look)
                base = base + cycles
            mean, most = float(total.mean()), float(total.max())
            ax.axhline(mean, color="black", linewidth=1)
            over = f", fullest {100 * (most / mean - 1):.1f} % above the mean" if mean else ""
            ax.set_title(
                f"{clean(f'{one.trace.name} on {one.machine.name}')}: mean {mean:,.0f} cycles{over}", loc="left"
            )
            ax.set_ylabel("working cycles")
            ax.grid(axis="x", visible=False)
            ax.set_xlim(-0.7, len(total) - 0.3)
            plain_axis(ax.yaxis)
        axes[-1].set_xlabel({"pe": "PE"}.get(kind, kind))
        found = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=4)
    return path


def plot_load_map(results: Sequence[Result], path: str | Path) -> Path:
    """Return ``path``, which now shows the load of each unit by layer as a heat map, one a result.

    Of many results each has one row, that of all layers. Raises InputError where no machine has several units.
    """
    path = plot_path(path)
    demand(results, path)
    by_layer = len(results) <= MOST_MAPS
    names = result_names(results) if by_layer else short_names(results)
    found = [(name, loads_of(result, by_layer)) for name, result in zip(names, results, strict=True)]
    maps = [(name, loads) for name, loads in found if loads is not None]
    if not maps:
        raise InputError(f"{path}: a plot of load needs a machine with several units, and none of these has them")
    if not by_layer:
        maps = [(clean(name), loads) for name, loads in maps[:MOST_ROWS]]
        kinds = {loads.kind for _, loads in maps}
        rows = [_share_of_most(loads.rows[-1]) for _, loads in maps]
        title = "all layers" + after(machine_of(results)) + after(cut(results))
        panels = [(title, [name for name, _ in maps], rows, " or ".join(sorted(kinds)))]
    else:
        panels = [
            (name + loads.note, row_names(loads.names), list(map(_share_of_most, loads.rows)), loads.kind)
            for name, loads in maps
        ]
    heights = [row_inches(names) + 0.62 for _, names, _, _ in panels]
    width = label_inches([name for _, names, _, _ in panels for name in names]) + 6.3
    with drawing(path, width, max(math.fsum(heights) + 0.3, 1.6)) as figure:
        axes = np.ravel(figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights))
        for ax, (title, names, rows, kind) in zip(axes, panels, strict=True):
            image = heat_cells(ax, rows, 100.0)
            name_rows(ax, names)
            ax.set_title(clean(title, 90), loc="left")
            ax.set_xlabel(kind)
        colour_bar(figure, image, list(axes), math.fsum(heights), "working, % of\nthe busiest")
    return path


def plot_queues(results: Sequence[Result], path: str | Path) -> Path:
    """Return ``path``, which now shows how long queues stood at each level, and their level over time where known.

    A row a result, or of a single result a row a layer. Raises InputError where no machine has queues.
    """
    path = plot_path(path)
    demand(results, path)
    names = result_names(results)
    maps = [
        replace(one, names=row_names(one.names[:MOST_ROWS]), rows=one.rows[:MOST_ROWS])
        for one in levels_of(results, short_names(results))
    ]
    if not maps:
        raise InputError(f"{path}: a plot of queues needs a machine with queues, as EIE, and none of these has them")
    times = [
        (name, kind, layers)
        for name, result in zip(names, results, strict=True)
        for kind, layers in over_time(result).items()
    ][:MOST_TIMES]
    heights = [row_inches(one.names) + 0.75 for one in maps] + [1.9] * len(times)
    width = max(label_inches([name for one in maps for name in one.names]) + 5.6, 7.0)
    with drawing(path, width, max(math.fsum(heights) + 0.2, 1.6)) as figure:
        axes = np.ravel(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights))
        for ax, levels in zip(axes, maps, strict=False):
            most = max(float(row.max(initial=0.0)) for row in levels.rows)
            image = heat_cells(ax, levels.rows, most, written=True)
            colour_bar(figure, image, [ax], row_inches(levels.names), "% of the time")
            name_rows(ax, levels.names)
            heads = levels.heads
            ax.set_xticks(range(len(heads)), heads, fontsize=SMALL if len(heads) > 10 else None)
            several = "; 4+: from 4 up to the next" if heads[-1].endswith("+") else ""
            ax.set_xlabel(f"waiting in a queue{several}")
            ax.set_title(f"{levels.kind} queues, from empty to full{after(machine_of(results))}", loc="left")
        for ax, (name, kind, layers) in zip(axes[len(maps) :], times, strict=True):
            _draw_times(ax, layers)
            ax.set_title(clean(f"{kind} queues of {name}", 62), loc="left")
            ax.set_ylabel("waiting: mean, and\nfrom least to most")
    return path


def _draw_times(ax: Axes, layers: Sequence[tuple[str, int, Any]]) -> None:
    mean, (_, begin, known) = line_of(0), layers[-1]
    end = begin + known.step * len(known.mean)
    for index, (name, start, seen) in enumerate(layers):
        edges = start + seen.step * np.arange(len(seen.mean) + 1)
        ax.stairs(seen.most, edges, baseline=seen.least, fill=True, color=SKY, alpha=0.45, linewidth=0)
        ax.stairs(seen.mean, edges, color=mean["color"], linewidth=1.2)
        if 1 < len(layers) <= MOST_NAMED:
            ax.axvline(start, color=EDGE, linewidth=0.6, linestyle=":")
            top = 1.0 if index % 2 == 0 else 0.88
            if end - start > 0.04 * end:
                ax.text(start, top, f" {clean(name, 14)}", transform=ax.get_xaxis_transform(), va="top", fontsize=SMALL)
    ax.set_xlim(0, end)
    ax.set_ylim(0, 1.2 * max(max(seen.most) for _, _, seen in layers) or 1)
    plain_axis(ax.xaxis)
    ax.set_xlabel("cycle")


def _loads(layers: Sequence[LayerResult]) -> tuple[str, dict[str, np.ndarray]]:
    """Return the kind of computing unit, and the cycles each one works, by cause."""
    for kind in layers[0].cycles_per_unit:
        causes = [cause for cause in layers[0].cycles_per_unit[kind] if cause not in IDLE or cause == "empty"]
        return kind, {c: np.sum([layer.cycles_per_unit[kind][c] for layer in layers], axis=0) for c in causes}
    return "machine", {}


def _share_of_most(row: np.ndarray) -> np.ndarray:
    return 100 * row / max(float(row.max(initial=0.0)), 1.0)
