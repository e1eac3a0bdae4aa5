"""What either engine finds of a layer on PointAcc: its time and its counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import maps as pointacc_maps
from .config import Config
from .maps import Mapping
from .matrix import Time
from .memory import KINDS, Schedule, Traffic
from .work import Work

COUNTS = (
    "macs", "cache_lookups", "cache_misses", "cache_compulsory_misses",
    *(f"{memory}_sram_{act}_bytes" for memory in ("feature", "weight", "sum") for act in ("read", "write")),
    "dram_read_bytes", "dram_write_bytes", "dram_coordinate_bytes", *(f"dram_{kind}_bytes" for kind in KINDS),
    *pointacc_maps.COUNTS,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Account:
    """What either engine finds of a layer of ``vectors`` outputs; ``output``: (vectors, out), None without values."""

    time: Time
    counts: dict[str, int]
    vectors: int
    output: np.ndarray | None


def count(
    mapping: Mapping,
    work: Work | None = None,
    schedule: Schedule | None = None,
    moved: Traffic | None = None,
    config: Config | None = None,
) -> dict[str, int]:
    """Return all of `COUNTS`."""
    counts = dict.fromkeys(COUNTS, 0) | mapping.counts
    counts["dram_coordinate_bytes"] = mapping.coordinate_read + mapping.coordinate_written
    counts["dram_read_bytes"] = mapping.coordinate_read
    counts["dram_write_bytes"] = mapping.coordinate_written + mapping.map_written
    counts["dram_map_bytes"] = mapping.map_written
    if work is None or schedule is None or moved is None or config is None:
        return counts
    gathered = work.entries * work.channels * config.word_bytes if schedule.gathered else 0  # on their way to DRAM
    met = (schedule.entries > 0).sum()  # loads of a weight tile of each offset
    weights = (int(met) * work.channels + work.has_bias) * work.width * config.word_bytes
    sums = work.entries * len(schedule.slices) * work.width * config.sum_bytes
    streamed = work.entries * work.channels * sum(map(len, schedule.groups)) * config.word_bytes
    counts |= {
        "macs": work.macs,
        "cache_lookups": moved.lookups,
        "cache_misses": moved.misses,
        "cache_compulsory_misses": moved.compulsory,
        "feature_sram_read_bytes": streamed + gathered,
        "feature_sram_write_bytes": moved.feature_writes,
        "weight_sram_read_bytes": weights,
        "weight_sram_write_bytes": moved.by_kind["weight"],
        "sum_sram_read_bytes": sums,
        "sum_sram_write_bytes": sums,
    }
    for kind, amount in moved.by_kind.items():
        counts[f"dram_{kind}_bytes"] += amount
    counts["dram_read_bytes"] += int(moved.read.sum())
    counts["dram_write_bytes"] += int(moved.written.sum())
    return counts
