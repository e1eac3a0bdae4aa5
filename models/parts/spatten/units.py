"""The units of SpAtten's pipeline as SimPy processes: the readable form of `gossamer.models.spatten`.

Nothing here knows the number of passes or the order of departures: quick-select ends when its pivot is the k-th.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from .top_k import FIGURES, pivot_of
from .work import UNITS, Config, Jobs, Run, Work, jobs_of

if TYPE_CHECKING:
    from ....simulator.timeline import Timeline
    from ....workloads.trace import Layer

Process = Generator[simpy.Event, Any, None]
Act = Callable[[int], Process]


def run(config: Config, layer: Layer, work: Work, timeline: Timeline | None) -> Run:
    """Return what the pipeline does with the queries of ``layer``, head after head."""
    env = simpy.Environment()
    jobs = jobs_of(layer, work)
    chosen = np.ones(jobs.rows.shape, bool)
    engine = TopK(env, config, jobs, chosen)
    acts: list[Act] = [
        lambda job: _cycles(env, jobs.query[job] * config.array_cycles(work.keys, work.size)),
        lambda job: _stream(env, jobs.query[job] * work.keys, config.softmax_lanes),
        engine.quick_select,
        engine.filter,
        lambda job: _cycles(env, jobs.query[job] * config.array_cycles(int(np.count_nonzero(chosen[job])), work.size)),
    ]
    queues = [simpy.Store(env, config.queue_depth) for _ in UNITS[1:]]
    units = []
    for place, (name, act) in enumerate(zip(UNITS, acts, strict=True)):
        before = queues[place - 1] if place else None
        after = queues[place] if place < len(queues) else None
        units.append(Unit(env, name, act, before, after, jobs, timeline))
    env.run()
    busy, blocked = [unit.busy for unit in units], [unit.blocked for unit in units]
    return Run(chosen[jobs.query], int(env.now), busy, blocked, engine.figures)


class Unit:
    """One stage: take a query, work on it, and hold it until there is a place for it in the next queue."""

    def __init__(
        self,
        env: simpy.Environment,
        name: str,
        act: Act,
        before: simpy.Store | None,
        after: simpy.Store | None,
        jobs: Jobs,
        timeline: Timeline | None,
    ) -> None:
        self.env, self.name, self.act, self.jobs, self.timeline = env, name, act, jobs, timeline
        self.before, self.after = before, after
        self.busy = self.blocked = 0
        env.process(self._run())

    def _run(self) -> Process:
        for job in range(len(self.jobs.rows)):
            if self.before is not None:
                job = yield self.before.get()
            start = int(self.env.now)
            yield from self.act(job)
            done = int(self.env.now)
            if self.after is not None:
                yield self.after.put(job)
            self.busy += done - start
            self.blocked += int(self.env.now) - done
            if self.timeline is not None and done > start:
                what = "query" if self.jobs.query[job] else "tokens"
                self.timeline.interval(self.name, f"{what} {job}", start, done)


class TopK:
    """The top-k engine: comparators between two FIFOs, and a filter that lets the k largest of a row pass in order."""

    def __init__(self, env: simpy.Environment, config: Config, jobs: Jobs, chosen: np.ndarray) -> None:
        self.env, self.config, self.jobs, self.chosen = env, config, jobs, chosen
        self.figures = dict.fromkeys(FIGURES, 0)
        self.found: dict[int, tuple[float, int]] = {}  # by row: the k-th value, and how many equal ones are kept

    def quick_select(self, row: int) -> Process:
        """Find the k-th largest value of ``row``."""
        if self.jobs.counts[row] == len(self.jobs.rows[row]):
            return
        candidates: deque[float] = deque()
        for part in _parts(self.jobs.rows[row].tolist(), self.config.comparators):
            yield self.env.timeout(1)
            candidates.extend(part)
        kept = int(self.jobs.counts[row])
        rank, above, step = kept, 0, 0
        while True:
            pivot = candidates[pivot_of(self.config.seed, row, step, len(candidates))]
            smaller, larger, equal = deque[float](), deque[float](), 0
            for part in _parts(candidates, self.config.comparators):
                yield self.env.timeout(1)
                smaller.extend(value for value in part if value < pivot)  # as the zero eliminators pack them
                larger.extend(value for value in part if value > pivot)
                equal += part.count(pivot)
            yield self.env.timeout(self.config.pass_latency)
            step += 1
            self._count(comparisons=len(candidates), passes=1, fifo_reads=len(candidates))
            self._count(fifo_writes=len(smaller) + len(larger))
            if rank <= len(larger):
                candidates = larger
            elif rank <= len(larger) + equal:
                self.found[row] = pivot, kept - above - len(larger)
                return
            else:
                rank -= len(larger) + equal
                above += len(larger) + equal
                candidates = smaller

    def filter(self, row: int) -> Process:
        """Let what is above the k-th value pass, and the first of its equals."""
        if row not in self.found:
            return
        kth, ties = self.found.pop(row)
        column = 0
        for part in _parts(self.jobs.rows[row].tolist(), self.config.comparators):
            yield self.env.timeout(1)
            for value in part:
                kept = value > kth or (value == kth and ties > 0)
                ties -= kept and value == kth
                self.chosen[row, column] = kept
                column += 1

    def _count(self, **figures: int) -> None:
        for name, value in figures.items():
            self.figures[name] += value


def _cycles(env: simpy.Environment, cycles: int) -> Process:
    yield env.timeout(cycles)


def _stream(env: simpy.Environment, words: int, lanes: int) -> Process:
    """Pass ``words``, so many lanes of them a cycle."""
    for _ in range(0, words, lanes):
        yield env.timeout(1)


def _parts(values: Any, size: int) -> Iterator[list[float]]:
    """Yield ``values`` in order, ``size`` at a time."""
    stream = iter(values)
    while part := list(islice(stream, size)):
        yield part
