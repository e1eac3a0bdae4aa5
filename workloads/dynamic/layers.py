"""Layers made from others: arrays replaced, outputs or inputs taken out, whatever form the weight is kept in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..checks import briefly, is_number
from ..errors import InputError
from ..lowering import join, lower
from ..patterns import Pattern
from ..rules import ARRAYS
from ..trace import Layer, Trace

LARGEST = float(np.finfo(np.float32).max)  # a threshold above it is one that no float32 exceeds


def changed(layer: Layer, **changes: Any) -> Layer:
    """Return ``layer`` with fields replaced; its weight stays in the form it is kept in, codes or values."""
    given = {name: layer.array(name) for name in ARRAYS}
    about: dict[str, Any] = {
        "name": layer.name,
        "op": layer.op,
        "pattern": layer.pattern,
        "attributes": dict(layer.attributes),
    }
    return Layer(**(about | given | changes))


def take(layer: Layer, *, outputs: np.ndarray | None = None, inputs: np.ndarray | None = None) -> Layer:
    """Return linear ``layer`` with only these ``outputs`` (rows of the weight) and ``inputs`` (its columns)."""
    rows = slice(None) if outputs is None else outputs
    columns = slice(None) if inputs is None else inputs
    changes: dict[str, Any] = {"attributes": {}, "inputs": layer.inputs[..., columns]}
    for name in ("weight", "codes", "mask"):
        array = layer.array(name)
        if array is not None:
            changes[name] = array[rows][:, columns]
    for name in ("bias", "bias_codes"):
        array = layer.array(name)
        if array is not None:
            changes[name] = array[rows]
    kept = next(changes[name] for name in ("mask", "codes", "weight") if name in changes)
    return changed(layer, pattern=_still(layer.pattern, kept), **changes)


def output_of(layer: Layer) -> np.ndarray:
    """Return what ``layer`` puts out, in float64, a row a vector as `lower` orders them."""
    parts = []
    for product in lower(layer):
        bias = product.bias_values
        part = product.vectors.astype(np.float64) @ product.weight.astype(np.float64).T
        parts.append(part if bias is None else part + bias)
    return join(layer, parts)


def renamed(trace: Trace, suffix: str, layers: list[Layer], about: dict[str, Any], *, same_values: bool) -> Trace:
    """Return the trace of ``layers`` with a note of what was done under ``dynamic`` in its provenance.

    Without ``same_values`` an accuracy that was measured before is left out: it is no longer that of these values.
    """
    provenance = dict(trace.provenance)
    if not same_values:
        for name in ("accuracy", "predictions"):
            provenance.pop(name, None)
    before = provenance.get("dynamic")
    done = [*(before if isinstance(before, list) else []), about]
    return replace(
        trace, name=f"{trace.name}-{suffix}", layers=tuple(layers), provenance=provenance | {"dynamic": done}
    )


def share(what: str, value: float) -> float:
    """Return ``value``, a share in (0, 1]; InputError, naming ``what``, for any other."""
    if not is_number(value) or not 0 < value <= 1:
        raise InputError(f"{what} must be above 0 and at most 1, not {briefly(value)}")
    return value


def _still(pattern: Pattern, kept: np.ndarray) -> Pattern:
    """Return ``pattern`` where what is left keeps it; balanced rows and tiles may lie across what was taken out."""
    try:
        pattern.check(kept, "part")
    except InputError:
        return Pattern(kind="unstructured")
    return pattern
