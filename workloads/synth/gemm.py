"""Matrix products: a linear layer whose weights keep an N:M pattern, and a batch of vectors.

Source of V:N:M: Castro et al., "VENOM: A Vectorized N:M Format for Unleashing the Power of Sparse Tensor Cores",
SC 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..checks import counted, number, whole
from ..errors import InputError
from ..files.drawn import Draw
from ..files.numbers import read_only
from ..limits import ELEMENTS_LIMIT
from ..patterns import Pattern
from ..trace import Layer, Trace, check_name

CHOSEN = 4  # of M columns that the rows of a V:N:M block choose together


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
    rows, reduction, columns = (
        whole(side, what, 1) for what, side in (("rows", rows), ("reduction", reduction), ("columns", columns))
    )
    for what, sides in (("weights", (rows, reduction)), ("inputs", (columns, reduction))):
        if sides[0] * sides[1] > ELEMENTS_LIMIT:
            raise InputError(f"a product must have at most {ELEMENTS_LIMIT} {what}, not {sides[0]} x {sides[1]}")
    number(act_density, "act_density", 0, 1)  # a Draw may have none
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
    layer = Layer(
        name=name, op="linear", weight=read_only(weight), inputs=draw.linear_inputs(reduction), pattern=kept.promise
    )
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
        parts = [counted(part) for part in text.split(":")]
        if len(parts) in (2, 3) and min(parts) >= 0:
            *vector, n, m = parts
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
