"""Which kernels a layer becomes on a GPU, with how many tiles each, and what it moves: the forms of `torchsparse`.

Bytes of features are those of whole rows. With n inputs, m outputs, K offsets and M pairs in their maps:

    map           a table of n slots is built, 64 bytes each in sectors of 32; K * m look-ups read probe_sectors each;
                  two tables of K * m indices are written, and 8 bytes a pair. Downsampling sorts n keys by digits of 8
                  bits before. Rows of implicit GEMM: their masks, of K bits, are sorted in parts in the same way
    gather        fused: n rows and n * K indices are read, M rows written; else M rows and 8 bytes a pair are read
    product       of r rows: r in, r out, and the weights; L2 hands the rows to each column of tiles, the weights to
                  each row of tiles. The centre of a submanifold kernel needs no gather, and adds to the outputs
    scatter       fused: M rows and m * K indices are read, m rows written; else each map's sums are added to the
                  outputs, a row read and written for each pair, and nothing stays in L2 from map to map
    on demand     a product reads its M rows through the maps, for each column of tiles, and adds to the outputs
    implicit      a tile of outputs runs through the offsets that any of its rows has; m rows are written for each part
                  of the offsets, and added up where there are several
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ....workloads.errors import InputError
from ....workloads.points.kernel_map import Maps
from ..pointacc.work import is_identity, maps_of
from . import groups
from .config import Config
from .groups import Group

if TYPE_CHECKING:
    from ....simulator.memo import Memo
    from ....workloads.trace import Layer

CAUSES = ("launch", "mapping", "gather", "matmul", "memory", "scatter")
SECTOR = 32  # bytes that are read at once from a place of their own
INDEX = 4  # bytes
KEY = 8  # bytes of packed coordinates
POINT = 12  # bytes of three coordinates
DIGIT = 8  # bits that a pass of a sort takes
MASK_LIMIT = 1 << 30  # bits of the masks of implicit GEMM


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel, its tiles, and the bytes that ``dram`` and ``l2`` move meanwhile.

    ``cause``: what its time is booked under. ``moves``: it gathers or scatters, thread by thread. ``steps``: of each
    tile along the reduction, int64 (tiles,), none in a kernel that multiplies nothing; ``rows``: that it multiplies,
    the padding of a batch and rows that lack an offset among them.
    """

    name: str
    cause: str
    dram: int
    l2: int
    moves: bool = False
    steps: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    rows: int = 0


@dataclass(frozen=True, eq=False)
class Convolution:
    """A sparse convolution or a dense layer: its maps, numbers of points and channels.

    ``has_centre``: the middle map is the identity. ``builds_map``: it has to find them. ``downsamples``: and its
    outputs too. ``is_gathered``: the rows of a dense layer are picked from a table before.
    """

    maps: Maps
    inputs: int
    outputs: int
    channels: int
    width: int
    has_centre: bool
    builds_map: bool
    downsamples: bool
    is_gathered: bool = False

    @property
    def sizes(self) -> list[int]:
        """Return the pairs of each map."""
        return [len(into) for into, _ in self.maps]

    @property
    def centre(self) -> int:
        """Return the place of the middle offset."""
        return len(self.maps) // 2

    @property
    def is_plain(self) -> bool:
        """Tell whether it is one product without a map."""
        return self.has_centre and len(self.maps) == 1


def convolution_of(layer: Layer, memo: Memo) -> Convolution:
    """Return the convolution that ``layer``, of op linear or sparse_conv3d, is."""
    width, channels = layer.shape[:2]
    if layer.op == "linear":
        rows = layer.inputs.size // channels
        every = np.arange(rows)
        return Convolution([(every, every)], rows, rows, channels, width, True, False, False, layer.gather is not None)
    assert layer.coordinates is not None
    outputs = layer.coordinates if layer.output_coordinates is None else layer.output_coordinates
    is_submanifold = layer.output_coordinates is None and not layer.attributes["transposed"]
    builds = layer.attributes["builds_map"] and not is_identity(layer)
    return Convolution(
        maps=maps_of(layer, memo),
        inputs=len(layer.coordinates),
        outputs=len(outputs),
        channels=channels,
        width=width,
        has_centre=is_submanifold and layer.attributes["kernel_size"] % 2 == 1,
        builds_map=builds,
        downsamples=builds and layer.attributes["stride"] > 1 and not layer.attributes["transposed"],
    )


