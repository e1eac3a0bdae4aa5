"""Drawings of a report: bars, heat maps, rooflines, curves over a config field, and Pareto fronts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..simulator.result import LayerResult, Result, Totals
from .cells import figures
from .html_tables import accuracy_of, network_of, summary_rows
from .rows import Row
from .svg import Series, chart, heat_map, stacked_bars

IDLE = frozenset({
    "empty", "starved", "drained", "memory", "act_sram", "idle", "launch", "fill", "l2", "hbm", "smem", "shared_memory",
    "kernel",
})  # fmt: skip
MOST_UNITS = 264  # columns of a heat map; more units stand together, the busiest of each lot shown
CURVES = (
    ("latency_per_sample_us", "latency a sample, us"),
    ("speedup", "speed-up"),
    ("energy_per_sample_uj", "energy a sample, uJ"),
    ("load_balance", "load balance, share"),
)


def cause_bars(results: Sequence[Result], names: Sequence[str]) -> str:
    """Return where the cycles of each result's computing units went, and its energy, one bar a result."""
    cycles = stacked_bars(names, [_per_unit(r.total) for r in results], "cycles by cause", _whole)
    known = [(name, _energy(r.total)) for name, r in zip(names, results, strict=True) if r.total.energy_j is not None]
    if not known:
        return cycles
    tables = {r.total.energy_j.table for r in results if r.total.energy_j is not None}
    unit = "energy by part, uJ" + " (of several energy tables: do not compare)" * (len(tables) > 1)
    return cycles + stacked_bars([name for name, _ in known], [parts for _, parts in known], unit, figures)


def layer_bars(result: Result) -> str:
    """Return the same for the layers of one result."""
    names = [layer.name for layer in result.layers]
    cycles = stacked_bars(names, [_per_unit(layer) for layer in result.layers], "cycles by cause, a layer", _whole)
    energies = [_energy(layer) for layer in result.layers]
    return cycles + (stacked_bars(names, energies, "energy by part, a layer, uJ", figures) if any(energies) else "")


def unit_causes(result: Result) -> str:
    """Return the causes of every kind of unit but the first, which the other bars show: shares, one bar a kind."""
    kinds = list(result.total.cycles_by_cause.items())[1:]
    shares = [{c: 100 * n / max(sum(causes.values()), 1) for c, n in causes.items()} for _, causes in kinds]
    names = [kind.replace("_", " ") for kind, _ in kinds]
    return stacked_bars(names, shares, "cycles of the other units, %", lambda v: f"{v:.3g}") if kinds else ""


