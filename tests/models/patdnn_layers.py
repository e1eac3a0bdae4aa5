"""Pruned convolutions, cores that run them, and both engines at once."""

import numpy as np

from gossamer.models import patdnn
from gossamer.models.loader import load_machine
from gossamer.workloads.pruning.kernel_patterns import pattern_prune
from gossamer.workloads.trace import Layer

from .agreement import agree

PLAIN = {"reorder": False, "kernel_lre": False, "filter_lre": False, "tune": False}
ONE = PLAIN | {
    "cores": 1, "load_ports": 1, "load_cycles": 1, "fma_ports": 1, "fma_latency": 1, "load_latency": 3, "window": 1,
    "kernel_cycles": 1, "dispatch_cycles": 2, "switch_cycles": 5, "item_cycles": 10, "tile_rows": 1, "tile_vectors": 1,
    "filter_block": 1, "dram_bytes_per_s": 1e15, "l2_bytes_per_clk": 1 << 16,
}  # fmt: skip


def machine(name="patdnn-kryo485", **changes):
    return load_machine(name, **changes)


def convolution(filters, channels, height, width, *, kernel=3, samples=1, rate=3.6, seed=0, bias=False, **attributes):
    """Return a convolution pruned by patterns (of 3 x 3) and by connectivity, one kernel of ``rate`` left."""
    rng = np.random.default_rng(seed)
    groups = attributes.get("groups", 1)
    weight = rng.standard_normal((filters, channels // groups, kernel, kernel)).astype(np.float32)
    mask = np.ones(weight.shape, bool)
    if rate > 1:
        share = 4 / 9 if kernel == 3 else 1
        kept = max(1, round(filters * channels // groups / rate)) / (filters * channels // groups)
        if kernel == 3:
            mask = pattern_prune({"w": weight}, {"w": mask}, 1 - share * kept)["w"]
        else:
            mask = np.broadcast_to(rng.random(weight.shape[:2])[..., None, None] < kept, weight.shape).copy()
    return Layer(
        name="conv",
        op="conv2d",
        weight=np.where(mask, weight, np.float32(0)),
        mask=mask,
        bias=rng.standard_normal(filters).astype(np.float32) if bias else None,
        inputs=rng.standard_normal((samples, channels, height, width)).astype(np.float32),
        attributes=attributes,
    )


def by_hand(*kernels, size=(1, 4)):
    """Return a convolution of one filter whose kernels keep the listed places of 3 x 3, on outputs of ``size``."""
    weight = np.zeros((1, len(kernels), 9), np.float32)
    for channel, places in enumerate(kernels):
        weight[0, channel, places] = 1
    inputs = np.ones((1, len(kernels), size[0] + 2, size[1] + 2), np.float32)
    return Layer(name="c", op="conv2d", weight=weight.reshape(1, -1, 3, 3), inputs=inputs)


def both(built, layer, timeline=None):
    """Return the result of `fast`, having checked that the units agree with it in everything, and both with numpy."""
    fast = agree(patdnn, built, layer, timeline, tolerance=1e-4)
    assert sum(fast.cycles_by_cause["core"].values()) == fast.cycles * built.config.cores
    return fast
