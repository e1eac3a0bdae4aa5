"""What the stages of PointAcc's mapping unit share: a clock, the counts, and the log of who did what."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import simpy

from .mapper import Mapper, counted

if TYPE_CHECKING:
    from ....simulator.timeline import Timeline


class Logbook:
    """The clock of one mapping unit, its counts, and the log of who did what."""

    def __init__(self, mapper: Mapper) -> None:
        self.mapper = mapper
        self.env = simpy.Environment()
        self.counts = counted()
        self.log: dict[str, list[tuple[str, int, int]]] = {}
        self.matches: list[tuple[int, int]] = []  # (cycle, matches so far)

    def run(self, operation: Generator[simpy.Event, Any, Any], timeline: Timeline | None) -> tuple[Any, int]:
        """Return what ``operation`` returns, and the cycles it took, having drawn it on ``timeline``."""
        data = self.env.run(until=self.env.process(operation))
        cycles = int(self.env.now)
        if timeline is not None:
            for track, intervals in self.log.items():
                for name, start, end in intervals:
                    timeline.interval(track, name, start, end)
            for time, matches in self.matches:
                timeline.change("matches", time, matches)
            timeline.advance(cycles)
        return data, cycles

    def link(self) -> simpy.Store:
        """Return a link between two stages."""
        return simpy.Store(self.env)

    def count(self, **amounts: int) -> None:
        """Add to the counts."""
        for name, amount in amounts.items():
            self.counts[name] += int(amount)

    def show(self, track: str, name: str, start: int, end: int) -> None:
        """Log that ``track`` does ``name`` from ``start`` to ``end`` cycles from now."""
        log = self.log.setdefault(track, [])
        begin, finish = int(self.env.now) + start, int(self.env.now) + end
        if log and log[-1][0] == name and log[-1][2] >= begin:
            log[-1] = (name, log[-1][1], finish)
        else:
            log.append((name, begin, finish))
