"""PointAcc's matrix unit, and how its time, mapping's and memory's make up a layer's.

A systolic array holds a tile of weights, input channels down and output channels across, while the rows of a step's
entries stream by, one a cycle. A step of m entries on c column tiles takes c * (m + fill) cycles, nothing where m is 0;
fill is 2R + C - 2 with array_fill (weights in, the first row in, the last sum out, as of the systolic baseline), or 0.
DRAM moves bytes one after another at its bandwidth; a fraction of a cycle is rounded up on the sum of a layer's bytes.

With P, X and D the cycles of mapping, matrix and DRAM, a layer takes by ``overlap``

    all       max(P, X, D): each is far enough ahead of the next, as with layers in a queue (the ideal)
    memory    max(P + X, D): maps are needed first, and prefetching never waits
    none      P + X + D: each step is read, computed and written before the next
    tiles     maps first, their traffic behind them; then steps with two buffers: when step i is done, what it puts out
              is written and then step i + 2 is read

so that step i is done at max(done[i - 1], read[i]) + cycles[i].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numba import njit

from ..counting import check_count
from .config import Config
from .maps import Mapping
from .memory import Schedule, Traffic

BUFFERS = 2


@dataclass(frozen=True)
class Time:
    """Cycles of a layer: in all, and those in which mapping, matrix (streaming, filling) and memory were busy."""

    cycles: int
    mapping: int
    stream: int
    fill: int
    memory: int

    @property
    def by_cause(self) -> dict[str, dict[str, int]]:
        """Return where each unit's cycles went."""
        matrix = {"busy": self.stream, "fill": self.fill, "idle": self.cycles - self.stream - self.fill}
        return {
            "matrix": matrix,
            "mapping": {"busy": self.mapping, "idle": self.cycles - self.mapping},
            "memory": {"busy": self.memory, "idle": self.cycles - self.memory},
        }


def array_cycles(config: Config, schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """Return the cycles of each step in which rows stream, and in which the array fills and drains, (steps,) each."""
    column_tiles = np.array([len(group) for group in schedule.groups])[:, None, None]
    entries = schedule.entries[:, None, None, :] * column_tiles + np.zeros(schedule.shape, np.int64)
    fill = (entries > 0) * column_tiles * config.fill_cycles
    return entries.ravel(), fill.ravel()


def dram_cycles(count: int, config: Config) -> int:
    """Return the clock cycles that DRAM takes to move ``count`` bytes, rounded up."""
    return math.ceil(count * config.cycles_per_byte)


def compose(config: Config, mapping: Mapping, moved: Traffic | None = None, schedule: Schedule | None = None) -> Time:
    """Return the time of a layer; of one that only maps where nothing is ``moved`` beyond that."""
    read = written = stream = fill = np.zeros(0, np.int64)
    if moved is not None and schedule is not None:
        read, written = moved.read, moved.written
        stream, fill = array_cycles(config, schedule)
    total = mapping.dram_bytes + int(read.sum()) + int(written.sum())
    units = mapping.cycles, int(stream.sum()) + int(fill.sum()), dram_cycles(total, config)
    check_units(config, *units)
    cycles = {
        "all": max(units),
        "memory": max(units[0] + units[1], units[2]),
        "none": sum(units),
    }.get(config.overlap)
    if cycles is None:
        start = max(mapping.cycles, dram_cycles(mapping.dram_bytes, config))
        cycles = _pipeline(config, start, mapping.dram_bytes, read, written, stream + fill)
    return Time(cycles, units[0], int(stream.sum()), int(fill.sum()), units[2])


def check_units(config: Config, mapping: int, matrix: int, memory: int) -> None:
    """Raise InputError where the cycles of the three units, one after another, could leave 64 bits."""
    dram = "dram_bandwidth_bytes_per_s clock_hz"
    check_count(config, {"hash_latency fps_latency": mapping, "rows columns": matrix, dram: memory})


def _pipeline(
    config: Config, start: int, before: int, read: np.ndarray, written: np.ndarray, compute: np.ndarray
) -> int:
    """Return when steps with two buffers are done and written; ``before``: bytes that DRAM moved until ``start``."""
    does = (read > 0) | (written > 0) | (compute > 0)
    read, written, compute = read[does], written[does], compute[does]
    if not len(read):
        return start
    # The channel's order: two reads, then in turn what a step puts out and the read that takes its buffer.
    order = np.zeros(2 * len(read) + BUFFERS, np.int64)
    reads = np.concatenate([read, np.zeros(BUFFERS, np.int64)])
    order[:BUFFERS] = reads[:BUFFERS]
    order[BUFFERS::2], order[BUFFERS + 1 :: 2] = written, reads[BUFFERS:]
    spent = np.diff(_rounded(before + np.concatenate([[0], np.cumsum(order)]), config.cycles_per_byte))
    return int(_run_pipeline(start, spent, compute))


def _rounded(count: np.ndarray, per_byte: Fraction) -> np.ndarray:
    """Return ``count`` bytes in cycles, rounded up; exact."""
    above, below = per_byte.numerator, per_byte.denominator
    if int(count[-1]) * above < 2**62 and below < 2**62:
        return -(-count * above // below)
    return np.array([-(-int(each) * above // below) for each in count], np.int64)


@njit(cache=True)
def _run_pipeline(start, spent, compute):  # type: ignore[no-untyped-def]
    """Solve the recurrence of ``tiles``; ``spent``: DRAM cycles of reads 0 and 1, write 0, read 2, write 1, ..."""
    steps = len(compute)
    dram, done = start + spent[0], start
    ready, following = dram, dram + spent[1]
    dram = following
    for step in range(steps):
        done = max(done, ready) + compute[step]
        ready = following
        dram = max(dram, done) + spent[2 + 2 * step]
        following = dram + spent[3 + 2 * step]
        dram = following
    return max(done, dram)
