"""MergeSort, the mapping unit's merger, step by step under each of its rules.

It takes blocks of sorted keys from two queues of Buffering. A queue holds the blocks of one merge and then END, those
of the next, and so on. What it puts out lies in order; `drain` holds it back for as long as the network is deep.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from . import network
from .logbook import Logbook
from .network import PADDING, RANK, SEGMENT

Process = Generator[simpy.Event, Any, None]
Blocks = Generator[simpy.Event, Any, np.ndarray]
END = None  # behind the last block of a merge, or of all that comes along a link
THRESHOLD_ROWS = RANK + 1  # equal keys of two arrays retire together


class MergeSort:
    """The merger: a step a cycle."""

    def __init__(self, unit: Logbook) -> None:
        self.unit, self.env, self.mapper = unit, unit.env, unit.mapper

    def run(self, queues: list[simpy.Store], names: list[str], out: simpy.Store) -> Process:
        """Merge what ``queues`` hold, a merge for each of ``names``, back to back."""
        rules = {"head-select": self._head_select, "two-window": self._two_window, "flims": self._flims}
        yield from rules[self.mapper.rule](queues, names, out)
        yield out.put(END)

    def top(self, blocks: simpy.Store) -> Blocks:
        """Return the P lowest keys of sorted ``blocks``, which come one a cycle, as a block."""
        best = network.empty(self.mapper.block)
        while (block := (yield blocks.get())) is not END:
            block[SEGMENT] = 0
            merged, comparisons = network.merge(best, block[:, : self.mapper.block])
            best = merged[:, : self.mapper.block]
            self._count(comparisons)
            self.unit.show("MergeSort", "top", 0, 1)
        return best

    def drain(self, entered: simpy.Store, out: simpy.Store) -> Process:
        """Pass on what has ``entered``, as many cycles later as there are columns; a block may enter each cycle."""
        within = simpy.Store(self.env)
        self.env.process(self._enter(entered, within))
        block: np.ndarray | None = network.empty()
        while block is not END:
            block, time = yield within.get()
            yield self.env.timeout(time + self.mapper.drain - self.env.now)
            yield out.put(block)

    def _enter(self, entered: simpy.Store, within: simpy.Store) -> Process:
        block: np.ndarray | None = network.empty()
        while block is not END:
            block = yield entered.get()
            yield within.put((block, self.env.now))

    def _head_select(self, queues: list[simpy.Store], names: list[str], out: simpy.Store) -> Process:
        """Take the block whose first key is lower; keep the upper half of it and what was kept, put out the lower."""
        kept = network.empty(self.mapper.block, segment=-1)
        for segment, name in enumerate(names):
            heads = [(yield queues[0].get()), (yield queues[1].get())]
            while any(head is not END for head in heads):
                is_second = heads[0] is END or (
                    heads[1] is not END and bool(network.exceeds(heads[0][:, 0], heads[1][:, 0]))
                )
                taken = network.padded(heads[is_second], self.mapper.block, segment)
                heads[is_second] = yield queues[is_second].get()
                kept = yield from self._select_low(kept, taken, name, out)
        if kept[SEGMENT, 0] >= 0:  # blocks are counted, not keys: there may be padding alone
            yield from self._select_low(kept, network.empty(self.mapper.block, PADDING), names[-1], out)

    def _select_low(self, kept: np.ndarray, taken: np.ndarray, name: str, out: simpy.Store) -> Blocks:
        merged, comparisons = network.merge(kept, taken)
        self._count(comparisons)
        yield from self._step(merged[:, : self.mapper.block], name, out)
        return merged[:, self.mapper.block :]

    def _two_window(self, queues: list[simpy.Store], names: list[str], out: simpy.Store) -> Process:
        """Merge a window of each array, and put out what is not beyond the lower of the two windows' ends."""
        size = self.mapper.block
        for segment, name in enumerate(names):
            windows = [Window(queue, size) for queue in queues]
            while (yield from windows[0].fill()) + (yield from windows[1].fill()):
                merged, comparisons = network.merge(*(window.padded(segment) for window in windows))
                self._count(comparisons)
                ends = [window.keys[:, -1] for window in windows if window.keys.shape[1] == size]
                if len(ends) == 2 and network.exceeds(ends[0], ends[1], THRESHOLD_ROWS):
                    ends.reverse()
                retired = 0
                for window in windows:
                    count = window.keys.shape[1]
                    if ends:
                        beyond = network.exceeds(window.keys, ends[0][:, None], THRESHOLD_ROWS)
                        count -= int(np.count_nonzero(beyond))
                    window.drop(count)
                    retired += count
                yield from self._step(merged[:, :retired], name, out)

    def _flims(self, queues: list[simpy.Store], names: list[str], out: simpy.Store) -> Process:
        """Compare each place of a window with its mirror place of the other: the lower of each are the N lowest."""
        for segment, name in enumerate(names):
            windows = [Window(queue, self.mapper.merger_width) for queue in queues]
            while (yield from windows[0].fill()) + (yield from windows[1].fill()):
                low, comparisons, is_first = network.select(*(window.padded(segment) for window in windows))
                self._count(comparisons)
                won = int(np.count_nonzero(is_first))
                windows[0].drop(won)
                windows[1].drop(is_first.size - won)
                yield from self._step(low, name, out)

    def _count(self, comparisons: int) -> None:
        self.unit.count(merger_steps=1, merger_comparisons=comparisons)

    def _step(self, block: np.ndarray, name: str, out: simpy.Store) -> Process:
        """Pass the cycle, and put out the keys of ``block``."""
        self.unit.show("MergeSort", name, 0, 1)
        yield self.env.timeout(1)
        keys = network.keys_in(block)
        if keys.size:
            yield out.put(keys)


class Window:
    """The next keys of one array of a merge, up to ``size``."""

    def __init__(self, queue: simpy.Store, size: int) -> None:
        self.queue, self.size = queue, size
        self.held = network.empty()
        self.ended = False

    @property
    def keys(self) -> np.ndarray:
        """Return the keys that are in the window."""
        return np.asarray(self.held[:, : self.size])

    def fill(self) -> Generator[simpy.Event, Any, int]:
        """Take blocks until the window is full or its array ends; return how many keys it has."""
        while self.held.shape[1] < self.size and not self.ended:
            block = yield self.queue.get()
            if block is END:
                self.ended = True
            else:
                self.held = np.concatenate([self.held, block], axis=1)
        return int(self.keys.shape[1])

    def padded(self, segment: int) -> np.ndarray:
        """Return the window with padding."""
        return network.padded(self.keys, self.size, segment)

    def drop(self, count: int) -> None:
        """Move on by ``count`` keys, or to the end."""
        self.held = self.held[:, count:]
