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
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from ..blocks import row_blocks
from ..errors import InputError
from ..files.container import one_line
from ..patterns import Pattern

GROUPS = ((1, 16), (1, 8), (1, 4), (2, 8), (1, 2), (2, 4), (4, 8))  # tightest first
PARAMETRIZED = re.compile(r"(?P<module>.*?\.?)parametrizations\.(?P<name>\w+)\.(?P<part>.+)")
ASP_MASK = re.compile(r"(?P<module>.*?)__(?P<name>\w+?)_mma_(?P<part>mask|pruned_p)")


@dataclass(frozen=True, eq=False)
class Masked:
    """Parameters by the names they have in the module: which tensor holds each, which are its masks.

    ``left``: tensors that found no place, with the reason. ``unmasked``: parameters that were meant to have a mask.
    """

    values: dict[str, str]
    masks: dict[str, list[str]]
    left: dict[str, str]
    unmasked: list[str]

    def read(self, name: str, tensor: Callable[[str], np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the parameter ``name`` after its masks, and these as one, None where there is none.

        ``tensor`` gives the values of a tensor. Raises InputError for a mask that is none.
        """
        values = tensor(self.values[name])
        found: np.ndarray | None = None
        for where in self.masks.get(name, ()):
            mask = _to_bool(tensor(where), where, values.shape)
            found = mask if found is None else found & mask
        return (values if found is None else np.where(found, values, values.dtype.type(0))), found


def find_masks(names: Collection[str]) -> Masked:
    """Return which of the tensors called ``names`` are parameters and which their masks.

    Raises InputError for a mask of nothing.
    """
    values: dict[str, str] = {}
    masks: dict[str, list[str]] = {}
    left: dict[str, str] = {}
    parametrized: list[str] = []
    for name in names:
        asp, part = ASP_MASK.fullmatch(name), PARAMETRIZED.fullmatch(name)
        if asp and asp["part"] == "mask":
            masks.setdefault(asp["module"] + asp["name"], []).append(name)
        elif asp:
            left[name] = "weights that ASP put aside"
        elif part and part["part"] == "original":
            values[part["module"] + part["name"]] = name
            parametrized.append(part["module"] + part["name"])
        elif part and re.fullmatch(r"\d+\.mask", part["part"]):
            masks.setdefault(part["module"] + part["name"], []).append(name)
        elif part:
            left[name] = "part of a parametrization other than a mask"
        elif name.endswith("_orig") and f"{name[:-5]}_mask" in names:
            values[name[:-5]] = name
        elif name.endswith("_mask") and (f"{name[:-5]}_orig" in names or name[:-5] in names):
            masks.setdefault(name[:-5], []).append(name)
        elif name.rpartition(".")[2] == "mask" and _beside(name) in names:
            masks.setdefault(_beside(name), []).append(name)
        else:
            values[name] = name
    for name, parts in masks.items():
        if name not in values:
            raise InputError(f"mask {one_line(parts[0])} must be of the tensor {one_line(name)}, and there is none")
    return Masked(values, masks, left, [name for name in parametrized if name not in masks])


def pattern_of(kept: np.ndarray) -> Pattern:
    """Return the pattern that ``kept``, True or nonzero where a weight is left, keeps: dense, N:M of axis 1, or none.

    N:M is one of `GROUPS`, the tightest that holds of every group, and only of a side that groups tile.
    """
    count = np.count_nonzero(kept)
    if kept.ndim < 2 or count == kept.size:
        return Pattern("dense")
    lanes = np.moveaxis(kept, 1, -1)
    share = count / lanes.size

    def holds(n: int, m: int) -> bool:
        groups = ((lanes[rows] != 0).reshape(-1, m) for rows in row_blocks(lanes))
        return all(int(each.sum(axis=1).max(initial=0)) <= n for each in groups)

    for n, m in GROUPS:
        if lanes.shape[-1] % m == 0 and share <= n / m and holds(n, m):
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
