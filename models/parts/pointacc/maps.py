"""What the mapping unit does for a layer: its cycles and counts, and the DRAM traffic that its buffer does not save.

A sparse convolution that builds its map merges, or looks up, the keys of both clouds. One with a stride first floors
and sorts them and drops duplicates, which the merger does for either mapper. What fits into the mapping buffer is read
once. Where an operation works on more than that, the buffer keeps a part, and what the unit reads again or writes of
the rest goes to DRAM (assumed: all of it is read and written equally often).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ....workloads.points.kernel_map import Maps, transposed
from ....workloads.trace import Layer
from . import hashing as pointacc_hash
from .config import Config
from .mapper import COUNTS as MERGE_COUNTS
from .mapper import Outcome
from .work import clouds, is_identity

COUNTS = tuple(dict.fromkeys((*MERGE_COUNTS, *pointacc_hash.COUNTS)))


class Unit(Protocol):
    """The operations of a mapping unit, as `parts.pointacc.mapping` offers them."""

    kernel_map: Any
    downsample: Any
    quantise: Any
    fps: Any
    knn: Any
    ball_query: Any


@dataclass
class Mapping:
    """What the mapping unit did. ``coordinate_read``, ``coordinate_written``, ``map_written``: bytes of DRAM.

    ``maps``: the kernel map it built, in the indices of the layer's points; ``output``: what a point_op puts out.
    """

    cycles: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    coordinate_read: int = 0
    coordinate_written: int = 0
    map_written: int = 0
    maps: Maps | None = None
    output: np.ndarray | None = None

    @property
    def dram_bytes(self) -> int:
        """Return the bytes that DRAM moves for it."""
        return self.coordinate_read + self.coordinate_written + self.map_written

    def add(self, outcome: Outcome[Any]) -> Any:
        """Add the cycles and counts of ``outcome`` and return its data."""
        self.cycles += outcome.cycles
        for name, count in outcome.counts.items():
            self.counts[name] += count
        return outcome.data

    def stream(self, config: Config, fetched: int, held: int, read: int, written: int) -> None:
        """Add the traffic of an operation on ``held`` bytes, of which it gets ``fetched`` to begin with.

        It reads and writes so many bytes in all. What fits into the mapping buffer stays there, and of the rest all
        that is read again or written goes to DRAM.
        """
        beyond = max(0, held - config.mapping_buffer_bytes)
        self.coordinate_read += fetched
        if beyond:
            self.coordinate_read += max(0, read - fetched) * beyond // held
            self.coordinate_written += written * beyond // held

    def stream_keys(self, config: Config, keys: int, outcome: Outcome[Any]) -> None:
        """Add the traffic of a merge or sort of ``keys`` keys."""
        size, counts = config.key_bytes, outcome.counts
        self.stream(config, keys * size, keys * size, counts["key_reads"] * size, counts["key_writes"] * size)

    def stream_table(self, config: Config, keys: int, outcome: Outcome[Any]) -> None:
        """Add the traffic of a hash table of keys and indices, and of the ``keys`` that are put in and looked up."""
        counts, size = outcome.counts, config.key_bytes
        slot = size + config.index_bytes
        read = counts["keys_hashed"] * size + counts["slot_reads"] * slot
        held = counts["slots"] * slot + keys * size
        self.stream(config, keys * size, held, read, counts["slot_writes"] * slot)

    def stream_points(self, config: Config, points: np.ndarray, queries: int, outcome: Outcome[Any]) -> None:
        """Add the traffic of ``points``, (n, d), of ``queries`` beside them, and of the distances that FPS stores."""
        count, dimensions = points.shape
        size, counts = dimensions * config.coordinate_bytes, outcome.counts
        stored = config.coordinate_bytes if counts["distance_writes"] else 0
        read = (counts["point_reads"] - queries) * size + counts["distance_reads"] * stored
        self.stream(config, count * size, count * (size + stored), read, counts["distance_writes"] * stored)
        self.coordinate_read += queries * size


def build_map(config: Config, layer: Layer, merger: Unit, table: Any, **timeline: Any) -> Mapping:
    """Return what the kernel map of a sparse_conv3d ``layer`` takes, nothing where an earlier layer left it.

    ``merger`` and ``table``: the units' operations, in either engine; ``timeline`` is passed on to them.
    """
    done = Mapping()
    if not layer.attributes["builds_map"] or is_identity(layer):
        return done
    into, out = clouds(layer)
    step, kernel_size = layer.attributes["tensor_stride"], layer.attributes["kernel_size"]
    is_transposed = layer.attributes["transposed"]
    if layer.attributes["stride"] > 1 and not is_transposed:
        outcome = merger.downsample(config.merge_unit, into, step * layer.attributes["stride"], **timeline)
        done.stream_keys(config, len(into), outcome)
        done.coordinate_written += len(done.add(outcome)) * config.key_bytes
    fine, coarse = (out, into) if is_transposed else (into, out)
    distinct = len(fine) if fine is coarse else len(fine) + len(coarse)
    if config.mapper == "hash":
        outcome = table.kernel_map(config.hash_unit, fine, coarse, kernel_size, step, **timeline)
        done.stream_table(config, distinct, outcome)
    else:
        outcome = merger.kernel_map(config.merge_unit, fine, coarse, kernel_size, step, **timeline)
        done.stream_keys(config, distinct, outcome)
    maps = done.add(outcome)
    done.maps = transposed(maps) if is_transposed else maps
    done.map_written += sum(len(found) for found, _ in maps) * 2 * config.index_bytes
    return done


def run_point_op(config: Config, layer: Layer, merger: Unit, **timeline: Any) -> Mapping:
    """Return what a point_op ``layer`` takes, and what it puts out: voxels, or indices of points, a row a query."""
    done, unit, points = Mapping(), config.merge_unit, layer.inputs
    about, kind = layer.attributes, layer.attributes["kind"]
    if kind == "quantise":
        outcome = merger.quantise(unit, points, about["voxel_size"], **timeline)
        # Points come from DRAM once, and become keys.
        size, fetched, counts = config.key_bytes, points.size * config.coordinate_bytes, outcome.counts
        read = fetched + counts["key_reads"] * size
        done.stream(config, fetched, len(points) * size, read, counts["key_writes"] * size)
        done.output, voxels = done.add(outcome)
        assert done.output is not None
        done.coordinate_written += len(done.output) * config.key_bytes
        done.map_written += len(voxels) * config.index_bytes
        return done
    queries = points if layer.queries is None else layer.queries
    if kind == "fps":
        outcome = merger.fps(unit, points, about["samples"], **timeline)
        done.output = done.add(outcome)[:, None]
    elif kind == "knn":
        outcome = merger.knn(unit, points, queries, about["k"], **timeline)
        done.output = done.add(outcome)
    else:
        limits = about["radius"], about["k"], about["order"]
        outcome = merger.ball_query(unit, points, queries, *limits, **timeline)
        done.output, _ = done.add(outcome)
    assert done.output is not None
    done.stream_points(config, points, 0 if layer.queries is None else len(queries), outcome)
    done.map_written += done.output.size * config.index_bytes
    return done
