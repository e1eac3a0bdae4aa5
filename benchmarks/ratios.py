"""Print what simulation costs, as ratios measured in one run: ``python benchmarks/ratios.py [EIE_DUMP]``.

The unit is one ``numpy.count_nonzero`` pass over the layer's weight matrix in float32: no simulator that looks at every
weight can do with much less. The layer is AlexNet FC8: the real one where the EIE authors' data folder is given, else
a synthetic one of its size and densities. Each figure is the median of interleaved repetitions on a quiet machine.
"""

import sys
import time
from statistics import median

import numpy as np

from gossamer.models import load_machine, vary
from gossamer.models.parts.eie.timing import Broadcasts, Encoded, Timing
from gossamer.simulator import simulate
from gossamer.simulator.sweep import Case, grid_points, sweep
from gossamer.workloads import load_trace
from gossamer.workloads.formats import csc
from gossamer.workloads.synth import eie_layer

PE_COUNTS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
QUEUE_DEPTHS = list(range(2, 22))


def seconds(act):
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def warm_seconds(act):
    act()  # what ran before has taken the caches
    return seconds(act)


def main():
    trace = load_trace(sys.argv[1]) if len(sys.argv) > 1 else eie_layer("alex-8", row_sigma=0.13)
    layer = trace.layers[0]
    weight = np.array(layer.weight)
    machine = load_machine("eie-64pe")
    encoded = Encoded.of(layer.codes, 64, 4)
    broadcasts = Broadcasts.of(layer.inputs, False, 64)
    points = grid_points({"pe_count": PE_COUNTS, "queue_depth": QUEUE_DEPTHS})
    cases = [Case(trace, vary(machine, **point), point) for point in points]

    acts = {
        "count_nonzero of the weights": lambda: np.count_nonzero(weight),
        "simulate, all of it": lambda: simulate(machine, trace),
        "timing recurrence alone": lambda: Timing.of(encoded.counts.entries, broadcasts, 8),
        "encode to CSC, entries stored": lambda: csc.encode(layer.codes, 64),
    }
    rare = {
        f"sweep of {len(cases)} points": lambda: sweep(cases),
        "event engine": lambda: simulate(machine, trace, engine="event"),
    }
    for act in (*acts.values(), *rare.values()):  # compile, and fill the caches
        act()
    times = {name: [] for name in (*acts, *rare)}
    for repetition in range(31):
        for name, act in acts.items():
            times[name].append(warm_seconds(act))
        if repetition % 10 == 0:
            for name, act in rare.items():
                times[name].append(seconds(act))

    unit = median(times["count_nonzero of the weights"])
    result = simulate(machine, trace)
    print(f"{trace.name}: {layer.shape}, {result.total.cycles:,} cycles, {result.total.macs:,} useful MACs")
    for name, measured in times.items():
        print(f"{name:34} {median(measured) * 1e3:10.3f} ms {median(measured) / unit:10.3f} x")
    fast = median(times["simulate, all of it"])
    print(f"useful MACs simulated a second     {result.total.macs / fast:.3g}")
    print(f"event / fast                       {median(times['event engine']) / fast:.0f} x")
    print(f"design points a second             {len(cases) / median(times[f'sweep of {len(cases)} points']):.0f}")

    print("growth: seconds a weight, over the layer's size")
    for size in (256, 512, 1024, 2048, 4096, 8192):
        from gossamer.workloads.synth import random_layer

        square = random_layer(size, size, 0.1, 0.35)
        simulate(machine, square)
        spent = median(seconds(lambda square=square: simulate(machine, square)) for _ in range(5))
        print(f"  {size:5} x {size:<5} {spent * 1e3:9.3f} ms {spent / size**2 * 1e9:8.3f} ns a weight")


if __name__ == "__main__":
    main()
