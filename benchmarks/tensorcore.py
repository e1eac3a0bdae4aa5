"""Print what simulating tensor cores costs, in one run: ``python benchmarks/tensorcore.py``.

One product of 4096^3; a network of the size of ResNet-50, 54 layers, weights in 2:4; instructions. Medians of repeated
runs after compilation. Values are left out (functional=false): they are a matrix product, which numpy could not do
faster either.
"""

import time
import tracemalloc
from statistics import median

import numpy as np

from gossamer.models import load_machine
from gossamer.models.tensorcore import gemm_cost, instruction_throughput
from gossamer.simulator import simulate
from gossamer.workloads.gemm import Gemm
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.synth import gemm_layer
from gossamer.workloads.trace import Layer, Trace

BLOCKS = ((64, 256, 3, 56), (128, 512, 4, 28), (256, 1024, 6, 14), (512, 2048, 3, 7))  # width, outputs, blocks, side


def seconds(act, times=9):
    act()
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        act()
        spent.append(time.perf_counter() - start)
    return median(spent)


def convolution(name, outputs, channels, kernel, side, rng):
    """Return a convolution in 2:4 along its channels; an input of 3 channels stays dense."""
    weight = rng.standard_normal((outputs, channels, kernel, kernel)).astype(np.float32)
    pattern = Pattern("dense")
    if channels % 4 == 0:
        weight[:, 2::4] = weight[:, 3::4] = 0
        pattern = Pattern("n:m", n=2, m=4, axis=1)
    inputs = np.ones((1, channels, side, side), np.float32)
    padding = {"padding": (kernel // 2, kernel // 2)}
    return Layer(name=name, op="conv2d", weight=weight, inputs=inputs, pattern=pattern, attributes=padding)


def resnet50():
    """Return 53 convolutions and a linear layer, of the sizes of ResNet-50."""
    rng = np.random.default_rng(0)
    layers = [convolution("conv1", 64, 3, 7, 112, rng)]
    channels = 64
    for width, outputs, blocks, side in BLOCKS:
        for block in range(blocks):
            name = f"{width}.{block}"
            layers.append(convolution(f"{name}.a", width, channels, 1, side, rng))
            layers.append(convolution(f"{name}.b", width, width, 3, side, rng))
            layers.append(convolution(f"{name}.c", outputs, width, 1, side, rng))
            if block == 0:
                layers.append(convolution(f"{name}.d", outputs, channels, 1, side, rng))
            channels = outputs
    layers.append(gemm_layer(1000, 2048, 1, "2:4", name="fc").layers[0])
    return Trace(name="resnet50-sized", layers=tuple(layers))


def peak_bytes(act):
    tracemalloc.start()
    act()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main():
    machine = load_machine("a100-sparse", functional=False)
    sizes = Gemm(4096, 4096, 4096, pattern=(2, 4))
    product = gemm_layer(4096, 4096, 4096, "2:4")
    network = resnet50()
    one = seconds(lambda: gemm_cost(machine, sizes))
    print(f"4096^3, 2:4, sizes and pattern alone   {one * 1e3:9.2f} ms")
    auto = load_machine("a100-sparse", functional=False, tiling="auto", split_k=16)
    print(f"4096^3, 2:4, best of 8 tiles, 5 splits {seconds(lambda: gemm_cost(auto, sizes)) * 1e3:9.2f} ms")
    print(f"4096^3, 2:4, a trace                   {seconds(lambda: simulate(machine, product)) * 1e3:9.2f} ms")
    spent = seconds(lambda: simulate(machine, network))
    print(f"{len(network.layers)} layers of the size of ResNet-50     {spent * 1e3:9.2f} ms")
    call = seconds(lambda: instruction_throughput(machine, warps=8, ilp=2), 99)
    print(f"throughput of an instruction           {call * 1e3:9.3f} ms")
    event = seconds(lambda: gemm_cost(machine, sizes, engine="event"), 1)
    print(f"4096^3 by the event engine             {event * 1e3:9.2f} ms, {event / one:,.0f} x fast")
    study = load_machine("sparseloop-stc")
    layer = gemm_layer(128, 1152, 1024, "2:6")
    print(f"Sparseloop's first layer, with values  {seconds(lambda: simulate(study, layer)) * 1e3:9.2f} ms")
    print("memory of one product, over its size")
    for side in (1024, 4096, 16384):
        peak = peak_bytes(lambda side=side: gemm_cost(machine, Gemm(side, side, side, pattern=(2, 4))))
        print(f"  {side:6}^3 {peak / 1024:10.1f} KiB")


if __name__ == "__main__":
    main()
