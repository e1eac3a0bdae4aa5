"""A dual-side sparse tensor core: outer products that skip the zeros of weights and of activations.

A core works on tiles of 32 x 32 outputs. For each place k of the reduction it multiplies the tile's nonzero weights,
a of 32, with its nonzero activations, b of 32, in quanta of 8 x 16 multipliers: ceil(a / 8) * ceil(b / 16) of the 8 of
a dense step. Finding the nonzeros and merging the partial sums is taken to be hidden (assumed). Tiles go, rows first,
to whichever core is free, the lowest of several; a tile without quanta takes no cycle, and its core may have the next
one too. With Q quanta in a tile and q issued a cycle,

    cycles = launch + max(when the last core is done, HBM bytes / bandwidth),   a tile taking ceil(Q / q)

Both operands are stored as their nonzeros and a bitmap; HBM moves each once, and the outputs, dense.

Source: Wang et al., "Dual-side Sparse Tensor Core", ISCA 2021 (arXiv 2105.09564), and its artifact.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numba import njit

from ..simulator.result import LayerResult
from ..workloads.blocks import BLOCK, row_blocks
from ..workloads.gemm import Operands, operands
from .parts.counting import check_count
from .parts.dispatch import first_free
from .parts.energy import energy_of
from .parts.ranges import check_bounds, check_not_negative, check_positive, check_shares
from .parts.roofline import roofline
from .parts.tensorcore import values as tensorcore_values

if TYPE_CHECKING:
    import simpy

    from ..simulator.machine import Machine
    from ..simulator.memo import Memo
    from ..simulator.timeline import Timeline
    from ..workloads.trace import Layer
    from .parts.dispatch import Dispatcher

Process = Generator["simpy.Event", Any, None]
OPS = ("linear", "conv2d", "matmul")
ERT_BASE = "dstc-event"  # which energies an Accelergy reference table replaces
WORD_BITS = 16  # fp16 operands and outputs; sums are kept in float32
CAUSES = ("launch", "multiply", "idle", "hbm")


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cores that multiply nonzeros with nonzeros, in fp16.

    ``core_count``; ``clock_hz``. ``tile_rows`` x ``tile_columns``: outputs that a core works on. ``quantum_rows`` x
    ``quantum_columns``: multipliers of a quantum; ``quanta_per_clk``: issued a cycle and core. ``hbm_bytes_per_s``, of
    which ``hbm_efficiency`` is reached. ``launch_s``: a kernel's start. ``functional``: compute the values too, not the
    cost alone. ``energy``: an energy table, "" for none.
    """

    core_count: int
    clock_hz: float
    tile_rows: int
    tile_columns: int
    quantum_rows: int
    quantum_columns: int
    quanta_per_clk: int
    hbm_bytes_per_s: float
    hbm_efficiency: float
    launch_s: float
    functional: bool
    energy: str

    def __post_init__(self) -> None:
        counts = ("core_count", "tile_rows", "tile_columns", "quantum_rows", "quantum_columns", "quanta_per_clk")
        check_bounds(self, dict.fromkeys(counts, (1, 65536)))
        check_positive(self, "clock_hz", "hbm_bytes_per_s")
        check_not_negative(self, "launch_s")
        check_shares(self, "hbm_efficiency")

    @property
    def multipliers(self) -> int:
        """Return the multipliers of all cores."""
        return self.core_count * self.quanta_per_clk * self.quantum_rows * self.quantum_columns


@dataclass
class Account:
    """What either engine finds: ``busy`` and ``done``, (cores,) cycles; ``done`` does not count the launch."""

    busy: np.ndarray
    done: np.ndarray
    quanta: int = 0
    macs: int = 0

    @classmethod
    def of(cls, cores: int) -> Account:
        """Return an account of nothing."""
        return cls(np.zeros(cores, np.int64), np.zeros(cores, np.int64))


@dataclass(frozen=True)
class Traffic:
    """Bytes to and from HBM, and the stored weight's bits by part."""

    read: int
    write: int
    storage_bits: dict[str, int] = field(default_factory=dict)


