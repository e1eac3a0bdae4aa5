"""What cores add up while they go through a layer, whichever engine takes them: cycles by cause, counts, fills."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CAUSES = ("compute", "load", "switch", "overhead", "fill", "idle", "dram")
COMPUTE, LOAD, SWITCH, OVERHEAD, FILL = range(5)
COUNTS = ("fmas", "input_loads", "weight_loads", "spills", "stores", "kernel_steps", "dispatches", "pattern_switches")
FMAS, INPUT_LOADS, WEIGHT_LOADS, SPILLS, STORES, STEPS, DISPATCHES, SWITCHES = range(len(COUNTS))


@dataclass(frozen=True, eq=False)
class Run:
    """What going through a layer once came to: ``causes`` (cores, 5) cycles, ``done`` (cores,), ``counts`` (8,).

    ``fills`` (cores, 2): bytes of activations and of weights from L2 to L1.
    """

    causes: np.ndarray
    done: np.ndarray
    counts: np.ndarray
    fills: np.ndarray

    @classmethod
    def of(cls, cores: int) -> Run:
        """Return a run in which nothing has been done yet."""
        sizes = ((cores, 5), cores, len(COUNTS), (cores, 2))
        return cls(*(np.zeros(size, np.int64) for size in sizes))

    @property
    def cycles(self) -> int:
        """Return when the last core is done."""
        return int(self.done.max())
