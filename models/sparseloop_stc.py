"""The sparse tensor core of Sparseloop's design study: N:M weights, stationary, on 1,024 multipliers and one memory.

Four sub-partitions of 16 rows x 16 multipliers. A *step* is one column (an input vector) against 16 kept weights of
each of 64 rows: every row picks its 16 operands out of the 16 M/N consecutive inputs that its groups span, and adds one
sum to its accumulator. Rows choose differently, so shared memory delivers all 16 M/N inputs; in the same cycle it
delivers a share of the next weights, 1,024 of them (and their metadata) in the 128 columns for which the present ones
stay. It has 42 words a clock, and steps overlap nothing else:

    cycles = ceil(R * steps * C / 64 * max(1, (16 M/N + 8 + md) / 42)),    steps = ceil(K / (16 M/N))

for R rows, a reduction of K and C columns; md, the words of metadata a step, is the bits of a kept weight's metadata:
none dense, 2 for 2:4, 4 for 2:6 and 2:8 (3 kept in 4), 2 for 2:6 in run-length. A step of fewer rows takes that share
of a cycle: the rest is left to the next one. DRAM costs energy, not time.

Where operands lie is chosen as the study's mapper does, by the least traffic: see `Mapping`.
Source: Wu et al., "Sparseloop", MICRO 2022, section 7, and its artifact (architecture, dataflow and energies). The
closed form is derived from its reference outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ..simulator.result import LayerResult
from ..workloads.lowering import join, lower, reduction_axis

if TYPE_CHECKING:
    from ..simulator.machine import Machine
    from ..simulator.memo import Memo
    from ..simulator.result import Energy
    from ..simulator.timeline import Timeline
    from ..workloads.trace import Layer

OPS = ("linear", "conv2d", "matmul")
METADATA = ("coordinates", "run-length")
ERT_BASE = "sparseloop-stc-45nm-event"  # which energies an Accelergy reference table replaces


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sparseloop's sparse tensor core. Values are computed in float32; ``word_bits`` sets what they take to keep.

    ``subpartitions`` of ``rows_per_subpartition`` rows, each of ``reduction_lanes`` multipliers. ``columns_per_tile``:
    columns for which weights stay in the multipliers' registers. ``metadata``: "coordinates" in the group, or
    "run-length", the zeros before a kept weight. ``smem_bytes``, ``smem_words_per_clk``: shared memory. ``clock_hz``.
    ``energy``: an energy table. ``dense_energy``: that of layers that run dense, "" for the same.
    """

    subpartitions: int
    rows_per_subpartition: int
    reduction_lanes: int
    columns_per_tile: int
    metadata: str
    smem_bytes: int
    smem_words_per_clk: int
    word_bits: int
    clock_hz: float
    energy: str
    dense_energy: str

    def __post_init__(self) -> None:
        bounds = {
            "subpartitions": 1024, "rows_per_subpartition": 1024, "reduction_lanes": 1024, "columns_per_tile": 1 << 16,
            "smem_bytes": 1 << 50, "smem_words_per_clk": 1 << 20, "word_bits": 64,
        }  # fmt: skip
        for name, greatest in bounds.items():
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
            if value > greatest:
                raise ValueError(f"{name} must be at most {greatest}, not {value}")
        if self.metadata not in METADATA:
            raise ValueError(f"metadata must be {' or '.join(METADATA)}, not {self.metadata!r}")
        if not 0 < self.clock_hz < math.inf:
            raise ValueError(f"clock_hz must be above 0 and finite, not {self.clock_hz}")

    @property
    def rows(self) -> int:
        """Return how many rows take part in a step."""
        return self.subpartitions * self.rows_per_subpartition

    @property
    def multipliers(self) -> int:
        """Return the multipliers of all sub-partitions."""
        return self.rows * self.reduction_lanes


