"""What a search minimises: a function of a trace that simulates it on one machine."""

from __future__ import annotations

from collections.abc import Callable

from ..workloads.errors import InputError
from ..workloads.trace import Trace
from .machine import Machine
from .result import Result
from .simulate import simulate

QUANTITIES = ("latency", "cycles", "energy", "edp")


def cost_function(machine: Machine, quantity: str) -> Callable[[Trace], float]:
    """Return the function that gives the ``quantity`` of a trace on ``machine``, by the fast engine.

    "latency" in seconds, "cycles", "energy" in joules, "edp", energy times latency, in joule seconds.
    Raises InputError for another quantity; the function does so where the machine tells no energy and it is needed.
    """
    if quantity not in QUANTITIES:
        raise InputError(f"a cost must be one of {', '.join(QUANTITIES)}, not {quantity!r}")
    return lambda trace: _of(simulate(machine, trace), quantity)


def _of(result: Result, quantity: str) -> float:
    total = result.total
    if quantity == "cycles":
        return float(total.cycles)
    if quantity == "latency":
        return total.latency_s
    if total.energy_j is None:
        raise InputError(
            f"{result.machine.name}: a search for {quantity} needs energies, and the machine tells none; "
            "search for latency or cycles, or give the machine an energy table"
        )
    energy = float(total.energy_j)
    return energy if quantity == "energy" else energy * total.latency_s
