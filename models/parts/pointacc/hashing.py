"""A mapping engine with a hash table in banks: what PointAcc's merge sort is measured against.

A power of 2 of slots lies in N banks, slot i in bank i % N. A key's hash chooses its slot; one that is taken sends it
on (linear probing), to the next slot, which is the next bank's, or to the next one of the same bank. Keys come N at a
time, and a bank looks at one slot a cycle; the next N keys wait for the fullest bank (lock-step):

    build         inputs N at a time; each costs the slots it meets, the empty one it takes among them
    probe         for each offset the outputs N at a time, shifted by it; each costs the slots up to its key, or up to
                  an empty one
    cycles        the slots of the fullest bank, summed over all rounds of both, and the depth of hash and crossbar once

A merge costs the same for all clouds of a size; this costs more the fuller the table and the unluckier the banks, so
that a comparison is a sweep over load factors. Here the rounds are loops over arrays; `parts.pointacc.banks` steps the
banks.

Assumed: a slot is read, compared and written in one cycle; the hash is murmur3's 64-bit finaliser, whose banks are as
good as random; the table is cleared while no one waits. Probing "across" banks asks for all slots of a key at once, as
if its run were known beforehand, which flatters the table; "within" a bank a key's slots are looked at one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numba import njit

from ....workloads.points.kernel_map import Maps, offsets, transposed
from ....workloads.points.keys import shift
from .mapper import Outcome, cloud_keys

COUNTS = ("rounds", "keys_hashed", "slot_reads", "slot_writes", "slots", "matches", "map_writes")
BANKS, LOADS, DEPTHS = (2, 4096), (0.001, 0.95), (0, 65536)
Probing: TypeAlias = Literal["across", "within"]


@dataclass(frozen=True)
class HashEngine:
    """A mapping unit around a hash table.

    ``bank_count``: banks, and keys in a round, a power of 2. ``load_factor``: the share of slots that are taken; of the
    table's slots, a power of 2, it is met as nearly as can be. ``probing``: where a key goes from a slot that is taken,
    "across" to the next bank, or "within" its own. ``pipeline_depth``: cycles of hash and crossbar, paid once
    (assumed). ``exploit_symmetry``: of a cloud onto itself, look up only the first half of the offsets and the centre,
    and write each map twice.
    """

    bank_count: int = 64
    load_factor: float = 0.5
    probing: Probing = "across"
    pipeline_depth: int = 12
    exploit_symmetry: bool = False

    def __post_init__(self) -> None:
        count = self.bank_count
        if not BANKS[0] <= count <= BANKS[1] or count & (count - 1):
            raise ValueError(f"bank_count must be a power of 2 from {BANKS[0]} to {BANKS[1]}, not {count}")
        if not LOADS[0] <= self.load_factor <= LOADS[1]:
            raise ValueError(f"load_factor must be from {LOADS[0]} to {LOADS[1]}, not {self.load_factor}")
        if self.probing not in get_args(Probing):
            raise ValueError(f"probing must be one of {', '.join(get_args(Probing))}, not {self.probing!r}")
        if not DEPTHS[0] <= self.pipeline_depth <= DEPTHS[1]:
            raise ValueError(f"pipeline_depth must be from {DEPTHS[0]} to {DEPTHS[1]}, not {self.pipeline_depth}")

    @property
    def step(self) -> int:
        """Return how far the next slot lies that a key probes."""
        return 1 if self.probing == "across" else self.bank_count

    def slots(self, keys: np.ndarray) -> int:
        """Return the slots of a table for ``keys``, int64 (n,): in every run that is probed one stays empty."""
        if self.probing == "across":
            least = max(len(keys) + 1, self.bank_count)
        else:
            taken = np.bincount(hashes(keys).astype(np.int64) & (self.bank_count - 1), minlength=self.bank_count)
            least = self.bank_count * (int(taken.max()) + 1)
        wanted = 1 << max(0, round(math.log2(max(len(keys), 1) / self.load_factor)))
        return max(wanted, 1 << (least - 1).bit_length())

    def asked(self, is_self: bool, offset_count: int) -> int:
        """Return how many of the offsets are looked up."""
        return offset_count // 2 + 1 if self.exploit_symmetry and is_self and offset_count % 2 else offset_count


def kernel_map(
    engine: HashEngine, coords_in: np.ndarray, coords_out: np.ndarray, kernel_size: int = 3, tensor_stride: int = 1
) -> Outcome[Maps]:
    """Return (inputs, outputs) of each offset, int64 indices sorted by the output's key, as `maps_between` does.

    Clouds are (n, 3) integers, each once, and are fetched in the order of their keys. ``counts``: ``rounds`` of N keys
    at most; ``slot_reads``, one for each slot that is met; ``slots`` of the table. Raises InputError.
    """
    keys_in, order_in, keys_out, order_out, is_self = clouds(coords_in, coords_out)
    cells = offsets(kernel_size, tensor_stride)
    asked = engine.asked(is_self, len(cells))
    table = np.full(engine.slots(keys_in), -1, np.int64)
    place = np.empty(len(table), np.int64)
    spent = np.zeros(3, np.int64)  # cycles, rounds, slot reads
    _build(keys_in, hashes(keys_in), engine.bank_count, engine.step, table, place, spent)
    maps: Maps = []
    met = np.empty(len(keys_out), np.int64)
    for cell in cells[:asked]:
        wanted = keys_out + shift(cell)
        _probe(wanted, hashes(wanted), engine.bank_count, engine.step, table, place, met, spent)
        found = np.flatnonzero(met >= 0)
        maps.append((order_in[met[found]], order_out[found]))
    matches = sum(len(into) for into, _ in maps)
    maps += transposed(maps[: len(cells) - asked][::-1])
    cycles, rounds, reads = (int(number) for number in spent)
    counts = {
        "rounds": rounds,
        "keys_hashed": len(keys_in) + asked * len(keys_out),
        "slot_reads": reads,
        "slot_writes": len(keys_in),
        "slots": len(table),
        "matches": matches,
        "map_writes": sum(len(into) for into, _ in maps),
    }
    return Outcome(maps, cycles + (engine.pipeline_depth if rounds else 0), counts)


def clouds(
    coords_in: np.ndarray, coords_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool]:
    """Return the sorted keys of both clouds, each with the places its points came from, and whether they are one."""
    sides = []
    for coords in (coords_in, coords_out):
        keys = cloud_keys(coords)
        order = np.argsort(keys, kind="stable")
        sides += [keys[order], order]
    return sides[0], sides[1], sides[2], sides[3], np.array_equal(coords_in, coords_out)


def hashes(keys: np.ndarray) -> np.ndarray:
    """Return the hashes of ``keys``, int64 (n,), as uint64: the finaliser of murmur3 (Appleby, public domain)."""
    mixed = keys.astype(np.uint64)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        mixed ^= mixed >> np.uint64(33)
        mixed *= np.uint64(factor)
    return np.asarray(mixed ^ mixed >> np.uint64(33))


@njit(cache=True)
def _build(keys, hashed, banks, step, table, place, spent):  # type: ignore[no-untyped-def]
    looked = np.zeros(banks, np.int64)
    last = np.int64(len(table) - 1)
    for first in range(0, len(keys), banks):
        looked[:] = 0
        for index in range(first, min(first + banks, len(keys))):
            slot = np.int64(hashed[index] & np.uint64(last))
            looked[slot & (banks - 1)] += 1
            while table[slot] != -1:
                slot = (slot + step) & last
                looked[slot & (banks - 1)] += 1
            table[slot] = keys[index]
            place[slot] = index
        spent[0] += looked.max()
        spent[1] += 1
        spent[2] += looked.sum()


@njit(cache=True)
def _probe(keys, hashed, banks, step, table, place, met, spent):  # type: ignore[no-untyped-def]
    looked = np.zeros(banks, np.int64)
    last = np.int64(len(table) - 1)
    for first in range(0, len(keys), banks):
        looked[:] = 0
        for index in range(first, min(first + banks, len(keys))):
            slot = np.int64(hashed[index] & np.uint64(last))
            looked[slot & (banks - 1)] += 1
            while table[slot] != -1 and table[slot] != keys[index]:
                slot = (slot + step) & last
                looked[slot & (banks - 1)] += 1
            met[index] = place[slot] if table[slot] != -1 else -1
        spent[0] += looked.max()
        spent[1] += 1
        spent[2] += looked.sum()
