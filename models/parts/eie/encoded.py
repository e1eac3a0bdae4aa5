"""What a tile takes in EIE's interleaved CSC, counted by column and PE, and which SRAM rows a run over it reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ....workloads.blocks import BLOCK
from ....workloads.formats.csc import Counts, count
from ..matvec import Nonzeros


@dataclass(frozen=True, eq=False)
class Encoded:
    """A tile's entry counts, and how many entries each PE stores: ``stored``, (PEs,).

    ``counts`` are (cols, PEs), but of the PEs that have a row: the last ones of a tile of few rows have none.
    """

    counts: Counts
    stored: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray, pe_count: int, index_bits: int) -> Encoded:
        """Return what the interleaved CSC of ``matrix`` would hold; the entries themselves are not stored."""
        counts = count(matrix, max(1, min(pe_count, len(matrix))), index_bits)
        stored = np.zeros(pe_count, np.int64)
        _sum_columns(counts.entries, stored)
        return cls(counts, stored)

    @property
    def pointers(self) -> int:
        """Return how many pointers a PE has: where each column begins, and where the last one ends."""
        return len(self.counts.entries) + 1

    @property
    def idle(self) -> int:
        """Return how many PEs have no row."""
        return len(self.stored) - int(self.counts.entries.shape[1])

    def count_row_reads(self, nonzeros: Nonzeros, entries_per_row: int, reads: np.ndarray) -> None:
        """Add to ``reads``, (PEs,), the rows of ``entries_per_row`` that each PE reads for the columns of ``nonzeros``.

        Pointers are worked out for some columns at a time: those of all would be the larger part of a wide matrix.
        """
        entries = self.counts.entries
        columns, pes = entries.shape
        at_once = max(1, BLOCK // pes)
        pointers = np.zeros((min(columns, at_once) + 1, pes), np.int32 if self.stored.max() < 1 << 31 else np.int64)
        # What each PE read last: of one vector after another, or of some beside one another from columns to columns.
        alone = columns <= at_once
        group = max(1, nonzeros.vectors if alone else min(nonzeros.vectors, at_once))
        held = np.empty((1 if alone else group, pes), np.int64)
        _count_row_reads(entries, nonzeros.columns, nonzeros.starts, entries_per_row, group, pointers, held, reads)


@njit(cache=True)
def _sum_columns(entries, total):  # type: ignore[no-untyped-def]
    for c in range(len(entries)):
        for i in range(entries.shape[1]):
            total[i] += entries[c, i]


@njit(cache=True)
def _count_row_reads(  # type: ignore[no-untyped-def]
    entries, columns, starts, entries_per_row, group, pointers, held, reads
):
    """Add up the rows that are read, ``group`` vectors at a time, as many columns at a time as there are pointers.

    ``pointers`` and ``held``, the row that each PE read last, by vector, are overwritten.
    """
    width = len(pointers) - 1
    place = starts[:-1].copy()
    # Half an entry keeps the quotient clear of whole numbers, so that a product gives the floor of the division exactly
    # (for addresses below 2**51 / entries_per_row), and in vector lanes.
    share = 1.0 / entries_per_row
    for v0 in range(0, len(place), group):
        pointers[width] = 0
        for c0 in range(0, len(entries), width):
            after = min(c0 + width, len(entries))
            pointers[0] = pointers[width]
            for c in range(after - c0):
                for i in range(entries.shape[1]):
                    pointers[c + 1, i] = pointers[c, i] + entries[c0 + c, i]
            for v in range(v0, min(v0 + group, len(place))):
                own = held[v % len(held)]
                if c0 == 0:
                    own[:] = -1
                j = place[v]
                while j < starts[v + 1] and columns[j] < after:
                    c = columns[j] - c0
                    for i in range(entries.shape[1]):
                        begin, end = pointers[c, i], pointers[c + 1, i]
                        first, last = np.int64((begin + 0.5) * share), np.int64((end - 0.5) * share)
                        stored = end > begin
                        reads[i] += (last - first + (1 if first != own[i] else 0)) if stored else 0
                        own[i] = last if stored else own[i]
                    j += 1
                place[v] = j