def load_map(result: Result, by_layer: bool) -> str:
    """Return how much each computing unit works in each layer and in all; nothing for a machine with one unit."""
    rows = [_working(layer) for layer in result.layers]
    names = [layer.name for layer in result.layers]
    width = max(map(len, rows), default=0)
    if width < 2:
        return ""
    if not by_layer or len(rows) > 1:
        total = np.sum([row for row in rows if len(row) == width], axis=0)
        rows, names = ([*rows, total], [*names, "all layers"]) if by_layer else ([total], ["all layers"])
    rows = [row / max(float(row.max(initial=0.0)), 1.0) for row in rows]
    kind = next(iter(result.layers[0].cycles_per_unit), "unit")
    lots = -(-width // MOST_UNITS)
    folded = [np.array([row[i : i + lots].max() for i in range(0, len(row), lots)]) for row in rows]
    what = {"pe": "PE"}.get(kind, kind.replace("_", " "))
    note = f"; {lots} of {width:,} a cell, the busiest shown" if lots > 1 else ""
    return heat_map(names, folded, f"load of each {what}: working cycles, as a share of the busiest one's{note}")


def map_cells(result: Result) -> int:
    """Return how many cells the load map of ``result`` has at most."""
    units = max((len(_working(layer)) for layer in result.layers), default=0)
    return len(result.layers) * min(units, MOST_UNITS)


def rooflines(results: Sequence[Result]) -> list[str]:
    """Return one chart a machine that has bounds: its layers under its roof."""
    charts = []
    machines: dict[tuple[str, float, float], list[Result]] = {}
    for result in results:
        roof = next((_roof(layer) for layer in result.layers if _roof(layer) is not None), None)
        if roof is not None:
            machines.setdefault((result.machine.name, *roof), []).append(result)
    for (name, peak, ridge), members in machines.items():
        dots = []
        for place, result in enumerate(members):
            found = [
                (layer.name, (layer.roofline["macs_per_byte"], layer.roofline["achieved_macs_per_s"] / 1e9))
                for layer in result.layers
                if layer.roofline is not None and min(layer.roofline.values()) > 0
            ]
            titles = [f"{layer}: {a:.4g} MACs/byte, {figures(b)} GMACs/s" for layer, (a, b) in found]
            dots.append(Series(result.trace.name, [p for _, p in found], titles, "dots", place + 1))
        reach = [a for one in dots for a, _ in one.points]
        if not reach:
            continue
        low, high = min(*reach, ridge) / 2, max(*reach, ridge) * 2
        line = Series("roof", [(low, peak / ridge * low), (ridge, peak), (high, peak)], style="line", group=0)
        label = f"roofline of {name}: useful GMACs/s"
        charts.append(chart([line, *dots], "MACs a byte to and from HBM", label, log="xy"))
    return charts


def sweep_charts(results: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """Return (config field, charts over it) for every field in which otherwise equal runs of a trace differ."""
    rows = summary_rows(results)
    fields: dict[str, dict[tuple[str, str], list[tuple[Any, Row]]]] = {}
    families: dict[tuple[str, str], list[tuple[Result, Row]]] = {}
    for result, row in zip(results, rows, strict=True):
        families.setdefault((result.trace.sha256, result.machine.model), []).append((result, row))
    for members in families.values():
        keys = dict.fromkeys(key for result, _ in members for key in result.machine.config)
        words = {key: [_word(result.machine.config.get(key)) for result, _ in members] for key in keys}
        varied = [key for key in keys if len(set(words[key])) > 1]
        for key in varied:
            lines = fields.setdefault(key, {})
            for index, (result, row) in enumerate(members):
                rest = [f"{other}={words[other][index]}" for other in varied if other != key]
                name = ", ".join([result.trace.name, *rest])
                lines.setdefault((result.trace.sha256, name), []).append((result.machine.config.get(key), row))
    shown = []
    for key, by_name in fields.items():
        lines = {name: line for name, line in by_name.items() if len({_word(value) for value, _ in line}) > 1}
        if lines:
            shown.append((key, _curves(key, {name: line for (_, name), line in lines.items()})))
    return shown


def pareto_charts(results: Sequence[Result], names: Sequence[str]) -> list[str]:
    """Return latency against energy and against accuracy for each network, with the results that none beats in both."""
    charts = []
    rows = summary_rows(results)
    for network in dict.fromkeys(map(network_of, results)):
        mine = [i for i, result in enumerate(results) if network_of(result) == network and rows[i]["cycles"]]
        of = f" of {network}" if network else ""
        for table in dict.fromkeys(rows[i]["energy_table"] for i in mine):
            members = [i for i in mine if table is not None and rows[i]["energy_table"] == table]
            points = [(rows[i]["latency_per_sample_us"], rows[i]["energy_per_sample_uj"]) for i in members]
            label = f"energy a sample{of}, uJ, by {table}"
            charts += _front([names[i] for i in members], points, "latency a sample, us", label, 1)
        members = [i for i in mine if accuracy_of(results[i]) is not None]
        accuracies = [(rows[i]["latency_per_sample_us"], 100 * rows[i]["accuracy"]) for i in members]
        if len({accuracy for _, accuracy in accuracies}) > 1:
            label = f"accuracy{of}, %"
            charts += _front([names[i] for i in members], accuracies, "latency a sample, us", label, -1)
    return charts


def pareto_front(points: Sequence[tuple[float, float]], sign: int = 1) -> list[int]:
    """Return the places of the points that no other beats or equals in one figure and beats in the other, by the first.

    Small is good; with ``sign`` -1 large is good in the second. Of equal points all are in.
    """
    front: list[int] = []
    best = float("inf")
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], sign * points[i][1])):
        second = sign * points[index][1]
        if second < best or (front and points[index] == points[front[-1]]):
            front.append(index)
            best = second
    return front


