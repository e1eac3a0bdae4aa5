"""The figures of point clouds as the simulator gives them, by the keys of ``papers/pointacc.toml``.

Each function runs the simulator and returns values with a note, empty where there is nothing to say. What was measured
on a scan that cannot be bundled is set beside the means over generated ones, of the seeds SEEDS.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..models import load_machine, torchsparse, vary
from ..models.parts.pointacc import hashing as pointacc_hash
from ..models.parts.pointacc import mapping as pointacc_mapping
from ..models.parts.pointacc.hashing import HashEngine
from ..models.parts.pointacc.mapping import Mapper
from ..models.parts.torchsparse import groups as torchsparse_groups
from ..simulator.memo import Memo
from ..simulator.result import Result
from ..simulator.simulate import simulate
from ..workloads.points import downsample, voxelise
from ..workloads.points.cloud import Cloud
from ..workloads.points.network import build
from ..workloads.points.scenes import cad, lidar, room
from ..workloads.points.statistics import Statistics, statistics
from ..workloads.trace import Layer, Trace
from .published import Figures

SEEDS = (0, 1, 2)
VOXEL = 0.05  # m
NETWORK = "minkunet42"
STRIDES = (1, 2, 4, 8, 16, 32)
SORTED = (1024, 4096, 16384, 91767)
LOADS = (0.175, 0.35, 0.7)
HASHED_VOXELS = 45875  # fill tables of 2^16 to 2^18 slots to LOADS
LECTURE = (5, 7, 6, 10, 6, 7, 5)  # map sizes of seven offsets
LECTURE_EPSILON, LECTURE_THRESHOLD = 0.2, 100
CACHE_CHANNELS = 64
MAP_BY_MAP = {"grouping": "separate", "fused_movement": False, "dtype": "fp32", "thread_bytes": 4}


@dataclass(frozen=True)
class Scan:
    """A generated LiDAR scan and what is found on it, once."""

    seed: int

    @cached_property
    def cloud(self) -> Cloud:
        """The points."""
        return lidar(self.seed)

    @cached_property
    def coords(self) -> np.ndarray:
        """The voxels, int32 (n, 3)."""
        return voxelise(self.cloud.points, VOXEL)[0]

    @cached_property
    def trace(self) -> Trace:
        """The network on it."""
        return build(NETWORK, self.cloud)

    @cached_property
    def statistics(self) -> Statistics:
        """Points, voxels and neighbours by stride."""
        return statistics(self.cloud.points, VOXEL, STRIDES)

    @cached_property
    def accelerated(self) -> Result:
        """The network on PointAcc."""
        return simulate(load_machine("pointacc"), self.trace)


def scans() -> list[Scan]:
    """Return the scans of SEEDS."""
    return [Scan(seed) for seed in SEEDS]


def form_figures(scan: Scan) -> Figures:
    """Return what the mapping unit takes for sizes whose cycles the closed forms give, and what a register saves."""
    unit = Mapper()
    keys = np.random.default_rng(0).permutation(SORTED[-1])
    figures: Figures = {f"sort {n}": (pointacc_mapping.sort(unit, keys[:n] % n).cycles, "") for n in SORTED}
    line = np.stack([np.arange(SORTED[-1]), np.zeros(SORTED[-1], int), np.zeros(SORTED[-1], int)], axis=1)
    points = np.random.default_rng(0).random((1024, 3), np.float32)
    mirrored = Mapper(exploit_symmetry=True)
    figures |= {
        "kernel map": (pointacc_mapping.kernel_map(unit, line, line).cycles, ""),
        "kernel map, mirrored": (pointacc_mapping.kernel_map(mirrored, line, line).cycles, ""),
        "fps": (pointacc_mapping.fps(unit, points, 512).cycles, ""),
        "merger": (unit.top_comparators, ""),
        "sorter": (unit.sorter_comparators, ""),
    }
    for method in ("stream", "tree", "sort"):
        found = pointacc_mapping.knn(unit, points, points[:1], 32, method)
        figures[f"knn {method}"] = (found.cycles, "")
    whole, blind = (
        pointacc_mapping.kernel_map(Mapper(boundary_register=has), scan.coords, scan.coords).counts["matches"]
        for has in (True, False)
    )
    return figures | {"no register": (1 - blind / whole, "")}


def grouping_figures() -> Figures:
    """Return the rows of the lecture's maps by how they are grouped."""
    grouped = torchsparse_groups.adaptive(LECTURE, LECTURE_EPSILON, LECTURE_THRESHOLD, has_centre=True)
    middle = max(grouped, key=lambda group: group.rows)
    return {
        "separate": (_rows(torchsparse_groups.separate(LECTURE)), ""),
        "batched": (_rows(torchsparse_groups.batched(LECTURE)), ""),
        "adaptive": (_rows(grouped) + LECTURE[len(LECTURE) // 2], ""),
        "group": (middle.rows, ""),
        "padding": (middle.padding, ""),
    }


def network_figures(scans: list[Scan]) -> Figures:
    """Return what the whole network takes on PointAcc; the mapping unit's cycles as a share of the array's."""
    each = [scan.accelerated.total for scan in scans]
    busy = [total.cycles_by_cause["matrix"]["busy"] for total in each]
    multipliers = load_machine("pointacc").config.multipliers
    return {
        "macs": _spread([total.macs / 1e9 for total in each]),
        "matrix": _spread([cycles / 1e6 for cycles in busy]),
        "utilisation": _spread([t.macs / (multipliers * b) for t, b in zip(each, busy, strict=True)]),
        "mapping": _spread([t.cycles_by_cause["mapping"]["busy"] / b for t, b in zip(each, busy, strict=True)]),
        "time": _spread([total.latency_s * 1e3 for total in each]),
        "energy": _spread([0.0 if total.energy_j is None else total.energy_j.total * 1e3 for total in each]),
    }


def cache_misses(coords: np.ndarray, tensor_stride: int, output_tile: int | None) -> float:
    """Return the misses of the cache over the compulsory ones, for a submanifold layer as wide as the array.

    ``output_tile``: of PointAcc's outer loop; None: the whole cloud, offset by offset.
    """
    layer = Layer(
        name="submanifold", op="sparse_conv3d",
        weight=np.zeros((CACHE_CHANNELS, CACHE_CHANNELS, 27), np.float32), coordinates=coords,
        attributes={"tensor_stride": tensor_stride, "builds_map": False},
    )  # fmt: skip
    order = {"loop_order": "weight-stationary"} if output_tile is None else {"output_tile": output_tile}
    machine = vary(load_machine("pointacc"), functional=False, **order)
    counts = machine.run(layer, "fast", Memo()).counts
    return counts["cache_misses"] / counts["cache_compulsory_misses"]


def cache_figures(scan: Scan) -> Figures:
    """Return the traffic of the cache over the compulsory one, in tiles of outputs and over the whole cloud."""
    coords = scan.coords
    tiled, whole = [], []
    for stride in STRIDES[:5]:
        coords = downsample(coords, stride)
        tiled.append(cache_misses(coords, stride, 1024))
        whole.append(cache_misses(coords, stride, None))
    savings = [all_ / some for all_, some in zip(whole, tiled, strict=True)]
    note = "saving by stride: " + ", ".join(f"{saving:.2f}" for saving in savings)
    return {
        "tiled": (max(tiled), f"strides {', '.join(map(str, STRIDES[:5]))}: the largest"),
        "least saving": (min(savings), note),
        "greatest saving": (max(savings), note),
    }


def hash_ratio(coords: np.ndarray, load: float, probing: pointacc_hash.Probing = "across") -> tuple[float, float]:
    """Return a hash table's cycles over those of a merge, for the kernel map of ``coords``, and the table's load."""
    engine = HashEngine(load_factor=load, probing=probing)
    found = pointacc_hash.kernel_map(engine, coords, coords)
    merged = pointacc_mapping.kernel_map(Mapper(), coords, coords)
    return found.cycles / merged.cycles, len(coords) / found.counts["slots"]


def hash_figures(scans: list[Scan]) -> Figures:
    """Return the cycles of a hash table over those of a merge, by load factor and by where a key goes on."""
    probings: tuple[pointacc_hash.Probing, ...] = ("across", "within")
    return {
        f"{probing} {load:g}": (
            _mean([hash_ratio(scan.coords[:HASHED_VOXELS], load, probing)[0] for scan in scans]),
            "",
        )
        for probing in probings
        for load in LOADS
    }


def scene_figures(scans: list[Scan]) -> Figures:
    """Return what generated scans and rooms are like: points, voxels, neighbours and what a stride leaves."""
    streets = [scan.statistics for scan in scans]
    rooms = [statistics(room(seed).points, VOXEL, (1, 2)) for seed in SEEDS]
    figures: Figures = {
        "points": (_mean([one.points / 1e3 for one in streets]), ""),
        "voxels": (_mean([one.voxels[0] / 1e3 for one in streets]), ""),
        "voxels at 2": (_mean([one.voxels[1] / 1e3 for one in streets]), ""),
        "room neighbours": (_mean([one.neighbours[0] for one in rooms]), ""),
        "room ratio": (_mean([one.ratios[0] for one in rooms]), ""),
    }
    for place, stride in enumerate(STRIDES[:5]):
        figures[f"neighbours {stride}"] = (_mean([one.neighbours[place] for one in streets]), "")
        figures[f"ratio {stride}"] = (_mean([one.ratios[place] for one in streets]), "")
    return figures


def gpu_figures(scans: list[Scan]) -> Figures:
    """Return what grouping and fused movement gain on a GPU, and how PointAcc compares with it."""
    machine = load_machine("torchsparse-2080ti")
    plain = vary(machine, **MAP_BY_MAP)
    grouping, movement, end_to_end, pointacc = [], [], [], []
    for scan in scans:
        tuned = torchsparse.tune(machine, scan.trace)
        centre = sum(one.centre_cycles for one in tuned)
        apart, together = sum(one.separate_cycles for one in tuned), sum(one.cycles for one in tuned)
        grouping.append((apart + centre) / (together + centre))
        fast, slow = simulate(machine, scan.trace).total, simulate(plain, scan.trace).total
        movement.append(_moving(slow.cycles_by_cause["gpu"]) / _moving(fast.cycles_by_cause["gpu"]))
        end_to_end.append(slow.latency_s / fast.latency_s)
        pointacc.append(slow.latency_s / scan.accelerated.total.latency_s)
    return {
        "grouping": _spread(grouping),
        "movement": _spread(movement),
        "end to end": (_mean(end_to_end), ""),
        "spconv": (None, "SpConv's kernels are not modelled"),
        "pointacc": (_mean(pointacc), ""),
        "energy": (None, "no energy of a GPU is modelled"),
        "mesorasi": (None, "Mesorasi is not modelled"),
    }


def fusion_figures() -> Figures:
    """Return the share of DRAM traffic that fusing dense layers saves PointNet++ on PointAcc and on its small form."""
    trace = build("pointnet2-ssg", cad(0, "chair"))
    figures: Figures = {}
    for name in ("pointacc", "pointacc-edge"):
        fused, apart = (
            simulate(vary(load_machine(name), fuse_layers=is_on, functional=False), trace).total.traffic_bytes["dram"]
            for is_on in (True, False)
        )
        figures[f"fusion on {name}"] = (1 - fused / apart, "")
    return figures


def _rows(groups: list[torchsparse_groups.Group]) -> int:
    return sum(group.rows for group in groups)


def _moving(causes: dict[str, int]) -> int:
    return causes["gather"] + causes["scatter"]


def _spread(values: list[float]) -> tuple[float, str]:
    """Return the mean of ``values``, and a note of what each seed gave."""
    return _mean(values), "by seed: " + ", ".join(f"{value:.4g}" for value in values)


def _mean(values: list[float]) -> float:
    return float(np.mean(values))
