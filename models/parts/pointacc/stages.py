"""The stages of PointAcc's mapping unit around its merger, as SimPy processes, named as in the paper.

Time is in cycles. FetchCoords paces what it streams, a block a cycle, and MergeSort what it merges, a step a cycle; the
stages between them hand a block on in the cycle in which it comes. Where MergeSort sets the pace, FetchCoords runs
ahead until the queues of Buffering are full.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import simpy

from . import network
from .logbook import Logbook
from .mapper import Mapper
from .merger import END, MergeSort, Process
from .network import KEY, SEGMENT, SOURCE

OUTSIDE = 1 << 31  # key of a point beyond the radius: above the bits of any float32
QUEUE = 4  # blocks of each array that Buffering holds ready: two windows of flims
Runs = Generator[simpy.Event, Any, list[np.ndarray]]


class Unit(Logbook):
    """The stages of one mapping unit, and the logbook that they share."""

    def __init__(self, mapper: Mapper) -> None:
        super().__init__(mapper)
        self.fetch_coords = FetchCoords(self)
        self.calculate_distance = CalculateDistance(self)
        self.sort = Sort(self)
        self.buffering = Buffering(self)
        self.merge_sort = MergeSort(self)
        self.detect_intersection = DetectIntersection(self)


class FetchCoords:
    """Reads points and keys."""

    def __init__(self, unit: Logbook) -> None:
        self.unit, self.env = unit, unit.env

    def stream(self, name: str, values: np.ndarray, width: int, kind: str, out: simpy.Store) -> Process:
        """Send ``values`` and their places, ``width`` a cycle; ``kind`` is the count that their reads go to."""
        for start in range(0, len(values), width):
            part = values[start : start + width]
            self.unit.count(**{kind: len(part)})
            self.unit.show("FetchCoords", name, 0, 1)
            yield out.put((part, np.arange(start, start + len(part))))
            yield self.env.timeout(1)
        yield out.put(END)

    def feed(self, cloud: np.ndarray, merges: int, out: simpy.Store) -> Process:
        """Send a sorted ``cloud`` once for each of ``merges`` merges, as fast as it is taken."""
        size = self.unit.mapper.block
        for segment in range(merges):
            for start in range(0, cloud.shape[1], size):
                block = cloud[:, start : start + size].copy()
                block[SEGMENT] = segment
                yield out.put(block)
                self.unit.count(key_reads=block.shape[1])
                self.unit.show("FetchCoords", "cloud", 0, 1)
            yield out.put(END)


class CalculateDistance:
    """Shifts and floors coordinates, and measures how far points are from one another."""

    def __init__(self, unit: Logbook) -> None:
        self.unit, self.env = unit, unit.env

    def shift(self, blocks: simpy.Store, shifts: list[int], out: simpy.Store) -> Process:
        """Add to the keys of each merge its one of ``shifts``."""
        for amount in shifts:
            while (block := (yield blocks.get())) is not END:
                block[KEY] += amount
                self.unit.count(key_operations=block.shape[1])
                self.unit.show("CalculateDistance", "shift", 0, 1)
                yield out.put(block)
            yield out.put(END)

    def floor(self, items: simpy.Store, floor: Callable[[np.ndarray], np.ndarray], out: simpy.Store) -> Process:
        """Send the keys of the voxels that points lie in, as ``floor`` gives them."""
        while (item := (yield items.get())) is not END:
            self.unit.count(key_operations=len(item[0]))
            self.unit.show("CalculateDistance", "floor", 0, 1)
            yield out.put((floor(item[0]), item[1]))
        yield out.put(END)

    def measure(self, items: simpy.Store, origin: np.ndarray, within: np.float32 | None, out: simpy.Store) -> Process:
        """Send the squared distances of points from ``origin`` as keys; OUTSIDE for one not ``within``."""
        while (item := (yield items.get())) is not END:
            squares = self.squares(item[0], origin)
            keys = squares.view(np.int32).astype(np.int64)  # the bits of floats that are not negative ascend as they do
            if within is not None:
                self.unit.count(distance_comparisons=len(keys))
                keys[(squares >= within) & np.isfinite(within)] = OUTSIDE
            self.unit.show("CalculateDistance", "measure", 0, 1)
            yield out.put((keys, item[1]))
        yield out.put(END)

    def farthest(
        self, items: simpy.Store, origin: np.ndarray | None, nearest: np.ndarray, start: int
    ) -> Generator[simpy.Event, Any, int]:
        """Return which point is farthest, having lowered its ``nearest`` distance to that from ``origin``.

        Without an origin all distances become infinite, and none exceeds that of ``start``.
        """
        farthest, most = (start, np.inf) if origin is None else (-1, -1.0)
        while (item := (yield items.get())) is not END:
            points, places = item
            if origin is None:
                nearest[places] = np.inf
            else:
                nearest[places] = np.minimum(self.squares(points, origin), nearest[places])
                self.unit.count(distance_reads=len(places), distance_comparisons=len(places))  # MIN
            self.unit.count(distance_writes=len(places), distance_comparisons=len(places))  # Max
            self.unit.show("CalculateDistance", "update", 0, 1)
            best = int(places[np.argmax(nearest[places])])
            if nearest[best] > most:
                farthest, most = best, float(nearest[best])
        return farthest

    def squares(self, points: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Return the squared distances of ``points`` from ``origin``, float32, added up coordinate by coordinate."""
        total = np.zeros(len(points), np.float32)
        with np.errstate(over="ignore"):
            for axis in range(points.shape[1]):
                difference = points[:, axis] - origin[axis]
                total += difference * difference
        self.unit.count(distance_macs=points.size)
        return total


