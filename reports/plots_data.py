"""What drawings of results show, as plain figures: the pages' drawings and the plots both take them from here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..simulator.result import LayerResult, OverTime, Result, Totals
from .comparison import accuracy_of, network_of, summary_rows
from .rows import Row

IDLE = frozenset({
    "empty", "starved", "drained", "memory", "act_sram", "idle", "launch", "fill", "l2", "hbm", "smem", "shared_memory",
    "kernel",
})  # fmt: skip
MOST_UNITS = 264  # columns of a heat map; more units stand together, the busiest of each lot shown
MOST_LINES = 8  # of a chart of curves; of more, so many are drawn, evenly chosen
MOST_LEVELS = 17  # of queues that are told apart; of deeper ones 2 and 3, 4 to 7 and so on stand together
UNITS = {"pe": "PE", "sm": "SM", "gpu": "GPU"}


@dataclass(frozen=True)
class Loads:
    """Working cycles of each unit, a row a layer: ``rows`` are arrays; ``lots`` units stand in a cell."""

    kind: str
    names: list[str]
    rows: list[np.ndarray]
    lots: int
    units: int

    @property
    def note(self) -> str:
        """Return what to say where a cell stands for several units."""
        return f"; {self.lots} of {self.units:,} a cell, the busiest shown" if self.lots > 1 else ""


@dataclass(frozen=True)
class Roof:
    """A machine's bounds in GMACs/s and MACs/byte, and the layers of each result under them: (layer, x, y)."""

    machine: str
    peak: float
    ridge: float
    layers: list[tuple[str, list[tuple[str, float, float]]]]

    @property
    def line(self) -> list[tuple[float, float]]:
        """Return the three points of the roof, wide enough for all layers."""
        reach = [x for _, dots in self.layers for _, x, _ in dots] + [self.ridge]
        low, high = min(reach) / 2, max(reach) * 2
        return [(low, self.peak / self.ridge * low), (self.ridge, self.peak), (high, self.peak)]


@dataclass(frozen=True)
class Curves:
    """What the config field ``field`` does: rows of a summary by its values, a line for each name.

    ``lines`` of so many are here; ``found`` tells of how many.
    """

    field: str
    lines: dict[str, list[tuple[Any, Row]]]
    found: int

    @property
    def numeric(self) -> bool:
        """Tell whether all values are numbers that an axis can hold."""
        return all(
            isinstance(v, int | float) and not isinstance(v, bool) and (v == 0 or 1e-30 < abs(v) < 1e30)
            for v in self.values
        )

    @property
    def values(self) -> list[Any]:
        """Return all values of the field, one a point."""
        return [value for line in self.lines.values() for value, _ in line]

    def series(self, column: str) -> dict[str, list[tuple[float, float]]]:
        """Return the points of each line that has at least two of ``column``; words stand at their place."""
        places, numeric = {word: float(place) for place, word in enumerate(self.words)}, self.numeric
        found = {}
        for name, line in self.lines.items():
            points = [
                (float(value) if numeric else places[word_of(value)], row[column])
                for value, row in line
                if row.get(column) is not None
            ]
            if len(points) > 1:
                found[name] = sorted(points)
        return found

    @property
    def words(self) -> list[str]:
        """Return the values as words, each once, in the order in which they occur."""
        return list(dict.fromkeys(map(word_of, self.values)))


@dataclass(frozen=True)
class Front:
    """Results by two figures, and the places of those that none beats in both; ``sign`` -1: large is good in y.

    ``of``: the network; ``table``: that of the energies; each may be empty.
    """

    x: str
    y: str
    of: str
    table: str
    sign: int
    names: list[str]
    points: list[tuple[float, float]]
    front: list[int]


@dataclass(frozen=True)
class Levels:
    """How long queues stood at each level, in % of their time, by result or layer.

    ``firsts``: the level, or the first of the levels, of each column. ``rows`` are arrays of the columns that the row's
    queues can reach.
    """

    kind: str
    names: list[str]
    rows: list[np.ndarray]
    firsts: list[int]

    @property
    def heads(self) -> list[str]:
        """Return what stands at each column: 4+ are the levels from 4 up to the next column's."""
        several = [b - a > 1 for a, b in zip(self.firsts, [*self.firsts[1:], self.firsts[-1] + 1], strict=True)]
        if any(several):
            several[-1] = True
        words = [str(first) if first < 1024 else f"{first >> 10}k" for first in self.firsts]
        return [word + "+" * more for word, more in zip(words, several, strict=True)]


