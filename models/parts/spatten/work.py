"""SpAtten's configuration, the queries that pass its pipeline, and what an engine finds of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ..ranges import check_bounds, check_positive, check_shares

if TYPE_CHECKING:
    from ....workloads.trace import Layer

UNITS = ("query_key", "softmax", "quick_select", "filter", "prob_value")


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SpAtten. Values are computed in float32; ``word_bits`` sets what they take to keep and move.

    ``clock_hz``. ``multipliers``: of each of the two arrays. ``softmax_lanes``: exponentials a cycle. ``comparators``:
    of the top-k engine. ``pass_latency``: cycles of a pass of quick-select after its last row. ``pipeline_latency``:
    cycles through the empty pipeline. ``queue_depth``: queries that wait between two units. ``value_keep``: share of
    the probabilities of a query whose values are used. ``token_keep``: share of the tokens that a ranking at the end of
    the layer keeps. ``key_sram_bytes``, ``value_sram_bytes``: each for two heads.
    ``dram_bandwidth_bytes_per_s``. ``dram_bounds_latency``: a layer takes as long as its traffic where that is longer.
    ``seed``: of the pivots.
    """

    clock_hz: float
    multipliers: int
    softmax_lanes: int
    comparators: int
    pass_latency: int
    pipeline_latency: int
    queue_depth: int
    value_keep: float
    token_keep: float
    word_bits: int
    key_sram_bytes: int
    value_sram_bytes: int
    dram_bandwidth_bytes_per_s: float
    dram_bounds_latency: bool
    seed: int

    def __post_init__(self) -> None:
        bounds = {
            "multipliers": (1, 1 << 20), "softmax_lanes": (1, 1 << 16), "comparators": (1, 1 << 16),
            "pass_latency": (0, 1 << 16), "pipeline_latency": (0, 1 << 20), "queue_depth": (1, 1 << 16),
            "word_bits": (1, 64), "key_sram_bytes": (1, 1 << 50), "value_sram_bytes": (1, 1 << 50),
            "seed": (0, 1 << 62),
        }  # fmt: skip
        check_bounds(self, bounds)
        check_positive(self, "clock_hz", "dram_bandwidth_bytes_per_s")
        check_shares(self, "value_keep", "token_keep")

    def array_cycles(self, words: int, size: int) -> int:
        """Return the cycles in which an array multiplies ``words`` vectors of ``size``."""
        lanes = self.multipliers // size
        return -(-words // lanes) if lanes else words * -(-size // self.multipliers)


@dataclass(frozen=True)
class Work:
    """A layer's heads: ``heads`` products of ``queries`` with ``keys`` of ``size``, of ``samples`` alike.

    ``kept``: values a query. ``ranked``: tokens that are kept of a sample; with all of them, nothing is ranked.
    """

    heads: int
    queries: int
    keys: int
    size: int
    samples: int
    kept: int
    ranked: int


@dataclass(frozen=True, eq=False)
class Run:
    """What an engine found: ``chosen`` (queries, keys) bool, ``end`` when the last unit is done, and cycles by unit.

    ``busy`` and ``blocked``: by unit. ``figures``: comparisons, passes, and words in and out of the two FIFOs.
    """

    chosen: np.ndarray
    end: int
    busy: list[int]
    blocked: list[int]
    figures: dict[str, int]


@dataclass(frozen=True, eq=False)
class Jobs:
    """What passes through the units in order: ``rows`` (jobs, keys) of scores, of each of which ``counts`` are kept.

    ``query``, bool: a query's probabilities; the others are the tokens of a sample, which the top-k engine alone ranks.
    """

    rows: np.ndarray
    counts: np.ndarray
    query: np.ndarray


def jobs_of(layer: Layer, work: Work) -> Jobs:
    """Return the queries of each sample, head after head, and behind them its tokens where these are ranked."""
    rows = layer.inputs.reshape(work.samples, -1, work.keys)
    query = np.ones(rows.shape[:2], bool)
    if work.ranked < work.keys:
        importance = rows.sum(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        rows = np.concatenate([rows, importance], axis=1)
        query = np.pad(query, ((0, 0), (0, 1)))
    counts = np.where(query, work.kept, work.ranked).astype(np.int64)
    return Jobs(np.ascontiguousarray(rows.reshape(-1, work.keys)), counts.ravel(), query.ravel())
