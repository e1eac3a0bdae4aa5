"""Linear layers with 4-bit codes at random places: the nine of EIE, whose weights are not public, and any other.

Source: Han et al., "EIE: Efficient Inference Engine on Compressed Deep Neural Network", ISCA 2016, Table III.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..checks import number, whole
from ..errors import InputError
from ..files.drawn import Draw
from ..files.numbers import read_only
from ..limits import ELEMENTS_LIMIT
from ..trace import Layer, Trace, check_name

CODEWORDS = 15  # of 4 bits, 0 being kept for padding


@dataclass(frozen=True)
class EieLayer:
    """A benchmark layer of the EIE paper: ``inputs`` x ``outputs``, and the shares of both that are not zero."""

    name: str
    inputs: int
    outputs: int
    weight_density: float
    act_density: float


EIE_LAYERS = (
    EieLayer("Alex-6", 9216, 4096, 0.09, 0.351),
    EieLayer("Alex-7", 4096, 4096, 0.09, 0.353),
    EieLayer("Alex-8", 4096, 1000, 0.25, 0.375),
    EieLayer("VGG-6", 25088, 4096, 0.04, 0.183),
    EieLayer("VGG-7", 4096, 4096, 0.04, 0.375),
    EieLayer("VGG-8", 4096, 1000, 0.23, 0.411),
    EieLayer("NT-We", 4096, 600, 0.10, 1.0),
    EieLayer("NT-Wd", 600, 8791, 0.11, 1.0),
    EieLayer("NT-LSTM", 1201, 2400, 0.10, 1.0),
)


def eie_layer(name: str, *, row_sigma: float = 0.0, seed: int = 0) -> Trace:
    """Return a synthetic layer with the size and densities of the layer called ``name`` in Table III.

    ``row_sigma``: as in `random_layer`; 0 gives rows that are more alike than those of real layers, and about 0.13
    gives the spread of the one layer whose weights are public, Alex-8. Raises InputError for an unknown name.
    """
    for layer in EIE_LAYERS:
        if layer.name.lower() == str(name).lower():
            return random_layer(
                layer.outputs,
                layer.inputs,
                layer.weight_density,
                layer.act_density,
                row_sigma=row_sigma,
                seed=seed,
                name=layer.name,
                statistics_of=f"{layer.name}, Han et al., ISCA 2016, Table III",
            )
    raise InputError(f"unknown EIE layer {name!r}; known: {', '.join(layer.name for layer in EIE_LAYERS)}")


def random_layer(
    rows: int,
    cols: int,
    density: float,
    act_density: float,
    *,
    row_sigma: float = 0.0,
    seed: int = 0,
    samples: int = 1,
    bias: bool = False,
    name: str = "random",
    statistics_of: str | None = None,
) -> Trace:
    """Return a trace of one linear layer, (rows, cols), with 4-bit codes, drawn from ``seed``.

    A weight is kept with probability ``density`` times the rate of its row, at most 1; the rates are lognormal with
    mean 1 and ``row_sigma`` the standard deviation of their logarithm. Kept weights have uniform codes 1..15, the
    ``bias``, where wanted, too. Each of the ``samples`` has exactly round(act_density x cols) activations from (0, 1].
    ``statistics_of``: whose statistics these are, for the provenance. Raises InputError for values out of range.
    """
    draw = Draw(act_density=act_density, samples=samples, seed=seed)
    rows, cols = whole(rows, "rows", 1), whole(cols, "cols", 1)
    if rows * cols > ELEMENTS_LIMIT:
        raise InputError(f"a layer must have at most {ELEMENTS_LIMIT} weights, not {rows} x {cols}")
    density, row_sigma = number(density, "density", 0, 1), number(row_sigma, "row_sigma", 0, 10)
    number(act_density, "act_density", 0, 1)  # a Draw may have none
    check_name("name", name)
    rng = np.random.default_rng([seed, 0, 2])  # Draw has [seed, 0] for activations
    rates = np.exp(row_sigma * rng.standard_normal(rows) - row_sigma**2 / 2)
    codes = _draw_codes(rng, np.minimum(density * rates, 1.0), cols)
    bias_codes = _code(rng, rows) if bias else None
    codebook = np.linspace(-1, 1, CODEWORDS + 1, dtype=np.float32)
    codebook[0] = 0
    layer = Layer(
        name=name,
        op="linear",
        codes=codes,
        bias_codes=bias_codes,
        codebook=codebook,
        inputs=draw.linear_inputs(cols),
    )
    provenance = {
        "source": "synthetic",
        "statistics": {
            "rows": rows,
            "cols": cols,
            "density": density,
            "row_rate": "lognormal, mean 1",
            "row_sigma": row_sigma,
            "codes": f"uniform, 1 to {CODEWORDS}",
            "bias": bias,
        },
        "statistics_of": statistics_of,
        "activations": draw.provenance(),
        "seed": seed,
        "sparsity": layer.sparsity,
    }
    return Trace(name=name, layers=(layer,), provenance=provenance)


def _draw_codes(rng: np.random.Generator, rates: np.ndarray, cols: int) -> np.ndarray:
    """Return codes, (len(rates), cols) uint8, 0 except with the probability that is its row's rate."""
    codes = np.zeros((len(rates), cols), np.uint8)
    for row, rate in zip(codes, rates.tolist(), strict=True):
        for kept in _successes(rng, rate, cols):
            row[kept] = _code(rng, len(kept))
    return read_only(codes)


def _successes(rng: np.random.Generator, rate: float, trials: int) -> list[np.ndarray]:
    """Return which of ``trials`` succeed, ascending, in one array or more; the cost grows with the successes.

    The gaps between successes of independent trials are geometric.
    """
    found: list[np.ndarray] = []
    last = -1
    while rate > 0 and last < trials - 1:
        expected = (trials - 1 - last) * rate
        gaps = rng.geometric(rate, int(expected + 4 * math.sqrt(expected)) + 4)
        # A tiny rate gives gaps of any length; one past the end is past the end.
        at = last + np.cumsum(np.minimum(gaps, trials + 1))
        found.append(at[at < trials])
        last = int(at[-1])
    return found


def _code(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(1, CODEWORDS + 1, count, np.uint8)
