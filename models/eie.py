"""EIE: an array of processing elements that skip zero activations and walk compressed columns.

Source: Han et al., "EIE: Efficient Inference Engine on Compressed Deep Neural Network", ISCA 2016 (arXiv 1602.01528v2).
Where the paper is silent on a cycle, the timing is that of the authors' own simulator: an empty column costs a
processing element one cycle, a full flag is seen one cycle late, and six cycles pass from the last entry's start to
the end (pointer read, matrix read, four arithmetic stages).

Two engines tell the same story. `events` runs one SimPy process a unit; `fast` solves the recurrences

    u[j]    = max(u[j-1] + 1 + bubbles[j],  1 + max_i s[i, j-(depth-1)])     cycle in which activation j is broadcast
    s[i, j] = max(u[j] + 1,  s[i, j-1] + max(1, entries[i, j-1]))            cycle in which PE i starts activation j
    cycles  = 6 + the last cycle in which any PE starts an entry
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..simulator.occupancy import Sampler
from ..simulator.result import LayerResult
from ..workloads.blocks import row_blocks
from ..workloads.formats import csc
from ..workloads.formats.codebook import quantize
from ..workloads.lowering import Product, lower
from ..workloads.trace import Layer
from .parts.accuracy import accuracy
from .parts.dense import bias_of
from .parts.eie.config import Config, units
from .parts.eie.result import network_warnings as network_warnings
from .parts.eie.result import result_of
from .parts.eie.tile import Tile
from .parts.eie.timing import Account, Broadcasts, Encoded, Tally, Timing
from .parts.fixed_point import Datapath, format_for, largest
from .parts.matvec import Nonzeros, find_nonzeros, multiply, multiply_fixed

if TYPE_CHECKING:
    from ..simulator.machine import Machine
    from ..simulator.memo import Memo
    from ..simulator.timeline import Timeline

ERT_BASE = "eie-45nm-event"  # which energies an Accelergy reference table replaces


@dataclass(frozen=True, eq=False)
class Workload:
    """A layer as given and as the machine stores it, both as matrix-vector products."""

    given: Sequence[Product]
    stored: Sequence[Product]

    @classmethod
    def of(cls, layer: Layer, config: Config) -> Workload:
        """Return the workload that ``layer`` makes for a machine of ``config``."""
        given = lower(layer)
        shared = share_weights(layer, config)
        return cls(given, given if shared is layer else lower(shared))


def fast(machine: Machine, layer: Layer, memo: Memo) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by the recurrences; the cost grows with broadcasts x PEs."""
    config: Config = machine.config
    pe_count = config.pe_count
    account = Account.of(pe_count)
    stored, pointers = np.zeros(pe_count, np.int64), 0
    stored_as = (layer, config.weights, config.code_bits)
    workload = memo(stored_as, lambda: Workload.of(layer, config))
    batch = _batch(config)
    for tile in memo((*stored_as, "tiles", batch), lambda: tiles(workload, batch)):
        counted = (tile, pe_count, config.index_bits)
        encoded = memo(counted, partial(Encoded.of, tile.matrix, pe_count, config.index_bits))
        broadcasts = memo((tile, pe_count), partial(Broadcasts.of, tile.vectors, tile.has_bias, pe_count))
        width = config.entries_per_row
        tally = memo((*counted, width), partial(Tally.of, encoded, broadcasts, width))
        timing = Timing.of(encoded.counts.entries, broadcasts, config.queue_depth, idle=encoded.idle, levels=True)
        account.add(tally, timing, broadcasts, tile.vectors, tile.loads, tile.stores)
        stored += encoded.stored
        pointers += encoded.pointers
    output, arithmetic = memo((*stored_as, config.word_bits), lambda: _compute(workload, config))
    return result_of(machine, layer, account, stored, pointers, output, arithmetic)


