"""Both engines on whole layers, as a user gets their results: the bytes of the JSON, and the outputs."""

import numpy as np

from gossamer.simulator import simulate
from gossamer.workloads import Trace


def assert_same_bytes(machine, layer, tolerance=0.0):
    """Return the fast engine's result of ``layer``; hold the event engine's to its bytes but for the engine's name.

    Outputs, which the JSON does not have, are the same to ``tolerance``.
    """
    trace = Trace(name="one", layers=[layer])
    fast, event = simulate(machine, trace), simulate(machine, trace, engine="event")
    assert event.to_json().replace('"engine": "event"', '"engine": "fast"', 1) == fast.to_json()
    mine, other = fast.layers[0].output, event.layers[0].output
    assert (mine is None) == (other is None)
    if mine is not None:
        np.testing.assert_allclose(other, mine, rtol=tolerance, atol=tolerance)
    return fast.layers[0]


def holed(rng, *shape, rows, density):
    """Return float32 numbers of ``shape`` of which a share ``rows``, along the first axis, is not all 0."""
    kept = (rng.random(shape[0]) < rows).reshape(-1, *[1] * (len(shape) - 1))
    return (rng.standard_normal(shape) * kept * (rng.random(shape) < density)).astype(np.float32)
