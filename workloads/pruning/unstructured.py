"""Pruning strategies: pure functions (weights, mask, sparsity) -> new mask, in numpy alone.

All of them keep an exact number of weights, those of largest magnitude; of equal magnitudes the one with the lower
index stays. A pruned weight stays pruned, whatever its value. ``sparsity`` is a fraction of all weights, those that
are pruned already included, so that a schedule cannot drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ..blocks import first_not_finite, row_blocks
from ..checks import whole
from ..errors import InputError
from ..patterns import SCOPES

LARGE = 2**17  # weights from which counting them costs less than sorting them

Weights = dict[str, np.ndarray]
"""Arrays by name: of a network's parameters, the float32 values."""
Masks = dict[str, np.ndarray]
"""Arrays by name: of the prunable ones among them, True where a weight is kept."""


def kept_count(size: int, sparsity: float) -> int:
    """Return how many of ``size`` weights are left at ``sparsity``: the nearest whole number, halves to even."""
    if not 0 <= sparsity <= 1:
        raise InputError(f"sparsity must be a fraction between 0 and 1, not {sparsity!r}")
    return round(size * (1 - sparsity))


def sparsity_levels(target: float, rate: float) -> tuple[float, ...]:
    """Return the sparsity of each level of iterative pruning: 0, then 1 - (1 - rate)^n, and exactly ``target`` last.

    Each level prunes the fraction ``rate`` of what the one before left; the last one prunes less where it must.
    Source: Frankle and Carbin, ICLR 2019.
    """
    if not 0 <= target < 1:
        raise InputError(f"sparsity must be at least 0 and below 1, not {target!r}")
    if not 0 < rate < 1:
        raise InputError(f"rate must be above 0 and below 1, not {rate!r}")
    levels = [0.0]
    # A level that meets the target but for rounding is the target: no further level for the last bit of a float.
    while (level := 1 - (1 - rate) ** len(levels)) < target - 1e-9:
        levels.append(level)
    return (*levels, target) if target > 0 else tuple(levels)


def magnitude(weight: np.ndarray, mask: np.ndarray, sparsity: float) -> np.ndarray:
    """Return the mask of the largest weights of one array, with one threshold; any shape."""
    count = kept_count(weight.size, sparsity)
    _demand(mask, count)
    if weight.dtype == np.float32 and weight.size >= LARGE:
        return _largest_of_all(weight, mask, count)
    return largest(magnitudes(weight, mask).reshape(1, -1), np.array([count])).reshape(weight.shape)


def magnitude_global(weights: Mapping[str, np.ndarray], masks: Masks, sparsity: float) -> Masks:
    """Return the masks of the largest weights of all arrays together, with one threshold, by name.

    Ties are broken in the order of ``masks``, whose names choose the arrays of ``weights`` that take part.
    """
    if not masks:
        return {}
    flat_weight = np.concatenate([weights[name].ravel() for name in masks])
    flat_mask = np.concatenate([mask.ravel() for mask in masks.values()])
    kept = magnitude(flat_weight, flat_mask, sparsity)
    ends = np.cumsum([mask.size for mask in masks.values()])
    pieces = np.split(kept, ends[:-1])
    return {name: piece.reshape(masks[name].shape) for name, piece in zip(masks, pieces, strict=True)}


