"""Results beside each other: a row a result, all per sample, with what it gains over others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import msgspec

from ..simulator.frames import padding_ratio
from ..simulator.result import Result, output_error
from .rows import Row, speedup

DENSE = 0.01  # a trace with fewer zeros among its weights counts as dense: trained weights may hold some


def compare_rows(results: Sequence[Result], baseline: Result | None = None) -> list[Row]:
    """Return one row a result, all per sample; speed-ups are over ``baseline``, the first of them unless given.

    Those over the dense network are over that on the very same machine, its configuration included.
    """
    machines = [msgspec.json.encode(result.machine, order="deterministic") for result in results]
    alike: dict[bytes, list[Result]] = {}
    for machine, result in zip(machines, results, strict=True):
        alike.setdefault(machine, []).append(result)
    dense = {machine: dense_results(some) for machine, some in alike.items()}
    rows = []
    for machine, result in zip(machines, results, strict=True):
        total, samples = result.total, result.samples
        own = dense[machine].get((network_of(result) or "", result.machine.name))
        latency = total.latency_s / samples
        energy = None if total.energy_j is None else total.energy_j.total / samples
        rows.append({
            "trace": result.trace.name,
            "machine": result.machine.name,
            "accuracy": accuracy_of(result),
            "sparsity": result.trace.sparsity,
            "cycles": total.cycles,
            "samples": samples,
            "cycles_per_sample": total.cycles / samples,
            "latency_per_sample_us": latency * 1e6,
            "speedup": speedup(results[0] if baseline is None else baseline, result),
            "speedup_over_dense": None if own is None else speedup(own, result),
            "load_balance": total.load_balance,
            "utilization": total.utilization,
            "padding_ratio": padding_ratio(total),
            "energy_per_sample_uj": None if energy is None else energy * 1e6,
            "energy_delay_pjs": None if energy is None else energy * latency * 1e12,
            "energy_table": None if total.energy_j is None else total.energy_j.table,
            "storage_bits": sum(total.storage_bits.values()),
            "output_error": output_error(result),
        })  # fmt: skip
    return rows


def summary_rows(results: Sequence[Result]) -> list[Row]:
    """Return a row a result, as of a comparison; speed-ups are over the baseline of the result's own network."""
    base = baselines(results)
    return [
        row
        | {
            "accuracy": accuracy_of(result),
            "speedup": speedup(base[network_of(result)], result),
            "area_mm2": result.total.area_mm2,
        }
        for row, result in zip(compare_rows(results), results, strict=True)
    ]


def accuracy_of(result: Result) -> float | None:
    """Return the accuracy that the trace's provenance tells, None where it tells none."""
    value = result.trace.provenance.get("accuracy")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= 1 else None


def baselines(results: Sequence[Result]) -> dict[str | None, Result]:
    """Return by network the result that others are compared with: the first of a dense trace, else the first."""
    found: dict[str | None, Result] = {}
    for result in results:
        old = found.setdefault(network_of(result), result)
        if old.trace.sparsity >= DENSE > result.trace.sparsity:
            found[network_of(result)] = result
    return found


def dense_results(results: Iterable[Result]) -> dict[tuple[str, str], Result]:
    """Return, by network and machine, the result of the trace that has all weights, where there is one.

    Of the traces without zeros it is the one with the most weights: a network that lost channels has no zeros either.
    """
    most: dict[tuple[str, str], tuple[int, Result]] = {}
    for result in results:
        network = network_of(result)
        if network is not None and result.trace.sparsity == 0:
            weights, pair = sum(prod(layer.shape) for layer in result.layers), (network, result.machine.name)
            if pair not in most or weights > most[pair][0]:
                most[pair] = weights, result
    return {pair: result for pair, (_, result) in most.items()}


def network_of(result: Result) -> str | None:
    """Return the network that the trace's provenance names, None where it names none."""
    network = result.trace.provenance.get("network")
    return network if isinstance(network, str) else None