def plan(config: Config, conv: Convolution, chosen: list[Group] | None, masks: list[np.ndarray]) -> list[Kernel]:
    """Return the kernels of ``conv``, in order. ``chosen``: its groups; ``masks``: its `active_offsets`."""
    kernels = mapping(config, conv)
    if conv.is_plain:
        moved = conv.outputs * (2 * config.row_bytes(conv.channels) + INDEX)
        gathered = [Kernel("gather", "gather", moved, moved, moves=True)] if conv.is_gathered else []
        return [*gathered, product(config, conv, conv.outputs, name="plain")]
    if config.dataflow == "implicit-gemm":
        return kernels + list(_implicit(config, conv, masks))
    if config.dataflow == "fetch-on-demand":
        return kernels + list(_on_demand(config, conv))
    assert chosen is not None
    covered = _covered(conv, chosen)
    return [
        *kernels,
        *_gather(config, conv, covered),
        *products(config, conv, chosen),
        *_scatter(config, conv, covered),
        *([product(config, conv, conv.outputs, adds=True, name="centre")] if covered[1] else []),
    ]


def choose_groups(config: Config, conv: Convolution, cost: Callable[[list[Kernel]], int]) -> list[Group]:
    """Return the groups of the maps of ``conv``; ``cost`` tells the cycles of kernels, for a search."""
    sizes, centre = conv.sizes, conv.has_centre
    if config.grouping == "separate":
        return groups.separate(sizes, has_centre=centre)
    if config.grouping == "batched":
        return groups.batched(sizes)
    if config.grouping == "fixed":
        return groups.fixed(sizes, config.fixed_group, has_centre=centre)
    if config.grouping == "adaptive":
        return groups.adaptive(sizes, config.epsilon, config.threshold, has_centre=centre)
    epsilon, threshold, _ = search(config, conv, cost)
    return groups.adaptive(sizes, epsilon, threshold, has_centre=centre)


def search(config: Config, conv: Convolution, cost: Callable[[list[Kernel]], int]) -> tuple[float, int, int]:
    """Return the epsilon and threshold of TorchSparse's grid whose products cost least, and what they cost."""
    costs: dict[tuple[Group, ...], int] = {}
    best: tuple[float, int, int] | None = None
    for epsilon in groups.EPSILONS:
        for threshold in groups.THRESHOLDS:
            found = tuple(groups.adaptive(conv.sizes, epsilon, threshold, has_centre=conv.has_centre))
            if found not in costs:
                costs[found] = cost(products(config, conv, list(found)))
            if best is None or costs[found] < best[2]:
                best = epsilon, threshold, costs[found]
    assert best is not None
    return best


def products(config: Config, conv: Convolution, chosen: list[Group]) -> list[Kernel]:
    """Return the products of the groups ``chosen``, the centre's left out; maps without pairs need none."""
    kernels = []
    for group in chosen:
        name = "offsets " + " ".join(map(str, group.offsets))
        if group.batched and group.largest:
            kernels.append(product(config, conv, group.largest, len(group.offsets), name=name))
        elif not group.batched:
            pairs = zip(group.offsets, group.sizes, strict=True)
            kernels += [product(config, conv, size, name=f"offset {offset}") for offset, size in pairs if size]
    return kernels


def product(config: Config, conv: Convolution, rows: int, count: int = 1, *, adds: bool = False, name: str) -> Kernel:
    """Return ``count`` products of ``rows`` rows in one kernel; ``adds``: to outputs that are there."""
    into, out = config.row_bytes(conv.channels), config.row_bytes(conv.width)
    weights = conv.channels * conv.width * config.value_bytes
    down, across = tile_grid(config, rows, conv.width)
    written = rows * out * (2 if adds else 1)
    return Kernel(
        name=name,
        cause="matmul",
        dram=count * (rows * into + weights + written),
        l2=count * (rows * into * across + weights * down + written),
        steps=np.full(count * down * across, depth_steps(config, conv)),
        rows=count * rows,
    )


