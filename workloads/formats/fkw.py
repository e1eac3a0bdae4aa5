"""Filter-kernel-weight: the compressed form of a convolution whose kernels keep a few patterns.

Filters are sorted by how many kernels they keep, so that those of one length lie together, and within a length so that
neighbours are alike; the kernels of a filter are sorted by pattern. What then has to be stored is, beside the weights,

    offset   (filters + 1)              where the kernels of each filter start
    reorder  (filters)                  which filter of the layer each is
    index    (kernels)                  which input channel each kernel meets
    stride   (filters, patterns + 1)    where the kernels of each pattern start within their filter
    weight   (kernels x kept)           the kept weights of each kernel, packed

Source: Niu et al., ASPLOS 2020 (arXiv 2001.00138), sections 5.2 and 5.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ..blocks import row_blocks
from ..errors import InputError

PLACES_LIMIT = 62  # of a kernel: its pattern is one 64-bit word
OFFSET_BITS = 32
INDEX_BITS = 16  # of a channel, a filter, and a start within a filter


@dataclass(frozen=True, eq=False)
class Fkw:
    """A weight of ``shape`` (out, in, height, width) in filter-kernel-weight form; arrays as the module says.

    ``patterns`` is (patterns, height x width) bool; ``weight`` has the dtype of the weight, a kernel's places in order.
    Patterns may keep different numbers of weights: ``kept`` is (patterns,) of them.
    """

    shape: tuple[int, ...]
    patterns: np.ndarray
    offset: np.ndarray
    reorder: np.ndarray
    index: np.ndarray
    stride: np.ndarray
    weight: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Return how many weights each pattern keeps, (patterns,) int64."""
        kept: np.ndarray = self.patterns.sum(axis=1)
        return kept

    @property
    def pattern_of(self) -> np.ndarray:
        """Return the pattern of each stored kernel, (kernels,) int64."""
        runs = np.diff(self.stride, axis=1).ravel()
        return np.repeat(np.tile(np.arange(len(self.patterns)), len(self.reorder)), runs)

    @property
    def starts(self) -> np.ndarray:
        """Return where the weights of each stored kernel start, (kernels + 1,) int64."""
        return np.concatenate([[0], np.cumsum(self.kept[self.pattern_of])])

    def bits(self, value_bits: int | None = None) -> dict[str, int]:
        """Return the storage by part, in bits; ``value_bits`` of a weight, those of its dtype where not given."""
        bits = 8 * self.weight.itemsize if value_bits is None else value_bits
        return {
            "weight": self.weight.size * bits,
            "index": self.index.size * INDEX_BITS,
            "stride": self.stride.size * INDEX_BITS,
            "offset": self.offset.size * OFFSET_BITS,
            "reorder": self.reorder.size * INDEX_BITS,
        }


def csr_bits(weight: np.ndarray, value_bits: int, index_bits: int = 32) -> dict[str, int]:
    """Return the bits of ``weight`` as rows of a compressed sparse matrix, (out, everything else), by part.

    ``index_bits``: of a column; 32 is what libraries take. Pointers have 32.
    """
    nonzeros = int(np.count_nonzero(weight))
    return {
        "weight": nonzeros * value_bits,
        "column": nonzeros * index_bits,
        "pointer": (len(weight) + 1) * OFFSET_BITS,
    }


