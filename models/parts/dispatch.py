"""Work handed to whichever unit is free, the lowest of several: a SimPy process, and the recurrence it follows."""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator
from typing import Any, Generic, TypeVar

import simpy
from numba import njit
from simpy.events import EventPriority

Process = Generator[simpy.Event, Any, None]
Item = TypeVar("Item")
LATER = EventPriority(2)  # priority of an event that comes after all others of its time


class Dispatcher(Generic[Item]):
    """Hand ``items`` in order to ``units`` that ask; of those that ask at one time, each item to the lowest.

    A unit whose item takes no time asks again at once, and may be the lowest again.
    """

    def __init__(self, env: simpy.Environment, items: Iterator[Item], units: int) -> None:
        self.env, self.items, self.units = env, items, units
        self.waiting: list[tuple[int, simpy.Event]] = []  # a heap; each unit is in it once
        self.asked = env.event()
        env.process(self._run())

    def ask(self, unit: int) -> simpy.Event:
        """Return the event that gives ``unit`` its next item, or None where there are no more."""
        given = self.env.event()
        heapq.heappush(self.waiting, (unit, given))
        if not self.asked.triggered:
            self.asked.succeed()
        return given

    def _run(self) -> Process:
        served = 0
        while served < self.units:  # until each has been told that there is no more
            if not self.waiting:
                self.asked = self.env.event()
                yield self.asked
            yield self._end_of_now()  # before each item: who had the last one may have asked again
            item = next(self.items, None)
            served += item is None
            _, given = heapq.heappop(self.waiting)
            given.succeed(item)

    def _end_of_now(self) -> simpy.Event:
        event = simpy.Event(self.env)
        event._ok, event._value = True, None
        self.env.schedule(event, priority=LATER)
        return event


@njit(cache=True)
def first_free(free):  # type: ignore[no-untyped-def]
    """Return the unit that is free first by the times in ``free``, the lowest of several."""
    unit = 0
    for other in range(1, len(free)):
        if free[other] < free[unit]:
            unit = other
    return unit
