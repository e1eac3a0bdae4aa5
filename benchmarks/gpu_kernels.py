"""Print what simulating sparse kernels on GPUs costs, as ratios of one run: ``python benchmarks/gpu_kernels.py``.

The unit is one ``numpy.count_nonzero`` pass over the weight in float32. Values are left out (functional=false). The
cost is one part that grows with the weights (their rows are read twice), and one that grows with thread blocks, which
are rows times columns over the outputs of a tile.
"""

import time
from statistics import median

import numpy as np

from gossamer.models import block_ell, csr_spmm, load_machine
from gossamer.models.parts.csr_spmm.config import choose
from gossamer.models.parts.csr_spmm.rows import measure_work
from gossamer.models.parts.csr_spmm.timing import measure, solve
from gossamer.simulator.memo import Memo
from gossamer.workloads.gemm import Gemm
from gossamer.workloads.trace import Layer


def seconds(act, times=7):
    act()
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        act()
        spent.append(time.perf_counter() - start)
    return median(spent)


def weight_of(side, density=0.1):
    rng = np.random.default_rng(0)
    return np.where(rng.random((side, side), np.float32) < density, 1, 0).astype(np.float32)


def kernel(name, weight, columns):
    """Return the seconds of reading the rows of ``weight``, those of running thread blocks, and how many these are."""
    machine = load_machine(name)
    gemm = Gemm(*weight.shape, columns, pattern=None)
    config = choose(machine.config, columns)
    work = measure_work(config, weight[None])
    times = measure(config, gemm, work)
    blocks = times.sums["blocks"]
    return (
        seconds(lambda: measure_work(config, weight[None])),
        seconds(lambda: solve(config, measure(config, gemm, work)), 3),
        blocks,
    )


def main():
    print("side  columns  machine           rows / pass  blocks / pass  blocks  us / block")
    for side in (1024, 2048, 4096):
        weight = weight_of(side)
        unit = seconds(lambda weight=weight: np.count_nonzero(weight))
        for columns in (64, 256, 1024):
            for name in ("v100-sputnik", "v100-row-split"):
                rows, run, blocks = kernel(name, weight, columns)
                shown = f"{rows / unit:12.2f} {run / unit:14.2f} {blocks:7} {run / blocks * 1e6:11.2f}"
                print(f"{side:4}  {columns:7}  {name:16} {shown}")
    weight = weight_of(256)
    layer = Layer(name="fc", op="linear", weight=weight, inputs=np.ones((64, 256), np.float32))
    machine = load_machine("v100-sputnik", functional=False)
    fast = seconds(lambda: csr_spmm.fast(machine, layer, Memo()))
    print(f"event / fast, 256 x 256 x 64: {seconds(lambda: csr_spmm.events(machine, layer), 1) / fast:.0f}")
    weight = weight_of(4096)
    unit = seconds(lambda: np.count_nonzero(weight))
    layer = Layer(name="fc", op="linear", weight=weight, inputs=np.ones((256, 4096), np.float32))
    machine = load_machine("a100-block-ell", functional=False)
    print(f"block_ell, 4096 x 4096 x 256 / pass: {seconds(lambda: block_ell.fast(machine, layer, Memo())) / unit:.2f}")


if __name__ == "__main__":
    main()
