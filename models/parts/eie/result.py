"""What EIE's results say: figures from the account of a layer, and what does not fit its memories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ....simulator.result import LayerResult, OverTime, Queue
from ....workloads.formats import csc
from ....workloads.trace import Layer
from ..energy import energy_of
from .config import Config, units
from .timing import Account

if TYPE_CHECKING:
    from ....simulator.machine import Machine


def result_of(
    machine: Machine,
    layer: Layer,
    account: Account,
    stored: np.ndarray,
    pointers: int,
    output: np.ndarray,
    arithmetic: dict[str, float],
    over_time: OverTime | None = None,
) -> LayerResult:
    """Return the layer's figures from its account; ``stored`` entries and ``pointers`` are those that a PE holds."""
    config: Config = machine.config
    counts, cycles, pe_count = account.counts, account.cycles, config.pe_count
    area = pe_count * cycles
    idle = int(account.pe["starved"].sum() + account.pe["drained"].sum())
    storage = csc.storage_bits(
        int(stored.sum()), pointers, pe_count, config.code_bits, config.index_bits, config.pointer_bits
    )
    storage["codebook"] = (1 << config.code_bits) * config.word_bits if config.weights == "codebook" else 0
    row_bits = config.entries_per_row * (config.code_bits + config.index_bits)
    energy, misfits = energy_of(
        machine.energy, cycles, units(config), counts, word_bits=config.word_bits, row_bits=row_bits
    )
    result = LayerResult(
        name=layer.name,
        op=layer.op,
        shape=layer.shape,
        samples=len(layer.inputs),
        vectors=len(output),
        cycles=cycles,
        latency_s=cycles / config.clock_hz,
        theoretical_cycles=counts["entries"] / pe_count,
        macs=counts["macs"],
        utilization=counts["macs"] / area if area else 0.0,
        load_balance=1 - idle / area if area else 1.0,
        cycles_by_cause={
            "pe": {cause: int(of_pe.sum()) for cause, of_pe in account.pe.items()},
            "broadcaster": dict(account.broadcaster),
        },
        cycles_per_unit={"pe": {cause: of_pe.tolist() for cause, of_pe in account.pe.items()}},
        counts=dict(counts),
        energy_j=energy,
        traffic_bytes={
            "spmat_sram": counts["spmat_reads"] * row_bits // 8,
            "ptr_sram": counts["ptr_reads"] * 2 * config.pointer_bits // 8,
            "activations": (counts["act_reads"] + counts["act_writes"]) * config.word_bits // 8,
        },
        storage_bits=storage,
        arithmetic=dict(arithmetic),
        queues={
            "activation": Queue(
                capacity=config.queue_depth - 1,
                cycles_at_level=np.trim_zeros(account.levels, "b").tolist(),
                over_time=over_time,
            )
        },
        warnings=[*_warnings(layer, config, stored, pointers), *misfits],
    )
    return result.with_output(output)


def _warnings(layer: Layer, config: Config, stored: np.ndarray, pointers: int) -> list[str]:
    """Return a sentence for each memory that the layer does not fit."""
    warnings = []
    rows, columns = layer.shape[0], int(np.prod(layer.shape[1:]))
    fullest = int(stored.max(initial=0))
    need = -(-fullest * (config.code_bits + config.index_bits) // 8)
    if need > config.spmat_bytes:
        warnings.append(
            f"Spmat SRAM: PE {int(stored.argmax())} stores {need} bytes of entries, and has {config.spmat_bytes}"
        )
    if fullest >= 1 << config.pointer_bits:
        warnings.append(
            f"pointers: {config.pointer_bits} bits address {1 << config.pointer_bits} entries, and "
            f"PE {int(stored.argmax())} stores {fullest}"
        )
    need = -(-pointers * config.pointer_bits // 8)
    if need > config.ptr_bytes:
        warnings.append(
            f"Ptr SRAM: {pointers} pointers (columns + 1) take {need} bytes a PE, and it has {config.ptr_bytes}"
        )
    if not config.act_batches:
        for what, length in (("accumulators", rows), ("activation registers", columns)):
            each = -(-length // config.pe_count)
            if each > config.act_registers:
                warnings.append(
                    f"{what}: a vector of {length} takes {each} a PE, which has {config.act_registers}; "
                    "set act_batches to run it in batches through the activation SRAM, cycles charged"
                )
    words = max(-(-rows // config.pe_count), -(-columns // config.pe_count))
    if words * config.word_bits > config.act_sram_bytes * 8 and words > config.act_registers:
        need = -(-words * config.word_bits // 8)
        warnings.append(f"Act SRAM: {words} activations a PE take {need} bytes, and it has {config.act_sram_bytes}")
    return warnings


def network_warnings(machine: Machine, layers: Sequence[LayerResult]) -> list[str]:
    """Return a sentence for each memory that holds every one of ``layers``, but not all of them at once."""
    config: Config = machine.config
    bits = {part: sum(layer.storage_bits[part] for layer in layers) for part in ("codes", "runs", "pointers")}
    warnings = []
    for memory, need, capacity in (
        ("Spmat SRAM", bits["codes"] + bits["runs"], config.spmat_bytes),
        ("Ptr SRAM", bits["pointers"], config.ptr_bytes),
    ):
        each = -(-need // (8 * config.pe_count))
        if len(layers) > 1 and each > capacity:
            warnings.append(
                f"{memory}: all {len(layers)} layers together take {each} bytes a PE, and it has {capacity}; "
                "they cannot stay on chip at once"
            )
    return warnings