def working(layer: LayerResult) -> np.ndarray:
    """Return the cycles in which each of the layer's computing units works, (units,)."""
    for causes in layer.cycles_per_unit.values():
        found = [np.asarray(cycles, float) for cause, cycles in causes.items() if cause not in IDLE]
        if found and len({len(cycles) for cycles in found}) == 1:
            return np.sum(found, axis=0)  # type: ignore[no-any-return]
    return np.zeros(0)


def per_unit(figures: Totals | LayerResult) -> dict[str, float]:
    """Return the cycles of the computing units by cause, per unit: they add up to the time in cycles."""
    for causes in figures.cycles_by_cause.values():
        spent = sum(causes.values())
        return {c: figures.cycles * n / spent for c, n in causes.items()} if spent else {}
    return {}


def energy_parts(figures: Totals | LayerResult) -> dict[str, float]:
    """Return the energy by part in uJ, nothing where there is no energy table."""
    return {} if figures.energy_j is None else {part: 1e6 * j for part, j in figures.energy_j.by_part.items()}


def loads_of(result: Result, by_layer: bool) -> Loads | None:
    """Return the load of each computing unit by layer and in all; None for a machine with one unit."""
    rows = [working(layer) for layer in result.layers]
    names = [layer.name for layer in result.layers]
    width = max(map(len, rows), default=0)
    if width < 2:
        return None
    if not by_layer or len(rows) > 1:
        total = np.sum([row for row in rows if len(row) == width], axis=0)
        rows, names = ([*rows, total], [*names, "all layers"]) if by_layer else ([total], ["all layers"])
    kind = next(iter(result.layers[0].cycles_per_unit), "unit")
    lots = -(-width // MOST_UNITS)
    folded = [np.array([row[i : i + lots].max() for i in range(0, len(row), lots)]) for row in rows]
    return Loads(UNITS.get(kind, kind.replace("_", " ")), names, folded, lots, width)


def roofs_of(results: Sequence[Result]) -> list[Roof]:
    """Return one roof a machine that has bounds."""
    machines: dict[tuple[str, float, float], list[Result]] = {}
    for result in results:
        roof = next((_roof(layer) for layer in result.layers if _roof(layer) is not None), None)
        if roof is not None:
            machines.setdefault((result.machine.name, *roof), []).append(result)
    found = []
    for (name, peak, ridge), members in machines.items():
        layers = []
        for result in members:
            dots = [
                (layer.name, layer.roofline["macs_per_byte"], layer.roofline["achieved_macs_per_s"] / 1e9)
                for layer in result.layers
                if layer.roofline is not None and min(layer.roofline.values()) > 0
            ]
            layers.append((result.trace.name, dots))
        if any(dots for _, dots in layers):
            found.append(Roof(name, peak, ridge, layers))
    return found


def curves_of(results: Sequence[Result]) -> list[Curves]:
    """Return the curves over every config field in which runs of a trace differ that are alike otherwise."""
    rows = summary_rows(results)
    fields: dict[str, dict[tuple[str, str], list[tuple[Any, Row]]]] = {}
    families: dict[tuple[str, str], list[tuple[Result, Row]]] = {}
    for result, row in zip(results, rows, strict=True):
        families.setdefault((result.trace.sha256, result.machine.model), []).append((result, row))
    for members in families.values():
        keys = dict.fromkeys(key for result, _ in members for key in result.machine.config)
        words = {key: [word_of(result.machine.config.get(key)) for result, _ in members] for key in keys}
        varied = [key for key in keys if len(set(words[key])) > 1]
        for key in varied:
            lines = fields.setdefault(key, {})
            for index, (result, row) in enumerate(members):
                rest = [f"{other}={words[other][index]}" for other in varied if other != key]
                name = ", ".join([result.trace.name, *rest])
                lines.setdefault((result.trace.sha256, name), []).append((result.machine.config.get(key), row))
    shown = []
    for key, by_name in fields.items():
        lines = {name: line for name, line in by_name.items() if len({word_of(value) for value, _ in line}) > 1}
        if lines:
            all_ = list(lines.items())
            places = np.unique(np.linspace(0, len(all_) - 1, min(MOST_LINES, len(all_))).round().astype(int))
            shown.append(Curves(key, {all_[i][0][1]: all_[i][1] for i in places}, len(all_)))
    return shown


def fronts_of(results: Sequence[Result], names: Sequence[str]) -> list[Front]:
    """Return latency against energy and against accuracy for each network, with the results that none beats in both."""
    fronts = []
    rows = summary_rows(results)
    for network in dict.fromkeys(map(network_of, results)):
        mine = [i for i, result in enumerate(results) if network_of(result) == network and rows[i]["cycles"]]
        for table in dict.fromkeys(rows[i]["energy_table"] for i in mine):
            members = [i for i in mine if table is not None and rows[i]["energy_table"] == table]
            points = [(rows[i]["latency_per_sample_us"], rows[i]["energy_per_sample_uj"]) for i in members]
            known = [names[i] for i in members]
            fronts.append(
                Front("latency a sample, us", "energy a sample, uJ", network or "", table or "", 1, known, points, [])
            )
        members = [i for i in mine if accuracy_of(results[i]) is not None]
        points = [(rows[i]["latency_per_sample_us"], 100 * rows[i]["accuracy"]) for i in members]
        if len({accuracy for _, accuracy in points}) > 1:
            known = [names[i] for i in members]
            fronts.append(Front("latency a sample, us", "accuracy, %", network or "", "", -1, known, points, []))
    return [replace(one, front=pareto_front(one.points, one.sign)) for one in fronts if len(one.points) > 1]


def best_of(front: Front) -> list[str]:
    """Return the names of the results that none beats."""
    return [front.names[place] for place in front.front]


def levels_of(results: Sequence[Result], names: Sequence[str]) -> list[Levels]:
    """Return how full the queues of each kind were, a row a result; of a single result, a row a layer and the total."""
    if len(results) == 1:
        layers: list[LayerResult | Totals] = list(results[0].layers)
        rows = [(layer.name, layer.queues) for layer in results[0].layers]
        rows += [("all layers", results[0].total.queues)] if len(layers) > 1 else []
    else:
        rows = [(name, result.total.queues) for name, result in zip(names, results, strict=True)]
    found = []
    for kind in dict.fromkeys(kind for _, queues in rows for kind in queues):
        mine = [(name, queues[kind]) for name, queues in rows if kind in queues]
        deepest = 1 + max(max(q.capacity, len(q.cycles_at_level) - 1) for _, q in mine)
        firsts = list(range(min(deepest, MOST_LEVELS)))
        if deepest > MOST_LEVELS:
            firsts = [0, *(1 << bit for bit in range((deepest - 1).bit_length()))]
        shares = []
        for _, queue in mine:
            held = np.asarray(queue.cycles_at_level, float)
            reach = max(queue.capacity, len(held) - 1)
            cells = sum(first <= reach for first in firsts)
            spent = np.bincount(np.searchsorted(firsts, np.arange(len(held)), side="right") - 1, held, cells)
            shares.append(100 * spent / max(float(held.sum()), 1.0))
        found.append(Levels(kind, [name for name, _ in mine], shares, firsts))
    return found


def over_time(result: Result) -> dict[str, list[tuple[str, int, OverTime]]]:
    """Return by kind of queue what is known of it over time: (layer, its first cycle, samples)."""
    found: dict[str, list[tuple[str, int, OverTime]]] = {}
    start = 0
    for layer in result.layers:
        for kind, queue in layer.queues.items():
            if queue.over_time is not None and queue.over_time.mean:
                found.setdefault(kind, []).append((layer.name, start, queue.over_time))
        start += layer.cycles
    return found


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


def word_of(value: Any) -> str:
    """Return a value of a config field as a word."""
    return value if isinstance(value, str) else json.dumps(value)


def _roof(layer: LayerResult) -> tuple[float, float] | None:
    """Return (peak in GMACs/s, ridge in MACs/byte), rounded so that layers of one machine agree."""
    line = layer.roofline
    if line is None or min(line.values()) <= 0:
        return None
    ridge, bound, intensity = line["ridge_macs_per_byte"], line["bound_macs_per_s"], line["macs_per_byte"]
    peak = bound * max(ridge / intensity, 1.0)
    return float(f"{peak / 1e9:.6g}"), float(f"{ridge:.6g}")
