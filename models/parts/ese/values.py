"""ESE's numbers: 12-bit weights, 16-bit activations in fixed point, tables for sigmoid and tanh.

Every tensor has a binary point of its own, fixed in advance for the data it is meant for (the paper quantises layer by
layer). Sums of a matrix are kept in longer words; the element-wise unit works on words of ``word_bits``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from ....workloads.blocks import row_blocks
from ....workloads.lstm import GATES, sigmoid
from ..accuracy import accuracy
from ..fixed_point import Format, format_for, largest

PEEPHOLES = ("i", "f", "o")  # rows of an LSTM's peephole

if TYPE_CHECKING:
    from .config import Config
    from .program import Matrix, Program


@dataclass(frozen=True, eq=False)
class Table:
    """A sampled function: ``words`` at the ends of equal intervals that cover +-``reach``, linear in between.

    ``steepest``, ``bend``: bounds of its first and second derivative.
    """

    words: np.ndarray
    reach: float
    output: Format
    function: Callable[[np.ndarray], np.ndarray]
    steepest: float
    bend: float

    @classmethod
    def of(
        cls,
        function: Callable[[np.ndarray], np.ndarray],
        reach: float,
        points: int,
        word_bits: int,
        slopes: tuple[float, float],
    ) -> Table:
        """Return the table of ``function`` with ``points`` intervals; its outputs lie within +-1.

        ``slopes``: bounds of the first and second derivative.
        """
        output = format_for(1.0, word_bits)
        words = output.to_words(function(np.linspace(-reach, reach, points + 1)))
        return cls(words, reach, output, function, *slopes)

    def look_up(self, words: np.ndarray, form: Format) -> np.ndarray:
        """Return the output words for ``words`` of format ``form``; beyond the table its ends hold."""
        intervals = len(self.words) - 1
        place = np.clip((form.to_values(words) + self.reach) * (intervals / (2 * self.reach)), 0, intervals)
        index = np.minimum(place.astype(np.int64), intervals - 1)
        low, high = self.words[index], self.words[index + 1]
        found: np.ndarray = np.rint(low + (high - low) * (place - index)).astype(np.int64)
        return found

    def error(self) -> float:
        """Return how far an output may be from the function of the same input."""
        step = 2 * self.reach / (len(self.words) - 1)
        ends = np.array([-self.reach, self.reach])
        limits = np.array([-1.0 if self.function is np.tanh else 0.0, 1.0])
        beyond = float(np.abs(limits - self.function(ends)).max())
        # A chord is no further from a curve than this, and no further than the curve moves on half the interval twice.
        chord = min(step**2 / 8 * self.bend, step * self.steepest)
        return max(chord, beyond) + 0.5**self.output.fraction_bits


@dataclass
class State:
    """What the engine holds for a group of samples between matrices: words, (samples, ...) int64 each."""

    parts: dict[str, np.ndarray] = field(default_factory=dict)
    gates: dict[str, np.ndarray] = field(default_factory=dict)
    cells: np.ndarray | None = None
    memory: np.ndarray | None = None
    hidden: np.ndarray | None = None
    saturated: int = 0


@dataclass(frozen=True, eq=False)
class Arithmetic:
    """The formats and tables of a program, and what the element-wise unit does with the results of each matrix.

    ``sums``: the format of each matrix's accumulators, by name.
    """

    inputs: Format
    gates: Format
    cells: Format
    memory: Format
    hidden: Format
    coefficients: Format
    sums: dict[str, Format]
    sigmoid: Table
    tanh: Table
    bias: np.ndarray | None
    peephole: np.ndarray | None

    @classmethod
    def of(cls, program: Program, config: Config) -> Arithmetic:
        """Return the arithmetic of ``program``: each tensor in the finest steps in which its largest value fits."""
        bits, run = config.word_bits, program.run
        inputs = format_for(largest(program.inputs), bits)
        outputs = format_for(largest(program.reference), bits)
        if run is None:
            offset = 0.0 if program.bias is None else largest(program.bias)
            gates = format_for(max(largest(program.reference), offset), bits)
            cells = memory = outputs = gates
        else:
            gates = format_for(max(run.peak, 0.0 if program.bias is None else largest(program.bias)), bits)
            cells, memory = format_for(largest(run.cells), bits), format_for(largest(run.memory), bits)
            outputs = outputs if any(m.name == "p" for m in program.matrices) else memory
        peephole = program.peephole
        coefficients = format_for(0.0 if peephole is None else largest(peephole), bits)
        meets = {"x": inputs, "w": inputs, "r": outputs, "p": memory}
        return cls(
            inputs=inputs,
            gates=gates,
            cells=cells,
            memory=memory,
            hidden=outputs,
            coefficients=coefficients,
            sums={m.name: _sums(m, meets[m.name[0]], config.accumulator_bits) for m in program.matrices},
            sigmoid=Table.of(sigmoid, config.sigmoid_range, config.table_points, bits, (0.25, 0.0963)),
            tanh=Table.of(np.tanh, config.tanh_range, config.table_points, bits, (1.0, 0.77)),
            bias=None if program.bias is None else gates.to_words(program.bias),
            peephole=None if peephole is None else coefficients.to_words(peephole),
        )

    def operand(self, name: str) -> Format:
        """Return the format of what the matrix called ``name`` meets."""
        return {"x": self.inputs, "w": self.inputs, "r": self.hidden, "p": self.memory}[name[0]]

    def begin(self, samples: int, program: Program) -> State:
        """Return the state before the first step: zeros."""
        size, cells = program.reference.shape[2], 0 if program.run is None else program.run.cells.shape[2]
        return State(cells=np.zeros((samples, cells), np.int64), hidden=np.zeros((samples, size), np.int64))

    def operands(self, name: str, inputs: np.ndarray, state: State) -> np.ndarray:
        """Return the words that the matrix called ``name`` meets, (samples, cols); ``inputs`` are this step's words."""
        found = {"x": inputs, "w": inputs, "r": state.hidden, "p": state.memory}[name[0]]
        assert found is not None
        return found

    def finish(self, name: str, sums: np.ndarray, state: State) -> None:
        """Do to ``state`` what the element-wise unit does with ``sums``, (samples, rows), of the matrix ``name``."""
        if name == "p":
            shift = self.sums[name].fraction_bits - self.hidden.fraction_bits
            state.hidden = self._clip(shifted(sums, shift), self.hidden, state)
            return
        part = self._clip(shifted(sums, self.sums[name].fraction_bits - self.gates.fraction_bits), self.gates, state)
        if name == "w":
            state.hidden = part if self.bias is None else self._clip(part + self.bias, self.gates, state)
            return
        state.parts[name] = part
        gate = name[2]
        if f"x_{gate}" in state.parts and f"r_{gate}" in state.parts:
            self._finish_gate(gate, state.parts.pop(f"x_{gate}") + state.parts.pop(f"r_{gate}"), state)

    def _finish_gate(self, gate: str, total: np.ndarray, state: State) -> None:
        place = GATES.index(gate)
        assert state.cells is not None
        cells = state.cells
        if self.bias is not None:
            width = cells.shape[1]
            total = total + self.bias[place * width : (place + 1) * width]
        if self.peephole is not None and gate != "g":
            shift = self.coefficients.fraction_bits + self.cells.fraction_bits - self.gates.fraction_bits
            total = total + shifted(self.peephole[PEEPHOLES.index(gate)] * cells, shift)
        total = self._clip(total, self.gates, state)
        state.gates[gate] = (self.tanh if gate == "g" else self.sigmoid).look_up(total, self.gates)
        unit = self.sigmoid.output.fraction_bits
        if gate == "g":  # i, f and g are there, and o has not seen the cells yet: they change now
            kept = shifted(state.gates["f"] * cells, unit)
            new = shifted(state.gates["i"] * state.gates["g"], 2 * unit - self.cells.fraction_bits)
            state.cells = self._clip(kept + new, self.cells, state)
        elif gate == "o":
            shown = self.tanh.look_up(state.cells, self.cells)
            state.memory = self._clip(
                shifted(state.gates["o"] * shown, 2 * unit - self.memory.fraction_bits), self.memory, state
            )
            if "p" not in self.sums:
                state.hidden = state.memory

    @staticmethod
    def _clip(words: np.ndarray, form: Format, state: State) -> np.ndarray:
        clipped: np.ndarray = np.clip(words, form.least, form.greatest)
        state.saturated += int(np.count_nonzero(clipped != words))
        return clipped


