"""Print what point clouds cost, as ratios measured in one run: ``python benchmarks/points.py [CLOUD]``.

The unit is one ``numpy.sort`` of the packed keys of the voxels, in no order. The voxels are 100,000 of a generated scan
in voxels of 0.035 m, or those of the file given in voxels of 0.05 m. Medians of interleaved repetitions, after
compilation.
"""

import sys
import time
from statistics import median

import numpy as np

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.workloads.points import (
    ball_query,
    cad,
    downsample,
    fps,
    kernel_map,
    knn,
    lidar,
    pack,
    read_cloud,
    room,
    voxelise,
)
from gossamer.workloads.points.network import build
from gossamer.workloads.points.statistics import statistics


def seconds(act):
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def main():
    if len(sys.argv) > 1:
        cloud = read_cloud(sys.argv[1])
        coords, _ = voxelise(cloud.points, 0.05)
    else:
        cloud = lidar(0)
        coords = voxelise(cloud.points, 0.035)[0][:100_000]
    rng = np.random.default_rng(0)
    mixed = rng.permutation(coords)
    keys, ordered = pack(mixed), pack(coords)
    some = cad(0, points=1024).points
    acts = {
        "numpy.sort of the keys, the unit": lambda: np.sort(keys),
        "numpy.sort of sorted keys": lambda: np.sort(ordered),
        "pack": lambda: pack(coords),
        "voxelise": lambda: voxelise(cloud.points, 0.05),
        "downsample by 2": lambda: downsample(coords, 2),
        "kernel map, 27 offsets": lambda: kernel_map(coords),
        "kernel map, 27 offsets, in no order": lambda: kernel_map(mixed),
        "kernel map, 27 offsets, stride 2": lambda: kernel_map(coords, 3, 2),
        "kernel map, 8 offsets, stride 2": lambda: kernel_map(coords, 2, 2),
        "kernel map, 125 offsets": lambda: kernel_map(coords, 5),
        "fps, 512 of 1024": lambda: fps(some, 512),
        "knn, 20 of 1024, 1024 queries": lambda: knn(some, some, 20),
        "ball query, first 32, 512 queries": lambda: ball_query(some, some[:512], 0.2, 32, "index"),
        "a scan of a street": lambda: lidar(1),
        "a room": lambda: room(1),
    }
    for act in acts.values():  # compile, and fill the caches
        act()
    times = {name: [] for name in acts}
    for repetition in range(21):
        for name, act in acts.items():
            if repetition % 4 == 0 or not name.startswith("a "):
                times[name].append(seconds(act))
    unit = median(times["numpy.sort of the keys, the unit"])
    pairs = sum(len(into) for into, _ in kernel_map(coords))
    print(f"{cloud.name}: {len(cloud.points):,} points, {len(coords):,} voxels, {pairs:,} pairs at 27 offsets")
    for name, measured in times.items():
        print(f"{name:38} {median(measured) * 1e3:10.3f} ms {median(measured) / unit:9.2f} x")
    found = statistics(cloud.points, 0.05)
    print(f"voxels at strides {found.strides}: {found.voxels}")
    print("neighbours of 27    ", " ".join(f"{neighbours:.2f}" for neighbours in found.neighbours))
    print("voxels over the finer", " ".join(f"{ratio:.3f}" for ratio in found.ratios))
    network(cloud)


def network(cloud):
    """Print what the whole of SparseResUNet42 on ``cloud`` costs: its trace, then cycles and energy on PointAcc."""
    machine = load_machine("pointacc", functional=False)
    for run in ("first, kernels loaded or compiled", "again"):
        start = time.process_time()
        trace = build("minkunet42", cloud)
        built = time.process_time() - start
        result = simulate(machine, trace)
        whole = time.process_time() - start
        print(f"minkunet42 on pointacc, {run}: trace {built:.2f} s, all {whole:.2f} s of one core")
    print(f"{result.total.cycles:,} cycles, {result.total.macs / 1e9:.1f} GMACs, {result.total.utilization:.3f} busy")


if __name__ == "__main__":
    main()
