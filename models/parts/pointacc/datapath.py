"""PointAcc's units side by side, row by row: the readable form of `parts.pointacc.matrix`.

Mapping, loading (`parts.pointacc.memory_units`) and computing are processes; the array takes a row a cycle and adds to
the sums. Nothing here knows which of them is the slowest: a layer ends when its units have.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from ..dense import bias_of
from . import banks as pointacc_banks
from . import maps as pointacc_maps
from . import units as pointacc_units
from .account import COUNTS, Account
from .config import Config
from .maps import Mapping
from .matrix import BUFFERS, Time
from .memory import Schedule
from .memory_units import Books, Dram, Loader, Step, steps
from .work import Work, clouds, stored_maps

if TYPE_CHECKING:
    from ....simulator.timeline import Timeline
    from ....workloads.trace import Layer

Process = Generator[simpy.Event, Any, None]


def run(config: Config, layer: Layer, work: Work | None, timeline: Timeline | None) -> Account:
    """Return what the units make of ``layer``."""
    mapping = _map(config, layer, timeline)
    if work is not None and mapping.maps is not None:
        work = replace(work, maps=stored_maps(layer, mapping.maps))  # what the unit found is what is streamed
    env, books = simpy.Environment(), Books()
    dram = Dram(env, config, books, timeline)
    array = Array(env, config, layer, work, books, timeline)
    chip = Chip(env, config, work, mapping, dram, array, books, timeline)
    env.run(env.process(chip.run()))
    if timeline is not None:
        timeline.advance(int(env.now))
    counts = dict.fromkeys(COUNTS, 0) | mapping.counts | books.counts
    time = Time(int(env.now), mapping.cycles, books.stream, books.fill, dram.busy)
    output = mapping.output if work is None else array.output()
    vectors = len(mapping.output) if work is None else work.outputs  # type: ignore[arg-type]
    return Account(time, counts, vectors, output if config.functional else None)


def _map(config: Config, layer: Layer, timeline: Timeline | None) -> Mapping:
    if layer.op not in ("point_op", "sparse_conv3d"):
        return Mapping()
    begin = 0 if timeline is None else timeline.offset
    if layer.op == "point_op":
        mapping = pointacc_maps.run_point_op(config, layer, pointacc_units, timeline=timeline)
    else:
        mapping = pointacc_maps.build_map(config, layer, pointacc_units, pointacc_banks, timeline=timeline)
    if timeline is not None:
        timeline.offset = begin  # the other units begin when mapping does
    return mapping


class Array:
    """The systolic array: it holds a tile of weights and takes a row a cycle; the sums lie in the output buffer."""

    def __init__(
        self,
        env: simpy.Environment,
        config: Config,
        layer: Layer,
        work: Work | None,
        books: Books,
        timeline: Timeline | None,
    ) -> None:
        self.env, self.config, self.books, self.timeline = env, config, books, timeline
        self.layer = layer
        self.features: np.ndarray | None = None
        if work is None:
            return
        self.width = work.width
        weight = layer.weight  # (out, in, offsets); of a matmul each product is an offset
        if layer.op == "linear":
            weight = weight[:, :, None]
        elif layer.op == "matmul":
            weight = weight.transpose(1, 2, 0)
        self.weight = weight
        self.rows_in, self.rows_out = self._tables()
        if layer.inputs is not None and config.functional:
            self.features = layer.inputs.reshape(-1, work.channels)
            self.sums = np.zeros((work.outputs, work.width), np.float32)

    def compute(self, step: Step) -> Process:
        """Stream the rows of ``step``, once for each column tile."""
        start, counts, config = int(self.env.now), self.books.counts, self.config
        if not step.entries:
            return
        channels = step.depth
        for columns in step.columns:
            width = columns.stop - columns.start
            yield self.env.timeout(config.fill_cycles)
            self.books.fill += config.fill_cycles
            for row, out in step.entries:
                yield self.env.timeout(1)
                self.books.stream += 1
                counts["macs"] += channels * width
                counts["feature_sram_read_bytes"] += channels * config.word_bytes
                counts["sum_sram_read_bytes"] += width * config.sum_bytes
                counts["sum_sram_write_bytes"] += width * config.sum_bytes
                if self.features is not None:
                    tile = self.weight[columns, step.channels, step.offset]
                    self.sums[out, columns] += tile @ self.features[self._row(row, out), step.channels]
        if self.timeline is not None:
            name = f"tile {step.tile} offset {step.offset}"
            self.timeline.interval("matrix", name, start, int(self.env.now))

    def output(self) -> np.ndarray | None:
        """Return the sums with their bias, in the order of the layer's points."""
        if self.features is None:
            return None
        sums = self.sums if self.rows_out is None else self.sums[self.rows_out]
        bias = bias_of(self.layer)
        return sums if bias is None else sums + bias

    def _row(self, row: int, out: int) -> int:
        """Return where the trace has the features of ``row``: dense layers' inputs are gathered already."""
        if self.layer.op != "sparse_conv3d":
            return out
        return row if self.rows_in is None else int(self.rows_in[row])

    def _tables(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return the point of each input row, and the row of each output point; None of dense layers."""
        if self.layer.op != "sparse_conv3d":
            return None, None
        into, out = (sorted(range(len(cloud)), key=cloud.tolist().__getitem__) for cloud in clouds(self.layer))
        return np.array(into), np.argsort(out)


class Chip:
    """Mapping, loading and computing, one beside or after another as ``overlap`` says."""

    def __init__(
        self,
        env: simpy.Environment,
        config: Config,
        work: Work | None,
        mapping: Mapping,
        dram: Dram,
        array: Array,
        books: Books,
        timeline: Timeline | None,
    ) -> None:
        self.env, self.config, self.mapping, self.dram, self.array = env, config, mapping, dram, array
        self.steps: list[Step] = []
        if work is not None:
            schedule = Schedule.of(config, work)
            self.steps = list(steps(work, schedule))
            self.loader = Loader(config, work, schedule, books)
        self.books, self.timeline = books, timeline

    def run(self) -> Process:
        """Run the layer."""
        runs = {"all": self._all, "memory": self._memory, "none": self._none, "tiles": self._tiles}
        yield from runs[self.config.overlap]()

    def _all(self) -> Process:
        yield self._start(self._map()) & self._start(self._move()) & self._start(self._compute())

    def _memory(self) -> Process:
        moved = self._start(self._move())
        yield from self._map()
        yield from self._compute()
        yield moved

    def _none(self) -> Process:
        yield from self._map()
        yield from self._move_for_mapping()
        for step in self.steps:
            read, written = self.loader.load(step)
            yield self._read(read, step)
            yield from self.array.compute(step)
            yield self._write(written, step)

    def _tiles(self) -> Process:
        yield self._start(self._map()) & self._start(self._move_for_mapping())
        buffers, loaded = simpy.Container(self.env, BUFFERS, BUFFERS), simpy.Store(self.env)
        self.env.process(self._load(buffers, loaded))
        written: simpy.Event = self.env.timeout(0)
        while (item := (yield loaded.get())) is not None:
            step, read, count = item
            yield read
            yield from self.array.compute(step)
            written = self._write(count, step)
            yield buffers.put(1)
        yield written

    def _load(self, buffers: simpy.Container, loaded: simpy.Store) -> Process:
        """Ask for each step's bytes as soon as a buffer is free."""
        for step in self.steps:
            read, written = self.loader.load(step)
            if step.entries or read or written:
                yield buffers.get(1)
                yield loaded.put((step, self._read(read, step), written))
        yield loaded.put(None)

    def _map(self) -> Process:
        yield self.env.timeout(self.mapping.cycles)

    def _move_for_mapping(self) -> Process:
        mapping, counts = self.mapping, self.books.counts
        counts["dram_coordinate_bytes"] += mapping.coordinate_read + mapping.coordinate_written
        counts["dram_map_bytes"] += mapping.map_written
        yield self.dram.ask("read", mapping.coordinate_read, "coordinates")
        yield self.dram.ask("write", mapping.coordinate_written + mapping.map_written, "coordinates and maps")

    def _move(self) -> Process:
        yield from self._move_for_mapping()
        for step in self.steps:
            read, written = self.loader.load(step)
            yield self._read(read, step)
            yield self._write(written, step)

    def _compute(self) -> Process:
        for step in self.steps:
            yield from self.array.compute(step)

    def _read(self, count: int, step: Step) -> simpy.Event:
        return self.dram.ask("read", count, f"for tile {step.tile} offset {step.offset}")

    def _write(self, count: int, step: Step) -> simpy.Event:
        return self.dram.ask("write", count, f"of tile {step.tile} offset {step.offset}")

    def _start(self, process: Process) -> simpy.Process:
        return self.env.process(process)
