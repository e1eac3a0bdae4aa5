"""ESE's configuration: channels of processing elements, and what surrounds them."""

from __future__ import annotations

import math

import msgspec

from ..ranges import check_bounds, check_either, check_positive

SCHEDULES = ("overlapped", "serial")
ORDERS = ("inputs-first", "gate-by-gate")
RANGES = (2.0**-20, 2.0**20)  # of a table: intervals stay apart in float64


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An ESE engine.

    ``channels``: voice vectors that run at once, each in a channel of its own, all on the same weights. ``pe_count``:
    processing elements of a channel; row r of a matrix belongs to PE r % pe_count. ``queue_depth``: elements that an
    activation queue holds. ``weight_bits``, ``index_bits``: a stored entry, a weight and the zeros before it.
    ``pointer_bits``: a pointer. ``word_bits``: activations, cells and gates. ``accumulator_bits``: sums on their way.
    ``table_points``: samples in each of the tables of sigmoid and tanh, which cover +-``sigmoid_range`` and
    +-``tanh_range``; between samples a table is read by linear interpolation. ``outputs_per_cycle``: results that the
    element-wise unit of a channel takes from its PEs in a cycle; ``elementwise_latency``: cycles from the last of them
    to the end of its work on them. ``clock_hz``. ``dram_bytes_per_s``: the stream of weights and pointers.
    ``buffer_bytes``: on-chip memory for two matrices, one in use and one on its way. ``schedule``: "overlapped" lets
    the element-wise unit work on one matrix's results while the next is multiplied, "serial" does not. ``order``: of
    the matrices in a step, "inputs-first" (all that meet the input, then all that meet the hidden state) or
    "gate-by-gate". ``skip_zeros``: leave out the elements that are 0 in all channels. ``energy``: an energy table.
    """

    channels: int
    pe_count: int
    queue_depth: int
    weight_bits: int
    index_bits: int
    pointer_bits: int
    word_bits: int
    accumulator_bits: int
    table_points: int
    sigmoid_range: float
    tanh_range: float
    outputs_per_cycle: int
    elementwise_latency: int
    clock_hz: float
    dram_bytes_per_s: float
    buffer_bytes: int
    schedule: str
    order: str
    skip_zeros: bool
    energy: str

    def __post_init__(self) -> None:
        bounds = {
            "channels": (1, 4096), "pe_count": (1, 8192), "queue_depth": (1, 1 << 20), "weight_bits": (2, 16),
            "index_bits": (2, 8), "pointer_bits": (1, 64), "word_bits": (4, 24), "accumulator_bits": (4, 44),
            "table_points": (2, 1 << 20), "outputs_per_cycle": (1, 1 << 20), "elementwise_latency": (0, 1 << 20),
            "buffer_bytes": (0, 1 << 40),
        }  # fmt: skip
        check_bounds(self, bounds)
        for name in ("sigmoid_range", "tanh_range"):
            if not RANGES[0] <= getattr(self, name) <= RANGES[1]:
                raise ValueError(f"{name} must be from 2^-20 to 2^20, not {getattr(self, name)}")
        check_positive(self, "clock_hz", "dram_bytes_per_s")
        check_either(self, {"schedule": SCHEDULES, "order": ORDERS})

    def fetch_cycles(self, size_bytes: int) -> int:
        """Return the cycles in which memory delivers ``size_bytes``, the last of them counted whole."""
        cycles = size_bytes * self.clock_hz / self.dram_bytes_per_s
        return math.ceil(round(cycles, 6))  # a product that is whole but for the last bit of a float is whole

    def pass_cycles(self, outputs: int) -> int:
        """Return the cycles of the element-wise unit for the ``outputs`` of a matrix."""
        return -(-outputs // self.outputs_per_cycle) + self.elementwise_latency
