"""A small cloud for networks, and the layers of a trace by name."""

import numpy as np


def scene(count=400, side=1.2, seed=0):
    """Points on the floor and two walls of a box, with remissions, (count, 4)."""
    rng = np.random.default_rng(seed)
    points = rng.random((count, 3), np.float32) * np.float32(side)
    points[np.arange(count), rng.integers(0, 3, count)] = 0.02
    return np.column_stack([points, rng.random(count, np.float32)])


def by_name(trace):
    return {layer.name: layer for layer in trace.layers}