def shifted(words: np.ndarray, shift: int) -> np.ndarray:
    """Return ``words`` without ``shift`` of their fraction bits, rounding half up; longer where it is negative.

    Words that no format could hold any more stay beyond every format; those that vanish are 0.
    """
    if shift > 0:
        shift = min(shift, 62)
        return (words + (1 << (shift - 1))) >> shift
    up = min(-shift, 60)
    room = 1 << (60 - up)
    raised: np.ndarray = np.clip(words, -room, room) << up
    return raised


def multiply(matrix: Matrix, operands: np.ndarray, arithmetic: Arithmetic) -> tuple[np.ndarray, int]:
    """Return the sums, (samples, rows) int64, of ``matrix`` with ``operands`` (samples, cols), and what saturated."""
    form = arithmetic.sums[matrix.name]
    out = np.zeros((matrix.rows, len(operands)), np.int64)
    shift = shift_of(matrix, arithmetic)
    columns = np.ascontiguousarray(operands.T)
    saturated = _multiply(matrix.words, columns, shift, form.least, form.greatest, out)
    return out.T, saturated


def accumulate(
    sums: np.ndarray, rows: np.ndarray, words: np.ndarray, operands: np.ndarray, shift: int, form: Format
) -> int:
    """Add a column's share to ``sums``, (rows, samples), in place: ``words`` of its ``rows`` times ``operands``.

    Returns how many additions saturated.
    """
    added = sums[rows] + shifted(words[:, None] * operands[None], shift)
    sums[rows] = clipped = np.clip(added, form.least, form.greatest)
    return int(np.count_nonzero(added != clipped))


