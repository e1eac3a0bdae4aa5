"""Plots of point clouds and PointAcc: a cloud, map sizes, where cycles go, cache traffic, hash table against merge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..models import load_machine
from ..simulator.result import Result
from ..simulator.simulate import simulate
from ..workloads.errors import InputError
from ..workloads.points import downsample, kernel_map
from ..workloads.points.cloud import Cloud
from ..workloads.points.network import build
from ..workloads.points.scenes import cad
from .plots_style import BARS, BLUE, GREEN, LINES, MARKERS, ORANGE, REFERENCE, SKY, SMALL, drawing, plot_path, powers
from .pointacc_figures import STRIDES, Scan, cache_misses, hash_ratio

if TYPE_CHECKING:
    from ..models.parts.pointacc.hashing import Probing

MAP_STRIDES = STRIDES[:5]
TILES = tuple(2**power for power in range(6, 18))
TABLE_LOADS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
FEWEST_VOXELS = 100  # that fill a table well enough to tell its load
UNITS = ("mapping", "matrix", "memory")
DOTS = 200_000  # points of a cloud that are drawn
VIEW = 0.98  # share of a cloud's points that its view shows


def draw_all(folder: Path, suffix: str = ".png") -> list[Path]:
    """Return the paths of all plots of a generated scan, drawn into ``folder``."""
    scan = Scan(0)
    objects = build("pointnet2-ssg", cad(0, "chair"))
    results = [scan.accelerated, simulate(load_machine("pointacc-edge"), scan.trace)]
    results += [simulate(load_machine(name), objects) for name in ("pointacc", "pointacc-edge")]
    return [
        plot_cloud(scan.cloud, folder / f"cloud{suffix}"),
        plot_map_sizes(scan.coords, folder / f"map-sizes{suffix}", name=scan.cloud.name),
        plot_units(results, folder / f"units{suffix}"),
        plot_cache(scan.coords, folder / f"cache{suffix}", name=scan.cloud.name),
        plot_hash(scan.coords, folder / f"hash{suffix}", name=scan.cloud.name),
    ]


def plot_cloud(cloud: Cloud, path: str | Path) -> Path:
    """Return ``path``, which now shows ``cloud`` from above, its points coloured by height.

    A few points far out are left out of the view; of more than 200,000 every so many is drawn.
    """
    path = plot_path(path)
    if not len(cloud.points):
        raise InputError(f"{path}: a plot of a cloud needs at least one point, and {cloud.name} has none")
    points = cloud.points[:: -(-len(cloud.points) // DOTS)]
    low, high = np.quantile(points, [(1 - VIEW) / 2, (1 + VIEW) / 2], axis=0)
    wide, deep = np.maximum((high - low)[:2], 1e-6)
    with drawing(path, 8.0, float(np.clip(0.8 + 6.2 * deep / wide, 2.6, 9.0))) as figure:
        ax = figure.subplots()
        shown = points[np.argsort(points[:, 2], kind="stable")]  # what is high lies above
        dots = ax.scatter(
            shown[:, 0], shown[:, 1], c=shown[:, 2], s=0.6, linewidths=0, cmap="viridis", vmin=low[2], vmax=high[2],
            rasterized=True,
        )  # fmt: skip
        ax.set_aspect("equal")
        margin = 0.03 * max(float(wide), float(deep))
        ax.set_xlim(low[0] - margin, high[0] + margin)
        ax.set_ylim(low[1] - margin, high[1] + margin)
        ax.set_xlabel("x")
        ax.set_ylabel("y")
        ax.set_title(f"{cloud.name}: {len(cloud.points):,} points from above", loc="left")
        figure.colorbar(dots, ax=ax, label="height, z", pad=0.02)
    return path


def plot_map_sizes(coords: np.ndarray, path: str | Path, *, name: str = "cloud") -> Path:
    """Return ``path``, which now shows the pairs of each offset of a 3 x 3 x 3 kernel, a line a stride.

    ``coords`` are voxels, (n, 3). Pairs are shares of the voxels there: that of the centre is 1.
    """
    path = plot_path(path)
    _demand_voxels(coords, path)
    with drawing(path, 7.6, 3.6) as figure:
        ax = figure.subplots()
        for index, stride in enumerate(MAP_STRIDES):
            coords = downsample(coords, stride)
            sizes = [len(into) / len(coords) for into, _ in kernel_map(coords, 3, tensor_stride=stride)]
            ax.plot(
                range(len(sizes)), sizes, color=LINES[index], marker=MARKERS[index], markersize=3, linewidth=1,
                label=f"stride {stride}: {len(coords):,} voxels, {math.fsum(sizes):.2f} neighbours",
            )  # fmt: skip
        ax.set_xticks((0, 4, 10, 13, 16, 22, 26))
        ax.set_ylim(0, 1.05)
        ax.set_xlabel("offset, x slowest and z fastest; 13 is the centre")
        ax.set_ylabel("pairs over voxels")
        ax.set_title(f"{name}: sizes of kernel maps", loc="left")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return path


def plot_units(results: Sequence[Result], path: str | Path) -> Path:
    """Return ``path``, which now shows how long each unit of PointAcc is busy in ``results``, as a share of their time.

    Raises InputError where a result is of a machine without these units.
    """
    path = plot_path(path)
    if not results:
        raise InputError(f"{path}: a plot needs at least one result, not 0")
    for result in results:
        missing = [unit for unit in UNITS if unit not in result.total.cycles_by_cause]
        if missing:
            raise InputError(
                f"{path}: a plot of units needs results of a machine with {', '.join(UNITS)}, "
                f"and {result.machine.name} has no {missing[0]}"
            )
    with drawing(path, 8.2, 0.9 + 0.95 * len(results)) as figure:
        ax = figure.subplots()
        height = 0.8 / len(UNITS)
        for row, result in enumerate(results):
            for index, unit in enumerate(UNITS):
                at, left = row + (index - 1) * height, 0.0
                causes = result.total.cycles_by_cause[unit]
                for cause, cycles in causes.items():
                    share = 100 * cycles / result.total.cycles if result.total.cycles else 0.0
                    if cause == "idle":
                        continue
                    colour = (GREEN, BLUE, ORANGE)[index] if cause == "busy" else SKY
                    ax.barh(at, share, height * 0.9, left=left, color=colour, **BARS)
                    left += share
                ax.text(left + 0.8, at, f"{unit} {left:.3g} %", va="center", fontsize=SMALL)
        labels = [
            f"{result.trace.name}\n{result.machine.name}, {result.total.latency_s * 1e3:.3g} ms" for result in results
        ]
        ax.set_yticks(range(len(results)), labels)
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
        ax.set_xlim(0, 118)
        ax.set_xticks(range(0, 101, 20))
        ax.set_xlabel("busy, % of all cycles")
        ax.set_title("units that work side by side", loc="left")
    return path


def plot_cache(coords: np.ndarray, path: str | Path, *, name: str = "cloud") -> Path:
    """Return ``path``, which now shows the traffic of PointAcc's cache by tile of outputs, a line a stride.

    ``coords`` are voxels, (n, 3). Traffic is over the compulsory one; the dotted lines are whole-cloud order.
    """
    path = plot_path(path)
    _demand_voxels(coords, path)
    with drawing(path, 6.6, 3.8) as figure:
        ax = figure.subplots()
        for index, stride in enumerate(MAP_STRIDES):
            coords = downsample(coords, stride)
            tiles = [tile for tile in TILES if tile < 2 * len(coords)]
            lines = [cache_misses(coords, stride, tile) for tile in tiles]
            label = f"{stride}: {len(coords):,} voxels"
            ax.plot(tiles, lines, color=LINES[index], marker=MARKERS[index], markersize=4, label=label)
            ax.axhline(cache_misses(coords, stride, None), color=LINES[index], linestyle=":", linewidth=1)
        ax.axhline(1, color=REFERENCE, linestyle="--", linewidth=1)
        powers(ax.xaxis, 2)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.set_ylim(0, None)
        ax.set_xlabel("outputs of a tile")
        ax.set_ylabel("traffic over the compulsory one")
        rows = load_machine("pointacc").config.cache_bytes // 128
        ax.set_title(f"{name}: a cache of {rows:,} rows of 64 channels", loc="left")
        ax.legend(title="stride; dotted: whole cloud", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return path


def plot_hash(coords: np.ndarray, path: str | Path, *, name: str = "cloud") -> Path:
    """Return ``path``, which now shows the cycles of a hash table over those of a merge, by the table's load.

    ``coords`` are voxels, (n, 3), of which the first ones are mapped: so many that they fill one table to each load.
    """
    path = plot_path(path)
    _demand_voxels(coords, path, FEWEST_VOXELS)
    slots = 2 ** int(np.log2(len(coords) / TABLE_LOADS[-1]))
    kinds: tuple[tuple[Probing, str], ...] = (
        ("across", "probing across banks, all slots of a key at once"),
        ("within", "probing within a bank, slot by slot"),
    )
    with drawing(path, 6.0, 3.6) as figure:
        ax = figure.subplots()
        for index, (probing, label) in enumerate(kinds):
            found = [hash_ratio(coords[: round(load * slots)], load, probing)[::-1] for load in TABLE_LOADS]
            # Where a bank would be full before, the table is larger, and its load is another point's.
            found = [
                (load, ratio) for (load, ratio), wanted in zip(found, TABLE_LOADS, strict=True) if load > 0.9 * wanted
            ]
            ax.plot(
                [100 * load for load, _ in found], [ratio for _, ratio in found], color=LINES[index],
                marker=MARKERS[index], markersize=4, label=label,
            )  # fmt: skip
        ax.axhline(1, color=REFERENCE, linestyle="--", linewidth=1, label="merge sort")
        powers(ax.yaxis, 2)
        ax.set_xlim(0, 100)
        ax.set_xlabel("slots taken, %")
        ax.set_ylabel("cycles over those of a merge")
        ax.set_title(f"{name}: kernel maps with a table of {slots:,} slots in 64 banks", loc="left")
        ax.legend()
    return path


def _demand_voxels(coords: np.ndarray, path: Path, least: int = 1) -> None:
    if len(coords) < least:
        raise InputError(f"{path}: this plot needs a cloud of at least {least} voxels, not {len(coords)}")
