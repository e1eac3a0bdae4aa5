"""A dense baseline: a weight-stationary systolic array, which skips nothing.

For a product of M vectors with an (N, K) weight on R rows x C columns: the weight is cut into ceil(K/R) x ceil(N/C)
tiles. A tile is shifted in from the top, a row a cycle (R cycles); then a vector enters a cycle (M), each row one cycle
after the row above, inputs moving right and partial sums down; the last sum leaves the last column after another
R + C - 2. Tiles follow one another without overlap, and time runs from the clock edge that takes in the first row of
weights to the one that takes out the last sum:

    compute cycles = ceil(K/R) * ceil(N/C) * (2R + C + M - 2) - 1

Column tiles are the outer loop, tiles along K the inner one. Words between SRAMs and array: each weight once a product
(and each bias, the first partial sum of its column), K*N; inputs once a column tile, M*K*ceil(N/C); partial sums are
written once a tile along K, M*N*ceil(K/R), and read back for each but the first. Words between DRAM and SRAMs: weights
once; inputs once, or once a column tile where they exceed their SRAM (of a convolution the input itself is moved, not
its patches: the SRAM that streams it is taken to hold the rows under the kernel); outputs once, or, where the sums of a
column tile exceed their SRAM, written once a tile along K and read back for each but the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..simulator.result import LayerResult
from ..workloads.lowering import Product, join, lower
from .parts.dense import dense_output
from .parts.energy import energy_of
from .parts.systolic.work import SRAMS, Account, Config, Gemm, dram_cycles

if TYPE_CHECKING:
    from ..simulator.machine import Machine
    from ..simulator.memo import Memo
    from ..simulator.timeline import Timeline
    from ..workloads.trace import Layer

OPS = ("linear", "conv2d", "matmul")
ERT_BASE = "systolic-45nm-event"  # which energies an Accelergy reference table replaces


def fast(machine: Machine, layer: Layer, memo: Memo) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by the formulas above."""
    config: Config = machine.config
    products = memo((layer, "lowered"), lambda: lower(layer))
    output = memo((layer, "dense output"), lambda: dense_output(layer, products))
    account = Account()
    for samples, times in Counter(len(samples) for samples in passes(layer, config)).items():
        alike = Account()
        _book_pass(alike, config, gemms(layer, products, samples))
        account.add(alike, times)
    return _result(machine, layer, products, account, output)


