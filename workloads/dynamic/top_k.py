"""The k largest, as hardware picks them: in the order in which they came, of equal ones the first."""

from __future__ import annotations

import math

import numpy as np


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """Return where the ``k`` largest of ``scores`` lie along the last axis, ascending; of equal ones the first ones."""
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :k]
    return np.sort(order, axis=-1)


def k_of(share: float, count: int) -> int:
    """Return how many of ``count`` a ``share`` keeps, rounded down as in SpAtten's Algorithm 1, at least one."""
    return max(1, math.floor(share * count + 1e-9))
