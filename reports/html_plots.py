"""Drawings of a report: bars, heat maps, rooflines, curves over a config field, and Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence

from ..simulator.result import Result
from .cells import figures
from .plots_data import (
    MOST_UNITS,
    Curves,
    Front,
    curves_of,
    energy_parts,
    fronts_of,
    levels_of,
    loads_of,
    over_time,
    per_unit,
    roofs_of,
    working,
)  # fmt: skip
from .svg import Series, chart, heat_map, stacked_bars

CURVES = (
    ("latency_per_sample_us", "latency a sample, us"),
    ("speedup", "speed-up"),
    ("energy_per_sample_uj", "energy a sample, uJ"),
    ("load_balance", "load balance, share"),
)


def cause_bars(results: Sequence[Result], names: Sequence[str]) -> str:
    """Return where the cycles of each result's computing units went, and its energy, one bar a result."""
    cycles = stacked_bars(names, [per_unit(r.total) for r in results], "cycles by cause", _whole)
    known = [
        (name, energy_parts(r.total)) for name, r in zip(names, results, strict=True) if r.total.energy_j is not None
    ]
    if not known:
        return cycles
    tables = {r.total.energy_j.table for r in results if r.total.energy_j is not None}
    unit = "energy by part, uJ" + " (of several energy tables: do not compare)" * (len(tables) > 1)
    return cycles + stacked_bars([name for name, _ in known], [parts for _, parts in known], unit, figures)


def layer_bars(result: Result) -> str:
    """Return the same for the layers of one result."""
    names = [layer.name for layer in result.layers]
    cycles = stacked_bars(names, [per_unit(layer) for layer in result.layers], "cycles by cause, a layer", _whole)
    energies = [energy_parts(layer) for layer in result.layers]
    return cycles + (stacked_bars(names, energies, "energy by part, a layer, uJ", figures) if any(energies) else "")


def unit_causes(result: Result) -> str:
    """Return the causes of every kind of unit but the first, which the other bars show: shares, one bar a kind."""
    kinds = list(result.total.cycles_by_cause.items())[1:]
    shares = [{c: 100 * n / max(sum(causes.values()), 1) for c, n in causes.items()} for _, causes in kinds]
    names = [kind.replace("_", " ") for kind, _ in kinds]
    return stacked_bars(names, shares, "cycles of the other units, %", lambda v: f"{v:.3g}") if kinds else ""


def load_map(result: Result, by_layer: bool) -> str:
    """Return how much each computing unit works in each layer and in all; nothing for a machine with one unit."""
    loads = loads_of(result, by_layer)
    if loads is None:
        return ""
    rows = [row / max(float(row.max(initial=0.0)), 1.0) for row in loads.rows]
    caption = f"load of each {loads.kind}: working cycles, as a share of the busiest one's{loads.note}"
    return heat_map(loads.names, rows, caption)


def map_cells(result: Result) -> int:
    """Return how many cells the load map of ``result`` has at most."""
    units = max((len(working(layer)) for layer in result.layers), default=0)
    return len(result.layers) * min(units, MOST_UNITS)


def queue_maps(results: Sequence[Result], names: Sequence[str]) -> list[str]:
    """Return how long the queues of each kind stood at each level: a row a result, or of a single one a row a layer."""
    maps = []
    for levels in levels_of(results, names):
        most = max((float(row.max(initial=0.0)) for row in levels.rows), default=0.0)
        caption = f"{levels.kind} queues: share of the time at each level, from empty at the left to full at the right"
        befores = ["" if len(results) == 1 else f"{name}; " for name in levels.names]
        hints = [
            [f"{before}{head}: {share:.3g} %" for head, share in zip(levels.heads, row, strict=False)]
            for before, row in zip(befores, levels.rows, strict=True)
        ]
        rows = [row / max(most, 1e-12) for row in levels.rows]
        left = 96 if max(map(len, levels.names)) <= 16 else 192
        maps.append(
            heat_map(
                [_with_settings(name, 32) for name in levels.names],
                rows,
                caption,
                top=most,
                left=left,
                heads=levels.heads,
                hints=hints,
            )
        )
    return maps