def events(machine: Machine, layer: Layer, timeline: Timeline | None = None) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by clocking its registers; see `parts.systolic.units`."""
    from .parts.systolic import units as systolic_units

    config: Config = machine.config
    products = lower(layer)
    account = Account()
    outputs = []
    for samples in passes(layer, config):
        given = in_pass(layer, products, samples)
        work = gemms(layer, products, len(samples))
        outputs.append(join(layer, systolic_units.run_pass(account, config, work, given, timeline)))
    return _result(machine, layer, products, account, np.concatenate(outputs))


def area_mm2(machine: Machine) -> float | None:
    """Return None: no table gives the area of this array."""
    return None


def passes(layer: Layer, config: Config) -> Iterator[range]:
    """Return the samples of each pass through the array."""
    count = layer.samples
    size = config.batch_size or count
    return (range(first, min(first + size, count)) for first in range(0, count, size))


def in_pass(layer: Layer, products: list[Product], samples: range) -> list[Product]:
    """Return what is multiplied in a pass of ``samples``: their vectors, or of a matmul their products."""
    if layer.op == "matmul":
        each = len(products) // layer.samples
        return products[samples.start * each : samples.stop * each]
    each = len(products[0].vectors) // layer.samples
    rows = slice(samples.start * each, samples.stop * each)
    return [replace(product, vectors=product.vectors[rows]) for product in products]


def gemms(layer: Layer, products: list[Product], samples: int) -> list[Gemm]:
    """Return the sizes of ``products`` in a pass of ``samples``."""
    if layer.op == "matmul":
        _, outputs, depth = layer.shape
        vectors = layer.inputs.shape[1]
        count = len(products) // layer.samples * samples
        return [Gemm(vectors, depth, outputs, vectors * depth, has_bias=False)] * count
    words = layer.inputs.size // layer.samples // len(products)  # of one sample, of one group
    work = []
    for product in products:
        vectors, (outputs, depth) = len(product.vectors) // layer.samples, product.kept.shape
        input_words = samples * min(words, vectors * depth)
        work.append(Gemm(samples * vectors, depth, outputs, input_words, product.bias is not None))
    return work


def _book_pass(account: Account, config: Config, work: list[Gemm]) -> None:
    """Add the cycles and counts of one pass."""
    R, C = config.rows, config.columns
    array = moved = 0
    for gemm in work:
        M, K, N = gemm.vectors, gemm.depth, gemm.outputs
        row_tiles, column_tiles = gemm.row_tiles(config), gemm.column_tiles(config)
        tiles = row_tiles * column_tiles
        array += tiles * (2 * R + C + M - 2)
        for cause, cycles in (("load", R), ("compute", M), ("fill_drain", R + C - 2)):
            account.causes[cause] += tiles * cycles
        filters = K * N + N * gemm.has_bias
        inputs = gemm.input_words * (1 if gemm.inputs_fit(config) else column_tiles)
        stored = M * N * (1 if gemm.sums_fit(config) else row_tiles)
        fetched = stored - M * N
        account.count(
            macs=M * K * N,
            register_reads=3 * M * K * N,
            filter_sram_reads=filters,
            filter_sram_writes=filters,
            ifmap_sram_reads=M * K * column_tiles,
            ifmap_sram_writes=inputs,
            ofmap_sram_reads=M * N * (row_tiles - 1) + stored,
            ofmap_sram_writes=M * N * row_tiles + fetched,
            dram_reads=filters + inputs + fetched,
            dram_writes=stored,
        )
        moved += filters + inputs + fetched + stored
    account.causes["load"] -= 1  # time begins at the edge that takes in the first row of weights
    if config.dram_bounds_latency:
        account.causes["memory"] += max(0, dram_cycles(moved, config) - (array - 1))


def _result(
    machine: Machine, layer: Layer, products: list[Product], account: Account, output: np.ndarray
) -> LayerResult:
    config: Config = machine.config
    cycles, counts, multipliers = account.cycles, account.counts, config.rows * config.columns
    sram_words = sum(counts[f"{sram}_sram_{act}"] for sram in SRAMS for act in ("reads", "writes"))
    dram_words = counts["dram_reads"] + counts["dram_writes"]
    bits = 8 * config.word_bytes
    energy, warnings = energy_of(machine.energy, cycles, {"array": 1}, counts, word_bits=bits)
    return LayerResult(
        name=layer.name,
        op=layer.op,
        shape=layer.shape,
        samples=layer.samples,
        vectors=len(output),
        cycles=cycles,
        latency_s=cycles / config.clock_hz,
        theoretical_cycles=counts["macs"] / multipliers,
        macs=counts["macs"],
        utilization=counts["macs"] / (multipliers * cycles),
        load_balance=None,
        cycles_by_cause={"array": dict(account.causes)},
        cycles_per_unit={"array": {cause: [value] for cause, value in account.causes.items()}},
        counts=dict(counts),
        energy_j=energy,
        traffic_bytes={"sram": sram_words * config.word_bytes, "dram": dram_words * config.word_bytes},
        storage_bits={"weight": layer.kept.size * bits, "bias": layer.shape[0] * bits * layer.has_bias},
        warnings=warnings + _capacity_warnings(layer, products, config),
    ).with_output(output)


def _capacity_warnings(layer: Layer, products: list[Product], config: Config) -> list[str]:
    warnings = []
    gemm = gemms(layer, products, len(next(passes(layer, config))))[0]  # the products of a layer are alike
    tile_bytes = min(gemm.depth, config.rows) * min(gemm.outputs, config.columns) * config.word_bytes
    if 2 * tile_bytes > config.filter_sram_bytes:
        warnings.append(
            f"two weight tiles take {2 * tile_bytes} bytes of {config.filter_sram_bytes} in the filter SRAM: "
            "they cannot be double-buffered"
        )
    if not gemm.inputs_fit(config) and gemm.column_tiles(config) > 1:
        warnings.append(
            f"inputs take {gemm.input_words * config.word_bytes} bytes of {config.ifmap_sram_bytes} in the ifmap SRAM: "
            f"fetched from DRAM {gemm.column_tiles(config)} times"
        )
    if not gemm.sums_fit(config):
        sums_bytes = gemm.vectors * min(gemm.outputs, config.columns) * config.word_bytes
        warnings.append(
            f"partial sums take {sums_bytes} bytes of {config.ofmap_sram_bytes} in the ofmap SRAM: "
            f"sent to DRAM {gemm.row_tiles(config)} times"
        )
    return warnings