def events(machine: Machine, layer: Layer, timeline: Timeline | None = None) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by stepping the units of `parts.eie.units`.

    ``timeline``, where given, is told what every unit does, run after run; the result then has the queues over time.
    """
    from .parts.eie.units import run

    config: Config = machine.config
    account = Account.of(config.pe_count)
    stored, pointers = np.zeros(config.pe_count, np.int64), 0
    workload = Workload.of(layer, config)
    datapath, reference = _datapath(workload, config)
    words = np.zeros(reference.shape, np.int64)
    saturated = 0
    sampler = None if timeline is None else Sampler()
    for tile in tiles(workload, _batch(config)):
        encoded = csc.encode(tile.matrix, config.pe_count, config.index_bits)
        stored += np.diff(encoded.starts)
        pointers += encoded.pointers.shape[1]
        for vector, accumulators in zip(tile.vectors, words[:, tile.outputs], strict=True):
            saturated += run(account, config, tile, encoded, vector, datapath, accumulators, timeline, sampler)
    output, arithmetic = _judge(datapath, words, saturated, reference)
    over_time = None if sampler is None else sampler.samples()
    return result_of(machine, layer, account, stored, pointers, output, arithmetic, over_time)


def area_mm2(machine: Machine) -> float | None:
    """Return the area of the array in square millimetres, None where its energy table lists none."""
    return None if machine.energy is None else machine.energy.area_mm2(units(machine.config))


def error_bound(machine: Machine, layer: Layer) -> np.ndarray:
    """Return how far each output may be from the exact one, (vectors, out) in float64, if nothing saturates.

    Half a step of every format that a product passes, and what sharing did to each weight. Worked out with matrix
    products of numpy alone, for `gossamer.simulator.check`.
    """
    config: Config = machine.config
    workload = Workload.of(layer, config)
    datapath, _ = _datapath(workload, config)
    half = [0.5**f.fraction_bits / 2 for f in (datapath.weights, datapath.activations, datapath.accumulators)]
    bounds = []
    for given, stored in zip(workload.given, workload.stored, strict=True):
        ones = np.ones((len(given.vectors), 1 if given.bias is not None else 0))
        fed = np.abs(np.concatenate([given.vectors.astype(np.float64), ones], axis=1))
        exact, held = (p.with_bias if p.codebook is None else p.codebook[p.with_bias] for p in (given, stored))
        kept = (stored.with_bias != 0).astype(np.float64)
        bound = fed @ np.abs(exact.astype(np.float64) - held).T + half[0] * (fed @ kept.T)
        bound += (fed != 0) @ (half[1] * np.abs(held.astype(np.float64)) + (half[0] * half[1] + half[2]) * kept).T
        bounds.append(bound)
    return _side_by_side(bounds)


def share_weights(layer: Layer, config: Config) -> Layer:
    """Return ``layer`` as the machine stores it: with a codebook that its codes can address, or with exact weights."""
    bias = bias_of(layer)
    if config.weights == "exact":
        if layer.codes is None:
            return layer
        return Layer(
            name=layer.name,
            op=layer.op,
            inputs=layer.inputs,
            weight=layer.weight,
            bias=bias,
            attributes=layer.attributes,
        )
    if layer.codebook is not None and len(layer.codebook) <= 1 << config.code_bits:
        return layer
    shared = quantize(layer.weight, bias, config.code_bits)
    # Sharing may add no promise that the mask did not keep, and 0 stays 0: pattern and mask need no second check.
    return Layer(
        name=layer.name,
        op=layer.op,
        inputs=layer.inputs,
        codes=shared.codes,
        bias_codes=shared.bias_codes,
        codebook=shared.codebook,
        attributes=layer.attributes,
    )


def tiles(workload: Workload, batch: int | None) -> tuple[Tile, ...]:
    """Return the runs that a layer takes: one a product, or several where activations run in batches of ``batch``.

    Batches of columns add to the same accumulators one after another, then the next batch of rows begins (Han et al.,
    section IV: a longer vector is worked off in batches).
    """
    made = []
    first_row = 0
    for product in workload.stored:
        rows, cols = product.kept.shape
        if batch is None or max(rows, cols) <= batch:
            outputs = slice(first_row, first_row + rows)
            has_bias = product.bias is not None
            made.append(Tile(product.with_bias, product.codebook, product.vectors, has_bias, outputs))
        else:
            for r in range(0, rows, batch):
                below = min(r + batch, rows)
                for c in range(0, cols, batch):
                    after = min(c + batch, cols)
                    has_bias = after == cols and product.bias is not None
                    part = product.with_bias[r:below, c : after + has_bias]
                    made.append(
                        Tile(
                            matrix=np.ascontiguousarray(part),
                            codebook=product.codebook,
                            vectors=np.ascontiguousarray(product.vectors[:, c:after]),
                            has_bias=has_bias,
                            outputs=slice(first_row + r, first_row + below),
                            loads=after - c,
                            stores=below - r if after == cols else 0,
                        )
                    )
        first_row += rows
    return tuple(made)


def _batch(config: Config) -> int | None:
    return config.pe_count * config.act_registers if config.act_batches else None


def _datapath(workload: Workload, config: Config) -> tuple[Datapath, np.ndarray]:
    """Return the number formats that suit a layer, and its exact output, (vectors, out) in float64.

    Each tensor gets the finest step in which its largest value fits, and the accumulators the finest in which the
    largest sum on the way to an exact output does: formats are fixed in advance, on the data they are meant for.
    """
    exact = [_exact(product) for product in workload.given]
    reference = _side_by_side([out for out, _ in exact])
    weights = [p.with_bias if p.codebook is None else p.codebook for p in workload.stored]
    # A bias is fed with the activation 1.0, which must fit the activations' format.
    unit = 1.0 if any(p.bias is not None for p in workload.given) else 0.0
    bits = config.word_bits
    return Datapath(
        weights=format_for(max(map(largest, weights)), bits),
        activations=format_for(max(unit, *(largest(p.vectors) for p in workload.given)), bits),
        accumulators=format_for(max(peak for _, peak in exact), bits),
    ), reference


def _compute(workload: Workload, config: Config) -> tuple[np.ndarray, dict[str, float]]:
    """Return the output values that the hardware's arithmetic gives, and how far they are from float64."""
    datapath, reference = _datapath(workload, config)
    words, saturated = [], 0
    for product in workload.stored:
        out, clipped = multiply_fixed(product.with_bias, product.codebook, _nonzeros(product), datapath)
        words.append(out)
        saturated += clipped
    return _judge(datapath, _side_by_side(words), saturated, reference)


