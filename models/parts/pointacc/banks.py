"""The banks of a hash table, slot by slot: the readable form of `parts.pointacc.hashing`.

A fetcher hands each bank the keys of a round that fall to it, and waits until all banks are done. Nothing here knows
which bank will be the fullest.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from ....workloads.points.kernel_map import Maps, offsets
from ....workloads.points.keys import shift
from .hashing import HashEngine, clouds
from .mapper import Outcome

if TYPE_CHECKING:
    from ....simulator.timeline import Timeline

Process = Generator[simpy.Event, Any, None]
MASK = (1 << 64) - 1


@dataclass
class Request:
    """A key on its way through the table; ``index``: of its point. ``met``: the point that has the key, once found."""

    key: int
    index: int
    hashed: int
    insert: bool
    met: int | None = None


class Bank:
    """Every N-th slot of the table, one of which is looked at in a cycle."""

    def __init__(self, env: simpy.Environment, name: str, timeline: Timeline | None) -> None:
        self.env, self.name, self.timeline = env, name, timeline
        self.queue: list[Request] = []
        self.reads = 0

    def serve(self) -> Process:
        """Serve the queue, a slot of a key in each cycle."""
        start = int(self.env.now)
        what = "insert" if self.queue[0].insert else "look up"
        while self.queue:
            yield self.env.timeout(1)
            self.queue.pop(0)
            self.reads += 1
        if self.timeline is not None:
            self.timeline.interval(self.name, what, start, int(self.env.now))


class Table:
    """Slots of (key, index) or None in banks, behind a crossbar that passes a round of keys at a time."""

    def __init__(self, env: simpy.Environment, engine: HashEngine, slots: int, timeline: Timeline | None) -> None:
        self.env, self.engine = env, engine
        self.slots: list[tuple[int, int] | None] = [None] * slots
        self.banks = [Bank(env, f"bank{index}", timeline) for index in range(engine.bank_count)]
        self.rounds = self.hashed = self.writes = 0

    def pass_all(self, requests: list[Request]) -> Process:
        """Pass ``requests`` through the banks, as many at a time as there are banks, in lock-step."""
        count = len(self.banks)
        for first in range(0, len(requests), count):
            self.rounds += 1
            for request in requests[first : first + count]:
                self.hashed += 1
                self.walk(request)
            yield self.env.all_of([self.env.process(bank.serve()) for bank in self.banks if bank.queue])

    def walk(self, request: Request) -> None:
        """Queue ``request`` at the bank of each slot that it meets, up to the one where it ends."""
        slot = request.hashed % len(self.slots)
        while True:
            self.banks[slot % len(self.banks)].queue.append(request)
            held = self.slots[slot]
            if held is None:
                if request.insert:
                    self.slots[slot] = (request.key, request.index)
                    self.writes += 1
                return
            if held[0] == request.key:
                request.met = held[1]
                return
            slot = (slot + self.engine.step) % len(self.slots)


def kernel_map(
    engine: HashEngine,
    coords_in: np.ndarray,
    coords_out: np.ndarray,
    kernel_size: int = 3,
    tensor_stride: int = 1,
    timeline: Timeline | None = None,
) -> Outcome[Maps]:
    """Return what `parts.pointacc.hashing.kernel_map` does, by stepping the banks."""
    keys_in, order_in, keys_out, order_out, is_self = clouds(coords_in, coords_out)
    cells = offsets(kernel_size, tensor_stride)
    asked = engine.asked(is_self, len(cells))
    env = simpy.Environment()
    table = Table(env, engine, engine.slots(keys_in), timeline)
    pairs: list[list[tuple[int, int]]] = [[] for _ in cells]
    matches = 0

    def run() -> Process:
        nonlocal matches
        if len(keys_in) or len(keys_out):
            yield env.timeout(engine.pipeline_depth)
        yield from table.pass_all([_request(int(key), index, True) for index, key in enumerate(keys_in)])
        for offset, cell in enumerate(cells[:asked]):
            step = shift(cell)
            requests = [_request(int(key) + step, index, False) for index, key in enumerate(keys_out)]
            yield from table.pass_all(requests)
            for request in requests:
                if request.met is not None:
                    matches += 1
                    into, out = int(order_in[request.met]), int(order_out[request.index])
                    pairs[offset].append((into, out))
                    mirror = len(cells) - 1 - offset
                    if mirror >= asked:
                        pairs[mirror].append((out, into))

    env.process(run())
    env.run()
    counts = {
        "rounds": table.rounds,
        "keys_hashed": table.hashed,
        "slot_reads": sum(bank.reads for bank in table.banks),
        "slot_writes": table.writes,
        "slots": len(table.slots),
        "matches": matches,
        "map_writes": sum(len(entries) for entries in pairs),
    }
    found = [np.array(entries, np.int64).reshape(-1, 2).T for entries in pairs]
    return Outcome([(into, out) for into, out in found], int(env.now), counts)


def _request(key: int, index: int, insert: bool) -> Request:
    mixed = key
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        mixed = (mixed ^ mixed >> 33) * factor & MASK
    return Request(key, index, mixed ^ mixed >> 33, insert)
