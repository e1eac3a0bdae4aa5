"""The figures of a result: what a layer cost, by cause, part and level, and what layers come to together.

The field names are keys of ``gossamer.result/1`` and keep their meaning.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import zip_longest

import msgspec
import numpy as np


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy in joules: the total, its parts, and the table (with its mode) that gave them."""

    total: float
    by_part: dict[str, float]
    table: str
    mode: str

    def __float__(self) -> float:
        return self.total


class OverTime(msgspec.Struct, frozen=True, kw_only=True):
    """The level of queues over time: mean, least and most of all of them in stretches of ``step`` cycles."""

    step: int
    mean: list[float]
    least: list[int]
    most: list[int]


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """How full the queues of one kind were. ``capacity``: what one of them can hold.

    ``cycles_at_level``: cycles with 0, 1, 2 ... waiting, summed over the queues, up to the highest level met; they add
    up to the number of queues times the layer's cycles. ``over_time``: from the event engine where a timeline was asked
    for, else None.
    """

    capacity: int
    cycles_at_level: list[int]
    over_time: OverTime | None = None


class LayerResult(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What one layer cost. Cycles and counts are sums over all ``samples``.

    ``shape``: of the weight. ``samples``: inputs in the batch. ``vectors``: matrix-vector products they came to (a
    convolution makes one an output position). ``macs``: useful multiply-accumulates, both operands nonzero where the
    machine skips zeros. ``utilization``: macs / (multipliers x cycles). ``load_balance``: as the machine's paper
    defines it. ``cycles_by_cause``: for each kind of unit, where its cycles went; the sum over causes is the number of
    such units times ``cycles``. ``cycles_per_unit``: the same, one number a unit. ``theoretical_cycles``: with all
    units busy all the time. ``traffic_bytes``: by memory level. ``storage_bits``: the encoded weight, by part.
    ``arithmetic``: what the machine's number formats did to the output, against float64. ``roofline``: where the layer
    stands under the machine's bounds, None where the model draws none. ``tiling``: how the layer was cut into tiles,
    None where the model tells none. ``queues``: how full they were, by kind; empty where the model has none.
    ``output``: the values the hardware produces, (vectors, out); not part of the JSON form.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    samples: int
    vectors: int
    cycles: int
    latency_s: float
    theoretical_cycles: float
    macs: int
    utilization: float
    load_balance: float | None
    cycles_by_cause: dict[str, dict[str, int]]
    cycles_per_unit: dict[str, dict[str, list[int]]]
    counts: dict[str, int]
    energy_j: Energy | None
    traffic_bytes: dict[str, int]
    storage_bits: dict[str, int]
    arithmetic: dict[str, float] | None = None
    roofline: dict[str, float] | None = None
    tiling: dict[str, int] | None = None
    queues: dict[str, Queue] = {}
    warnings: list[str] = []

    @property
    def output(self) -> np.ndarray | None:
        """Return the values the hardware produced, (vectors, out), or None where the result was read from a file."""
        return self.__dict__.get("output")

    def with_output(self, output: np.ndarray) -> LayerResult:
        """Attach the output values and return the result itself."""
        self.__dict__["output"] = output
        return self


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the layers; the ratios are those of the sums."""

    cycles: int
    latency_s: float
    theoretical_cycles: float
    macs: int
    utilization: float
    load_balance: float | None
    cycles_by_cause: dict[str, dict[str, int]]
    counts: dict[str, int]
    energy_j: Energy | None
    area_mm2: float | None
    traffic_bytes: dict[str, int]
    storage_bits: dict[str, int]
    queues: dict[str, Queue] = {}


def add_up(layers: Iterable[LayerResult], area_mm2: float | None) -> Totals:
    """Return the sums over ``layers``; utilization and load balance are weighted by cycles, as the sums give them."""
    layers = list(layers)
    cycles = sum(layer.cycles for layer in layers)
    causes: dict[str, Counter[str]] = {}
    for layer in layers:
        for unit, by_cause in layer.cycles_by_cause.items():
            causes.setdefault(unit, Counter()).update(by_cause)
    energies = [layer.energy_j for layer in layers]
    energy = None
    if energies and all(e is not None for e in energies):
        parts: Counter[str] = Counter()
        for e in energies:
            assert e is not None
            parts.update(e.by_part)
        first = energies[0]
        assert first is not None
        energy = Energy(total=math.fsum(parts.values()), by_part=dict(parts), table=first.table, mode=first.mode)

    def weighted(values: list[float]) -> float:
        return math.fsum(v * layer.cycles for v, layer in zip(values, layers, strict=True)) / cycles if cycles else 0.0

    balances = [layer.load_balance for layer in layers]
    known = [b for b in balances if b is not None]
    return Totals(
        cycles=cycles,
        latency_s=math.fsum(layer.latency_s for layer in layers),
        theoretical_cycles=math.fsum(layer.theoretical_cycles for layer in layers),
        macs=sum(layer.macs for layer in layers),
        utilization=weighted([layer.utilization for layer in layers]),
        load_balance=weighted(known) if len(known) == len(layers) else None,
        cycles_by_cause={unit: dict(by_cause) for unit, by_cause in causes.items()},
        counts=_sum_of(layer.counts for layer in layers),
        energy_j=energy,
        area_mm2=area_mm2,
        traffic_bytes=_sum_of(layer.traffic_bytes for layer in layers),
        storage_bits=_sum_of(layer.storage_bits for layer in layers),
        queues=_add_queues(layers),
    )


def _sum_of(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def _add_queues(layers: Iterable[LayerResult]) -> dict[str, Queue]:
    found: dict[str, list[Queue]] = {}
    for layer in layers:
        for kind, queue in layer.queues.items():
            found.setdefault(kind, []).append(queue)
    return {
        kind: Queue(
            capacity=max(queue.capacity for queue in queues),
            cycles_at_level=[
                sum(cycles) for cycles in zip_longest(*(queue.cycles_at_level for queue in queues), fillvalue=0)
            ],
        )
        for kind, queues in found.items()
    }
