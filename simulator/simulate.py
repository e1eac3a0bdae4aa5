"""Simulate: a trace on a machine, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from .. import __version__
from ..workloads.errors import InputError
from ..workloads.names import fits
from ..workloads.streamed import StreamedLayers
from ..workloads.trace import Layer, Trace
from .figures import add_up
from .machine import ENGINES, Machine
from .memo import Memo
from .result import MachineId, Result, TraceId
from .timeline import Timeline


def simulate(
    machine: Machine,
    trace: Trace,
    *,
    engine: str = "fast",
    layers: str | None = None,
    memo: Memo | None = None,
    timeline: Timeline | None = None,
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Return cycles, energy and the reasons for them, for each layer of ``trace`` on ``machine`` and in all.

    ``engine``: "fast" solves recurrences; "event" steps the hardware's units and gives the same figures.
    ``layers``: a shell pattern that chooses layers by name. ``memo``: shared by simulations of one trace that differ
    in their machine. ``timeline``: filled by the event engine. ``progress``: called with each layer's name.
    Raises InputError for an unknown engine, a timeline without the event engine, or a pattern that fits no layer.
    """
    if engine not in ENGINES:
        raise InputError(f"engine must be {' or '.join(ENGINES)}, not {engine!r}")
    if timeline is not None and engine != "event":
        raise InputError(f"a timeline needs engine event, not {engine!r}")
    chosen = choose_layers(trace, layers)
    memo = Memo.for_trace(trace) if memo is None else memo
    results, samples = [], 0
    for layer in trace.each_layer() if layers is None else chosen:
        samples = max(samples, layer.samples)
        if progress is not None:
            progress(layer.name)
        begin = 0 if timeline is None else timeline.offset
        results.append(machine.run(layer, engine, memo, timeline))
        if isinstance(chosen, StreamedLayers):
            memo.clear()  # nobody will see this layer again, but one that was read anew
        if timeline is not None:
            timeline.interval("layer", layer.name, begin - timeline.offset, 0)
        del layer  # or it would be in memory together with the next
    whole = getattr(machine.engines, "network_warnings", None)
    return Result(
        version=__version__,
        engine=engine,
        trace=TraceId(name=trace.name, sha256=trace.sha256, sparsity=trace.sparsity, provenance=dict(trace.provenance)),
        machine=MachineId(name=machine.name, model=machine.model, config=msgspec.to_builtins(machine.config)),
        samples=samples,
        layers=results,
        total=add_up(results, machine.engines.area_mm2(machine)),
        warnings=[f"{result.name}: {warning}" for result in results for warning in result.warnings]
        + ([] if whole is None else whole(machine, results)),
    )


def choose_layers(trace: Trace, pattern: str | None) -> Sequence[Layer]:
    """Return the layers whose name fits the shell ``pattern``, all of them without one; InputError where none does."""
    chosen = [index for index, name in enumerate(trace.names) if pattern is None or fits(name, pattern)]
    if not chosen:
        names = ", ".join(trace.names)
        raise InputError(f"{trace.name}: layer pattern {pattern!r} must fit at least one of its layers: {names}")
    layers = trace.layers
    if isinstance(layers, StreamedLayers):
        return StreamedLayers([layers.names[index] for index in chosen], lambda index: layers[chosen[index]])
    return [layers[index] for index in chosen]
