"""Clouds of points on the surfaces of single objects, in as many classes as there are shapes.

Drawn by `points.scenes.cad`: solids (box, sphere, cylinder, torus, cone) and furniture (table, chair, lamp, shelf),
proportions and direction drawn, upright, centred on their mean, the farthest point at distance 1.
"""

from __future__ import annotations

import numpy as np

from .samples import Data, check_fraction

CLASSES = 9  # the shapes of points.scenes
SAMPLES, POINTS = 160 * CLASSES, 256
SEED = 31_000  # of the first cloud; the next ones have the next seeds


def cad_clouds(test_fraction: float, seed: int) -> Data:
    """Return 1,440 clouds of 256 points, 9 classes in turns, of which ``seed`` draws those to test; always the same."""
    check_fraction(test_fraction, SAMPLES, CLASSES)
    inputs, labels = generate()
    order = np.random.default_rng(seed).permutation(SAMPLES)
    tested, trained = np.split(order, [round(test_fraction * SAMPLES)])
    return Data(inputs[trained], labels[trained], inputs[tested], labels[tested])


def generate(samples: int = SAMPLES, seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """Return ``samples`` clouds, float32 (samples, 256, 3), and their classes, int64: places in SHAPES, in turns."""
    from ..points.scenes import SHAPES, cad  # brings numba, which naming the data needs not

    labels = np.arange(samples, dtype=np.int64) % len(SHAPES)
    clouds = [cad(seed + i, SHAPES[label], points=POINTS).points for i, label in enumerate(labels.tolist())]
    return np.stack(clouds), labels
