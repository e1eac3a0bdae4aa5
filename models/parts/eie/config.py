"""The configuration of EIE, and the units that it makes."""

from __future__ import annotations

import msgspec

from ..ranges import check_bounds, check_either, check_positive


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An EIE array. Capacities are those of one PE; exceeding one is a warning in the result, not an error.

    ``pe_count``: processing elements. ``queue_depth``: ring slots of an activation queue, one of which stays empty.
    ``index_bits``, ``code_bits``: an entry's run of zeros and its code. ``entries_per_row``: entries in one row of the
    matrix SRAM. ``clock_hz``. ``spmat_bytes``, ``ptr_bytes``, ``act_sram_bytes``: SRAMs; ``pointer_bits``: a pointer.
    ``act_registers``: words in each of the two activation register files. ``act_batches``: run vectors (in or out)
    longer than pe_count x act_registers in batches through the activation SRAM, and charge its reads and writes.
    ``weights``: "codebook" shares 2**code_bits - 1 values, "exact" keeps them all (timing is the same).
    ``word_bits``: fixed-point words of weights, activations and accumulators. ``energy``: an energy table.
    """

    pe_count: int
    queue_depth: int
    index_bits: int
    code_bits: int
    entries_per_row: int
    clock_hz: float
    spmat_bytes: int
    ptr_bytes: int
    pointer_bits: int
    act_registers: int
    act_sram_bytes: int
    act_batches: bool
    weights: str
    word_bits: int
    energy: str

    def __post_init__(self) -> None:
        bounds = {
            "pe_count": (1, 8192), "queue_depth": (2, 1 << 20), "index_bits": (2, 8), "code_bits": (1, 8),
            "entries_per_row": (1, 1024), "spmat_bytes": (1, 1 << 40), "ptr_bytes": (1, 1 << 40),
            "pointer_bits": (1, 64), "act_registers": (1, 1 << 30), "act_sram_bytes": (0, 1 << 40),
            "word_bits": (2, 24),
        }  # fmt: skip
        check_bounds(self, bounds)
        check_positive(self, "clock_hz")
        check_either(self, {"weights": ("codebook", "exact")})


def units(config: Config) -> dict[str, int]:
    """Return how many of each unit the machine has; the leading-nonzero detectors form a quadtree over the PEs."""
    nodes, width = 0, config.pe_count
    while width > 1:
        width = -(-width // 4)
        nodes += width
    return {"pe": config.pe_count, "lnzd_node": nodes}
