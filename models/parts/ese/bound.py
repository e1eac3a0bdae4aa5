"""How far ESE's outputs may be from float64: rounding, quantised weights and tables, followed from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ....workloads.lstm import GATES
from .values import PEEPHOLES

if TYPE_CHECKING:
    from ..fixed_point import Format
    from .program import Matrix, Program
    from .values import Arithmetic


def error_bound(program: Program, arithmetic: Arithmetic) -> np.ndarray:
    """Return how far each output may be from the exact one, (vectors, outputs) in float64, if nothing saturates.

    Errors of a step are followed into the next: half a step of each format that a value passes, what quantising did to
    each weight, what the tables are off, and no more than a sigmoid or tanh can change for a change of its input.
    """
    matrices = {matrix.name: _Exact.of(matrix, arithmetic) for matrix in program.matrices}
    inputs = program.inputs.astype(np.float64)
    given = np.abs(inputs - arithmetic.inputs.to_values(arithmetic.inputs.to_words(inputs)))
    half = 0.5 ** (arithmetic.gates.fraction_bits + 1)
    offset = np.zeros(1)
    if program.bias is not None and arithmetic.bias is not None:
        offset = np.abs(program.bias - arithmetic.gates.to_values(arithmetic.bias))
    if program.run is None:
        return matrices["w"].bound(inputs[:, 0], given[:, 0]) + half + offset
    run, cells = program.run, program.run.cells.shape[2]
    offset = np.broadcast_to(offset, (4 * cells,))
    error_y, error_c = np.zeros_like(run.hidden[:, 0]), np.zeros_like(run.cells[:, 0])
    bounds = []
    for t in range(program.steps):
        errors = {}
        before = run.cells[:, t - 1] if t else np.zeros_like(error_c)
        for place, gate in enumerate(GATES):
            exact = run.gates[:, t, place]
            error = matrices[f"x_{gate}"].bound(inputs[:, t], given[:, t])
            error += matrices[f"r_{gate}"].bound(run.before[:, t], error_y) + 2 * half
            error += offset[place * cells : (place + 1) * cells]
            if gate != "g":
                error += _peephole_error(arithmetic, program, gate, run.cells[:, t] if gate == "o" else before, error_c)
            table = arithmetic.tanh if gate == "g" else arithmetic.sigmoid
            # Two values within +-1 are no further apart than 2, two of a format no further than its ends.
            errors[gate] = (np.minimum(table.steepest * error + table.error(), 2), np.abs(table.function(exact)))
            if gate == "g":
                step = 0.5**arithmetic.cells.fraction_bits
                error_c = step + _product(errors["f"], (error_c, np.abs(before))) + _product(errors["i"], errors["g"])
                error_c = _within(error_c, run.cells[:, t], arithmetic.cells)
        shown = (arithmetic.tanh.steepest * error_c + arithmetic.tanh.error(), np.abs(np.tanh(run.cells[:, t])))
        error_y = _product(errors["o"], shown) + 0.5 ** (arithmetic.memory.fraction_bits + 1)
        error_y = _within(error_y, run.memory[:, t], arithmetic.memory)
        if "p" in matrices:
            error_y = matrices["p"].bound(run.memory[:, t], error_y) + 0.5 ** (arithmetic.hidden.fraction_bits + 1)
            error_y = _within(error_y, run.hidden[:, t], arithmetic.hidden)
        bounds.append(error_y)
    return np.stack(bounds, axis=1).reshape(-1, run.hidden.shape[2])


@dataclass(frozen=True, eq=False)
class _Exact:
    """A matrix for bounds: |stored|, |stored - given|, and half steps of the accumulator by row."""

    stored: np.ndarray
    off: np.ndarray
    rounding: np.ndarray

    @classmethod
    def of(cls, matrix: Matrix, arithmetic: Arithmetic) -> _Exact:
        held = matrix.format.to_values(matrix.words)
        step = 0.5 ** (arithmetic.sums[matrix.name].fraction_bits + 1)
        return cls(np.abs(held), np.abs(held - matrix.weight), step * np.count_nonzero(matrix.words, axis=1))

    def bound(self, operands: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """Return the error of the products with ``operands`` that are off by ``errors``, (samples, cols) both."""
        bound: np.ndarray = errors @ self.stored.T + np.abs(operands) @ self.off.T + self.rounding
        return bound


def _peephole_error(
    arithmetic: Arithmetic, program: Program, gate: str, cells: np.ndarray, error_c: np.ndarray
) -> np.ndarray | float:
    if program.peephole is None or arithmetic.peephole is None:
        return 0.0
    place = PEEPHOLES.index(gate)
    given, held = program.peephole[place], arithmetic.coefficients.to_values(arithmetic.peephole[place])
    half = 0.5 ** (arithmetic.gates.fraction_bits + 1)
    bound: np.ndarray = np.abs(held) * error_c + np.abs(held - given) * np.abs(cells) + half
    return bound


def _within(error: np.ndarray, exact: np.ndarray, form: Format) -> np.ndarray:
    """Return ``error``, at most what a value of ``form`` can be away from the exact one."""
    least: np.ndarray = np.minimum(error, np.abs(exact) - form.to_values(np.array(form.least)))
    return least


def _product(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the error of a product of two values, each given as its error and its exact magnitude."""
    error: np.ndarray = one[0] * other[1] + other[0] * one[1] + one[0] * other[0]
    return error
