"""Layers drawn from declared statistics: the nine of the EIE paper, whose weights are not public, and any other.

`random_layer` draws codes at random places; `gemm_layer` draws weights in an N:M pattern.

Source: Han et al., "EIE: Efficient Inference Engine on Compressed Deep Neural Network", ISCA 2016, Table III.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .errors import InputError
from .files.drawn import Draw
from .files.sparse import ELEMENTS_LIMIT
from .patterns import Pattern
from .trace import Layer, Trace, check_name

CODEWORDS = 15  # of 4 bits, 0 being kept for padding
CHOSEN = 4  # of M columns that the rows of a V:N:M block choose together (Castro et al., VENOM, SC 2023)


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
    _check(rows, cols, density, act_density, row_sigma)
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
            "density": float(density),
            "row_rate": "lognormal, mean 1",
            "row_sigma": float(row_sigma),
            "codes": f"uniform, 1 to {CODEWORDS}",
            "bias": bias,
        },
        "statistics_of": statistics_of,
        "activations": draw.provenance(),
        "seed": seed,
        "sparsity": layer.sparsity,
    }
    return Trace(name=name, layers=(layer,), provenance=provenance)


def gemm_layer(
    rows: int,
    reduction: int,
    columns: int,
    pattern: str = "2:4",
    *,
    act_density: float = 1.0,
    seed: int = 0,
    name: str = "gemm",
) -> Trace:
    """Return a trace of one linear layer that multiplies (rows, reduction) weights with ``columns`` input vectors.

    ``pattern``: "N:M", every group of M weights along the reduction keeps exactly N at places of its own (of a short
    last group, at most N); "V:N:M", the V rows of a block choose 4 of M together, each row keeps N of those; "dense",
    all; "random:D", each with probability D. Weights are normal, not 0. Each vector has exactly
    round(act_density x reduction) values from (0, 1]. Raises InputError for values out of range.
    """
    for what, side in (("rows", rows), ("reduction", reduction), ("columns", columns)):
        if isinstance(side, bool) or not isinstance(side, int) or side < 1:
            raise InputError(f"{what} must be a whole number of at least 1, not {side!r}")
    for what, sides in (("weights", (rows, reduction)), ("inputs", (columns, reduction))):
        if sides[0] * sides[1] > ELEMENTS_LIMIT:
            raise InputError(f"a product must have at most {ELEMENTS_LIMIT} {what}, not {sides[0]} x {sides[1]}")
    if act_density is None:
        raise InputError("act_density must be a number from 0 to 1, not None")
    draw = Draw(act_density=act_density, samples=columns, seed=seed)
    check_name("name", name)
    kept = _Kept.read(pattern)
    rng = np.random.default_rng([seed, 0, 3])
    weight = np.empty((rows, reduction), np.float32)
    block = kept.vector_rows * max(1, (1 << 22) // (reduction * kept.vector_rows))  # some rows at a time: less memory
    for first in range(0, rows, block):
        part = weight[first : first + block]
        rng.standard_normal(out=part, dtype=np.float32)
        part[part == 0] = 1
        part[~kept.draw(rng, part.shape)] = 0
    weight.flags.writeable = False
    layer = Layer(name=name, op="linear", weight=weight, inputs=draw.linear_inputs(reduction), pattern=kept.promise)
    provenance = {
        "source": "synthetic",
        "statistics": {"rows": rows, "reduction": reduction, "columns": columns, "pattern": pattern,
                       "weights": "normal"},
        "activations": draw.provenance(),
        "seed": seed,
        "sparsity": layer.sparsity,
    }  # fmt: skip
    return Trace(name=name, layers=(layer,), provenance=provenance)


@dataclass(frozen=True)
class _Kept:
    """Which weights a pattern in words keeps: ``n`` of ``m``, or each with probability ``density``.

    ``vector_rows``: rows that choose 4 of m together before each keeps n of those; 1 where every row is free.
    """

    promise: Pattern
    n: int = 1
    m: int = 1
    vector_rows: int = 1
    density: float = 1.0

    @classmethod
    def read(cls, text: str) -> _Kept:
        """Return what ``text`` says. Raises InputError."""
        head, _, rest = text.partition(":")
        if text == "dense":
            return cls(Pattern("dense"))
        if head == "random" and (density := _decimal(rest)) is not None and 0 <= density <= 1:
            return cls(Pattern("unstructured"), density=density)
        parts = text.split(":")
        if len(parts) in (2, 3) and all(part.isascii() and part.isdecimal() for part in parts):
            *vector, n, m = (int(part) for part in parts)
            rows = vector[0] if vector else 1
            if 1 <= n <= m <= 256 and (not vector or (1 <= rows <= 65536 and n <= CHOSEN <= m)):
                return cls(Pattern("n:m", n=n, m=m, axis=1), n, m, rows if vector else 1)
        raise InputError(
            f"pattern must be N:M with 1 <= N <= M <= 256, V:N:M with N <= {CHOSEN} <= M, dense, "
            f"or random:D with D from 0 to 1, not {text!r}"
        )

    def draw(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Return True, (rows, columns), where a weight is kept."""
        rows, columns = shape
        if self.promise.kind != "n:m":
            return np.ones(shape, bool) if self.density == 1 else rng.random(shape, np.float32) < self.density
        groups, blocks = -(-columns // self.m), -(-rows // self.vector_rows)
        keys = rng.random((rows, groups, self.m), np.float32)
        if self.vector_rows > 1:
            shared = rng.random((blocks, groups, self.m), np.float32)
            shared.reshape(blocks, -1)[:, columns:] = 2  # places beyond the end are chosen last
            keys[~np.repeat(_smallest(shared, CHOSEN), self.vector_rows, axis=0)[:rows]] = 3
        keys.reshape(rows, -1)[:, columns:] = 2
        return _smallest(keys, self.n).reshape(rows, -1)[:, :columns]


def _smallest(keys: np.ndarray, count: int) -> np.ndarray:
    """Return True at the ``count`` smallest keys of each line along the last axis; of equal ones, any."""
    smallest = np.zeros(keys.shape, bool)
    np.put_along_axis(smallest, np.argpartition(keys, count - 1, axis=-1)[..., :count], True, axis=-1)
    return smallest


def _decimal(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _draw_codes(rng: np.random.Generator, rates: np.ndarray, cols: int) -> np.ndarray:
    """Return codes, (len(rates), cols) uint8, 0 except with the probability that is its row's rate."""
    codes = np.zeros((len(rates), cols), np.uint8)
    for row, rate in zip(codes, rates.tolist(), strict=True):
        for kept in _successes(rng, rate, cols):
            row[kept] = _code(rng, len(kept))
    codes.flags.writeable = False
    return codes


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


def _check(rows: int, cols: int, density: float, act_density: object, row_sigma: float) -> None:
    for name, side in (("rows", rows), ("cols", cols)):
        if isinstance(side, bool) or not isinstance(side, int) or side < 1:
            raise InputError(f"{name} must be a whole number of at least 1, not {side!r}")
    if rows * cols > ELEMENTS_LIMIT:
        raise InputError(f"a layer must have at most {ELEMENTS_LIMIT} weights, not {rows} x {cols}")
    if not _is_number(density) or not 0 <= density <= 1:
        raise InputError(f"density must be a number from 0 to 1, not {density!r}")
    if act_density is None:
        raise InputError("act_density must be a number from 0 to 1, not None")
    if not _is_number(row_sigma) or not 0 <= row_sigma <= 10:
        raise InputError(f"row_sigma must be a number from 0 to 10, not {row_sigma!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
