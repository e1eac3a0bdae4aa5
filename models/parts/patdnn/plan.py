"""How a layer is laid out for vector code: which kernels meet which filters, and the tiles that outputs are cut into.

A convolution's filters and output positions are what they are. A linear layer is one whose filters are its vectors and
whose output positions are its outputs, so that lanes lie along the weights; nothing of it is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ....workloads.formats import fkw
from ....workloads.trace import Layer
from .config import LOOP_ORDERS, Config


@dataclass(frozen=True, eq=False)
class Kernels:
    """The kernels of a layer as its code sees them.

    ``patterns`` (patterns, places) bool, row by row of the kernel. ``pattern_of`` (filters, channels) int32: -1 for a
    kernel that is left out. ``first_channel`` (filters,): of the filter's group. ``order``: the filters in which the
    code goes through them. ``weight`` (filters, channels, places) float32.
    """

    patterns: np.ndarray
    pattern_of: np.ndarray
    first_channel: np.ndarray
    order: np.ndarray
    weight: np.ndarray
    stored_bits: dict[str, int]

    @cached_property
    def kept(self) -> np.ndarray:
        """Return how many weights each pattern keeps, (patterns,) int64."""
        kept: np.ndarray = self.patterns.sum(axis=1)
        return kept

    @cached_property
    def channels(self) -> int:
        """Return the input channels of all groups."""
        return int(self.first_channel.max()) + int(self.pattern_of.shape[1])

    @cached_property
    def lengths(self) -> np.ndarray:
        """Return how many kernels each filter has, (filters,) int64."""
        lengths: np.ndarray = (self.pattern_of >= 0).sum(axis=1)
        return lengths

    @cached_property
    def weights_of(self) -> np.ndarray:
        """Return how many weights each filter's code multiplies with, (filters,) int64."""
        kept = np.append(self.kept, 0)  # pattern -1: none
        weights: np.ndarray = kept[self.pattern_of].sum(axis=1)
        return weights


@dataclass(frozen=True)
class Geometry:
    """Sizes of a layer: output and input positions, the kernel, and the inputs that lie under it."""

    samples: int
    height: int
    width: int
    in_height: int
    in_width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    is_linear: bool = False

    @classmethod
    def of(cls, layer: Layer) -> Geometry:
        """Return the sizes of ``layer``."""
        if layer.op == "linear":
            return cls(1, 1, layer.shape[0], 1, layer.shape[0], (1, 1), (1, 1), (1, 1), is_linear=True)
        samples, _, in_height, in_width = layer.inputs.shape
        stride, dilation, padding = (layer.attributes[name] for name in ("stride", "dilation", "padding"))
        high, wide = (
            (size + 2 * padding[side] - dilation[side] * (layer.shape[2 + side] - 1) - 1) // stride[side] + 1
            for side, size in enumerate((in_height, in_width))
        )
        kernel = (layer.shape[2], layer.shape[3])
        return cls(samples, high, wide, in_height, in_width, kernel, stride, dilation)

    @property
    def positions(self) -> int:
        """Return the output positions of all samples."""
        return self.samples * self.height * self.width


@dataclass(frozen=True)
class Tile:
    """Outputs that are held in registers: ``vectors`` of ``rows`` rows each, from ``row`` (of flat lanes: ``vector``).

    ``row``, ``rows``: the first output row, and how many. ``column``: the first output column; of flat lanes the first
    position among blocks of ``rows`` rows. ``count``: positions across, lanes that stay empty left out.
    """

    row: int
    column: int
    rows: int
    vectors: int
    count: int