def balanced(weight: np.ndarray, mask: np.ndarray, sparsity: float, pe_count: int, scope: str = "pe") -> np.ndarray:
    """Return the mask that leaves every processing element the same share of its own weights, the largest of them.

    ``weight`` is (out, ...), taken as the matrix (out, everything else); row r belongs to PE r % pe_count.
    ``scope`` "pe": each PE has a threshold of its own. "pe-column": each PE has one for every column, and keeps the
    same share of each; its total is then balanced as well.
    A share is seldom a whole number: each PE (and column) keeps it rounded down or up, the whole matrix keeps exactly
    `kept_count`, and where more round up is for the magnitudes to say.
    Raises InputError where ``mask`` left a PE less than its share: start from a full mask, or from one that this
    function made for the same ``pe_count`` and ``scope``.
    Source: load-balance-aware pruning, Han et al., FPGA 2017 (ESE), section 3.
    """
    if weight.ndim < 2:
        raise InputError(f"balanced pruning needs a weight of at least 2 dimensions, not {weight.shape}")
    pe_count = whole(pe_count, "pe_count", 1)
    if scope not in SCOPES:
        raise InputError(f"scope must be one of {', '.join(SCOPES)}, not {scope!r}")
    count = kept_count(weight.size, sparsity)
    _demand(mask, count)
    matrix = magnitudes(weight, mask).reshape(weight.shape[0], -1)
    kept = np.zeros(matrix.shape, bool)
    rows = len(matrix)
    tall = rows % pe_count  # the first PEs have one row more than the rest
    count_tall = count * tall * (rows // pe_count + 1) // rows
    for first, end, height, quota in (
        (0, tall, rows // pe_count + 1, count_tall),
        (tall, pe_count, rows // pe_count, count - count_tall),
    ):
        if first == end or height == 0:
            continue
        rows_of = np.arange(first, end)[:, None] + pe_count * np.arange(height)  # (pes, height)
        lanes = matrix[rows_of]  # (pes, height, cols)
        if scope == "pe-column":
            kept[rows_of] = _evenly(lanes.transpose(0, 2, 1), quota).transpose(0, 2, 1)
        else:
            kept[rows_of] = _evenly(lanes.reshape(end - first, 1, -1), quota).reshape(lanes.shape)
    revived = kept & ~mask.reshape(matrix.shape)
    if revived.any():
        pe = int(np.argwhere(revived)[0][0]) % pe_count
        raise InputError(
            f"balanced over {pe_count} PEs by {scope}, the mask must leave each its share of {1 - sparsity:.4g}, "
            f"and PE {pe} has less; start from a full mask, or from one balanced the same way"
        )
    return kept.reshape(weight.shape)


def _evenly(lanes: np.ndarray, quota: int) -> np.ndarray:
    """Return which values of ``lanes`` (pes, lanes, depth) are kept: ``quota`` in all, shared evenly.

    All PEs keep the same number but for one, and so do all lanes of a PE. Who has one more: the lanes, and the PEs,
    whose next value would be the largest. Rounding first over PEs and then over lanes keeps both balanced, and what
    is asked of a lane never grows when ``quota`` falls, so that masks made one after the other can be nested.
    """
    pes, lane_count, depth = lanes.shape
    per_pe, richer_pes = divmod(quota, pes)
    per_lane, richer_lanes = divmod(per_pe, lane_count)
    next_value = np.full((pes, lane_count), -1.0)
    if per_lane < depth:
        place = depth - 1 - per_lane
        for rows in row_blocks(lanes):
            next_value[rows] = np.partition(lanes[rows], place, axis=2)[:, :, place]
    order = np.argsort(-next_value, axis=1, kind="stable")
    bids = np.take_along_axis(next_value, order[:, richer_lanes : richer_lanes + 1], axis=1)[:, 0]
    richer = np.full(pes, richer_lanes)
    richer[np.argsort(-bids, kind="stable")[:richer_pes]] += 1
    rank = np.argsort(order, axis=1)
    counts = per_lane + (rank < richer[:, None])
    return largest(lanes.reshape(-1, depth), counts.ravel()).reshape(lanes.shape)


def largest(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return which of ``values`` (rows, depth) are the ``counts[row]`` largest of their row, ties to the lower index.

    ``counts`` may differ by at most one between rows.
    """
    kept = np.empty(values.shape, bool)
    for rows in row_blocks(values):
        kept[rows] = _largest(values[rows], counts[rows])
    return kept


def _largest(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    depth = values.shape[1]
    low = int(counts.min())
    places = sorted({min(depth - 1, depth - low), max(0, depth - 1 - low)})
    parted = np.partition(values, places, axis=1)
    threshold = parted[np.arange(len(values)), np.minimum(depth - counts, depth - 1)]
    threshold = np.where(counts > 0, threshold, np.inf)[:, None]
    above, level = values > threshold, values == threshold
    missing = counts - above.sum(axis=1)
    kept: np.ndarray = above | level
    crowded = np.flatnonzero(level.sum(axis=1) > missing)
    kept[crowded] = above[crowded] | (level[crowded] & (np.cumsum(level[crowded], axis=1) <= missing[crowded, None]))
    return kept


def _largest_of_all(weight: np.ndarray, mask: np.ndarray, count: int) -> np.ndarray:
    """Return which of ``weight``, float32, are the ``count`` largest that ``mask`` leaves, ties to the lower index.

    Beside what is returned, nothing of the size of ``weight`` is made. The bits of magnitudes rise with them: counting
    upper halves, and then the lower ones of one upper half, finds the smallest that is kept.
    """
    check_weight(weight, mask)
    flat, left = weight.reshape(-1), mask.reshape(-1)

    def bits_left() -> Iterator[np.ndarray]:
        for part in row_blocks(flat):
            yield np.abs(flat[part][left[part]]).view(np.uint32)

    def place(counts: np.ndarray, wanted: int) -> tuple[int, int]:
        """Return where, from the top, ``wanted`` are reached, and how many of them are still wanted there."""
        above = np.cumsum(counts[::-1])
        found = int(np.searchsorted(above, wanted))
        return len(counts) - 1 - found, wanted - int(above[found] - counts[::-1][found])

    kept = np.zeros(flat.size, bool)
    if count:
        counts = np.zeros(2**16, np.int64)
        for bits in bits_left():
            counts += np.bincount(bits >> 16, minlength=len(counts))
        upper, missing = place(counts, count)
        counts[:] = 0
        for bits in bits_left():
            counts += np.bincount(bits[bits >> 16 == upper] & 0xFFFF, minlength=len(counts))
        lower, missing = place(counts, missing)
        smallest = np.uint32(upper << 16 | lower)
        for part in row_blocks(flat):
            bits = np.abs(flat[part]).view(np.uint32)
            level = np.flatnonzero((bits == smallest) & left[part])[:missing]
            missing -= len(level)
            kept[part] = (bits > smallest) & left[part]
            kept[part][level] = True
    return kept.reshape(weight.shape)


def magnitudes(weight: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return |weight|, and -1 where the mask has pruned: below every weight that is left, were it 0."""
    check_weight(weight, mask)
    # astype: the magnitude of the lowest integer is no integer of its dtype.
    return np.where(mask, np.abs(weight if weight.dtype.kind == "f" else weight.astype(np.float64)), -1)


def check_weight(weight: np.ndarray, mask: np.ndarray) -> None:
    """Raise InputError unless ``weight`` is finite, and ``mask`` bool and of its shape."""
    if mask.shape != weight.shape or mask.dtype != bool:
        raise InputError(f"mask must be bool of the weight's shape {weight.shape}, not {mask.dtype} {mask.shape}")
    if first_not_finite(weight) is not None:
        raise InputError("weights must be finite to be pruned by magnitude, and some are not; lower the learning rate")


def _demand(mask: np.ndarray, count: int) -> None:
    left = int(np.count_nonzero(mask))
    if count > left:
        raise InputError(
            f"sparsity must not be below that of the mask: {count} of {mask.size} weights would be kept, "
            f"and {left} are left; raise the sparsity"
        )
