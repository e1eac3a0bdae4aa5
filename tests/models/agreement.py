"""Both engines of a model at once: what a test wants of them before it looks at a single number."""

import msgspec
import numpy as np

from gossamer.simulator.memo import Memo


def agree(model, machine, layer, timeline=None, tolerance=0.0):
    """Return the result of ``model``'s fast engine, having checked that the event engine's is the same.

    Everything is equal but the outputs, which are so to ``tolerance``, where there are any.
    """
    fast, event = model.fast(machine, layer, Memo()), model.events(machine, layer, timeline)
    assert msgspec.to_builtins(event) == msgspec.to_builtins(fast)
    assert (event.output is None) == (fast.output is None)
    if fast.output is not None:
        np.testing.assert_allclose(event.output, fast.output, rtol=tolerance, atol=tolerance)
    return fast


def assert_units_add_up(result):
    """Hold each unit's causes to add up to the cycles of the layer, none of them negative."""
    for unit, causes in result.cycles_per_unit.items():
        cycles = np.array(list(causes.values()))
        assert (cycles.sum(axis=0) == result.cycles).all() and (cycles >= 0).all(), unit
