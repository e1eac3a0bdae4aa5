"""Pattern pruning: each kernel of a convolution keeps one of a few patterns, or nothing at all. Numpy alone.

A pattern is the set of places that a kernel keeps: of 3 x 3, four of which the centre is one; 56 such patterns are
called natural. The few that most kernels would choose form a dictionary, and every kernel takes of it the pattern under
which most of its L2 norm is left. Connectivity pruning then drops whole kernels, `structured.kernels`.

Source: Niu et al., "PatDNN: Achieving Real-Time DNN Execution on Mobile Devices with Pattern-based Weight Pruning",
ASPLOS 2020 (arXiv 2001.00138), section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

import numpy as np

from ..errors import InputError
from .structured import kernels
from .unstructured import Masks, kept_count, magnitudes

KEPT = 4  # weights of a 3 x 3 kernel that its pattern keeps
CHUNK = 1 << 14  # kernels that are compared with all patterns at once: tens of megabytes at most


def natural_patterns(side: int = 3, kept: int = KEPT) -> np.ndarray:
    """Return every pattern of ``kept`` places with the centre among them, (patterns, side, side) bool, in fixed order.

    Of 3 x 3 kernels and 4 places these are 56. Raises InputError for a kernel without a centre, or for too many places.
    """
    if side not in (3, 5):
        raise InputError(f"patterns are those of kernels of 3 x 3 or 5 x 5, not {side} x {side}")
    if not 1 <= kept <= (side * side if side == 3 else KEPT):
        raise InputError(f"a pattern of {side} x {side} must keep 1 to {9 if side == 3 else KEPT} places, not {kept}")
    centre = side * side // 2
    others = [place for place in range(side * side) if place != centre]
    chosen = list(combinations(others, kept - 1))
    patterns = np.zeros((len(chosen), side * side), bool)
    patterns[:, centre] = True
    for row, places in zip(patterns, chosen, strict=True):
        row[list(places)] = True
    return patterns.reshape(-1, side, side)


def best_patterns(weight: np.ndarray, mask: np.ndarray, patterns: np.ndarray) -> np.ndarray:
    """Return which of ``patterns`` leaves each kernel the largest L2 norm, (out, in) int64; ties to the lower index.

    ``weight`` is (out, in, height, width), ``patterns`` (patterns, height, width) bool. A kernel that ``mask`` has
    pruned whole gets -1.
    """
    if weight.ndim != 4 or patterns.ndim != 3 or patterns.shape[1:] != weight.shape[2:] or not len(patterns):
        raise InputError(
            f"patterns must be (patterns, height, width) for kernels of {weight.shape[2:]}, not {patterns.shape}"
        )
    squares = np.square(np.maximum(magnitudes(weight, mask), 0.0), dtype=np.float64)
    squares = squares.reshape(-1, patterns[0].size)
    tables = patterns.reshape(len(patterns), -1).T.astype(np.float64)
    best = np.concatenate(
        [(squares[first : first + CHUNK] @ tables).argmax(axis=1) for first in range(0, len(squares), CHUNK)]
    )
    best[~mask.reshape(len(best), -1).any(axis=1)] = -1
    return best.reshape(weight.shape[:2])


def dictionary(weights: Iterable[tuple[np.ndarray, np.ndarray]], size: int = 8, kept: int = KEPT) -> np.ndarray:
    """Return the ``size`` natural patterns that most kernels of all ``weights`` choose, the most frequent first.

    ``weights`` are pairs (weight, mask), all of kernels of one side. Ties go to the natural pattern of lower index.
    The result is (patterns, height, width) bool: fewer patterns where fewer are natural.
    """
    if size < 1:
        raise InputError(f"a dictionary must hold at least 1 pattern, not {size}")
    natural, counts = None, np.zeros(0, np.int64)
    for weight, mask in weights:
        if natural is None:
            natural = natural_patterns(weight.shape[-1], kept)
            counts = np.zeros(len(natural), np.int64)
        chosen = best_patterns(weight, mask, natural)
        counts += np.bincount(chosen[chosen >= 0], minlength=len(natural))
    if natural is None:
        raise InputError("a dictionary needs the weights of at least one convolution of 3 x 3, and has none")
    found: np.ndarray = natural[np.argsort(-counts, kind="stable")[:size]]
    return found


def in_patterns(weight: np.ndarray, mask: np.ndarray, patterns: np.ndarray) -> np.ndarray:
    """Return the mask under which each kernel keeps the one of ``patterns`` that leaves it the largest L2 norm."""
    chosen = best_patterns(weight, mask, patterns)
    kept = np.where((chosen >= 0)[..., None, None], patterns[chosen], False)
    found: np.ndarray = kept & mask
    return found


def connectivity_sparsity(sparsity: float, kept: int, size: int) -> float:
    """Return the share of kernels to drop whole so that, with ``kept`` of ``size`` weights in each other, ``sparsity``.

    Raises InputError where the patterns alone prune more than that.
    """
    share = (1 - sparsity) * size / kept
    if share > 1 + 1e-9:
        raise InputError(
            f"sparsity must be at least the {1 - kept / size:.4g} of patterns that keep {kept} of {size} weights, "
            f"not {sparsity:.4g}"
        )
    return max(0.0, 1 - share)


def pattern_prune(
    weights: Mapping[str, np.ndarray], masks: Masks, sparsity: float, patterns: int = 8, kept: int = KEPT
) -> Masks:
    """Return masks of ``sparsity``, by name: kernels of 3 x 3 in one dictionary of ``patterns``, others whole or gone.

    The dictionary is that of all 3 x 3 convolutions together; then each layer drops the kernels of smallest norm, what
    its pattern leaves counting. Convolutions of other kernels have no pattern, and drop as large a share of theirs.
    Raises InputError for weights that are not those of convolutions, (out, in, height, width).
    """
    for name, mask in masks.items():
        if mask.ndim != 4:
            raise InputError(f"{name}: patterns are those of convolutions, of 4 dimensions, not {mask.shape}")
    square = [name for name, mask in masks.items() if mask.shape[2:] == (3, 3)]
    dropped = connectivity_sparsity(sparsity, kept, 9)
    chosen = dictionary(((weights[name], masks[name]) for name in square), patterns, kept)
    found = {}
    for name, mask in masks.items():
        held = in_patterns(weights[name], mask, chosen) if name in square else mask
        if not kept_count(mask[..., 0, 0].size, dropped):
            raise InputError(f"{name}: at least one kernel must be left, and at sparsity {sparsity:.4g} none is")
        found[name] = kernels(weights[name], held, dropped)
    return found
