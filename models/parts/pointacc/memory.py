"""PointAcc's memory unit: in which order a layer's rows are streamed, which of them hit the cache, what DRAM moves.

A layer is a nest of *steps*, each a stretch of map entries that meet one slice of the input channels:

    for each tile of outputs                     output-tile: output_tile of them; weight-stationary: all
      for each group of output channels          as many column tiles of the array as have room for the tile's sums
        for each slice of input channels         as many as the array has rows
          for each offset                        <- a step: the tile's entries of this offset
            for each column tile of the group    a weight is held, the entries' rows stream by, one a cycle

Rows lie in DRAM in the order of the points' keys, slice by slice. The cache is direct-mapped: block b of slice s has
the number s * blocks + b, and the line of that number modulo the lines; it is cold when a layer begins. Every row that
is streamed is looked up, in the order of the nest. Where a group's sums do not fit in the output buffer they go to DRAM
and back: each entry reads its sum, unless it is the first to meet its output, and writes it, unless it is the last.

    weights    of a step with entries: again each time, or once where the layer's fit in their buffer; biases once
    maps       two indices an entry (of gathered rows, one), once a tile
    outputs    once

Gather-scatter runs offset by offset over the whole cloud: a step reads its rows, writes them gathered and reads these
back, with no cache, and sums go to DRAM as above. Dense layers scatter nothing and gather only where they say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from .config import Config
from .work import Work

KINDS = ("feature", "gather", "weight", "map", "sum", "output")


@dataclass(frozen=True, eq=False)
class Schedule:
    """The nest: ``tile`` outputs at a time; the widths of channel ``slices`` and column tiles, these in ``groups``.

    ``bounds``: (offsets, tiles + 1), where each tile's entries begin and end among those of all offsets. ``spilled``:
    sums do not stay on chip. ``cached``: rows come through the cache. ``gathered``: they are gathered in DRAM first.
    ``keeps_weights``: they are loaded once.
    """

    tile: int
    slices: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    bounds: np.ndarray
    spilled: bool
    cached: bool
    gathered: bool
    keeps_weights: bool

    @classmethod
    def of(cls, config: Config, work: Work) -> Schedule:
        """Return the order in which ``config`` runs ``work``."""
        gathered = config.flow == "gather-scatter" and work.map_indices > 0
        scattered = gathered and work.map_indices == 2
        tiled = config.loop_order == "output-tile" and not scattered
        tile = min(config.output_tile, work.tile or work.outputs, work.outputs) if tiled else work.outputs
        widths = _cut(work.width, config.columns)
        held = config.output_buffer_bytes // (tile * widths[0] * config.sum_bytes)
        size = len(widths) if scattered or not held else min(held, len(widths))
        edges = np.append(np.arange(0, work.outputs, tile), work.outputs)
        starts = np.concatenate([[0], np.cumsum([len(out) for _, out in work.maps])])
        bounds = np.stack(
            [start + np.searchsorted(out, edges) for start, (_, out) in zip(starts, work.maps, strict=False)]
        )
        return cls(
            tile,
            _cut(work.channels, config.rows),
            tuple(widths[first : first + size] for first in range(0, len(widths), size)),
            bounds,
            spilled=scattered or not held,
            cached=not gathered and not work.inputs_on_chip,
            gathered=gathered,
            keeps_weights=work.weights_together * config.word_bytes <= config.weight_buffer_bytes,
        )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return how many tiles, groups, slices and offsets there are."""
        return self.bounds.shape[1] - 1, len(self.groups), len(self.slices), len(self.bounds)

    @property
    def entries(self) -> np.ndarray:
        """Return how many entries each tile has at each offset, (tiles, offsets)."""
        return np.diff(self.bounds, axis=1).T

    def lines(self, config: Config) -> int:
        """Return how many blocks the cache holds."""
        return config.cache_bytes // (config.cache_block_rows * self.slices[0] * config.word_bytes)


@dataclass(frozen=True, eq=False)
class Traffic:
    """What the steps of a layer move, in order: ``read`` and ``written`` bytes of DRAM, (steps,).

    ``by_kind``: bytes of DRAM in all, by `KINDS`. ``lookups``, ``misses``: of the cache; ``compulsory``: misses that
    any order has, one for each block that is used. ``feature_writes``: bytes that come into the feature memory.
    """

    read: np.ndarray
    written: np.ndarray
    by_kind: dict[str, int]
    lookups: int
    misses: int
    compulsory: int
    feature_writes: int