class Sort:
    """The bitonic sorter: a block a cycle."""

    def __init__(self, unit: Logbook) -> None:
        self.unit, self.env = unit, unit.env

    def run(self, items: simpy.Store, out: simpy.Store) -> Process:
        """Sort blocks of (keys, sources), equal keys by source; each becomes a segment of its own."""
        number = 0
        while (item := (yield items.get())) is not END:
            keys, sources = item
            block = network.block_of(keys, sources, sources, number)
            block, comparisons = network.sort(network.padded(block, self.unit.mapper.merger_width, number))
            self.unit.count(sorter_blocks=1, sorter_comparisons=comparisons)
            self.unit.show("Sort", "sort", 0, 1)
            yield out.put(block)
            number += 1
        yield out.put(END)


class Buffering:
    """Holds sorted runs, and the queues that MergeSort takes its blocks from."""

    def __init__(self, unit: Logbook) -> None:
        self.unit, self.env = unit, unit.env

    def queues(self) -> list[simpy.Store]:
        """Return the queues of both arrays of a merge."""
        return [simpy.Store(self.env, QUEUE) for _ in range(2)]

    def feed(self, runs: list[np.ndarray], queue: simpy.Store) -> Process:
        """Put the blocks of ``runs`` into ``queue``, a merge for each."""
        size = self.unit.mapper.block
        for segment, run in enumerate(runs):
            for start in range(0, run.shape[1], size):
                block = run[:, start : start + size].copy()
                block[SEGMENT] = segment
                yield queue.put(block)
                self.unit.count(key_reads=block.shape[1])
                self.unit.show("Buffering", "read", 0, 1)
            yield queue.put(END)

    def collect(self, blocks: simpy.Store, limit: int | None = None) -> Runs:
        """Return the runs that ``blocks`` make, one a segment and in their order, no longer than ``limit`` keys."""
        runs: dict[int, np.ndarray] = {}
        while (block := (yield blocks.get())) is not END:
            keys = network.keys_in(block)
            run = runs.get(int(block[SEGMENT, 0]), network.empty())
            runs[int(block[SEGMENT, 0])] = np.concatenate([run, keys], axis=1)[:, :limit]
            self.unit.count(key_writes=runs[int(block[SEGMENT, 0])].shape[1] - run.shape[1])
        return [runs[segment] for segment in sorted(runs)]

    def first(self, items: simpy.Store, k: int) -> Generator[simpy.Event, Any, np.ndarray]:
        """Return the places of the first ``k`` keys that are not OUTSIDE."""
        places = np.empty(0, np.int64)
        while (item := (yield items.get())) is not END:
            places = np.concatenate([places, item[1][item[0] < OUTSIDE]])[:k]
        return places


class DetectIntersection:
    """Compares neighbours among what leaves the merger, a block at a time."""

    def __init__(self, unit: Logbook) -> None:
        self.unit, self.env = unit, unit.env
        self.found = 0

    def match(self, blocks: simpy.Store) -> Generator[simpy.Event, Any, list[tuple[int, int, int]]]:
        """Return (segment, source, source) of each pair of neighbours of equal keys."""
        pairs: list[tuple[int, int, int]] = []
        register = network.empty()
        while (block := (yield blocks.get())) is not END:
            row = np.concatenate([register, block], axis=1)
            for place in self._equal(row):
                pairs.append((int(row[SEGMENT, place]), int(row[SOURCE, place - 1]), int(row[SOURCE, place])))
            if self.unit.mapper.boundary_register:
                register = block[:, -1:]
        return pairs

    def distinct(self, blocks: simpy.Store, total: int) -> Generator[simpy.Event, Any, tuple[np.ndarray, np.ndarray]]:
        """Return the first key of each run of equal ones, and for each of ``total`` sources which of them it has."""
        register = network.empty()
        keys: list[np.ndarray] = [np.empty(0, np.int64)]
        inverse, passed = np.empty(total, np.int64), 0
        while (block := (yield blocks.get())) is not END:
            block = network.keys_in(block)
            row = np.concatenate([register, block], axis=1)
            is_first = np.ones(row.shape[1], bool)
            is_first[self._equal(row)] = False
            is_first = is_first[register.shape[1] :]
            keys.append(block[KEY, is_first])
            inverse[block[SOURCE]] = passed - 1 + np.cumsum(is_first)
            passed += len(keys[-1])
            self.unit.count(key_writes=len(keys[-1]))
            register = block[:, -1:]
        return np.concatenate(keys), inverse

    def _equal(self, row: np.ndarray) -> np.ndarray:
        """Return the places of ``row`` whose key is that of the place before."""
        compared = row[SEGMENT, 1:] == row[SEGMENT, :-1]
        equal = compared & (row[KEY, 1:] == row[KEY, :-1])
        self.unit.count(detector_comparisons=int(compared.sum()), matches=int(equal.sum()))
        self.unit.show("DetectIntersection", "compare", -1, 0)
        if equal.any():
            self.found += int(equal.sum())
            self.unit.matches.append((int(self.env.now), self.found))
        return np.flatnonzero(equal) + 1
