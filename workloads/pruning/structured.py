"""Structured pruning: which groups, tiles, kernels and channels of a weight are kept. Pure functions, numpy alone.

As in `unstructured`: what is pruned stays pruned, ties go to the lower index, counts are exact. Whole pieces are ranked
by their L2 norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from ..blocks import row_blocks
from ..errors import InputError
from .unstructured import Masks, check_weight, kept_count, largest, magnitudes

SMALL = 16  # weights of a group of which comparing each with each costs less than sorting


def n_of_m(weight: np.ndarray, mask: np.ndarray, n: int, m: int, axis: int = 1, *, pad: bool = False) -> np.ndarray:
    """Return the mask of the ``n`` largest of every ``m`` consecutive weights along ``axis``; any shape.

    Axis 1 is that of the input channels, of (out, in) and (out, in, height, width) alike. Groups never straddle rows:
    a side that is no whole number of groups is refused, unless ``pad`` lengthens it by zeros; of the short group at
    its end the share n / m of its weights is kept, rounded up.
    Source: Mishra et al., arXiv 2104.08378 (ASP).
    """
    check_groups(weight.shape, n, m, axis, pad=pad)
    if not axis:
        return _n_of_m(weight, mask, n, m, axis)
    check_weight(weight, mask)
    kept = np.empty(weight.shape, bool)
    for rows in row_blocks(weight):  # sorting takes several times what is sorted
        kept[rows] = _n_of_m(weight[rows], mask[rows], n, m, axis)
    return kept


def _n_of_m(weight: np.ndarray, mask: np.ndarray, n: int, m: int, axis: int) -> np.ndarray:
    values = np.moveaxis(magnitudes(weight, mask), axis, -1)
    side = values.shape[-1]
    whole = side - side % m
    kept = np.zeros(values.shape, bool)
    for part, group in ((slice(0, whole), m), (slice(whole, side), side % m)):
        groups = values[..., part].reshape(-1, max(group, 1))
        if groups.size:
            kept[..., part] = _largest_of_group(groups, -(-group * n // m)).reshape(values[..., part].shape)
    kept_groups: np.ndarray = np.logical_and(np.moveaxis(kept, -1, axis), mask)
    return kept_groups


def _largest_of_group(groups: np.ndarray, count: int) -> np.ndarray:
    """Return which of ``groups`` (groups, m) are the ``count`` largest of theirs, ties to the lower index."""
    if groups.shape[1] > SMALL:
        return largest(groups, np.full(len(groups), count))
    lanes = np.ascontiguousarray(groups.T)
    ahead = np.zeros(lanes.shape, np.uint8)  # how many of its group come before each
    for later in range(1, len(lanes)):
        for earlier in range(later):
            larger = lanes[later] > lanes[earlier]
            ahead[earlier] += larger
            ahead[later] += ~larger
    return np.asarray((ahead < count).T)


def check_groups(shape: tuple[int, ...], n: int, m: int, axis: int, *, pad: bool) -> None:
    """Raise InputError unless groups of ``m`` of which ``n`` are kept tile ``axis`` of a weight of ``shape``."""
    if not 0 < n <= m:
        raise InputError(f"n:m needs 0 < n <= m, not {n}:{m}")
    if not 0 <= axis < len(shape):
        raise InputError(f"axis must be one of the {len(shape)} of a weight of shape {shape}, not {axis}")
    if shape[axis] % m and not pad:
        raise InputError(
            f"groups of {m} must tile axis {axis} of the weight, whose shape is {shape}; "
            "set pad to lengthen it by zeros, or name the layer in exclude"
        )


def tiles(weight: np.ndarray, mask: np.ndarray, sparsity: float, tile: tuple[int, int]) -> np.ndarray:
    """Return the mask that keeps the tiles of largest norm, whole, of the matrix (out, everything else).

    ``tile`` is (rows, columns): square blocks, or (1, length) for vectors, segments of a row. Tiles at the edges are
    smaller, one larger than the matrix covers what the matrix does; their number counts, `kept_count` of it being kept.
    Source: Narang et al., arXiv 1711.02782 (blocks).
    """
    tile = _within(tile, weight.shape)
    return _whole(_strongest(_pieces(weight, mask, tile), (1, 3), sparsity), tile, mask)


def equal_tiles(weight: np.ndarray, mask: np.ndarray, sparsity: float, tile: tuple[int, int]) -> np.ndarray:
    """Return the mask that keeps, in every row of tiles, the same number of them, those of largest norm.

    As `tiles`, but a row of tiles keeps `kept_count` of its own. So pruned, a weight in Block-ELLPACK needs no padding.
    Raises InputError where ``mask`` left a row less than that: start from a full mask, or one that this function made.
    Source: NVIDIA, cuSPARSE documentation, "Blocked-Ellpack (Blocked-ELL)".
    """
    tile = _within(tile, weight.shape)
    pieces = _pieces(weight, mask, tile)
    norms = _norms(pieces, (1, 3))
    count = kept_count(norms.shape[1], sparsity)
    kept = largest(norms, np.full(len(norms), count))
    short = (kept & (norms < 0)).any(axis=1)
    if short.any():
        row = int(short.argmax())
        raise InputError(
            f"each row of tiles must have {count} of {norms.shape[1]} left to keep, and row {row} has "
            f"{int((norms[row] >= 0).sum())}; start from a full mask, or from one of equal tiles"
        )
    return _whole(kept, tile, mask)


def filled(mask: np.ndarray, tile: tuple[int, int]) -> np.ndarray:
    """Return ``mask`` with every tile of which it keeps anything kept whole, as formats that store whole tiles do."""
    tile = _within(tile, mask.shape)
    matrix = mask.reshape(len(mask), -1)
    tops, lefts = (np.arange(0, side, step) for side, step in zip(matrix.shape, tile, strict=True))
    kept = np.logical_or.reduceat(np.logical_or.reduceat(matrix, tops, axis=0), lefts, axis=1)
    return _whole(kept, tile, np.ones(mask.shape, bool))


def kernels(weight: np.ndarray, mask: np.ndarray, sparsity: float) -> np.ndarray:
    """Return the mask that keeps the kernels of largest norm: of a convolution (out, in, ...), its (out, in) pairs.

    Raises InputError for a weight that has no kernels.
    """
    if weight.ndim < 3:
        raise InputError(f"kernels are those of convolutions, of 3 dimensions or more, not {weight.shape}")
    values = magnitudes(weight, mask).reshape(*weight.shape[:2], -1)
    kept = _strongest(values, (2,), sparsity)
    found: np.ndarray = np.logical_and(kept.reshape(kept.shape + (1,) * (weight.ndim - 2)), mask)
    return found


def channels(weight: np.ndarray, mask: np.ndarray, sparsity: float) -> np.ndarray:
    """Return the mask that keeps the output channels of largest norm: whole rows of (out, ...).

    Source: He et al., IJCAI 2018; Li et al., ICLR 2017.
    """
    values = magnitudes(weight, mask).reshape(weight.shape[0], -1)
    kept = _strongest(values, (1,), sparsity)
    found: np.ndarray = np.logical_and(kept.reshape((-1,) + (1,) * (weight.ndim - 1)), mask)
    return found


def by_scale(scales: Mapping[str, np.ndarray], sparsity: float) -> Masks:
    """Return which channels of largest |scale| are kept, one threshold for all layers, at least one in each.

    ``scales`` are the 1-D batch-norm weights by name. Source: Liu et al., ICCV 2017 (network slimming).
    """
    if not scales:
        return {}
    sizes = [scale.size for scale in scales.values()]
    flat = np.concatenate(list(scales.values()))
    values = magnitudes(flat, np.ones(flat.shape, bool))
    ends = np.cumsum(sizes)
    for piece in np.split(values, ends[:-1]):
        piece[np.argmax(piece)] = np.inf  # a layer without channels would cut the network in two
    count = max(kept_count(flat.size, sparsity), len(sizes))
    kept = largest(values.reshape(1, -1), np.array([count])).ravel()
    return dict(zip(scales, np.split(kept, ends[:-1]), strict=True))


def _strongest(values: np.ndarray, axes: tuple[int, ...], sparsity: float) -> np.ndarray:
    """Return which pieces of ``values`` are kept, those of largest norm over ``axes``; pruned values are negative."""
    norms = _norms(values, axes)
    count = kept_count(norms.size, sparsity)
    left = int(np.count_nonzero(norms >= 0))
    if count > left:
        raise InputError(
            f"sparsity must not be below that of the mask: {count} of {norms.size} pieces would be kept, "
            f"and {left} are left; raise the sparsity"
        )
    return largest(norms.reshape(1, -1), np.array([count])).reshape(norms.shape)


def _norms(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return the squared norm of each piece of ``values``, over ``axes`` but the first; -1 where all are negative."""
    norms = np.empty([side for axis, side in enumerate(values.shape) if axis not in axes])
    for rows in row_blocks(values):
        part = values[rows]
        norms[rows] = np.square(np.maximum(part, 0.0), dtype=np.float64).sum(axis=axes)
        norms[rows][(part < 0).all(axis=axes)] = -1
    return norms


