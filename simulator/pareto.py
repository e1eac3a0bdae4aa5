"""Which of several choices are worth a look: those that no other beats."""

from __future__ import annotations

import numpy as np


def non_dominated(costs: np.ndarray) -> np.ndarray:
    """Return which rows of ``costs`` no other row dominates, (n,) bool.

    ``costs`` is (n, objectives), less is better, finite. A row dominates another where it is no worse in any objective
    and better in one; rows that are equal do not dominate each other. Exact, in n log n + n x front.
    Raises ValueError for another shape, or a cost that is not finite.
    """
    costs = np.asarray(costs, np.float64)
    if costs.ndim != 2:
        raise ValueError(f"costs must be (n, objectives), not of shape {costs.shape}")
    if not np.isfinite(costs).all():
        raise ValueError("costs must be finite")
    kept = np.zeros(len(costs), bool)
    if not costs.shape[1]:
        return ~kept
    # In lexical order whatever dominates a row stands before it, and so does one of the front that does.
    front = np.empty_like(costs)
    size = 0
    for i in np.lexsort(costs.T[::-1]):
        ahead = front[:size]
        if not ((ahead <= costs[i]).all(axis=1) & (ahead < costs[i]).any(axis=1)).any():
            kept[i] = True
            front[size] = costs[i]
            size += 1
    return kept
