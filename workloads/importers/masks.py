"""Masks as pruning tools leave them in a state dict, put onto the weights they are of.

By tool, P being the name of a parameter of the module X:

- torch.nn.utils.prune: `X.P_orig`, the weight before the mask, and `X.P_mask`.
- parametrizations, of torch.nn.utils.parametrize and with it torchao's and torch.ao's sparsifiers: before the mask
  `X.parametrizations.P.original`; masks are `X.parametrizations.P.0.mask` and so on, where the file has them. Those
  tools' own FakeSparsity keeps its mask out of the state dict: call `squash_mask` before saving.
- NVIDIA's ASP (apex.contrib.sparsity): `X.__P_mma_mask`, and what it put aside in `X.__P_mma_pruned_p`.
- `X.mask` beside `X.weight`, as in a file of masked weights; `X.P_mask` beside `X.P`.

Source of the names: apex/contrib/sparsity/asp.py, torch/nn/utils/prune.py, torch/nn/utils/parametrize.py,
torch/ao/pruning/sparsifier/utils.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..files.container import one_line
from ..patterns import Pattern

GROUPS = ((1, 16), (1, 8), (1, 4), (2, 8), (1, 2), (2, 4), (4, 8))  # tightest first
PARAMETRIZED = re.compile(r"(?P<module>.*?\.?)parametrizations\.(?P<name>\w+)\.(?P<part>.+)")
ASP_MASK = re.compile(r"(?P<module>.*?)__(?P<name>\w+?)_mma_(?P<part>mask|pruned_p)")


@dataclass(frozen=True, eq=False)
class Masked:
    """Weights after their masks, by the names they have in the module, their masks, and what found no place."""

    tensors: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    left: dict[str, str]
    unmasked: list[str]


def put_on(tensors: Mapping[str, np.ndarray]) -> Masked:
    """Return ``tensors`` with every mask put onto its weight. Raises InputError for a mask that is none."""
    values: dict[str, np.ndarray] = {}
    masks: dict[str, list[tuple[str, np.ndarray]]] = {}
    left: dict[str, str] = {}
    parametrized: list[str] = []
    for name, array in tensors.items():
        asp, part = ASP_MASK.fullmatch(name), PARAMETRIZED.fullmatch(name)
        if asp and asp["part"] == "mask":
            masks.setdefault(asp["module"] + asp["name"], []).append((name, array))
        elif asp:
            left[name] = "weights that ASP put aside"
        elif part and part["part"] == "original":
            values[part["module"] + part["name"]] = array
            parametrized.append(part["module"] + part["name"])
        elif part and re.fullmatch(r"\d+\.mask", part["part"]):
            masks.setdefault(part["module"] + part["name"], []).append((name, array))
        elif part:
            left[name] = "part of a parametrization other than a mask"
        elif name.endswith("_orig") and f"{name[:-5]}_mask" in tensors:
            values[name[:-5]] = array
        elif name.endswith("_mask") and (f"{name[:-5]}_orig" in tensors or name[:-5] in tensors):
            masks.setdefault(name[:-5], []).append((name, array))
        elif name.rpartition(".")[2] == "mask" and _beside(name) in tensors:
            masks.setdefault(_beside(name), []).append((name, array))
        else:
            values[name] = array
    found: dict[str, np.ndarray] = {}
    for name, parts in masks.items():
        if name not in values:
            raise InputError(f"mask {one_line(parts[0][0])} must be of the tensor {one_line(name)}, and there is none")
        for where, array in parts:
            mask = _to_bool(array, where, values[name].shape)
            found[name] = found[name] & mask if name in found else mask
        values[name] = np.where(found[name], values[name], values[name].dtype.type(0))
    return Masked(values, found, left, [name for name in parametrized if name not in found])


def pattern_of(kept: np.ndarray) -> Pattern:
    """Return the pattern that ``kept``, True or nonzero where a weight is left, keeps: dense, N:M of axis 1, or none.

    N:M is one of `GROUPS`, the tightest that holds of every group, and only of a side that groups tile.
    """
    if kept.ndim < 2 or np.all(kept):
        return Pattern("dense")
    lanes = np.moveaxis(kept != 0, 1, -1)
    share = np.count_nonzero(lanes) / lanes.size
    for n, m in GROUPS:
        if lanes.shape[-1] % m == 0 and share <= n / m and lanes.reshape(-1, m).sum(axis=1).max(initial=0) <= n:
            return Pattern("n:m", n=n, m=m, axis=1)
    return Pattern()


def _beside(name: str) -> str:
    owner, dot, _ = name.rpartition(".")
    return f"{owner}{dot}weight"


def _to_bool(mask: np.ndarray, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if mask.shape != shape:
        raise InputError(f"mask {one_line(name)} must have the shape {shape} of its weight, not {mask.shape}")
    if mask.dtype != np.bool_ and (mask.dtype.kind not in "iuf" or not np.isin(mask, (0, 1)).all()):
        raise InputError(
            f"mask {one_line(name)} must hold only 0 and 1, and its dtype is {mask.dtype}; write it as bool"
        )
    return np.asarray(mask != 0)
