"""Print what simulating ESE's LSTM costs, as ratios measured in one run: ``python benchmarks/ese.py``.

One step of 32 samples, 364,608 stored entries; the unit is one ``numpy.count_nonzero`` pass over its weights in
float32. Medians of repetitions on a quiet machine.
"""

import time
from statistics import median

import numpy as np

from gossamer.models import load_machine
from gossamer.models.ese import spmv_of
from gossamer.models.parts.ese.program import Program
from gossamer.simulator import simulate
from gossamer.workloads.lstm import run_lstm
from gossamer.workloads.synth.ese import ese_lstm


def seconds(act):
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def main():
    trace, machine = ese_lstm(), load_machine("ese")
    layer = trace.layers[0]
    weight, projection = np.array(layer.weight), np.array(layer.projection)
    program = Program.of(layer, machine.config)
    acts = {
        "count_nonzero of the weights": lambda: (np.count_nonzero(weight), np.count_nonzero(projection)),
        "simulate, all of it": lambda: simulate(machine, trace),
        "timing of nine matrices alone": lambda: [spmv_of(matrix, machine.config) for matrix in program.matrices],
        "quantise, encode, float64 reference": lambda: Program.of(layer, machine.config),
        "float64 reference alone": lambda: run_lstm(layer),
    }
    for act in acts.values():  # compile, and fill the caches
        act()
    times = {name: median(seconds(act) for _ in range(11)) for name, act in acts.items()}
    event = seconds(lambda: simulate(machine, trace, engine="event"))
    unit = times["count_nonzero of the weights"]
    for name, spent in times.items():
        print(f"{name:36} {spent * 1e3:10.3f} ms {spent / unit:10.2f} x")
    print(f"event / fast                         {event / times['simulate, all of it']:10.0f} x")


if __name__ == "__main__":
    main()