def _pieces(weight: np.ndarray, mask: np.ndarray, tile: tuple[int, int]) -> np.ndarray:
    """Return the magnitudes of the matrix (out, everything else) in tiles (rows, height, columns, width), -1 beyond."""
    matrix = magnitudes(weight, mask).reshape(weight.shape[0], -1)
    tall, wide = tile
    rows, cols = -(-matrix.shape[0] // tall), -(-matrix.shape[1] // wide)
    padded = np.full((rows * tall, cols * wide), -1, matrix.dtype)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return padded.reshape(rows, tall, cols, wide)


def _whole(kept: np.ndarray, tile: tuple[int, int], mask: np.ndarray) -> np.ndarray:
    """Return the mask of the weights that lie in the tiles ``kept``, of those that ``mask`` left."""
    rows, cols = mask.reshape(len(mask), -1).shape
    whole = np.repeat(np.repeat(kept, tile[0], axis=0), tile[1], axis=1)[:rows, :cols]
    found: np.ndarray = np.logical_and(whole.reshape(mask.shape), mask)
    return found


def _within(tile: tuple[int, int], shape: tuple[int, ...]) -> tuple[int, int]:
    """Return ``tile``, no larger than the matrix (out, everything else) of a weight of ``shape``. Raises InputError."""
    if len(tile) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in tile):
        raise InputError(f"a tile needs two whole sides of at least 1, not {tile!r}")
    return min(tile[0], shape[0]), min(tile[1], prod(shape[1:]))
