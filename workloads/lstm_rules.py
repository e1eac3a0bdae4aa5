"""The rules of a layer of op ``lstm``, and the matrices that it consists of.

The weight holds eight matrices: for each gate, in torch's order i, f, g, o, one that meets the input and one that meets
the hidden state. A projection is the ninth. Each of them is multiplied on its own, and keeps the pattern on its own.
"""

from __future__ import annotations

import numpy as np

from .errors import InputError
from .layer_fields import LayerFields

GATES = ("i", "f", "g", "o")  # g is the candidate of the cell, behind a tanh; the others are behind a sigmoid


def split(weight: np.ndarray, inputs: int) -> dict[str, np.ndarray]:
    """Return the eight matrices in ``weight``, (4C, inputs + R), as views by name: x_i to x_o, then r_i to r_o.

    Those named x are (C, inputs) and meet the input; those named r are (C, R) and meet the last hidden state.
    """
    cells = len(weight) // 4
    rows = {gate: weight[place * cells : (place + 1) * cells] for place, gate in enumerate(GATES)}
    return {f"x_{gate}": part[:, :inputs] for gate, part in rows.items()} | {
        f"r_{gate}": part[:, inputs:] for gate, part in rows.items()
    }


def check_lstm(layer: LayerFields, shape: tuple[int, ...], where: str) -> None:
    """Raise InputError, naming ``where``, for the first rule on shapes that an ``lstm`` breaks."""
    for name in ("codes", "bias_codes", "codebook"):
        if layer.__dict__[name] is not None:
            raise InputError(f"{where}: lstm takes no {name}; give its weight as it is")
    if layer.attributes:
        raise InputError(f"{where}: lstm knows no attributes, not {min(map(repr, layer.attributes))}; leave it out")
    if shape[0] % 4:
        raise InputError(f"{where}: the weight of lstm must have the rows of 4 gates, a multiple of 4, not {shape[0]}")
    cells, inputs = shape[0] // 4, layer.inputs.shape
    if len(inputs) != 3 or not 1 <= inputs[2] < shape[1]:
        raise InputError(
            f"{where}: inputs must be (samples, steps, features), with fewer features than the weight has columns, "
            f"{shape[1]} with the hidden state, not {inputs}"
        )
    hidden = shape[1] - inputs[2]
    projection, peephole = layer.projection, layer.peephole
    if projection is None and hidden != cells:
        raise InputError(
            f"{where}: without a projection the weight must have {inputs[2]} + {cells} columns, inputs and cells, "
            f"not {shape[1]}"
        )
    if projection is not None and projection.shape != (hidden, cells):
        raise InputError(
            f"{where}: projection must be {(hidden, cells)}, hidden state by cells, not {projection.shape}"
        )
    if peephole is not None and peephole.shape != (3, cells):
        raise InputError(f"{where}: peephole must be {(3, cells)}, a row for each of i, f and o, not {peephole.shape}")


def check_lstm_pattern(layer: LayerFields, where: str) -> None:
    """Raise InputError, naming ``where``, matrix and place, unless each matrix of an ``lstm`` keeps its pattern."""
    kept = layer.weight if layer.mask is None else layer.mask
    for name, matrix in split(kept, layer.inputs.shape[2]).items():
        layer.pattern.check(matrix, f"{where}: matrix {name}")
    if layer.projection is not None:
        layer.pattern.check(layer.projection, f"{where}: projection")
