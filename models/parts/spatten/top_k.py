"""SpAtten's top-k engine by its values, and the queues between the units: the recurrences of the fast engine.

Quick-select finds the k-th largest of a row: all candidates are compared with a pivot, one of them, ``comparators``
at a time; the smaller and the larger ones go through zero eliminators into two FIFOs, one of which holds the candidates
of the next pass. Then the row streams by once more: what is above the k-th is kept, of what equals it the first ones.
Source: Wang, Zhang, Han, "SpAtten", HPCA 2021 (as reviews of it and the authors' models tell it).
"""

from __future__ import annotations

import numpy as np
from numba import njit

FIGURES = ("comparisons", "passes", "fifo_reads", "fifo_writes")


def select_rows(
    rows: np.ndarray, counts: np.ndarray, comparators: int, pass_latency: int, seed: int
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Return what is kept of each row, (rows, keys) bool, the cycles of quick-select for each, and counts.

    ``rows`` is float32, C-contiguous; ``counts``, int64, says how many of each are kept, 1 to keys: all takes no time.
    """
    chosen = np.zeros(rows.shape, np.bool_)
    cycles = np.zeros(len(rows), np.int64)
    figures = np.zeros(len(FIGURES), np.int64)
    _select_rows(rows, counts, comparators, pass_latency, seed, chosen, cycles, figures)
    return chosen, cycles, dict(zip(FIGURES, figures.tolist(), strict=True))


def travel(times: np.ndarray, queue_depth: int) -> tuple[int, list[int]]:
    """Return when the last job leaves the last unit, and how long each unit is blocked, of ``times`` (units, jobs)."""
    starts = np.zeros(times.shape, np.int64)
    free = np.zeros(len(times), np.int64)
    blocked = np.zeros(len(times), np.int64)
    _travel(times, queue_depth, starts, free, blocked)
    return int(free[-1]), blocked.tolist()


@njit(cache=True)
def pivot_of(seed, row, step, count):  # type: ignore[no-untyped-def]
    """Return which of ``count`` candidates is the pivot of pass ``step`` on ``row``: a hash of these (splitmix64)."""
    z = (
        np.uint64(seed)
        + np.uint64(row) * np.uint64(0x9E3779B97F4A7C15)
        + np.uint64(step) * np.uint64(0xD1B54A32D192ED03)
    )
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.int64(z % np.uint64(count))


@njit(cache=True)
def _select_rows(rows, counts, comparators, pass_latency, seed, chosen, cycles, figures):  # type: ignore[no-untyped-def]
    keys = rows.shape[1]
    candidates = np.empty(keys, rows.dtype)
    smaller = np.empty(keys, rows.dtype)
    larger = np.empty(keys, rows.dtype)
    for row in range(len(rows)):
        scores, k = rows[row], counts[row]
        if k == keys:
            chosen[row, :] = True
            continue
        candidates[:] = scores
        count, rank, step = keys, k, 0
        taken = -(-keys // comparators)  # to fill the FIFO
        above = 0  # candidates known to lie above all that are left
        while True:
            pivot = candidates[pivot_of(seed, row, step, count)]
            low = high = 0
            for i in range(count):
                value = candidates[i]
                if value < pivot:
                    smaller[low] = value
                    low += 1
                elif value > pivot:
                    larger[high] = value
                    high += 1
            taken += -(-count // comparators) + pass_latency
            step += 1
            figures[0] += count
            figures[1] += 1
            figures[2] += count
            figures[3] += low + high
            equal = count - low - high
            if rank <= high:
                candidates[:high] = larger[:high]
                count = high
            elif rank <= high + equal:
                above += high
                break
            else:
                candidates[:low] = smaller[:low]
                rank -= high + equal
                above += high + equal
                count = low
        ties = k - above
        for i in range(keys):
            if scores[i] > pivot:
                chosen[row, i] = True
            elif scores[i] == pivot and ties > 0:
                chosen[row, i] = True
                ties -= 1
        cycles[row] = taken


@njit(cache=True)
def _travel(times, queue_depth, starts, free, blocked):  # type: ignore[no-untyped-def]
    units, jobs = times.shape
    for job in range(jobs):
        given = 0  # when the unit before let go of the job
        for unit in range(units):
            start = max(given, free[unit])
            done = start + times[unit, job]
            left = done
            if unit + 1 < units and job >= queue_depth:
                left = max(done, starts[unit + 1, job - queue_depth])
            starts[unit, job] = start
            blocked[unit] += left - done
            free[unit] = left
            given = left