def queue_times(results: Sequence[Result], names: Sequence[str]) -> list[str]:
    """Return the level of the queues over time, where the event engine drew a timeline."""
    charts = []
    for result, name in zip(results, names, strict=True):
        for kind, layers in over_time(result).items():
            series = []
            for what, dashed in (("mean", False), ("most", True), ("least", True)):
                points = [
                    (start + (place + 0.5) * seen.step, float(level))
                    for _, start, seen in layers
                    for place, level in enumerate(getattr(seen, what))
                ]
                series.append(Series(what, points, style="dashed" if dashed else "line"))
            charts.append(chart(series, "cycle", f"{kind} queues of {name}: waiting in one of them"))
    return charts


def rooflines(results: Sequence[Result]) -> list[str]:
    """Return one chart a machine that has bounds: its layers under its roof."""
    charts = []
    for roof in roofs_of(results):
        dots = []
        for place, (trace, found) in enumerate(roof.layers):
            titles = [f"{layer}: {x:.4g} MACs/byte, {figures(y)} GMACs/s" for layer, x, y in found]
            dots.append(Series(trace, [(x, y) for _, x, y in found], titles, "dots", place + 1))
        line = Series("roof", roof.line, style="line", group=0)
        label = f"roofline of {roof.machine}: useful GMACs/s"
        charts.append(chart([line, *dots], "MACs a byte to and from HBM", label, log="xy"))
    return charts


def sweep_charts(results: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """Return (config field, charts over it) for every field in which otherwise equal runs of a trace differ."""
    return [(curves.field, _charts(curves)) for curves in curves_of(results)]


def pareto_charts(results: Sequence[Result], names: Sequence[str]) -> list[str]:
    """Return latency against energy and against accuracy for each network, with the results that none beats in both."""
    return [_front(front) for front in fronts_of(results, names)]


def _front(front: Front) -> str:
    rest = [i for i in range(len(front.points)) if i not in set(front.front)]
    points, names = front.points, front.names

    def hover(index: int) -> str:
        return f"{names[index]}: {figures(points[index][0])} us, {figures(points[index][1])}"

    beaten = Series("beaten in both", [points[i] for i in rest], [hover(i) for i in rest], "dots", 7)
    best = Series("Pareto front", [points[i] for i in front.front], [hover(i) for i in front.front], "both", 3)
    values = [point[0] for point in points]
    log = "x" if min(values) > 0 and max(values) > 8 * min(values) else ""
    heights = [point[1] for point in points]
    log += "y" if front.sign == 1 and min(heights) > 0 and max(heights) > 30 * min(heights) else ""
    label = front.y.replace(",", f" of {front.of},", 1) if front.of else front.y
    label += f", by {front.table}" if front.table else ""
    return chart([beaten, best] if rest else [best], front.x, label, log=log)


def _charts(curves: Curves) -> list[str]:
    values = [float(value) for value in curves.values] if curves.numeric else []
    ticks = [(float(place), word) for place, word in enumerate(curves.words)] if not curves.numeric else []
    if curves.numeric and len(set(values)) <= 6:
        ticks = [(value, f"{value:g}") for value in sorted(set(values))]
    log = "x" if curves.numeric and min(values) > 0 and max(values) >= 8 * min(values) else ""
    some = f"; {len(curves.lines)} of {curves.found:,} lines" if curves.found > len(curves.lines) else ""
    charts = []
    for column, label in CURVES:
        series = [Series(name, points) for name, points in curves.series(column).items()]
        if series:
            charts.append(chart(series, curves.field, label + some, log=log, ticks=ticks, number=figures))
    return charts


def _with_settings(name: str, most: int) -> str:
    """Return a result's name in ``most`` characters or so, settings and all; what comes before them is cut."""
    head, comma, settings = name.partition(", ")
    room = max(2, most - len(comma + settings))
    return name if len(name) <= most else f"{head[: room - 1]}\u2026{comma}{settings}"


def _whole(value: float) -> str:
    return f"{value:,.0f}"
