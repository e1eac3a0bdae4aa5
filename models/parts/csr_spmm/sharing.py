"""Warps that share what they ask for: equal shares, exactly; a SimPy unit, and the recurrences it follows.

A unit that ``servers`` warps can use at once gives each of n warps the rate min(1, servers / n). What a warp has been
given since the unit began is the same for all that ask, the unit's *level*; a warp that asks for d at level v is done
when the level is v + d, so that nothing is to be updated but the level, where a warp comes or goes:

    level += floor(GRAINS x min(n, servers) x time since the last change / n)

This is processor sharing. Levels are whole grains, GRAINS a tick, and times whole ticks.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import simpy
from numba import njit

GRAINS = 1024
NEVER = np.int64(1 << 62)


class Shared:
    """A unit whose warps get equal shares of ``servers``, one server at most."""

    def __init__(self, env: simpy.Environment, servers: int) -> None:
        self.env, self.servers = env, servers
        self.level = self.changed = self.turn = 0
        self.waiting: list[tuple[int, simpy.Event]] = []  # the level at which each is done

    def serve(self, grains: int) -> simpy.Event:
        """Return the event that ``grains`` have been given."""
        done = self.env.event()
        if grains == 0:
            return done.succeed()
        self._rise()
        self.waiting.append((self.level + grains, done))
        self._plan()
        return done

    def _rise(self) -> None:
        count, now = len(self.waiting), int(self.env.now)
        if count:
            self.level += (now - self.changed) * GRAINS * min(count, self.servers) // count
        self.changed = now

    def _plan(self) -> None:
        self.turn += 1
        if self.waiting:
            count = len(self.waiting)
            missing = min(level for level, _ in self.waiting) - self.level
            ticks = max(0, -(-missing * count // (GRAINS * min(count, self.servers))))  # 0: done, and one came just now
            self.env.process(self._finish(self.turn, ticks))

    def _finish(self, turn: int, ticks: int) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(ticks)
        if turn == self.turn:  # else a warp has come or gone
            self._rise()
            for level, done in self.waiting:
                if level <= self.level:
                    done.succeed()
            self.waiting = [(level, done) for level, done in self.waiting if level > self.level]
            self._plan()


@njit(cache=True)
def split_time(body, shape, last, spent):  # type: ignore[no-untyped-def]
    """Add to ``spent`` where the ``body`` ticks of a warp went, by cause; the first is left to the caller.

    ``shape``: ticks of multiply-adds at the warp's share, nonzeros it went through, of these computed, useful
    multiplications, and all. Lanes of sub-warps that are done with their row idle; the others multiply, and for the
    rest of the time wait for what came ``last``: core, L1, L2 or the chain.
    """
    slots, computed = max(shape[1], 1), shape[2]
    idle = body * (shape[1] - computed) // slots
    work = min(shape[0], body) * computed // slots
    good = work * shape[3] // max(shape[4], 1)
    spent[1] += good
    spent[2] += work - good
    spent[3] += idle
    spent[4 + last] += body - idle - work


@njit(cache=True)
def run_blocks(  # type: ignore[no-untyped-def]
    asked, shape, start, products, tiles, per_block, sm_count, sub_cores, finished, spent
):
    """Fill ``finished`` and ``spent``, both by slot: when it was done, and the ticks of its warps by cause.

    Blocks go, rows first, then tiles, then products, to slots that are free, the lowest first; slot s is in SM
    s % sm_count. Units: the cores of each SM, its L1, and the chip's L2.
    """
    slots, warps = len(finished), asked.shape[1]
    each = warps // per_block // products  # blocks of a product and tile
    total = products * tiles * each
    own = (slots // sm_count) * per_block  # warps of an SM
    places = slots * per_block
    l2 = 2 * sm_count
    level, changed = np.zeros(l2 + 1, np.int64), np.zeros(l2 + 1, np.int64)
    count, due = np.zeros(l2 + 1, np.int64), np.full(l2 + 1, NEVER)
    tags, who = np.empty((l2, own), np.int64), np.empty((l2, own), np.int64)
    l2_tags, l2_who = np.empty(places, np.int64), np.empty(places, np.int64)
    timers, timed = np.empty(places, np.int64), np.empty(places, np.int64)
    running = 0  # timers
    index, kind = np.empty(places, np.int64), np.empty(places, np.int64)
    began, last = np.full(places, -1, np.int64), np.zeros(places, np.int64)
    open_units, open_warps = np.zeros(places, np.int64), np.zeros(slots, np.int64)
    took = np.zeros(places, np.int64)
    free, freed, block, now = np.arange(slots), slots, 0, np.int64(0)  # free slots, a heap
    while True:
        # Free slots take blocks, which begin by finding their rows.
        while freed:
            slot = free[0]
            freed = _pop(free, free, freed)
            if block == total:
                continue
            tile = block // each % tiles
            first = (block // (each * tiles) * each + block % each) * per_block
            block += 1
            open_warps[slot] = per_block
            for number in range(per_block):
                warp = slot * per_block + number
                index[warp], kind[warp] = first + number, len(asked) - 1 if tile == tiles - 1 else 0
                began[warp] = -1
                running = _push(timers, timed, running, now + start, warp)
        # The next time at which anything is done.
        soonest = due.min()
        now = min(soonest, timers[0] if running else NEVER)
        if now == NEVER:
            return
        for unit in range(l2 + 1 if soonest == now else 0):
            if due[unit] == now:
                _rise(unit, now, level, changed, count, sub_cores if unit < sm_count else 1)
                row, column = (l2_tags, l2_who) if unit == l2 else (tags[unit], who[unit])
                asks = 0 if unit < sm_count else 1 if unit < l2 else 2
                while count[unit] and row[0] <= level[unit]:
                    warp = column[0]
                    count[unit] = _pop(row, column, count[unit])
                    if _done(warp, asks, now, start, began, last, open_units, open_warps, took, per_block, finished,
                             shape[kind[warp], index[warp]], spent):  # fmt: skip
                        freed = _push(free, free, freed, warp // per_block, warp // per_block)
                due[unit] = _due(unit, row, level, changed, count, sub_cores if unit < sm_count else 1)
        while running and timers[0] == now:
            warp = timed[0]
            running = _pop(timers, timed, running)
            if began[warp] >= 0:
                if _done(warp, 3, now, start, began, last, open_units, open_warps, took, per_block, finished,
                         shape[kind[warp], index[warp]], spent):  # fmt: skip
                    freed = _push(free, free, freed, warp // per_block, warp // per_block)
                continue
            began[warp] = took[warp] = now
            last[warp] = 3
            want, sm = asked[kind[warp], index[warp]], (warp // per_block) % sm_count
            open_units[warp] = 1
            for asks in range(3):
                open_units[warp] += want[asks] > 0
            for asks in range(3):
                if want[asks] == 0:
                    continue
                unit = (sm, sm_count + sm, l2)[asks]
                servers = sub_cores if asks == 0 else 1
                row, column = (l2_tags, l2_who) if unit == l2 else (tags[unit], who[unit])
                _rise(unit, now, level, changed, count, servers)
                count[unit] = _push(row, column, count[unit], level[unit] + want[asks], warp)
                due[unit] = _due(unit, row, level, changed, count, servers)
            running = _push(timers, timed, running, now + want[3], warp)


@njit(cache=True)
def _done(  # type: ignore[no-untyped-def]
    warp, asks, now, start, began, last, open_units, open_warps, took, per_block, finished, shape, spent
):
    """Note that ``warp`` got one of what it asked; tell whether its thread block is done."""
    # Of those that are done last, at one time, the first of core, L1, L2 and chain is what the warp waited for.
    last[warp] = min(last[warp], asks) if took[warp] == now else asks
    took[warp] = now
    open_units[warp] -= 1
    if open_units[warp]:
        return False
    slot = warp // per_block
    open_warps[slot] -= 1
    spent[slot, 0] += start
    split_time(now - began[warp], shape, last[warp], spent[slot])
    if open_warps[slot]:
        return False
    for other in range(slot * per_block, (slot + 1) * per_block):
        spent[slot, 8] += now - took[other]
    finished[slot] = now
    return True


@njit(cache=True)
def _rise(unit, now, level, changed, count, servers):  # type: ignore[no-untyped-def]
    if count[unit]:
        level[unit] += (now - changed[unit]) * GRAINS * min(count[unit], servers) // count[unit]
    changed[unit] = now


@njit(cache=True)
def _due(unit, row, level, changed, count, servers):  # type: ignore[no-untyped-def]
    if count[unit] == 0:
        return NEVER
    share = GRAINS * min(count[unit], servers)
    return changed[unit] + ((row[0] - level[unit]) * count[unit] + share - 1) // share


@njit(cache=True)
def _push(keys, items, count, key, item):  # type: ignore[no-untyped-def]
    """Put ``item`` into the heap of ``count`` items; return how many it has then."""
    place = count
    while place and keys[(place - 1) // 2] > key:
        keys[place], items[place] = keys[(place - 1) // 2], items[(place - 1) // 2]
        place = (place - 1) // 2
    keys[place], items[place] = key, item
    return count + 1


@njit(cache=True)
def _pop(keys, items, count):  # type: ignore[no-untyped-def]
    """Take the least item from the heap of ``count`` items; return how many are left."""
    count -= 1
    key, item, place = keys[count], items[count], 0
    while True:
        below = 2 * place + 1
        if below >= count:
            break
        if below + 1 < count and keys[below + 1] < keys[below]:
            below += 1
        if keys[below] >= key:
            break
        keys[place], items[place] = keys[below], items[below]
        place = below
    keys[place], items[place] = key, item
    return count