def tile_grid(config: Config, rows: int, columns: int) -> tuple[int, int]:
    """Return how many tiles lie along ``rows`` and ``columns`` of outputs."""
    return -(-rows // config.tile_rows), -(-columns // config.columns_of_tile(columns))


def depth_steps(config: Config, conv: Convolution) -> int:
    """Return the steps of a tile along the channels of an offset."""
    return -(-conv.channels // config.tile_depth)


def mapping(config: Config, conv: Convolution) -> list[Kernel]:
    """Return the kernels that find the maps, none where they are there."""
    if not conv.builds_map:
        return []
    n, cells = conv.inputs, len(conv.maps) * conv.outputs
    kernels = sorting(n, 8 * KEY, KEY, "downsample") if conv.downsamples else []
    footprint = 2 * n * (KEY + INDEX)  # half of the slots are taken
    built, looked_up = 2 * SECTOR * n, SECTOR * config.probe_sectors * cells
    written = 2 * INDEX * cells + 2 * INDEX * sum(conv.sizes)
    stored, read = (config.from_dram(moved, footprint, footprint) for moved in (built, looked_up))
    kernels.append(Kernel("build table", "mapping", n * KEY + stored, n * KEY + built))
    kernels.append(Kernel("look up", "mapping", conv.outputs * KEY + read + written, looked_up + written))
    if config.dataflow == "implicit-gemm" and config.mask_splits:
        moved = (INDEX + INDEX) * cells
        for bits in map(len, parts(config, conv)):
            kernels += sorting(conv.outputs, bits, -(-bits // 8), "sort masks")
        kernels.append(Kernel("reorder", "mapping", moved, moved))
    return kernels


def quantising(config: Config, points: int, voxels: int) -> list[Kernel]:
    """Return the kernels that find the ``voxels`` of ``points`` points: floor, sort, drop duplicates."""
    floored, kept = points * (POINT + KEY), points * (KEY + 2 * INDEX) + voxels * KEY
    return [
        Kernel("floor", "mapping", floored, floored),
        *sorting(points, 8 * KEY, KEY, "sort"),
        Kernel("unique", "mapping", kept, kept),
    ]


def sorting(count: int, bits: int, key_bytes: int, name: str) -> list[Kernel]:
    """Return the passes that sort ``count`` keys of ``bits`` with an index each."""
    moved = 2 * count * (key_bytes + INDEX)
    return [Kernel(f"{name} {digit}", "mapping", moved, moved) for digit in range(-(-bits // DIGIT))]


def parts(config: Config, conv: Convolution) -> list[np.ndarray]:
    """Return the offsets of each part of implicit GEMM."""
    return np.array_split(np.arange(len(conv.maps)), min(max(config.mask_splits, 1), len(conv.maps)))


def active_offsets(config: Config, conv: Convolution) -> list[np.ndarray]:
    """Return, for each part, how many offsets each tile of rows runs through, int64 (row tiles,). Raises InputError."""
    if conv.outputs * len(conv.maps) > MASK_LIMIT:
        raise InputError(
            f"implicit-gemm must have masks of at most {MASK_LIMIT} bits, and {len(conv.maps)} offsets of "
            f"{conv.outputs} outputs have more; choose another dataflow"
        )
    mask = np.zeros((conv.outputs, len(conv.maps)), np.bool_)
    for offset, (_, out) in enumerate(conv.maps):
        mask[out, offset] = True
    starts = np.arange(0, conv.outputs, config.tile_rows)
    found = []
    for part in parts(config, conv):
        own = mask[:, part]
        if config.mask_splits:
            own = own[np.lexsort(np.packbits(own, axis=1).T[::-1])]  # the first offset is the highest bit
        found.append(np.logical_or.reduceat(own, starts, axis=0).sum(axis=1))
    return found


def distinct(sides: list[np.ndarray], count: int) -> int:
    """Return how many of ``count`` rows any of ``sides``, arrays of row numbers, names."""
    named = np.zeros(count, np.bool_)
    for side in sides:
        named[side] = True
    return int(named.sum())


def _implicit(config: Config, conv: Convolution, masks: list[np.ndarray]) -> Iterator[Kernel]:
    into, out = config.row_bytes(conv.channels), config.row_bytes(conv.width)
    weights = conv.channels * conv.width * config.value_bytes
    down, across = tile_grid(config, conv.outputs, conv.width)
    rows = np.full(down, config.tile_rows)
    rows[-1] = conv.outputs - config.tile_rows * (down - 1)
    for number, (part, active) in enumerate(zip(parts(config, conv), masks, strict=True)):
        indices = INDEX * conv.outputs * len(part)
        read = sum(conv.sizes[offset] for offset in part) * into * across
        touched = distinct([conv.maps[offset][0] for offset in part], conv.inputs) * into
        written = conv.outputs * out
        yield Kernel(
            name=f"part {number}",
            cause="matmul",
            dram=config.from_dram(read, conv.inputs * into, touched) + len(part) * weights + indices + written,
            l2=read + int(active.sum()) * weights + indices * across + written,
            steps=np.tile(active * depth_steps(config, conv), across),  # rows first, then columns
            rows=int(active @ rows),
        )
    if len(masks) > 1:
        added = (len(masks) + 1) * conv.outputs * out
        yield Kernel("add parts", "scatter", added, added, moves=True)


def _on_demand(config: Config, conv: Convolution) -> Iterator[Kernel]:
    into, out = config.row_bytes(conv.channels), config.row_bytes(conv.width)
    weights = conv.channels * conv.width * config.value_bytes
    if conv.has_centre:
        yield product(config, conv, conv.outputs, name="centre")
    maps = [
        pair for offset, pair in enumerate(conv.maps)
        if len(pair[0]) and not (conv.has_centre and offset == conv.centre)
    ]  # fmt: skip
    if not maps:
        return
    down = sum(tile_grid(config, len(side), conv.width)[0] for side, _ in maps)
    across = tile_grid(config, 1, conv.width)[1]
    pairs = sum(len(side) for side, _ in maps)
    read, added, indices = pairs * into * across, 2 * pairs * out, 2 * INDEX * pairs
    sources = distinct([side for side, _ in maps], conv.inputs) * into
    goals = 2 * distinct([side for _, side in maps], conv.outputs) * out
    yield Kernel(
        name="all offsets",
        cause="matmul",
        dram=config.from_dram(read, conv.inputs * into, sources)
        + config.from_dram(added, conv.outputs * out, goals)
        + len(maps) * weights
        + indices,
        l2=read + added + down * weights + indices * across,
        steps=np.full(down * across, depth_steps(config, conv)),
        rows=pairs,
    )


def _covered(conv: Convolution, chosen: list[Group]) -> tuple[list[int], bool]:
    """Return the sizes of the maps that are gathered, and whether the centre's is not."""
    sizes = [size for group in chosen for size in group.sizes]
    return sizes, conv.has_centre and len(sizes) < len(conv.maps)


def _gather(config: Config, conv: Convolution, covered: tuple[list[int], bool]) -> Iterator[Kernel]:
    sizes, row = [size for size in covered[0] if size], config.row_bytes(conv.channels)
    if config.fused_movement:
        sizes, read, indices = [sum(sizes)], conv.inputs * row, INDEX * conv.inputs * len(conv.maps)
    for size in filter(None, sizes):
        moved = read + indices if config.fused_movement else size * (row + 2 * INDEX)
        yield Kernel("gather", "gather", moved + size * row, moved + size * row, moves=True)


def _scatter(config: Config, conv: Convolution, covered: tuple[list[int], bool]) -> Iterator[Kernel]:
    sizes, row = [size for size in covered[0] if size], config.row_bytes(conv.width)
    if config.fused_movement:
        sizes, written, indices = [sum(sizes)], conv.outputs * row, INDEX * conv.outputs * len(conv.maps)
    for size in filter(None, sizes):
        moved = written + indices if config.fused_movement else size * (2 * row + 2 * INDEX)
        yield Kernel("scatter", "scatter", moved + size * row, moved + size * row, moves=True)
