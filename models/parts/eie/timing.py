"""EIE's recurrences and accounts: when each activation is broadcast and begun, and where all cycles went."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ..matvec import Nonzeros, find_nonzeros
from .encoded import Encoded as Encoded

FIRST_BROADCAST = 2  # cycle of the first broadcast where no bubble precedes it
PIPELINE = 6  # cycles from an entry's start to its result's write: PtrRead, SpmatRead, four stages of ArithmUnit
DEEP = 48  # levels from which following each queue alone costs less than looking at all queues level by level
PE_CAUSES = ("busy", "padding", "empty", "starved", "drained", "act_sram")
BROADCASTER_CAUSES = ("start", "broadcast", "bubble", "stalled", "done", "act_sram")
COUNTS = (
    "macs", "entries", "padding", "broadcasts", "ptr_reads", "spmat_reads", "act_reads", "act_writes", "queue_pushes",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Broadcasts:
    """Which columns are broadcast for each vector, in order, and the bubbles before each.

    Those of vector v are ``nonzeros.starts[v] .. nonzeros.starts[v + 1]``.
    """

    nonzeros: Nonzeros
    bubbles: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, has_bias: bool, pe_count: int) -> Broadcasts:
        """Return what leading-nonzero detection over ``pe_count`` lanes makes of ``vectors``, (count, in)."""
        nonzeros = find_nonzeros(vectors, has_bias)
        bubbles = np.empty(len(nonzeros.columns), np.int64)
        _find_bubbles(nonzeros.columns, nonzeros.starts, vectors.shape[1], pe_count, bubbles)
        return cls(nonzeros, bubbles)


@dataclass(frozen=True, eq=False)
class Tally:
    """What each PE does, whenever it does it: sums over all vectors, (PEs,) each.

    ``empty``: activations for which the PE stores nothing; each costs it a cycle.
    """

    nonzeros: np.ndarray
    entries: np.ndarray
    empty: np.ndarray
    spmat_reads: np.ndarray

    @classmethod
    def of(cls, encoded: Encoded, broadcasts: Broadcasts, entries_per_row: int) -> Tally:
        """Return the tally of a tile whose matrix SRAM has ``entries_per_row``."""
        counts, columns = encoded.counts, broadcasts.nonzeros.columns
        tally = cls(*(np.zeros(len(encoded.stored), np.int64) for _ in range(4)))
        _add_up(counts.nonzeros, counts.entries, columns, tally.nonzeros, tally.entries, tally.empty)
        tally.empty[counts.entries.shape[1] :] = len(columns)
        encoded.count_row_reads(broadcasts.nonzeros, entries_per_row, tally.spmat_reads)
        return tally


@dataclass(frozen=True, eq=False)
class Timing:
    """When things happen: ``cycles`` (vectors,), and sums over all vectors clipped to them.

    ``span``: cycles until each PE has done its last activation, (PEs,). ``late``: empty columns that a PE meets after
    the last result is written, which nobody waits for, (PEs,). ``broadcast``, ``bubble``, ``stalled``: the broadcaster.
    ``levels``: cycles in which an activation queue holds 0, 1, 2 ... activations, summed over the PEs; empty where they
    were not asked for.
    """

    cycles: np.ndarray
    span: np.ndarray
    late: np.ndarray
    broadcast: int
    bubble: int
    stalled: int
    levels: np.ndarray

    @classmethod
    def of(
        cls, entries: np.ndarray, broadcasts: Broadcasts, queue_depth: int, *, idle: int = 0, levels: bool = False
    ) -> Timing:
        """Return the timing of a tile whose columns have ``entries``, (cols, PEs), and of ``idle`` PEs without any."""
        nonzeros = broadcasts.nonzeros
        most = min(queue_depth - 1, int(np.diff(nonzeros.starts).max(initial=0)))
        spent = np.zeros(most + 1 if levels else 0, np.int64)
        cycles = np.zeros(nonzeros.vectors, np.int64)
        pes = entries.shape[1] + idle
        span, late = np.zeros(pes, np.int64), np.zeros(pes, np.int64)
        broadcast, bubble, stalled = _solve(
            entries, nonzeros.columns, broadcasts.bubbles, nonzeros.starts, queue_depth, cycles, span, late, spent
        )
        if levels:
            spent[0] += pes * int(cycles.sum())
        return cls(cycles, span, late, broadcast, bubble, stalled, spent)


@dataclass
class Account:
    """A layer's figures, added up run by run.

    ``pe``: cycles by cause, (PEs,) each; ``broadcaster``: its cycles by cause; both add up to ``cycles``.
    ``levels``: cycles in which an activation queue holds 0, 1, 2 ... activations, summed over the PEs.
    """

    pe: dict[str, np.ndarray]
    broadcaster: dict[str, int]
    counts: dict[str, int]
    levels: np.ndarray
    cycles: int = 0

    @classmethod
    def of(cls, pe_count: int) -> Account:
        """Return an account of nothing."""
        pe = {cause: np.zeros(pe_count, np.int64) for cause in PE_CAUSES}
        levels = np.zeros(1, np.int64)
        return cls(pe, dict.fromkeys(BROADCASTER_CAUSES, 0), dict.fromkeys(COUNTS, 0), levels)

    def add(
        self, tally: Tally, timing: Timing, broadcasts: Broadcasts, vectors: np.ndarray, loads: int, stores: int
    ) -> None:
        """Add all runs of a tile."""
        cycles = int(timing.cycles.sum())
        empty = tally.empty - timing.late
        self.pe["busy"] += tally.nonzeros
        self.pe["padding"] += tally.entries - tally.nonzeros
        self.pe["empty"] += empty
        self.pe["starved"] += timing.span - tally.entries - empty
        self.pe["drained"] += cycles - timing.span
        start = int(np.minimum(timing.cycles, FIRST_BROADCAST).sum())
        active = timing.broadcast + timing.bubble + timing.stalled
        for cause, value in (
            ("start", start),
            ("broadcast", timing.broadcast),
            ("bubble", timing.bubble),
            ("stalled", timing.stalled),
            ("done", cycles - start - active),
        ):
            self.broadcaster[cause] += value
        self.cycles += cycles
        self.wait(timing.levels)
        macs, entries = int(tally.nonzeros.sum()), int(tally.entries.sum())
        self.count(len(broadcasts.bubbles), macs, entries, int(tally.spmat_reads.sum()), vectors.size)
        self.move(len(vectors), loads, stores)

    def wait(self, levels: np.ndarray) -> None:
        """Add to the cycles at each level of the queues."""
        short, long = sorted((self.levels, levels), key=len)
        self.levels = long.copy()
        self.levels[: len(short)] += short

    def count(self, broadcasts: int, macs: int, entries: int, spmat_reads: int, scanned: int) -> None:
        """Add to the counts; ``scanned`` activations pass the leading-nonzero detection, zeros included."""
        pe_count = len(self.pe["busy"])
        for name, value in (
            ("macs", macs),
            ("entries", entries),
            ("padding", entries - macs),
            ("broadcasts", broadcasts),
            ("ptr_reads", pe_count * broadcasts),
            ("spmat_reads", spmat_reads),
            ("act_reads", scanned + macs),
            ("act_writes", macs),
            ("queue_pushes", pe_count * broadcasts),
        ):
            self.counts[name] += value

    def move(self, runs: int, loads: int, stores: int) -> None:
        """Add the words that ``runs`` runs move between activation SRAM and registers, one a PE and cycle (assumed)."""
        pe_count = len(self.pe["busy"])
        cycles = runs * (-(-loads // pe_count) + -(-stores // pe_count))
        self.pe["act_sram"] += cycles
        self.broadcaster["act_sram"] += cycles
        self.levels[0] += pe_count * cycles
        self.cycles += cycles
        self.counts["act_reads"] += runs * loads
        self.counts["act_writes"] += runs * stores


@njit(cache=True)
def _find_bubbles(columns, starts, size, lanes, bubbles):  # type: ignore[no-untyped-def]
    # Activations stand in rows of one a PE. The row after a nonzero is loaded in the nonzero's own cycle if that sat in
    # the last lane, else in one bubble; each all-zero row costs one bubble. A bias (column `size`) has its own row.
    for v in range(len(starts) - 1):
        row = 0
        for j in range(starts[v], starts[v + 1]):
            c = columns[j]
            here = c // lanes if c < size else (size + lanes - 1) // lanes
            loaded = j > starts[v] and here > row and columns[j - 1] % lanes == lanes - 1
            bubbles[j] = here - row - (1 if loaded else 0)
            row = here


@njit(cache=True)
def _add_up(nonzeros, entries, columns, nonzero_sum, entry_sum, empty_sum):  # type: ignore[no-untyped-def]
    for c in columns:
        for i in range(entries.shape[1]):
            nonzero_sum[i] += nonzeros[c, i]
            entry_sum[i] += entries[c, i]
            empty_sum[i] += entries[c, i] == 0


@njit(cache=True)
def _count_levels(entries, columns, sent, last_start, total, levels):  # type: ignore[no-untyped-def]
    # While activation j is the next to start, from s[i, j-1] up to s[i, j], queue i holds at least k from the cycle
    # after the broadcast of j + k - 1 on. What level k gains here, level k - 1 loses.
    pe_count = entries.shape[1]
    free = np.zeros(pe_count, np.int64)
    before = np.zeros(pe_count, np.int64)
    start = np.zeros(pe_count, np.int64)
    for j in range(len(columns)):
        column = entries[columns[j]]
        for i in range(pe_count):
            s = max(sent[j] + 1, free[i])
            free[i] = s + max(column[i], 1)
            before[i] = start[i]
            start[i] = min(s, total)
        for behind in range(j, len(columns)):
            seen = sent[behind] + 1
            if seen >= last_start[j]:
                break
            held = 0
            for i in range(pe_count):
                held += max(start[i] - max(before[i], seen), 0)
            levels[behind - j + 1] += held
            levels[behind - j] -= held


@njit(cache=True)
def _merge_levels(entries, columns, sent, total, levels):  # type: ignore[no-untyped-def]
    # The same, queue by queue: from one push or pop to the next.
    pe_count = entries.shape[1]
    free = np.zeros(pe_count, np.int64)
    now = np.zeros(pe_count, np.int64)
    pushed = np.zeros(pe_count, np.int64)
    for j in range(len(columns)):
        column = entries[columns[j]]
        for i in range(pe_count):
            s = max(sent[j] + 1, free[i])
            free[i] = s + max(column[i], 1)
            s = min(s, total)
            p, at = pushed[i], now[i]
            while p < len(columns) and sent[p] + 1 <= s:
                if p > j:
                    levels[p - j] += sent[p] + 1 - at
                    levels[0] -= sent[p] + 1 - at
                at = sent[p] + 1
                p += 1
            if p > j:
                levels[p - j] += s - at
                levels[0] -= s - at
            now[i], pushed[i] = s, p


@njit(cache=True)
def _solve(entries, columns, bubbles, starts, queue_depth, cycles, span, late, levels):  # type: ignore[no-untyped-def]
    pe_count = entries.shape[1]
    in_flight = queue_depth - 1
    longest = 0
    for v in range(len(starts) - 1):
        longest = max(longest, starts[v + 1] - starts[v])
    sent = np.empty(longest, np.int64)  # u[j]
    last_start = np.empty(longest, np.int64)  # max_i s[i, j]
    free = np.empty(pe_count, np.int64)  # s[i, j] + max(1, entries[i, j])
    broadcast = bubble = stalled = 0
    for v in range(len(starts) - 1):
        begin = starts[v]
        count = starts[v + 1] - begin
        free[:] = 0
        u = FIRST_BROADCAST - 1
        end = 0  # one past the last cycle in which an entry starts
        for j in range(count):
            u += 1 + bubbles[begin + j]
            if j >= in_flight:
                u = max(u, 1 + last_start[j - in_flight])
            column = entries[columns[begin + j]]
            latest = 0
            for i in range(pe_count):
                s = max(u + 1, free[i])
                n = column[i]
                done = s + max(n, 1)
                free[i] = done
                latest = max(latest, s)
                end = max(end, done if n > 0 else 0)
            sent[j] = u
            last_start[j] = latest
        total = PIPELINE + max(end - 1, 0)
        cycles[v] = total

        # The broadcaster's causes, up to the end: what it does once the last result is written delays nobody.
        now = min(FIRST_BROADCAST, total)
        for j in range(count):
            ready = min(now + bubbles[begin + j], total)
            go = min(sent[j], total)
            bubble += ready - now
            stalled += go - ready
            now = min(sent[j] + 1, total)
            broadcast += now - go

        overrun = False
        for i in range(pe_count):
            overrun |= free[i] > total
            span[i] += min(free[i], total)
        if overrun:  # only empty columns can come this late: count them by going through the starts again
            free[:] = 0
            for j in range(count):
                column = entries[columns[begin + j]]
                for i in range(pe_count):
                    s = max(sent[j] + 1, free[i])
                    late[i] += s >= total
                    free[i] = s + max(column[i], 1)
        if (
            len(span) > pe_count
        ):  # without entries, a PE is done with each activation as it comes: its queue stays empty
            span[pe_count:] += min(u + 2, total) if count > 0 else 0
            beyond = 0
            while beyond < count and sent[count - beyond - 1] + 1 >= total:
                beyond += 1
            late[pe_count:] += beyond
        if len(levels) > DEEP:
            _merge_levels(entries, columns[begin : begin + count], sent, total, levels)
        elif len(levels) > 0:
            _count_levels(entries, columns[begin : begin + count], sent, last_start, total, levels)
    return broadcast, bubble, stalled
