"""What ESE runs for a layer: matrices in their order, each quantised, split over the PEs and encoded.

A matrix is stored as EIE stores one (see `gossamer.workloads.formats.csc`), its weights in linear steps of their own
where EIE has a codebook: entries of a weight and the run of zeros before it, padding where a run is too long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ....workloads.blocks import row_blocks
from ....workloads.formats import csc
from ....workloads.lowering import lower
from ....workloads.lstm import GATES, LstmRun, matrices, run_lstm
from ..fixed_point import Format, format_for, largest

if TYPE_CHECKING:
    from ....workloads.trace import Layer
    from .config import Config


@dataclass(frozen=True, eq=False)
class Matrix:
    """One sparse matrix: ``words`` (rows, cols) int16 in ``format``, 0 where nothing is stored.

    ``name``: x_i to x_o, r_i to r_o, p of an lstm, w of a linear layer. ``entries`` and ``nonzeros``: (cols, PEs), as
    in `csc.Counts`, of the PEs that have a row.
    """

    name: str
    weight: np.ndarray
    words: np.ndarray
    format: Format
    entries: np.ndarray
    nonzeros: np.ndarray

    @classmethod
    def of(cls, name: str, weight: np.ndarray, config: Config) -> Matrix:
        """Return ``weight``, (rows, cols) float32, as ESE stores it; weights below half a step vanish."""
        form = format_for(largest(weight), config.weight_bits)
        words = np.empty(weight.shape, np.int16)
        for rows in row_blocks(weight):
            words[rows] = form.to_words(weight[rows])
        counts = csc.count(words, max(1, min(config.pe_count, len(words))), config.index_bits)
        return cls(name, weight, words, form, counts.entries, counts.nonzeros)

    @property
    def rows(self) -> int:
        """Return the number of outputs."""
        return len(self.words)

    def idle(self, config: Config) -> int:
        """Return how many PEs have no row."""
        return config.pe_count - int(self.entries.shape[1])

    def bits(self, config: Config) -> dict[str, int]:
        """Return what is stored and fetched, in bits by part."""
        entries, pointers = int(self.entries.sum()), config.pe_count * (len(self.entries) + 1)
        return {
            "weights": entries * config.weight_bits,
            "runs": entries * config.index_bits,
            "pointers": pointers * config.pointer_bits,
        }

    def bytes(self, config: Config) -> int:
        """Return the bytes that are fetched for each use."""
        bits: int = sum(self.bits(config).values())
        return -(-bits // 8)


@dataclass(frozen=True, eq=False)
class Program:
    """The matrices of one step in their order, and the samples that they meet.

    ``inputs``: (samples, steps, features) float32; the vectors of a linear layer are samples of one step.
    ``reference``: what the layer computes in float64, (samples, steps, outputs). ``run``: all of an LSTM's values.
    """

    matrices: tuple[Matrix, ...]
    inputs: np.ndarray
    bias: np.ndarray | None
    peephole: np.ndarray | None
    reference: np.ndarray
    run: LstmRun | None

    @classmethod
    def of(cls, layer: Layer, config: Config) -> Program:
        """Return the program of ``layer``, an lstm or a linear one."""
        if layer.op == "lstm":
            parts, run = matrices(layer), run_lstm(layer)
            stored = tuple(Matrix.of(name, parts[name], config) for name in order_of(config.order, "p" in parts))
            return cls(stored, layer.inputs, layer.bias, layer.peephole, run.hidden, run)
        (product,) = lower(layer)
        vectors, weight = product.vectors.astype(np.float64), product.weight
        exact = np.concatenate([vectors @ weight[rows].T.astype(np.float64) for rows in row_blocks(weight)], axis=1)
        bias = product.bias_values
        if bias is not None:
            exact += bias
        stored = (Matrix.of("w", product.weight, config),)
        return cls(stored, product.vectors[:, None], bias, None, exact[:, None], None)

    @property
    def steps(self) -> int:
        """Return the number of steps."""
        return int(self.inputs.shape[1])

    def groups(self, channels: int) -> Iterator[slice]:
        """Yield the samples that run at once, one a channel, group after group."""
        for first in range(0, len(self.inputs), channels):
            yield slice(first, min(first + channels, len(self.inputs)))

    def waits(self, steps_done: int) -> list[int]:
        """Return for each matrix of a step how many passes before its own must be done, counting back; 0 for none.

        A matrix that meets the hidden state waits for the last pass of the step before, where there was one
        (``steps_done``); a projection for the pass of the last gate. One that meets the input waits for nobody.
        """
        return [
            place + 1 if matrix.name.startswith("r") and steps_done else 1 if matrix.name == "p" else 0
            for place, matrix in enumerate(self.matrices)
        ]


def order_of(order: str, projected: bool) -> list[str]:
    """Return the names of an LSTM's matrices in the order in which they are multiplied."""
    if order == "inputs-first":
        names = [f"{source}_{gate}" for source in "xr" for gate in GATES]
    else:
        names = [f"{source}_{gate}" for gate in GATES for source in "xr"]
    return names + ["p"] * projected