def supports(kept: np.ndarray, limit: int = 56, where: str = "weight") -> tuple[np.ndarray, np.ndarray]:
    """Return the patterns of the kernels of ``kept``, and which one each kernel has: the ``limit`` most frequent.

    ``kept`` is (out, in, height, width), nonzero where a weight is kept. The result is (patterns, height x width) bool,
    the most frequent first, ties to the one of earlier places, and (out, in) int32, -1 for kernels pruned whole. A
    kernel whose places are none of these takes the smallest pattern that covers it; where there is none, the full
    kernel is a pattern as well.
    """
    if kept.ndim != 4:
        raise InputError(f"{where}: kernels are those of convolutions, (out, in, height, width), not {kept.shape}")
    places = kept.shape[2] * kept.shape[3]
    if places > PLACES_LIMIT:
        raise InputError(
            f"{where}: a kernel must have at most {PLACES_LIMIT} places, not {kept.shape[2]} x {kept.shape[3]}"
        )
    if limit < 1:
        raise InputError(f"{where}: at least 1 pattern is needed, not {limit}")
    kernels, bits = kept.reshape(-1, places), np.int64(1) << np.arange(places)
    words = np.empty(len(kernels), np.int64)
    for rows in row_blocks(kernels):
        words[rows] = (kernels[rows] != 0) @ bits
    found, inverse, counts = np.unique(words, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    order = order[found[order] != 0]
    coded = found[order[:limit]]
    full = (np.int64(1) << places) - 1
    rank = np.full(len(found), -1, np.int32)
    rank[order[:limit]] = np.arange(len(coded), dtype=np.int32)
    rest = order[limit:]
    if len(rest):
        if full not in coded:
            coded = np.append(coded, full)
        sizes = np.bitwise_count(coded).astype(np.int64)
        covers = (coded[None] & found[rest][:, None]) == found[rest][:, None]
        rank[rest] = np.where(covers, sizes[None], places + 1).argmin(axis=1)
        used = np.isin(np.arange(len(coded)), rank)
        rank = np.where(rank >= 0, np.cumsum(used)[rank] - 1, -1).astype(np.int32)
        coded = coded[used]
    patterns = (coded[:, None] >> np.arange(places)) & 1 != 0
    return patterns, rank[inverse].reshape(kept.shape[:2])


def filter_order(pattern_of: np.ndarray) -> np.ndarray:
    """Return the filters in the order of the filter-kernel reorder, (filters,) int64.

    ``pattern_of`` is (out, in) int32, -1 for a kernel pruned whole. Filters of fewer kernels come first; of those of
    one length the first is that of lowest number, and each next one is the most similar to the one before: with the
    most kernels of equal pattern in equal place, then with the most channels under equal pattern, then the lowest.
    """
    lengths = (pattern_of >= 0).sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    # (filters, channels): patterns in the order in which the filter's kernels are stored
    stored = np.sort(np.where(pattern_of < 0, np.iinfo(np.int32).max, pattern_of), axis=1).astype(np.int32)
    _chain(np.ascontiguousarray(pattern_of), stored, lengths, order)
    return order


def encode(weight: np.ndarray, *, limit: int = 56, where: str = "weight") -> Fkw:
    """Return ``weight``, (out, in, height, width) of any real dtype, in filter-kernel-weight form.

    ``limit``: as in `supports`. Raises InputError for what is no convolution's weight, or too large for the format's
    words.
    """
    patterns, pattern_of = supports(weight, limit, where)
    filters, channels = pattern_of.shape
    if max(filters, channels) >= 1 << INDEX_BITS:
        raise InputError(
            f"{where}: filters and channels must be below {1 << INDEX_BITS}, whose numbers take {INDEX_BITS} bits, "
            f"not {filters} and {channels}"
        )
    order = filter_order(pattern_of)
    ordered = pattern_of[order]
    # a stable sort by pattern: kernels of one pattern stay in the order of their channels; the pruned ones go last
    key = np.where(ordered < 0, len(patterns), ordered)
    by_pattern = np.argsort(key, axis=1, kind="stable")
    lengths = (ordered >= 0).sum(axis=1)
    slots = np.arange(channels) < lengths[:, None]
    index = by_pattern[slots]
    runs = len(patterns) + 1  # with that of the pruned kernels
    flat = np.arange(filters)[:, None] * runs + key
    counts = np.bincount(flat.ravel(), minlength=filters * runs).reshape(filters, runs)[:, :-1]
    stride = np.concatenate([np.zeros((filters, 1), np.int64), np.cumsum(counts, axis=1)], axis=1)
    rows = np.repeat(order, lengths)
    kernels = weight.reshape(filters, channels, -1)[rows, index]
    mine = patterns[np.take_along_axis(ordered, by_pattern, axis=1)[slots]]
    return Fkw(
        shape=weight.shape,
        patterns=patterns,
        offset=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        reorder=order.astype(np.int64),
        index=index.astype(np.int64),
        stride=stride.astype(np.int64),
        weight=kernels[mine],
    )


def decode(fkw: Fkw, where: str = "fkw") -> np.ndarray:
    """Return the weight that ``fkw`` stores, in its shape and dtype. Raises InputError naming what is damaged."""
    check(fkw, where)
    filters, channels = fkw.shape[:2]
    weight = np.zeros((filters, channels, fkw.patterns.shape[1]), fkw.weight.dtype)
    rows = np.repeat(fkw.reorder, np.diff(fkw.offset))
    kernels = np.zeros((len(rows), fkw.patterns.shape[1]), fkw.weight.dtype)
    kernels[fkw.patterns[fkw.pattern_of]] = fkw.weight
    weight[rows, fkw.index] = kernels
    return weight.reshape(fkw.shape)


def check(fkw: Fkw, where: str = "fkw") -> None:
    """Raise InputError, with ``where``, the array and the value, for the first rule that ``fkw`` breaks."""
    if len(fkw.shape) != 4 or min(fkw.shape) < 1:
        raise InputError(f"{where}: shape must be that of a convolution's weight, not {fkw.shape}")
    filters, channels = fkw.shape[:2]
    count = len(fkw.index)
    sizes = {
        "patterns": (fkw.patterns.shape, (len(fkw.patterns), fkw.shape[2] * fkw.shape[3])),
        "offset": (fkw.offset.shape, (filters + 1,)),
        "reorder": (fkw.reorder.shape, (filters,)),
        "index": (fkw.index.shape, (count,)),
        "stride": (fkw.stride.shape, (filters, len(fkw.patterns) + 1)),
    }
    for name, (met, wanted) in sizes.items():
        if met != wanted:
            raise InputError(f"{where}: {name} must be {wanted}, not {met}")
        if name != "patterns" and getattr(fkw, name).dtype.kind not in "iu":
            raise InputError(f"{where}: {name} must be whole numbers, not {getattr(fkw, name).dtype}")
    if fkw.offset[0] != 0 or fkw.offset[-1] != count or (np.diff(fkw.offset) < 0).any():
        raise InputError(f"{where}: offset must rise from 0 to the {count} kernels, and does not")
    if not np.array_equal(np.sort(fkw.reorder), np.arange(filters)):
        raise InputError(f"{where}: reorder must name each of the {filters} filters once, and does not")
    if count and (fkw.index.min() < 0 or fkw.index.max() >= channels):
        far = fkw.index.max() if fkw.index.max() >= channels else fkw.index.min()
        raise InputError(f"{where}: index must be channels from 0 to {channels - 1}, not {far}")
    ends = (fkw.stride[:, 0] == 0) & (fkw.stride[:, -1] == np.diff(fkw.offset))
    falls = (np.diff(fkw.stride, axis=1) < 0).any(axis=1)
    if falls.any() or not ends.all():
        place = int(np.flatnonzero(falls | ~ends)[0])
        raise InputError(f"{where}: stride must rise from 0 to the kernels of its filter, and row {place} does not")
    rows = np.repeat(np.arange(filters), np.diff(fkw.offset))
    if len(np.unique(rows * channels + fkw.index)) != count:
        raise InputError(f"{where}: index must name a channel once a filter, and one occurs twice")
    stored = int(fkw.kept[fkw.pattern_of].sum())
    if fkw.weight.shape != (stored,):
        raise InputError(f"{where}: weight must be ({stored},), one a place of each kernel, not {fkw.weight.shape}")


@njit(cache=True)
def _chain(pattern_of, stored, lengths, order):  # type: ignore[no-untyped-def]
    """Reorder ``order``, filters by length, within each length: each filter before the one that is most like it."""
    filters, channels = pattern_of.shape
    first = 0
    while first < filters:
        end = first
        while end < filters and lengths[order[end]] == lengths[order[first]]:
            end += 1
        length = lengths[order[first]]
        for place in range(first + 1, end):
            mine = order[place - 1]
            best, best_score = place, np.int64(-1)
            for other in range(place, end):
                score = np.int64(0)
                for slot in range(length):
                    score += stored[mine, slot] == stored[order[other], slot]
                score *= channels + 1
                for channel in range(channels):
                    score += (pattern_of[mine, channel] == pattern_of[order[other], channel]) & (
                        pattern_of[mine, channel] >= 0
                    )
                if score > best_score:  # of several the first, which has the lowest number
                    best, best_score = other, score
                if score == length * (channels + 2):
                    break  # none can be more alike
            chosen = order[best]
            for moved in range(best, place, -1):  # the others keep their order
                order[moved] = order[moved - 1]
            order[place] = chosen
        first = end