def _exact(product: Product) -> tuple[np.ndarray, float]:
    """Return the product in float64, (vectors, out), and the largest magnitude on the way there.

    Of weights with a bias, some rows at a time: the bias beside them takes a copy of all.
    """
    nonzeros = _nonzeros(product)
    if product.bias is None or product.codebook is not None:
        return multiply(product.with_bias, product.codebook, nonzeros)
    parts = []
    for rows in row_blocks(product.kept):
        matrix = np.column_stack([product.kept[rows], product.bias[rows]])
        parts.append(multiply(matrix, None, nonzeros))
    return _side_by_side([out for out, _ in parts]), max(peak for _, peak in parts)


def _nonzeros(product: Product) -> Nonzeros:
    return find_nonzeros(product.vectors, product.bias is not None)


def _side_by_side(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _judge(
    datapath: Datapath, words: np.ndarray, saturated: int, reference: np.ndarray
) -> tuple[np.ndarray, dict[str, float]]:
    output = datapath.accumulators.to_values(words)
    return output, accuracy(output, reference) | {
        "saturated": float(saturated),
        "weight_fraction_bits": float(datapath.weights.fraction_bits),
        "activation_fraction_bits": float(datapath.activations.fraction_bits),
        "output_fraction_bits": float(datapath.accumulators.fraction_bits),
    }