@dataclass(frozen=True)
class Scheme:
    """What the weights of a layer keep: ``n`` of ``m``, with ``bits`` of metadata each; dense is 1 of 1 with none."""

    n: int
    m: int
    bits: int

    @classmethod
    def of(cls, layer: Layer, metadata: str) -> Scheme:
        """Return the scheme of ``layer``: its N:M pattern where that lies along the inputs, else dense.

        Coordinates take log2(m) bits, run-lengths log2(m - n), at least 2; both rounded up to a power of two: 3 take 4.
        """
        pattern = layer.pattern
        if pattern.kind != "n:m" or pattern.axis != reduction_axis(layer):
            return cls(1, 1, 0)
        assert pattern.n is not None and pattern.m is not None
        n, m = pattern.n, pattern.m
        if n == m:
            return cls(1, 1, 0)
        choices = m if metadata == "coordinates" else min(m, max(m - n, 4))
        bits = (choices - 1).bit_length()
        return cls(n, m, 1 << (bits - 1).bit_length())

    @property
    def dense(self) -> bool:
        """Tell whether nothing is left out."""
        return self.n == self.m

    def words_per_step(self, config: Config) -> Fraction:
        """Return the words that shared memory delivers for a step of all rows: inputs, weights and metadata."""
        inputs = Fraction(config.reduction_lanes * self.m, self.n)
        weights = Fraction(config.multipliers, config.columns_per_tile)
        return inputs + weights * (1 + Fraction(self.bits, config.word_bits))


