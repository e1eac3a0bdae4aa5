"""PointAcc's memory unit, row by row: the readable form of `parts.pointacc.memory`.

`steps` walks the nest. Of each step the loader asks the cache for every row, and works out what DRAM has to bring
before it and to take after it. Nothing here knows how many rows will miss.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from .config import Config
from .matrix import dram_cycles
from .memory import Schedule
from .work import Work

if TYPE_CHECKING:
    from ....simulator.timeline import Timeline

Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Step:
    """Entries of a tile at an offset, (input row, output row); the channels of slice ``part`` and the column tiles."""

    tile: int
    group: int
    part: int
    offset: int
    entries: list[tuple[int, int]]
    channels: slice
    columns: list[slice]
    ends_tile: bool

    @property
    def depth(self) -> int:
        """Return how many input channels there are."""
        return int(self.channels.stop - self.channels.start)

    @property
    def width(self) -> int:
        """Return how many output channels there are."""
        return int(self.columns[-1].stop - self.columns[0].start)


@dataclass
class Books:
    """What the units count, and how long each was at work."""

    counts: Counter[str] = field(default_factory=Counter)
    stream: int = 0
    fill: int = 0


def steps(work: Work, schedule: Schedule) -> Iterator[Step]:
    """Yield the steps of the nest in their order, those without entries too."""
    tiles, _, slices, offsets = schedule.shape
    for tile in range(tiles):
        column = 0
        for group, widths in enumerate(schedule.groups):
            edges = column + np.concatenate([[0], np.cumsum(widths)])
            columns = [slice(int(first), int(end)) for first, end in itertools.pairwise(edges)]
            channel = 0
            for part, width in enumerate(schedule.slices):
                for offset, (into, out) in enumerate(work.maps):
                    mine = out // schedule.tile == tile
                    entries = list(zip(into[mine].tolist(), out[mine].tolist(), strict=True))
                    is_last = part + 1 == slices and offset + 1 == offsets
                    channels = slice(channel, channel + width)
                    yield Step(tile, group, part, offset, entries, channels, columns, is_last)
                channel += width
            column = int(edges[-1])


class Dram:
    """One channel, first come, first served. Fractions of a cycle are rounded up on the sum of all bytes so far."""

    def __init__(self, env: simpy.Environment, config: Config, books: Books, timeline: Timeline | None) -> None:
        self.env, self.config, self.books, self.timeline = env, config, books, timeline
        self.queue = simpy.Store(env)
        self.moved = self.busy = 0
        env.process(self._serve())

    def ask(self, what: str, count: int, name: str) -> simpy.Event:
        """Queue a move of ``count`` bytes, read or written as ``what`` says, and return the event of its end."""
        self.books.counts[f"dram_{what}_bytes"] += count
        done = self.env.event()
        self.queue.put((f"{what} {name}", count, done))
        return done

    def _serve(self) -> Process:
        while True:
            name, count, done = yield self.queue.get()
            start = int(self.env.now)
            self.moved += count
            cycles = dram_cycles(self.moved, self.config) - self.busy
            yield self.env.timeout(cycles)
            self.busy += cycles
            if self.timeline is not None:
                self.timeline.interval("dram", name, start, int(self.env.now))
            done.succeed()


class Cache:
    """The direct-mapped feature cache: a line holds the number of the block that is in it."""

    def __init__(self, config: Config, work: Work, schedule: Schedule, books: Books) -> None:
        self.config, self.work, self.books = config, work, books
        self.blocks = -(-work.inputs // config.cache_block_rows)
        self.lines = schedule.lines(config)
        self.held: dict[int, int] = {}
        self.seen: set[int] = set()

    def look_up(self, part: int, row: int) -> int:
        """Return how many rows have to be fetched for ``row`` of slice ``part``: none, or those of its block."""
        size = self.config.cache_block_rows
        number = part * self.blocks + row // size
        self.books.counts["cache_lookups"] += 1
        if self.held.get(number % self.lines) == number:
            return 0
        self.held[number % self.lines] = number
        self.books.counts["cache_misses"] += 1
        self.books.counts["cache_compulsory_misses"] += number not in self.seen
        self.seen.add(number)
        first = row // size * size
        return min(size, self.work.inputs - first)


class Loader:
    """Works out what DRAM has to bring for a step, and to take after it."""

    def __init__(self, config: Config, work: Work, schedule: Schedule, books: Books) -> None:
        self.config, self.work, self.schedule, self.books = config, work, schedule, books
        self.cache = Cache(config, work, schedule, books)
        self.weights: set[tuple[int, int, int]] = set()  # that are in their buffer
        # Of each output row and group, how often it is still to be added to, and whether DRAM has a sum of it.
        additions = Counter(work.outof.tolist())
        self.left = {
            (group, row): count * len(schedule.slices)
            for group in range(len(schedule.groups))
            for row, count in additions.items()
        }
        self.begun: set[tuple[int, int]] = set()

    def load(self, step: Step) -> tuple[int, int]:
        """Return the bytes that DRAM reads before ``step``, and those that it writes after it."""
        config, work, schedule = self.config, self.work, self.schedule
        size = step.depth * config.word_bytes
        width, book = step.width, self._book
        read = written = 0
        if schedule.cached:
            for _ in step.columns:
                for row, _ in step.entries:
                    fetched = self.cache.look_up(step.part, row) * size
                    read += book("feature", fetched)
                    self.books.counts["feature_sram_write_bytes"] += fetched
        elif schedule.gathered:
            rows = len(step.entries) * size
            if step.group == 0:
                read += book("feature", rows)
                written += book("gather", rows)
                self.books.counts["feature_sram_write_bytes"] += rows
                self.books.counts["feature_sram_read_bytes"] += rows
            read += book("gather", rows)
            self.books.counts["feature_sram_write_bytes"] += rows
        read += book("weight", self._weights(step, size * width))
        if step.group == 0 and step.part == 0:
            read += book("map", len(step.entries) * work.map_indices * config.index_bytes)
        if schedule.spilled:
            for _, row in step.entries:
                key = step.group, row
                read += book("sum", width * config.sum_bytes * (key in self.begun))
                self.begun.add(key)
                self.left[key] -= 1
                written += book("sum", width * config.sum_bytes * (self.left[key] > 0))
        if step.ends_tile:
            first = step.tile * schedule.tile
            rows = min(schedule.tile, work.outputs - first) * width * config.word_bytes
            if work.outputs_on_chip:
                self.books.counts["feature_sram_write_bytes"] += rows
            else:
                written += book("output", rows)
        return read, written

    def _weights(self, step: Step, size: int) -> int:
        """Return the bytes of weights, and of biases before the first tile, that are not in their buffer."""
        biases = 0
        if step.tile == step.part == step.offset == 0 and self.work.has_bias:
            biases = step.width * self.config.word_bytes
        self.books.counts["weight_sram_read_bytes"] += biases
        key = step.group, step.part, step.offset
        if step.entries:
            self.books.counts["weight_sram_read_bytes"] += size
        if not step.entries or key in self.weights:
            loaded = biases
        else:
            if self.schedule.keeps_weights:
                self.weights.add(key)
            loaded = biases + size
        self.books.counts["weight_sram_write_bytes"] += loaded
        return loaded

    def _book(self, kind: str, count: int) -> int:
        self.books.counts[f"dram_{kind}_bytes"] += count
        return count
