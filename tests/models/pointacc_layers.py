"""A small PointAcc, layers on drawn clouds, and both engines at once."""

import numpy as np

from gossamer.models import load_machine, pointacc
from gossamer.models.parts.pointacc.memory import KINDS
from gossamer.workloads import Layer

from .agreement import agree

TINY = {
    "rows": 2, "columns": 2, "word_bytes": 2, "cache_bytes": 64, "cache_block_rows": 1, "weight_buffer_bytes": 64,
    "output_buffer_bytes": 64, "mapping_buffer_bytes": 200, "output_tile": 8, "fuse_tile": 2, "merger_width": 8,
    "fps_lanes": 4, "fps_latency": 3, "hash_banks": 4, "dram_bandwidth_bytes_per_s": 3.3e9,
}  # fmt: skip


def machine(**changes):
    return load_machine("pointacc", **(TINY | changes))


def cloud(seed, points, spread=3):
    rng = np.random.default_rng(seed)
    drawn = np.unique(rng.integers(-spread, spread + 1, (points, 3)), axis=0).astype(np.int32)
    return drawn[rng.permutation(len(drawn))] if seed % 2 else drawn  # in the order of the keys, or in none


def conv(coordinates, channels, width, seed=0, features=True, bias=False, output_coordinates=None, **attributes):
    rng = np.random.default_rng(seed)
    cells = attributes.get("kernel_size", 3) ** 3
    return Layer(
        name="conv",
        op="sparse_conv3d",
        weight=rng.standard_normal((width, channels, cells)).astype(np.float32),
        bias=rng.standard_normal(width).astype(np.float32) if bias else None,
        inputs=rng.standard_normal((len(coordinates), channels)).astype(np.float32) if features else None,
        coordinates=coordinates,
        output_coordinates=output_coordinates,
        attributes=attributes,
    )


def linear(rows, channels, width, seed=0, gather=None, bias=True, name="fc", **attributes):
    rng = np.random.default_rng(seed)
    return Layer(
        name=name,
        op="linear",
        weight=rng.standard_normal((width, channels)).astype(np.float32),
        bias=rng.standard_normal(width).astype(np.float32) if bias else None,
        inputs=rng.standard_normal((rows, channels)).astype(np.float32),
        gather=gather,
        attributes=attributes,
    )


def matmul(products, rows, channels, width, seed=0):
    rng = np.random.default_rng(seed)
    return Layer(
        name="product",
        op="matmul",
        weight=rng.standard_normal((products, width, channels)).astype(np.float32),
        inputs=rng.standard_normal((products, rows, channels)).astype(np.float32),
        attributes={"samples": 1},
    )


def point_op(points, queries=None, **attributes):
    return Layer(name="op", op="point_op", inputs=points, queries=queries, attributes=attributes)


def both(built, layer, timeline=None):
    """Return the result of `fast`, having checked that the units agree with it in everything, and that it adds up."""
    fast = agree(pointacc, built, layer, timeline, tolerance=1e-4)
    for causes in fast.cycles_by_cause.values():
        assert sum(causes.values()) == fast.cycles and min(causes.values()) >= 0
    kinds = sum(fast.counts[f"dram_{kind}_bytes"] for kind in ("coordinate", *KINDS))
    assert fast.counts["dram_read_bytes"] + fast.counts["dram_write_bytes"] == kinds == fast.traffic_bytes["dram"]
    return fast


def line(points):
    """Return ``points`` in a row along z."""
    return np.stack([np.zeros(points), np.zeros(points), np.arange(points)], axis=1).astype(np.int32)
