"""Mask patterns: the promise a pruned weight makes about where its nonzeros lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .blocks import first_where, row_blocks
from .errors import InputError, shown

KINDS = ("dense", "unstructured", "n:m", "balanced", "block", "kernel-pattern")
LARGEST = 2**31 - 1  # of a pattern's numbers
SCOPES = ("pe", "pe-column")


@dataclass(frozen=True)
class Pattern:
    """Where the nonzeros of a weight may lie.

    ``n:m``: at most ``n`` of every ``m`` consecutive weights along ``axis`` are nonzero; the last group
    is short where ``m`` does not divide the axis (hardware fills it with zeros).
    ``balanced``: rows interleaved over ``pe_count`` processing elements (row r on r % pe_count); every PE, or every
    PE in every column (``scope`` "pe" or "pe-column"), keeps the same share of its weights, to within one weight.
    ``block``: tiles of ``block`` (rows, columns) are kept or pruned whole.
    ``kernel-pattern``: every kernel of a convolution keeps at most ``n`` weights, and the places that kernels keep are
    one of ``m`` choices in all; a kernel may be pruned whole.
    """

    kind: str = "unstructured"
    n: int | None = None
    m: int | None = None
    axis: int | None = None
    pe_count: int | None = None
    scope: str | None = None
    block: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        wanted = {"n:m": ("n", "m", "axis"), "balanced": ("pe_count", "scope"), "block": ("block",)}
        wanted["kernel-pattern"] = ("n", "m")
        if self.kind not in KINDS:
            raise InputError(f"pattern kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        block: object = self.block
        if isinstance(block, list):
            object.__setattr__(self, "block", tuple(block))
        for name in ("n", "m", "axis", "pe_count", "scope", "block"):
            needed = name in wanted.get(self.kind, ())
            if needed == (getattr(self, name) is None):
                rule = "needs" if needed else "takes no"
                raise InputError(f"pattern {self.kind} {rule} {name}, and has {getattr(self, name)!r}")
        for name, value in (("n", self.n), ("m", self.m), ("axis", self.axis), ("pe_count", self.pe_count)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
                raise InputError(f"pattern {self.kind}: {name} must be a whole number, not {shown(value)}")
            if value is not None and value > LARGEST:
                raise InputError(f"pattern {self.kind}: {name} must be at most {LARGEST}, not {shown(value)}")
        if (
            self.n is not None
            and self.m is not None
            and self.axis is not None
            and not (0 < self.n <= self.m and self.axis >= 0)
        ):
            raise InputError(f"pattern n:m needs 0 < n <= m and axis >= 0, not {self.n}:{self.m} on axis {self.axis}")
        if self.kind == "kernel-pattern" and not (
            self.n is not None and self.m is not None and min(self.n, self.m) > 0
        ):
            raise InputError(f"pattern kernel-pattern needs n >= 1 and m >= 1, not {self.n} and {self.m}")
        if self.pe_count is not None and (self.scope not in SCOPES or self.pe_count < 1):
            raise InputError(
                f"pattern balanced needs pe_count >= 1 and scope {' or '.join(SCOPES)}, "
                f"not {self.pe_count!r} and {self.scope!r}"
            )
        if self.block is not None and not _is_tile(self.block):
            raise InputError(f"pattern block needs two whole sides of at least 1, not {self.block!r}")

    def check(self, kept: np.ndarray, where: str) -> None:
        """Raise InputError, naming ``where`` and the place, unless the nonzeros of ``kept`` keep the pattern."""
        if self.kind == "n:m":
            self._check_nm(kept, where)
        elif self.kind == "balanced":
            self._check_balanced(kept, where)
        elif self.kind == "block":
            self._check_block(kept, where)
        elif self.kind == "kernel-pattern":
            self._check_kernels(kept, where)

    def _check_nm(self, kept: np.ndarray, where: str) -> None:
        assert self.n is not None and self.m is not None and self.axis is not None
        if self.axis >= kept.ndim:
            raise InputError(
                f"{where}: {self.n}:{self.m} groups must lie along an axis of the weight, not {self.axis}: "
                f"its shape is {kept.shape}"
            )
        lanes = np.moveaxis(kept, self.axis, -1)
        n, m = self.n, min(self.m, lanes.shape[-1])  # a group longer than the axis is the axis
        place = first_where(lambda part: _group_counts(part, m) > n, lanes)
        if place is not None:
            found = _group_counts(lanes[place[:-1]], m)[place[-1]]
            raise InputError(
                f"{where}: weight must keep {self.n}:{self.m} along axis {self.axis}, and group {place[-1]} "
                f"of row {place[:-1]} has {found} nonzeros; prune it again"
            )

    def _check_balanced(self, kept: np.ndarray, where: str) -> None:
        assert self.pe_count is not None
        matrix = kept.reshape(kept.shape[0], -1)
        axis = 0 if self.scope == "pe-column" else None
        slices = [matrix[pe :: self.pe_count] for pe in range(min(self.pe_count, len(matrix)))]
        kept_of = np.array([np.count_nonzero(s, axis=axis) for s in slices])
        size_of = np.array([np.full(s.shape[1], s.shape[0]) if axis == 0 else s.size for s in slices])
        share = kept_of.sum() / matrix.size
        # One weight of slack either way: a share of a PE's weights is seldom a whole number.
        off = np.abs(kept_of - share * size_of) > 1 + 1e-9  # the share is rounded
        if off.any():
            place = tuple(int(i) for i in np.argwhere(off)[0])
            slot = f"PE {place[0]}" + (f" in column {place[1]}" if axis == 0 else "")
            raise InputError(
                f"{where}: balanced over {self.pe_count} PEs, each {self.scope} must keep a share of {share:.4g} "
                f"to within one weight, and {slot} keeps {kept_of[place]} of {size_of[place]}; prune it again"
            )

    def _check_block(self, kept: np.ndarray, where: str) -> None:
        assert self.block is not None
        matrix = kept.reshape(kept.shape[0], -1)
        # A tile larger than the matrix covers what the matrix does.
        tall, wide = (min(side, tile) for side, tile in zip(matrix.shape, self.block, strict=True))
        left = np.arange(0, matrix.shape[1], wide)
        widths = np.minimum(wide, matrix.shape[1] - left)
        for rows in row_blocks(matrix, multiple=tall):
            top = np.arange(0, rows.stop - rows.start, tall)
            heights = np.minimum(tall, rows.stop - rows.start - top)
            columns = np.add.reduceat(matrix[rows] != 0, top, axis=0, dtype=np.int64)
            full, have = np.outer(heights, widths), np.add.reduceat(columns, left, axis=1)
            torn = np.argwhere((have > 0) & (have < full))
            if len(torn):
                down, across = (int(i) for i in torn[0])
                raise InputError(
                    f"{where}: tiles of {self.block} must be kept or pruned whole, and tile "
                    f"{(rows.start // tall + down, across)} keeps {have[down, across]} of {full[down, across]} "
                    "weights; give the mask, or prune it again"
                )

    def _check_kernels(self, kept: np.ndarray, where: str) -> None:
        assert self.n is not None and self.m is not None
        if kept.ndim != 4:
            raise InputError(f"{where}: kernel patterns are those of a conv2d's weight, not of one of {kept.shape}")
        kernels = (kept != 0).reshape(-1, kept.shape[2] * kept.shape[3])
        counts = kernels.sum(axis=1)
        if (counts > self.n).any():
            place = divmod(int(np.argmax(counts > self.n)), kept.shape[1])
            raise InputError(
                f"{where}: a kernel must keep at most {self.n} weights, and kernel {place} keeps "
                f"{counts[counts > self.n][0]}; prune it again"
            )
        choices = len(np.unique(np.packbits(kernels[counts > 0], axis=1), axis=0))
        if choices > self.m:
            raise InputError(
                f"{where}: kernels must keep one of {self.m} patterns, and have {choices}; give the mask, or prune it "
                "again"
            )


def _group_counts(lanes: np.ndarray, m: int) -> np.ndarray:
    """Return the nonzeros of each group of ``m`` along the last axis; the last group may be short."""
    kept = lanes != 0
    short = -kept.shape[-1] % m
    if short:
        kept = np.pad(kept, [(0, 0)] * (kept.ndim - 1) + [(0, short)])
    return np.asarray(kept.reshape(*kept.shape[:-1], -1, m).sum(axis=-1))


def _is_tile(block: object) -> bool:
    return (
        isinstance(block, tuple)
        and len(block) == 2
        and all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in block)
    )