def _front(names: Sequence[str], points: Sequence[tuple[float, float]], x: str, y: str, sign: int) -> list[str]:
    if len(points) < 2:
        return []
    front = pareto_front(points, sign)
    rest = [i for i in range(len(points)) if i not in set(front)]

    def hover(index: int) -> str:
        return f"{names[index]}: {figures(points[index][0])} us, {figures(points[index][1])}"

    beaten = Series("beaten in both", [points[i] for i in rest], [hover(i) for i in rest], "dots", 7)
    best = Series("Pareto front", [points[i] for i in front], [hover(i) for i in front], "both", 3)
    values = [point[0] for point in points]
    log = "x" if min(values) > 0 and max(values) > 8 * min(values) else ""
    heights = [point[1] for point in points]
    log += "y" if sign == 1 and min(heights) > 0 and max(heights) > 30 * min(heights) else ""
    return [chart([beaten, best] if rest else [best], x, y, log=log)]


def _curves(key: str, lines: dict[str, list[tuple[Any, Row]]]) -> list[str]:
    values = [value for line in lines.values() for value, _ in line]
    numeric = all(
        isinstance(value, int | float) and not isinstance(value, bool) and (value == 0 or 1e-30 < abs(value) < 1e30)
        for value in values
    )
    places = {word: float(place) for place, word in enumerate(dict.fromkeys(map(_word, values)))}
    ticks = [] if numeric else [(place, word) for word, place in places.items()]
    if numeric and len(set(values)) <= 6:
        ticks = [(float(value), f"{value:g}") for value in sorted(set(values))]
    log = "x" if numeric and min(values) > 0 and max(values) >= 8 * min(values) else ""
    charts = []
    for column, label in CURVES:
        series = []
        for name, line in lines.items():
            found = [
                (float(value) if numeric else places[_word(value)], row[column])
                for value, row in line
                if row.get(column) is not None
            ]
            if len(found) > 1:
                series.append(Series(name, sorted(found)))
        if series:
            charts.append(chart(series, key, label, log=log, ticks=ticks, number=figures))
    return charts


def _roof(layer: LayerResult) -> tuple[float, float] | None:
    """Return (peak in GMACs/s, ridge in MACs/byte), rounded so that layers of one machine agree."""
    line = layer.roofline
    if line is None or min(line.values()) <= 0:
        return None
    ridge, bound, intensity = line["ridge_macs_per_byte"], line["bound_macs_per_s"], line["macs_per_byte"]
    peak = bound * max(ridge / intensity, 1.0)
    return float(f"{peak / 1e9:.6g}"), float(f"{ridge:.6g}")


def _working(layer: LayerResult) -> np.ndarray:
    """Return the cycles in which each of the layer's computing units works."""
    for causes in layer.cycles_per_unit.values():
        working = [np.asarray(cycles, float) for cause, cycles in causes.items() if cause not in IDLE]
        if working and len({len(cycles) for cycles in working}) == 1:
            return np.sum(working, axis=0)  # type: ignore[no-any-return]
    return np.zeros(0)


def _per_unit(figures_: Totals | LayerResult) -> dict[str, float]:
    """Return the cycles of the computing units by cause, per unit."""
    for causes in figures_.cycles_by_cause.values():
        spent = sum(causes.values())
        return {c: figures_.cycles * n / spent for c, n in causes.items()} if spent else {}
    return {}


def _energy(figures_: Totals | LayerResult) -> dict[str, float]:
    return {} if figures_.energy_j is None else {part: 1e6 * j for part, j in figures_.energy_j.by_part.items()}


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