@dataclass(frozen=True)
class Gemm:
    """One product: ``rows`` x ``reduction`` weights meet ``columns`` vectors.

    ``kept``: weights stored of a row, zeros that fill a group among them. ``padded``: the reduction with every group
    whole (a convolution's groups lie along its channels, for each place of the kernel).
    """

    rows: int
    reduction: int
    columns: int
    kept: int
    padded: int
    has_bias: bool

    @classmethod
    def of(cls, layer: Layer, scheme: Scheme, columns: int) -> Gemm:
        """Return the sizes of one of the products of ``layer``; those of a layer are all alike."""
        axis = reduction_axis(layer)
        channels, places = layer.shape[axis], math.prod(layer.shape[axis + 1 :])
        kept = places * sum(group_kept(scheme, channels))
        # Of a linear layer the short group is padded with the rest of the last step, as the study counts.
        padded = channels if places == 1 else places * -(-channels // scheme.m) * scheme.m
        rows = layer.shape[axis - 1] // layer.attributes.get("groups", 1)
        return cls(rows, channels * places, columns, kept, padded, layer.has_bias)

    def steps(self, config: Config, scheme: Scheme) -> int:
        """Return how many steps a row takes for one column."""
        lanes = config.reduction_lanes
        # A short group may keep more than its share: the second bound matters where n does not divide the lanes.
        return max(-(-self.padded * scheme.n // (lanes * scheme.m)), -(-self.kept // lanes))


def group_kept(scheme: Scheme, channels: int) -> list[int]:
    """Return how many weights each group of ``channels`` stores: n, or all of a short last one that has fewer."""
    whole, rest = divmod(channels, scheme.m)
    return [scheme.n] * whole + [min(scheme.n, rest)] * (rest > 0)


@dataclass(frozen=True)
class Mapping:
    """What of a product lies in shared memory at a time: weights of ``rows``, inputs of ``columns``.

    ``rows_first``: the next rows come before the next columns; what comes first is fetched again for each of the
    other. The reduction is not cut, as in the study's dataflow: sums never leave the register files. Of those that fit,
    the mapping moves the fewest words between DRAM and shared memory, then the fewest weights into the registers.
    """

    rows: int
    columns: int
    rows_first: bool
    fits: bool = True

    @classmethod
    def of(cls, config: Config, scheme: Scheme, gemm: Gemm) -> Mapping:
        """Return the mapping of ``gemm``: rows in whole steps, columns a power of two up to those of a tile."""
        words = 8 * config.smem_bytes // config.word_bits
        best: tuple[tuple[int, int, int], Mapping] | None = None
        blocks = -(-gemm.rows // config.rows)
        for block in range(1, min(blocks, 8) + 1):  # at most 8 steps' rows in the memory: the study's constraint
            rows = min(block * config.rows, gemm.rows)
            columns = config.columns_per_tile
            while columns:
                if rows * gemm.kept + min(columns, gemm.columns) * gemm.reduction <= words:
                    for rows_first in (True, False):
                        found = cls(rows, columns, rows_first)
                        cost = (found.dram_words(gemm), found.column_tiles(gemm), -rows)
                        if best is None or cost < best[0]:
                            best = cost, found
                columns //= 2
        return best[1] if best is not None else cls(min(config.rows, gemm.rows), 1, True, fits=False)

    def row_tiles(self, gemm: Gemm) -> int:
        """Return how often the rows in shared memory change."""
        return -(-gemm.rows // self.rows)

    def column_tiles(self, gemm: Gemm) -> int:
        """Return how often the columns in shared memory change."""
        return -(-gemm.columns // self.columns)

    def weight_fetches(self, gemm: Gemm) -> int:
        """Return how often all weights come from DRAM."""
        return self.column_tiles(gemm) if self.rows_first and self.row_tiles(gemm) > 1 else 1

    def input_fetches(self, gemm: Gemm) -> int:
        """Return how often all inputs come from DRAM."""
        return self.row_tiles(gemm) if not self.rows_first and self.column_tiles(gemm) > 1 else 1

    def dram_words(self, gemm: Gemm) -> int:
        """Return the operands fetched from DRAM, without metadata."""
        weights, inputs = gemm.rows * gemm.kept, gemm.reduction * gemm.columns
        return weights * self.weight_fetches(gemm) + inputs * self.input_fetches(gemm)


@dataclass
class Tally:
    """What a layer did, counted in wholes: both engines fill it in, and everything reported follows from it.

    ``row_steps``: steps times the rows that took part. ``loaded``: weights put into multipliers' registers.
    ``fetched_weights``, ``fetched_inputs``: words from DRAM. ``cycles``: once all is done.
    """

    cycles: int = 0
    macs: int = 0
    row_steps: int = 0
    loaded: int = 0
    fetched_weights: int = 0
    fetched_inputs: int = 0


def fast(machine: Machine, layer: Layer, memo: Memo) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by the formulas above."""
    config: Config = machine.config
    products = memo((layer, "lowered"), lambda: lower(layer))
    scheme = Scheme.of(layer, config.metadata)
    tally = Tally()
    for product in products:
        gemm = Gemm.of(layer, scheme, len(product.vectors))
        mapping = Mapping.of(config, scheme, gemm)
        tally.macs += gemm.rows * gemm.kept * gemm.columns
        tally.row_steps += gemm.rows * gemm.steps(config, scheme) * gemm.columns
        tally.loaded += gemm.rows * gemm.kept * mapping.column_tiles(gemm)
        tally.fetched_weights += gemm.rows * gemm.kept * mapping.weight_fetches(gemm)
        tally.fetched_inputs += gemm.reduction * gemm.columns * mapping.input_fetches(gemm)
    slowest = max(Fraction(1), scheme.words_per_step(config) / config.smem_words_per_clk)
    tally.cycles = math.ceil(tally.row_steps * slowest / config.rows)

    def multiply() -> np.ndarray:
        outputs = [p.vectors @ p.weight.T + (0 if p.bias_values is None else p.bias_values) for p in products]
        return join(layer, outputs).astype(np.float32, copy=False)

    return _result(machine, layer, tally, memo((layer, "dense output"), multiply))


def events(machine: Machine, layer: Layer, timeline: Timeline | None = None) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, step by step; see `gossamer.models.sparseloop_units`."""
    from . import sparseloop_units

    tally, output = sparseloop_units.run_layer(machine.config, layer, timeline)
    return _result(machine, layer, tally, output)


def area_mm2(machine: Machine) -> float | None:
    """Return None: no table gives the area of this design."""
    return None


def _result(machine: Machine, layer: Layer, tally: Tally, output: np.ndarray) -> LayerResult:
    config: Config = machine.config
    scheme = Scheme.of(layer, config.metadata)
    products = layer.shape[0] if layer.op == "matmul" else 1
    gemm = Gemm.of(layer, scheme, len(output) // products)
    outputs = math.prod(layer.shape[: reduction_axis(layer)])  # of all products
    counts = _counts(config, scheme, tally, outputs=output.size, biases=outputs * layer.has_bias)
    energy, warnings = _energy(machine, scheme, tally.cycles, counts)
    if not Mapping.of(config, scheme, gemm).fits:
        warnings.append(
            f"shared memory: weights of {min(config.rows, gemm.rows)} rows and one input vector exceed its "
            f"{config.smem_bytes} bytes; the reduction is not cut"
        )
    busy = -(-tally.row_steps // config.rows)
    compute = min(busy, -(-tally.macs // config.multipliers))
    causes = {"compute": compute, "padding": busy - compute, "smem": tally.cycles - busy}
    stored = outputs * gemm.kept
    data = counts["smem_reads"] + counts["smem_writes"]
    metadata = counts["metadata_reads"] + counts["metadata_writes"]
    dram = counts["dram_reads"] + counts["dram_metadata_reads"] + counts["dram_writes"]
    return LayerResult(
        name=layer.name,
        op=layer.op,
        shape=layer.shape,
        samples=layer.samples,
        vectors=len(output),
        cycles=tally.cycles,
        latency_s=tally.cycles / config.clock_hz,
        theoretical_cycles=tally.macs / config.multipliers,
        macs=tally.macs,
        utilization=tally.macs / (config.multipliers * tally.cycles),
        load_balance=None,
        cycles_by_cause={"array": causes},
        cycles_per_unit={"array": {cause: [cycles] for cause, cycles in causes.items()}},
        counts=counts,
        energy_j=energy,
        traffic_bytes={
            name: -(-words * config.word_bits // 8)
            for name, words in (("smem", data), ("smem_metadata", metadata), ("dram", dram))
        },
        storage_bits={
            "values": stored * config.word_bits,
            "metadata": stored * scheme.bits,
            "bias": outputs * config.word_bits * layer.has_bias,
        },
        warnings=[*_pattern_warnings(layer, scheme, config), *warnings],
    ).with_output(output)


def _counts(config: Config, scheme: Scheme, tally: Tally, outputs: int, biases: int) -> dict[str, int]:
    """Return the words that each memory read and wrote, of ``word_bits``."""
    biased = outputs if biases else 0
    inputs = Fraction(tally.row_steps * config.reduction_lanes * scheme.m, scheme.n * config.rows)

    def metadata(weights: int) -> int:
        return -(-weights * scheme.bits // config.word_bits)

    return {
        "macs": tally.macs,
        "weight_register_reads": tally.macs,
        "weight_register_writes": tally.loaded,
        "register_metadata_reads": metadata(tally.macs),  # which of its inputs a multiplier selects
        "register_metadata_writes": metadata(tally.loaded),
        "accumulator_reads": tally.row_steps + biased,  # an addition reads, but the first; then the sum is read once
        "accumulator_writes": tally.row_steps + biased,
        "smem_reads": tally.loaded + math.ceil(inputs),
        "smem_writes": tally.fetched_weights + tally.fetched_inputs,
        "metadata_reads": metadata(tally.loaded),
        "metadata_writes": metadata(tally.fetched_weights),
        "dram_reads": tally.fetched_weights + tally.fetched_inputs + biases,
        "dram_metadata_reads": metadata(tally.fetched_weights),
        "dram_writes": outputs,
    }


def _energy(machine: Machine, scheme: Scheme, cycles: int, counts: dict[str, int]) -> tuple[Energy | None, list[str]]:
    config, table = machine.config, machine.energy
    if table is not None and scheme.dense and config.dense_energy:
        from .loader import load_energy_table

        table = load_energy_table(config.dense_energy, machine.module, machine.name)
    if table is None:
        return None, []
    misfit = table.misfit(word_bits=config.word_bits)
    if misfit is not None:
        return None, [misfit]
    return table.energy(cycles, {"array": 1}, counts), []


def _pattern_warnings(layer: Layer, scheme: Scheme, config: Config) -> list[str]:
    kind, name = layer.pattern.kind, f"{scheme.n}:{scheme.m}"
    if not scheme.dense and config.metadata == "run-length":
        far = _long_runs(layer, scheme)
        return [f"{far} weights of {name} follow more than {(1 << scheme.bits) - 1} zeros, which their run-length of "
                f"{scheme.bits} bits cannot tell; they are counted as the others"] if far else []  # fmt: skip
    if not scheme.dense or kind == "dense":
        return []
    if kind == "n:m":
        pattern = layer.pattern
        if pattern.n == pattern.m:
            return []
        return [f"pattern: {pattern.n}:{pattern.m} lies along axis {pattern.axis}, not along the inputs: run dense"]
    return [f"pattern: weights are {kind} and promise no N:M: run dense"] if layer.sparsity else []


def _long_runs(layer: Layer, scheme: Scheme) -> int:
    """Count the kept weights of ``layer`` before which a group has more zeros than a run-length can tell."""
    lanes = np.moveaxis(layer.kept != 0, reduction_axis(layer), -1)
    short = -lanes.shape[-1] % scheme.m
    groups = np.pad(lanes, [(0, 0)] * (lanes.ndim - 1) + [(0, short)]).reshape(-1, scheme.m)
    places = np.arange(scheme.m)
    last = np.maximum.accumulate(np.where(groups, places, -1), axis=1)
    before = np.concatenate([np.full((len(groups), 1), -1), last[:, :-1]], axis=1)
    # A group with fewer than n nonzeros stores zeros as well, at its first free places: they shorten the runs.
    full = groups.sum(axis=1) == scheme.n
    return int((groups & (places - before - 1 >= 1 << scheme.bits))[full].sum())