def shift_of(matrix: Matrix, arithmetic: Arithmetic) -> int:
    """Return how many fraction bits a product loses on its way to the accumulator; negative where it gains some."""
    operand, sums = arithmetic.operand(matrix.name), arithmetic.sums[matrix.name]
    return matrix.format.fraction_bits + operand.fraction_bits - sums.fraction_bits


def compute(program: Program, arithmetic: Arithmetic) -> tuple[dict[str, np.ndarray], int]:
    """Return what the matrices met, and "y", the outputs, in words (samples, steps, ...); and how many saturated.

    Operands stand under the first letter of their matrices: x, r, p, or w.
    """
    state = arithmetic.begin(len(program.inputs), program)
    inputs = arithmetic.inputs.to_words(program.inputs)
    met: dict[str, list[np.ndarray]] = {name: [] for name in (*(m.name[0] for m in program.matrices), "y")}
    for t in range(program.steps):
        for matrix in program.matrices:
            operands = arithmetic.operands(matrix.name, inputs[:, t], state)
            if len(met[matrix.name[0]]) == t:
                met[matrix.name[0]].append(operands)
            sums, saturated = multiply(matrix, operands, arithmetic)
            state.saturated += saturated
            arithmetic.finish(matrix.name, sums, state)
        assert state.hidden is not None
        met["y"].append(state.hidden)
    return {name: np.stack(steps, axis=1) for name, steps in met.items()}, state.saturated


def judge(
    program: Program, arithmetic: Arithmetic, words: np.ndarray, saturated: int
) -> tuple[np.ndarray, dict[str, float]]:
    """Return the output values, (vectors, outputs), and how far they are from float64."""
    output = arithmetic.hidden.to_values(words).reshape(-1, words.shape[-1])
    reference = program.reference.reshape(output.shape)
    return output, accuracy(output, reference) | {
        "saturated": float(saturated),
        "weight_fraction_bits": float(min(matrix.format.fraction_bits for matrix in program.matrices)),
        "activation_fraction_bits": float(arithmetic.inputs.fraction_bits),
        "output_fraction_bits": float(arithmetic.hidden.fraction_bits),
    }


def _sums(matrix: Matrix, operand: Format, bits: int) -> Format:
    """Return the accumulators' format: none of their sums can leave it while operands keep to theirs."""
    words = matrix.words
    sums = (np.abs(words[rows].astype(np.int64)).sum(axis=1).max(initial=0) for rows in row_blocks(words))
    weights = float(matrix.format.to_values(np.array(max(sums, default=0))))
    most = weights * float(-operand.to_values(np.array(operand.least)))
    # Each product may be rounded up by half a step: one bit more holds all of them.
    return format_for(2 * most, bits)


@njit(cache=True)
def _multiply(words, columns, shift, least, greatest, out):  # type: ignore[no-untyped-def]
    """Fill ``out``, (rows, samples); a row adds up its products column by column, whatever the other rows do."""
    saturated = 0
    up = max(0, min(-shift, 60))
    room = 1 << (60 - up)
    down = max(0, min(shift, 62))
    half = (1 << (down - 1)) if down > 0 else 0
    samples = out.shape[1]
    kept = np.empty(len(columns) + 1, np.int64)
    for row in range(len(words)):
        # Which weights are left is random: collecting their columns without a branch spares the mispredictions.
        found = 0
        for c in range(len(columns)):
            kept[found] = c
            found += words[row, c] != 0
        for c in kept[:found]:
            word = np.int64(words[row, c])
            for s in range(samples):
                product = word * columns[c, s]
                product = (product + half) >> down if down > 0 else min(max(product, -room), room) << up
                total = out[row, s] + product
                clipped = min(max(total, least), greatest)
                saturated += total != clipped
                out[row, s] = clipped
    return saturated
