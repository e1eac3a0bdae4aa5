"""ESE's recurrences: the cycles of one matrix, and when matrices, their weights and their results follow one another.

One matrix, all PEs of a channel (all channels alike), elements j = 0, 1, ... broadcast in order, n[i, j] entries:

    u[j]    = max(u[j-1] + 1,  1 + max_i s[i, j-depth])            cycle in which element j is broadcast, u[0] = 0
    s[i, j] = max(u[j] + 1,  s[i, j-1] + max(1, n[i, j-1]))        cycle in which PE i starts element j
    cycles  = 5 + max_i (s[i, last] + max(1, n[i, last]))          the last entry passes six stages

Matrices k = 0, 1, ... of all steps, one after another:

    F[k] = max(F[k-1], E[k-2]) + fetch[k]                          its weights are there, in the half that k-2 left
    S[k] = max(E[k-1], F[k], A[k-2], A[needed by k])               it is multiplied from here
    E[k] = S[k] + cycles[k]                                        to here
    A[k] = max(E[k], A[k-1]) + passes[k]                           the element-wise unit has worked off its results
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

PIPELINE = 6  # PtrRead, SpmatRead and four stages of the ALU, as in EIE; assumed
PE_CAUSES = ("busy", "padding", "empty", "starved", "drained", "memory", "element_wise")
COUNTS = (
    "macs", "entries", "padding", "broadcasts", "ptr_reads", "spmat_reads", "act_reads", "act_writes", "queue_pushes",
    "assembled", "elementwise_multiplies", "elementwise_adds", "table_lookups", "dram_read_bytes",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Spmv:
    """One multiplication of a matrix: ``cycles``, and for each PE, (PEs,), what it spent them on.

    ``elements``: how many were broadcast.
    """

    cycles: int
    elements: int
    busy: np.ndarray
    padding: np.ndarray
    empty: np.ndarray
    starved: np.ndarray
    drained: np.ndarray

    @classmethod
    def of(
        cls, entries: np.ndarray, nonzeros: np.ndarray, columns: np.ndarray, queue_depth: int, *, idle: int = 0
    ) -> Spmv:
        """Return the multiplication with the elements ``columns`` of a matrix of ``entries``, (cols, PEs).

        ``idle``: further PEs, which store nothing.
        """
        pes = entries.shape[1] + idle
        busy, padding, empty, free = (np.zeros(pes, np.int64) for _ in range(4))
        _multiply(entries, nonzeros, columns, queue_depth, busy, padding, empty, free)
        cycles = int(free.max()) + PIPELINE - 1 if len(columns) else 0
        return cls(cycles, len(columns), busy, padding, empty, free - busy - padding - empty, cycles - free)


@dataclass(frozen=True, eq=False)
class Times:
    """When each matrix of a whole run is fetched, multiplied and passed on: ends and starts in cycles, (matrices,)."""

    fetch_start: np.ndarray
    fetched: np.ndarray
    start: np.ndarray
    end: np.ndarray
    passed: np.ndarray
    memory_wait: int
    element_wise_wait: int

    @classmethod
    def of(cls, cycles: np.ndarray, fetch: np.ndarray, passes: np.ndarray, waits: np.ndarray, serial: bool) -> Times:
        """Return the times of matrices that take ``cycles``, their ``fetch`` and their ``passes`` on results.

        ``waits``: for each matrix how many passes before its own it waits for, counting back; 0 for none.
        """
        starts, fetched, start, end, passed = (np.zeros(len(cycles), np.int64) for _ in range(5))
        memory, element_wise = _follow(cycles, fetch, passes, waits, serial, starts, fetched, start, end, passed)
        return cls(starts, fetched, start, end, passed, memory, element_wise)

    @property
    def total(self) -> int:
        """Return the cycle in which the last result is there."""
        return int(self.passed[-1])


@dataclass
class Account:
    """A layer's figures: ``pe``: cycles by cause, (PEs,) each, of one channel; all channels are alike."""

    pe: dict[str, np.ndarray]
    counts: dict[str, int]
    spmv_cycles: int = 0

    @classmethod
    def of(cls, pe_count: int) -> Account:
        """Return an account of nothing."""
        return cls({cause: np.zeros(pe_count, np.int64) for cause in PE_CAUSES}, dict.fromkeys(COUNTS, 0))

    def multiply(self, spmv: Spmv, samples: int, runs: int = 1) -> None:
        """Add ``runs`` multiplications in which ``samples`` channels, summed over all runs, have a vector."""
        for cause in ("busy", "padding", "empty", "starved", "drained"):
            self.pe[cause] += runs * getattr(spmv, cause)
        self.spmv_cycles += runs * spmv.cycles
        nonzeros, padding = int(spmv.busy.sum()), int(spmv.padding.sum())
        pes = len(spmv.busy)
        for name, value in (
            ("macs", samples * nonzeros),
            ("entries", runs * (nonzeros + padding)),
            ("padding", runs * padding),
            ("broadcasts", runs * spmv.elements),
            ("ptr_reads", runs * pes * spmv.elements),
            ("spmat_reads", runs * (nonzeros + padding)),
            ("act_reads", samples * (spmv.elements + nonzeros)),
            ("act_writes", samples * nonzeros),
            ("queue_pushes", samples * pes * spmv.elements),
        ):
            self.counts[name] += value

    def wait(self, memory: int, element_wise: int) -> None:
        """Add what all PEs wait between matrices: for weights, and for the element-wise unit."""
        self.pe["memory"] += memory
        self.pe["element_wise"] += element_wise

    def pass_on(self, name: str, rows: int, samples: int, bias: bool, peephole: bool) -> None:
        """Add what the element-wise units do to the results of the matrix called ``name``."""
        gate = name[2:] if name.startswith("r_") else ""
        seen = peephole and gate in ("i", "f", "o")
        # f c and i g once all three are there, o tanh(c) with the last gate
        multiplies = {"g": 2, "o": 1}.get(gate, 0) + seen
        adds = (gate != "") + (bias and (gate != "" or name == "w")) + seen + (gate == "g")
        for what, each in (
            ("assembled", 1),
            ("elementwise_multiplies", multiplies),
            ("elementwise_adds", adds),
            ("table_lookups", (gate != "") + (gate == "o")),
        ):
            self.counts[what] += each * rows * samples