@dataclass(frozen=True)
class Plan:
    """The tile sizes and the loop order that a layer's code has."""

    rows: int
    vectors: int
    block: int
    order: str

    @classmethod
    def of(cls, config: Config) -> Plan:
        """Return the plan that ``config`` names; filters share registers only where they share loads."""
        block = config.lane_filters if config.lane_filters > 1 else config.filter_block if config.filter_lre else 1
        return cls(config.tile_rows, config.tile_vectors, block, config.loop_order)

    def limited(self, geometry: Geometry, kernels: Kernels, config: Config) -> Plan:
        """Return the plan with no tile larger than the layer."""
        rows = min(self.rows, geometry.height)
        across = -(-geometry.height // rows) * geometry.width if config.flat_lanes else geometry.width
        block = self.block if config.lane_filters > 1 else min(self.block, len(kernels.order))
        return replace(self, rows=rows, vectors=min(self.vectors, -(-across // config.lanes)), block=block)


def candidates(config: Config) -> Iterator[Plan]:
    """Yield the plans that tuning chooses from, the configured one first: powers of two, both loop orders."""
    given = Plan.of(config)
    yield given
    blocks = (1, 2, 4, 8) if config.lane_filters == 1 and config.filter_lre else (given.block,)
    for order in LOOP_ORDERS:
        for block in blocks:
            for rows in (1, 2, 4, 8, 16):
                for vectors in (1, 2, 4, 8):
                    yield Plan(rows, vectors, block, order)


def kernels_of(layer: Layer, config: Config) -> Kernels:
    """Return the kernels of ``layer`` for code of ``config``: in full, or by their patterns, reordered or not."""
    bits = 8 * config.word_bytes
    if layer.op == "linear":
        vectors = np.ascontiguousarray(layer.inputs.reshape(-1, layer.inputs.shape[-1]), np.float32)
        count, depth = vectors.shape
        full = np.zeros((count, depth), np.int32)
        stored = {"weight": layer.kept.size * bits}
        one = np.ones((1, 1), bool)
        return Kernels(one, full, np.zeros(count, np.int64), np.arange(count), vectors[:, :, None], stored)
    filters, channels = layer.shape[:2]
    groups = layer.attributes["groups"]
    first = np.repeat(np.arange(groups) * channels, filters // groups)
    weight = layer.weight.reshape(filters, channels, -1)
    if not config.sparse:
        patterns, pattern_of = np.ones((1, weight.shape[2]), bool), np.zeros((filters, channels), np.int32)
        return Kernels(patterns, pattern_of, first, np.arange(filters), weight, {"weight": weight.size * bits})
    kept = layer.kept if layer.mask is None else layer.mask
    patterns, pattern_of = fkw.supports(kept, config.pattern_codes, f"layer {layer.name}")
    order = fkw.filter_order(pattern_of) if config.reorder else np.arange(filters)
    kernels = Kernels(patterns, pattern_of, first, order, weight, {})
    return replace(kernels, stored_bits=_stored(kernels, bits, config.reorder))


def _stored(kernels: Kernels, value_bits: int, reordered: bool) -> dict[str, int]:
    """Return the bits of the weight: filter-kernel-weight form, or a list of each filter's kernels with patterns."""
    filters, count = len(kernels.order), int(kernels.lengths.sum())
    bits = {
        "weight": int(kernels.weights_of.sum()) * value_bits,
        "index": count * fkw.INDEX_BITS,
        "offset": (filters + 1) * fkw.OFFSET_BITS,
    }
    if not reordered:
        return bits | {"pattern": count * 8}
    return bits | {
        "stride": filters * (len(kernels.patterns) + 1) * fkw.INDEX_BITS,
        "reorder": filters * fkw.INDEX_BITS,
    }


def blocks_of(kernels: Kernels, size: int, config: Config) -> tuple[list[np.ndarray], list[list[int]]]:
    """Return the blocks of ``size`` filters that are computed together, and the numbers of those that each core has.

    Reordered: neighbours make a block, and the cores take blocks in turn, so that each has its share of every length.
    Else each core has a contiguous part of the filters. A dynamic schedule gives no core a block of its own.
    """
    order = kernels.order
    filters = len(order)
    if config.schedule == "dynamic":
        return [order[first : first + size] for first in range(0, filters, size)], []
    if config.reorder:
        blocks = [order[first : first + size] for first in range(0, filters, size)]
        return blocks, [list(range(core, len(blocks), config.cores)) for core in range(config.cores)]
    blocks, of_core = [], []
    for core in range(config.cores):
        mine = order[filters * core // config.cores : filters * (core + 1) // config.cores]
        parts = [mine[first : first + size] for first in range(0, len(mine), size)]
        of_core.append(list(range(len(blocks), len(blocks) + len(parts))))
        blocks += parts
    return blocks, of_core


def tiles_of(geometry: Geometry, plan: Plan, config: Config) -> list[Tile]:
    """Return the tiles of one sample, row by row."""
    lanes, tiles = config.lanes, []
    if config.flat_lanes:
        across = -(-geometry.height // plan.rows) * geometry.width
        for column in range(0, across, plan.vectors * lanes):
            count = min(plan.vectors * lanes, across - column)
            tiles.append(Tile(0, column, plan.rows, -(-count // lanes), count))
        return tiles
    for row in range(0, geometry.height, plan.rows):
        rows = min(plan.rows, geometry.height - row)
        for column in range(0, geometry.width, plan.vectors * lanes):
            count = min(plan.vectors * lanes, geometry.width - column)
            tiles.append(Tile(row, column, rows, -(-count // lanes), count))
    return tiles


def input_words(geometry: Geometry, tile: Tile, config: Config) -> int:
    """Return the words of one input channel that lie under ``tile``, at most those that it has; padding counts."""
    rows, columns = tile.rows, tile.count
    if config.flat_lanes:
        rows *= -(-tile.count // geometry.width)
        columns = min(tile.count, geometry.width)
    high, wide = (
        min((size - 1) * stride + (kernel - 1) * dilation + 1, have)
        for size, stride, kernel, dilation, have in zip(
            (rows, columns), geometry.stride, geometry.kernel, geometry.dilation,
            (geometry.in_height, geometry.in_width), strict=True,
        )
    )  # fmt: skip
    return high * wide
