"""Layers and small chips for the tests of the tensor cores, and both engines at once."""

import numpy as np

from gossamer.models import load_machine, tensorcore
from gossamer.workloads import Layer
from gossamer.workloads.patterns import Pattern

from .agreement import agree, assert_units_add_up

A100 = load_machine("a100-sparse")
MUXES = load_machine("a100-muxes")


def tiny(**changes):
    """A chip of two SMs and small tiles, so that a few numbers make many tiles and steps."""
    small = {
        "sm_count": 2, "cta_rows": 32, "cta_columns": 16, "cta_depth": 16, "warp_rows": 16, "warp_columns": 8,
        "fill_cycles": 30, "launch_s": 1e-8,
    }  # fmt: skip
    return load_machine("a100-sparse", **(small | changes))


def sparse_weight(rng, rows, depth, n, m):
    weight = rng.standard_normal((rows, depth)).astype(np.float32)
    padded = np.abs(np.pad(weight, ((0, 0), (0, -depth % m)))).reshape(rows, -1, m)
    rank = np.argsort(np.argsort(-padded, axis=2), axis=2)
    return np.where((rank < n).reshape(rows, -1)[:, :depth], weight, 0).astype(np.float32)


def linear(rows=40, depth=48, columns=20, pattern=None, density=1.0, seed=0):
    rng = np.random.default_rng(seed)
    if pattern is None:
        weight = (rng.random((rows, depth)) < density) * rng.standard_normal((rows, depth))
        kind = Pattern()
    else:
        weight, kind = sparse_weight(rng, rows, depth, *pattern), Pattern("n:m", n=pattern[0], m=pattern[1], axis=1)
    return Layer(
        name="fc",
        op="linear",
        weight=weight.astype(np.float32),
        bias=rng.standard_normal(rows).astype(np.float32),
        inputs=rng.standard_normal((columns, depth)).astype(np.float32),
        pattern=kind,
    )


def both(machine, layer, timeline=None):
    """Return the result of `fast`, having checked that the units agree with it in everything."""
    fast = agree(tensorcore, machine, layer, timeline)
    assert sum(fast.cycles_by_cause["sm"].values()) == machine.config.sm_count * fast.cycles
    assert_units_add_up(fast)
    assert fast.theoretical_cycles <= fast.cycles and 0 <= fast.utilization <= 1
    assert fast.roofline["achieved_macs_per_s"] <= fast.roofline["bound_macs_per_s"] * (1 + 1e-12)
    return fast


def matmul(products, out, rows, depth, samples=1, pattern=None, seed=3):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((products, out, depth)).astype(np.float32)
    kind = Pattern()
    if pattern is not None:
        weight = sparse_weight(rng, products * out, depth, *pattern).reshape(weight.shape)
        kind = Pattern("n:m", n=pattern[0], m=pattern[1], axis=2)
    inputs = rng.standard_normal((products, rows, depth)).astype(np.float32)
    attributes = {"samples": samples}
    return Layer(name="qk", op="matmul", weight=weight, inputs=inputs, pattern=kind, attributes=attributes)