def fast(machine: Machine, layer: Layer, memo: Memo) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, from the nonzeros of each tile's rows and columns."""
    config: Config = machine.config
    products = memo((layer, "operands"), lambda: operands(layer))
    account = Account.of(config.core_count)
    for product in products:
        rows = _count(product.weight, config.tile_rows)  # (row tiles, reduction)
        columns = _count(product.vectors, config.tile_columns)
        # Whole numbers far below 2**53: the matrix product of counts is exact.
        account.macs += int((rows.sum(axis=0) * columns.sum(axis=0)).sum())
        quanta = (-(-rows // config.quantum_rows)) @ (-(-columns // config.quantum_columns)).T
        account.quanta += int(quanta.sum())
        _assign(-(-quanta.T.ravel() // config.quanta_per_clk), account.done, account.busy)
    output = memo((layer, "fp16 values"), lambda: _values(layer, products)) if config.functional else None
    return _result(machine, layer, products, account, output)


def events(machine: Machine, layer: Layer, timeline: Timeline | None = None) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by stepping its cores quantum by quantum."""
    import simpy

    from .parts.dispatch import Dispatcher

    config: Config = machine.config
    products = operands(layer)
    rounded = [tensorcore_values.Rounded.of(product, "fp16", 0.0, 0.0) for product in products]
    sums = [tensorcore_values.zeros(len(product.vectors), len(product.weight), "fp16") for product in products]
    account = Account.of(config.core_count)
    env = simpy.Environment()
    dispatcher = Dispatcher(env, _tiles(config, products), config.core_count)
    for index in range(config.core_count):
        env.process(_core(env, index, config, dispatcher, products, rounded, sums, account, timeline))
    launch, hbm = _launch_and_hbm(config, _traffic(layer, products))
    if timeline is not None:
        timeline.interval("chip", "launch", 0, launch)
        timeline.advance(launch)
        timeline.interval("hbm", "move", 0, hbm)
    env.run()
    if timeline is not None:
        timeline.advance(max(int(env.now), hbm))
    output = None
    if config.functional:
        parts = [held.finish(total) for held, total in zip(rounded, sums, strict=True)]
        output = tensorcore_values.judge(layer, products, tensorcore_values.lost_operands(rounded), parts)
    return _result(machine, layer, products, account, output)


def error_bound(machine: Machine, layer: Layer) -> np.ndarray:
    """Return how far each output may be from the exact one, (vectors, out) in float64; for `gossamer check`."""
    return tensorcore_values.rounding_bound(layer, "fp16", "fp32")


def area_mm2(machine: Machine) -> float | None:
    """Return None: no table gives the area of these cores."""
    return None


def _tiles(config: Config, products: list[Operands]) -> Iterator[tuple[int, slice, slice]]:
    for index, product in enumerate(products):
        for column in range(0, len(product.vectors), config.tile_columns):
            for row in range(0, len(product.weight), config.tile_rows):
                yield index, slice(row, row + config.tile_rows), slice(column, column + config.tile_columns)


def _core(
    env: simpy.Environment,
    index: int,
    config: Config,
    dispatcher: Dispatcher[tuple[int, slice, slice]],
    products: list[Operands],
    rounded: list[tensorcore_values.Rounded],
    sums: list[np.ndarray],
    account: Account,
    timeline: Timeline | None,
) -> Process:
    """Take tiles; of each, multiply the nonzeros of row block and column block, place by place of the reduction."""
    while True:
        tile = yield dispatcher.ask(index)
        if tile is None:
            return
        product, rows, columns = tile
        start = int(env.now)
        given, held = products[product], rounded[product]
        weight, vectors = given.weight[rows], given.vectors[columns]
        issued = 0  # quanta of the present cycle
        for k in range(weight.shape[1]):
            some_rows, some_columns = np.flatnonzero(weight[:, k]), np.flatnonzero(vectors[:, k])
            for i in range(0, len(some_rows), config.quantum_rows):
                for j in range(0, len(some_columns), config.quantum_columns):
                    if issued == config.quanta_per_clk:
                        yield env.timeout(1)
                        issued = 0
                    issued += 1
                    account.quanta += 1
                    down = some_rows[i : i + config.quantum_rows]
                    across = some_columns[j : j + config.quantum_columns]
                    account.macs += len(down) * len(across)
                    _add_products(held, k, columns.start + across, rows.start + down, sums[product])
        if issued:
            yield env.timeout(1)
        account.busy[index] += int(env.now) - start
        account.done[index] = int(env.now)
        if timeline is not None:
            timeline.interval(f"core{index}", f"tile {rows.start},{columns.start}", start, int(env.now))


def _add_products(
    held: tensorcore_values.Rounded, k: int, columns: np.ndarray, rows: np.ndarray, sums: np.ndarray
) -> None:
    """Add to ``sums`` at ``columns`` x ``rows`` the products of place ``k``: of what fp16 holds as 0 there are none."""
    columns = columns[held.vectors[columns, k] != 0]
    rows = rows[held.weight[rows, k] != 0]
    with np.errstate(invalid="ignore"):  # of infinities that cancel out the sum is NaN
        sums[np.ix_(columns, rows)] += np.outer(held.vectors[columns, k], held.weight[rows, k])


def _count(matrix: np.ndarray, tile: int) -> np.ndarray:
    """Return the nonzeros of each ``tile`` of rows, (tiles, columns) float64."""
    counts = np.empty((-(-len(matrix) // tile), matrix.shape[1]))
    for rows in row_blocks(matrix, multiple=tile):
        top = np.arange(0, rows.stop - rows.start, tile)
        into = counts[rows.start // tile :][: len(top)]
        wide = max(1, BLOCK // (rows.stop - rows.start))  # of a very wide matrix a tile is many blocks
        for left in range(0, matrix.shape[1], wide):
            columns = slice(left, left + wide)
            np.add.reduceat(matrix[rows, columns] != 0, top, axis=0, dtype=np.float64, out=into[:, columns])
    return counts


def _values(layer: Layer, products: list[Operands]) -> tuple[np.ndarray, dict[str, float]]:
    def sums_of(held: tensorcore_values.Rounded) -> np.ndarray:
        sums = tensorcore_values.zeros(len(held.vectors), len(held.weight), "fp16")
        if tensorcore_values.count_lost(held.weight) + tensorcore_values.count_lost(held.vectors):
            columns, rows = np.arange(len(held.vectors)), np.arange(len(held.weight))
            for k in range(held.weight.shape[1]):
                _add_products(held, k, columns, rows, sums)
        else:  # a zero that is not skipped adds nothing
            tensorcore_values.accumulate(held.weight, held.vectors, sums)
        return sums

    outputs, lost = tensorcore_values.compute(products, "fp16", sums_of)
    return tensorcore_values.judge(layer, products, lost, outputs)


def _traffic(layer: Layer, products: list[Operands]) -> Traffic:
    weights = {"values": layer.nonzeros * WORD_BITS, "bitmap": layer.kept.size}
    inputs = int(np.count_nonzero(layer.inputs)) * WORD_BITS + layer.inputs.size
    outputs = sum(len(product.vectors) * len(product.weight) for product in products) * WORD_BITS
    return Traffic(-(-(sum(weights.values()) + inputs) // 8), -(-outputs // 8), weights)


def _launch_and_hbm(config: Config, traffic: Traffic) -> tuple[int, int]:
    """Return the cycles of the launch, and those that moving ``traffic`` takes."""
    clock, bandwidth = Fraction(config.clock_hz), _bandwidth(config)
    return math.ceil(Fraction(config.launch_s) * clock), math.ceil((traffic.read + traffic.write) * clock / bandwidth)


def _bandwidth(config: Config) -> Fraction:
    return Fraction(config.hbm_bytes_per_s) * Fraction(config.hbm_efficiency)


def _result(
    machine: Machine,
    layer: Layer,
    products: list[Operands],
    account: Account,
    output: tuple[np.ndarray, dict[str, float]] | None,
) -> LayerResult:
    config: Config = machine.config
    traffic = _traffic(layer, products)
    moved, bandwidth = traffic.read + traffic.write, _bandwidth(config)
    launch, hbm = _launch_and_hbm(config, traffic)
    computed = int(account.done.max())
    cycles = launch + max(computed, hbm)
    taken = {"launch_s clock_hz": launch, "hbm_bytes_per_s hbm_efficiency clock_hz": hbm, "core_count": computed}
    check_count(config, taken, times=config.core_count)
    each = {
        "launch": np.full(config.core_count, launch),
        "multiply": account.busy,
        "idle": computed - account.busy,
        "hbm": np.full(config.core_count, max(0, hbm - computed)),
    }
    counts = {
        "macs": account.macs,
        "quanta": account.quanta,
        "multiplications": account.macs,
        "hbm_read_bytes": traffic.read,
        "hbm_write_bytes": traffic.write,
    }
    energy, misfits = energy_of(machine.energy, cycles, {"core": config.core_count}, counts, word_bits=WORD_BITS)
    peak = config.multipliers * config.clock_hz
    result = LayerResult(
        name=layer.name,
        op=layer.op,
        shape=layer.shape,
        samples=layer.samples,
        vectors=len(products[0].vectors) * (len(products) if layer.op == "matmul" else 1),
        cycles=cycles,
        latency_s=cycles / config.clock_hz,
        theoretical_cycles=account.macs / config.multipliers,
        macs=account.macs,
        utilization=account.macs / (config.multipliers * cycles),
        load_balance=None,
        cycles_by_cause={"core": {cause: int(each[cause].sum()) for cause in CAUSES}},
        cycles_per_unit={"core": {cause: each[cause].tolist() for cause in CAUSES}},
        counts=counts,
        energy_j=energy,
        traffic_bytes={"hbm": moved},
        storage_bits=traffic.storage_bits,
        arithmetic=None if output is None else output[1],
        roofline=roofline(account.macs, moved, cycles / config.clock_hz, peak, float(bandwidth)),
        warnings=[*misfits, *([] if output is None else tensorcore_values.range_warnings(output[1], "fp16"))],
    )
    return result if output is None else result.with_output(output[0])


@njit(cache=True)
def _assign(cycles, done, busy):  # type: ignore[no-untyped-def]
    for tile in range(len(cycles)):
        core = first_free(done)
        done[core] += np.int64(cycles[tile])
        busy[core] += np.int64(cycles[tile])