def traffic(config: Config, work: Work, schedule: Schedule) -> Traffic:
    """Return what the steps of ``schedule`` move."""
    entries = schedule.entries[:, None, None, :]  # (tiles, groups, slices, offsets)
    slices = np.array(schedule.slices)[:, None]
    columns = np.array([sum(group) for group in schedule.groups])[:, None, None]
    zeros = np.zeros(schedule.shape, np.int64)
    misses, rows, compulsory = _cache_misses(config, work, schedule)
    features = rows * slices * config.word_bytes
    read_back, gathers = zeros.copy(), zeros.copy()
    if schedule.gathered:
        read_back += entries * slices * config.word_bytes
        gathers[:, :1] += entries * slices * config.word_bytes
        features += gathers
    weights = (entries > 0) * slices * columns * config.word_bytes + zeros
    if schedule.keeps_weights:
        met = schedule.entries > 0
        weights *= (met & (np.cumsum(met, axis=0) == 1))[:, None, None, :]
    weights[0, :, 0, 0] += work.has_bias * columns[:, 0, 0] * config.word_bytes
    maps, outputs, sums_read, sums_written = (zeros.copy() for _ in range(4))
    maps[:, 0, 0] = schedule.entries * work.map_indices * config.index_bytes
    if not work.outputs_on_chip:
        sizes = np.diff(np.append(np.arange(0, work.outputs, schedule.tile), work.outputs))
        outputs[:, :, -1, -1] = sizes[:, None] * columns[:, 0, 0] * config.word_bytes
    if schedule.spilled:
        first, last = _touches(work, schedule)
        sums_read[:], sums_written[:] = entries, entries
        sums_read[:, :, 0] -= first[:, None]
        sums_written[:, :, -1] -= last[:, None]
        sums_read *= columns * config.sum_bytes
        sums_written *= columns * config.sum_bytes
    kinds = {
        "feature": features, "gather": read_back + gathers, "weight": weights, "map": maps,
        "sum": sums_read + sums_written, "output": outputs,
    }  # fmt: skip
    column_tiles = sum(len(group) for group in schedule.groups)
    kept = work.outputs * work.width * config.word_bytes if work.outputs_on_chip else 0
    return Traffic(
        read=(features + read_back + weights + maps + sums_read).ravel(),
        written=(gathers + sums_written + outputs).ravel(),
        by_kind={kind: int(kinds[kind].sum()) for kind in KINDS},
        lookups=work.entries * len(schedule.slices) * column_tiles if schedule.cached else 0,
        misses=int(misses.sum()),
        compulsory=compulsory,
        feature_writes=int((features + read_back).sum()) + kept,
    )


def _cut(width: int, size: int) -> tuple[int, ...]:
    """Return the widths of ``width`` channels, ``size`` at a time."""
    return tuple(min(size, width - first) for first in range(0, width, size))


def _cache_misses(config: Config, work: Work, schedule: Schedule) -> tuple[np.ndarray, np.ndarray, int]:
    """Return misses and rows fetched by step, (tiles, groups, slices, offsets), and the misses of any order."""
    misses, rows = np.zeros(schedule.shape, np.int64), np.zeros(schedule.shape, np.int64)
    if not schedule.cached:
        return misses, rows, 0
    size, lines = config.cache_block_rows, schedule.lines(config)
    blocks = -(-work.inputs // size)
    block = work.into // size if size > 1 else work.into
    used = int(np.count_nonzero(np.bincount(block, minlength=1)))
    passes = np.array([len(group) for group in schedule.groups])
    last = work.inputs - (blocks - 1) * size  # rows of the last block
    _look_up(
        block, block % lines, schedule.bounds, passes, blocks, size, last, np.full(lines, -1, np.int64), misses, rows
    )
    return misses, rows, used * len(schedule.slices)


def _touches(work: Work, schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """Return how many entries are the first, and how many the last, to meet their output, (tiles, offsets) each."""
    first, last = (np.zeros((schedule.shape[0], schedule.shape[3]), np.int64) for _ in range(2))
    _find_touches(work.outof, schedule.bounds, np.full((2, work.outputs), -1, np.int64), first, last)
    return first, last


@njit(cache=True)
def _look_up(block, line, bounds, passes, blocks, size, last_rows, tags, misses, rows):  # type: ignore[no-untyped-def]
    """Look every streamed row up in the order of the nest; ``line``: that of the first slice."""
    lines = len(tags)
    tiles, groups, slices, offsets = misses.shape
    for t in range(tiles):
        for g in range(groups):
            for s in range(slices):
                turn = s * blocks % lines
                for o in range(offsets):
                    missed = short = 0
                    for _ in range(passes[g]):
                        for entry in range(bounds[o, t], bounds[o, t + 1]):
                            place = line[entry] + turn
                            if place >= lines:
                                place -= lines
                            number = s * blocks + block[entry]
                            if tags[place] != number:
                                tags[place] = number
                                missed += 1
                                short += block[entry] == blocks - 1
                    misses[t, g, s, o] = missed
                    rows[t, g, s, o] = missed * size - short * (size - last_rows)


@njit(cache=True)
def _find_touches(outof, bounds, met, first, last):  # type: ignore[no-untyped-def]
    for o in range(len(bounds)):
        for entry in range(bounds[o, 0], bounds[o, -1]):
            if met[0, outof[entry]] < 0:
                met[0, outof[entry]] = o
            met[1, outof[entry]] = o
    for o in range(len(bounds)):
        for t in range(bounds.shape[1] - 1):
            for entry in range(bounds[o, t], bounds[o, t + 1]):
                first[t, o] += met[0, outof[entry]] == o
                last[t, o] += met[1, outof[entry]] == o