@njit(cache=True)
def _multiply(entries, nonzeros, columns, queue_depth, busy, padding, empty, free):  # type: ignore[no-untyped-def]
    pes = entries.shape[1]
    count = len(columns)
    last_start = np.empty(count, np.int64)  # max_i s[i, j]
    u = -1
    for j in range(count):
        u += 1
        if j >= queue_depth:
            u = max(u, 1 + last_start[j - queue_depth])
        stored, kept = entries[columns[j]], nonzeros[columns[j]]
        latest = 0
        for i in range(pes):
            s = max(u + 1, free[i])
            entries_here, kept_here = np.int64(stored[i]), np.int64(kept[i])  # unsigned ones less others are floats
            free[i] = s + max(entries_here, 1)
            latest = max(latest, s)
            busy[i] += kept_here
            padding[i] += entries_here - kept_here
            empty[i] += entries_here == 0
        last_start[j] = latest
    if count:  # without entries, a PE is done with each element as it comes
        empty[pes:] = count
        free[pes:] = u + 2


@njit(cache=True)
def _follow(  # type: ignore[no-untyped-def]
    cycles, fetch, passes, waits, serial, fetch_start, fetched, start, end, passed
):
    memory_wait = element_wise_wait = 0
    for k in range(len(cycles)):
        before = end[k - 1] if k else 0
        fetch_start[k] = max(fetched[k - 1] if k else 0, end[k - 2] if k > 1 else 0)
        fetched[k] = fetch_start[k] + fetch[k]
        ready = max(before, passed[k - 2] if k > 1 else 0)
        if serial and k:
            ready = max(ready, passed[k - 1])
        if waits[k]:
            ready = max(ready, passed[k - waits[k]])
        start[k] = max(ready, fetched[k])
        end[k] = start[k] + cycles[k]
        passed[k] = max(end[k], passed[k - 1] if k else 0) + passes[k]
        element_wise_wait += ready - before
        memory_wait += start[k] - ready
    if len(cycles):
        element_wise_wait += passed[-1] - end[-1]
    return memory_wait, element_wise_wait
