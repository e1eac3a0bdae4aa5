"""The LSTM of the ESE paper, whose weights are not public, drawn to its size and to the number of its stored entries.

Source: Han et al., "ESE: Efficient Speech Recognition Engine with Sparse LSTM on FPGA", FPGA 2017; sizes and entries
are recalled, not read: 153 inputs, 1,024 cells, 512 projected outputs, 11.2 % of the weights, 364,608 entries.
"""

from __future__ import annotations

import numpy as np

from ..checks import number, whole
from ..errors import InputError
from ..formats import csc
from ..limits import ELEMENTS_LIMIT
from ..lstm_rules import split
from ..patterns import Pattern
from ..pruning import balanced, magnitude
from ..trace import Layer, Trace

INPUTS, CELLS, PROJECTED = 153, 1024, 512
ENTRIES = 364_608  # stored on 32 PEs with runs of 4 bits, padding included
PES = 32
PROJECTION_DENSITY = 0.1  # as the paper's table has it, from memory; the gates' follows from the entries
PRUNINGS = ("balanced", "global")
BIAS_SCALE = 0.1  # of biases and peepholes; they bear on values alone
WEIGHT_SCALE = 0.5  # keeps gates off both ends of the sigmoid


def ese_lstm(
    *, row_sigma: float = 0.0, pruning: str = "balanced", samples: int = 32, steps: int = 1, seed: int = 0
) -> Trace:
    """Return a trace of one lstm layer of ESE's size that stores exactly its entries on 32 PEs.

    Weights are normal, times a scale of their row: lognormal, ``row_sigma`` the standard deviation of its logarithm.
    Each matrix is pruned on its own: "balanced", so that all of the 32 PEs keep the same share of it, or "global", with
    one threshold. All gate matrices have one density, the projection 10 %, but for the few weights by which it makes up
    the entries. Inputs, biases and peepholes are normal. Raises InputError for values out of range.
    """
    row_sigma = number(row_sigma, "row_sigma", 0, 2)
    if pruning not in PRUNINGS:
        raise InputError(f"pruning must be {' or '.join(PRUNINGS)}, not {pruning!r}")
    samples, steps, seed = whole(samples, "samples", 1), whole(steps, "steps", 1), whole(seed, "seed", 0)
    if samples * steps * INPUTS > ELEMENTS_LIMIT // 8:  # states of 4 x 1,024 gates are kept in float64
        raise InputError(
            f"samples x steps must come to at most {ELEMENTS_LIMIT // 8 // INPUTS}, not {samples} x {steps}"
        )
    rng = np.random.default_rng([seed, 0, 4])
    weight = np.empty((4 * CELLS, INPUTS + PROJECTED), np.float32)
    for matrix in split(weight, INPUTS).values():
        matrix[:] = _draw(rng, matrix.shape, row_sigma)
    projection = _draw(rng, (PROJECTED, CELLS), row_sigma)
    weight, density = _prune_gates(weight, pruning, ENTRIES - round(PROJECTION_DENSITY * projection.size))
    # 16 rows a PE leave no run too long for 4 bits: each weight of the projection is one entry
    left = ENTRIES - _entries(weight)
    projection = np.where(_mask(projection, left / projection.size, pruning), projection, np.float32(0))
    weight *= np.float32(WEIGHT_SCALE / np.sqrt(density * weight.shape[1]))
    projection *= np.float32(WEIGHT_SCALE / np.sqrt(PROJECTION_DENSITY * CELLS))
    layer = Layer(
        name="lstm",
        op="lstm",
        weight=weight,
        projection=projection,
        bias=_normal(rng, (4 * CELLS,)) * np.float32(BIAS_SCALE),
        peephole=_normal(rng, (3, CELLS)) * np.float32(BIAS_SCALE),
        inputs=_normal(rng, (samples, steps, INPUTS)),
        pattern=Pattern("balanced", pe_count=PES, scope="pe") if pruning == "balanced" else Pattern(),
    )
    provenance = {
        "source": "synthetic",
        "statistics": {
            "inputs": INPUTS, "cells": CELLS, "projected": PROJECTED, "entries": ENTRIES, "pe_count": PES,
            "weights": "normal, scale of a row lognormal", "row_sigma": row_sigma, "pruning": pruning,
            "gate_density": density, "samples": samples, "steps": steps,
        },
        "statistics_of": "the LSTM of ESE, Han et al., FPGA 2017, from memory",
        "seed": seed,
        "sparsity": layer.sparsity,
    }  # fmt: skip
    return Trace(name="ese-lstm", layers=(layer,), provenance=provenance)


def unequal_rows(rng: np.random.Generator, rows: int, cols: int, row_sigma: float) -> np.ndarray:
    """Return normal weights, (rows, cols) float32, each row times exp(row_sigma x normal)."""
    return _draw(rng, (rows, cols), row_sigma)


def _prune_gates(weight: np.ndarray, pruning: str, entries: int) -> tuple[np.ndarray, float]:
    """Return ``weight`` with its eight matrices pruned to a density at which they store about ``entries``; and that."""
    density = entries / weight.size
    pruned = weight
    for _ in range(4):  # padding grows slowly as weights go: each round leaves a tenth of the error
        pruned = np.zeros_like(weight)
        for part, into in zip(split(weight, INPUTS).values(), split(pruned, INPUTS).values(), strict=True):
            np.copyto(into, part, where=_mask(np.ascontiguousarray(part), density, pruning))
        stored = _entries(pruned)
        if abs(stored - entries) < 0.001 * entries:
            break
        density *= entries / stored
    return pruned, density


def _mask(weight: np.ndarray, density: float, pruning: str) -> np.ndarray:
    full = np.ones(weight.shape, bool)
    if pruning == "balanced":
        return balanced(weight, full, 1 - density, PES)
    return magnitude(weight, full, 1 - density)


def _entries(weight: np.ndarray) -> int:
    """Count the entries of the gates' matrices; rows of one gate follow one another on a PE, those of two never."""
    parts = split(weight, INPUTS).values()
    return sum(int(csc.count(part, PES).entries.sum(dtype=np.int64)) for part in parts)


def _draw(rng: np.random.Generator, shape: tuple[int, int], row_sigma: float) -> np.ndarray:
    scales = np.exp(row_sigma * rng.standard_normal((shape[0], 1)))
    drawn: np.ndarray = (scales * rng.standard_normal(shape)).astype(np.float32)
    return drawn


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)
