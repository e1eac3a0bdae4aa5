"""The user's samples, which go through a model so that its activations are real: .npy, .npz or .safetensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files.container import read_container
from ..files.masked import array_of_tensor
from ..files.npy import read_npy, read_npz

ONE = ""  # the name of the array of an .npy


def read_samples(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays in ``path`` by the name of the model's input they are for; one without a name in an .npy.

    In this machine's order of bytes. Raises InputError.
    """
    match path.suffix.lower():
        case ".npy":
            found = {ONE: read_npy(path)}
        case ".npz":
            found = read_npz(path)
        case ".safetensors":
            container = read_container(path, "a file of samples")
            found = {name: array_of_tensor(name, *tensor) for name, tensor in container.tensors.items()}
        case other:
            raise InputError(
                f"{path}: the name of a file of samples must end in .npy, .npz, .safetensors, not {other!r}"
            )
    if not found:
        raise InputError(f"{path}: a file of samples must hold at least one array, and holds none")
    for name, array in found.items():
        if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
            where = f"array {name!r}" if name else "the array"
            raise InputError(f"{path}: {where} must hold finite numbers, and its dtype is {array.dtype}; mend it")
    return {name: _native(array) for name, array in found.items()}


def _native(array: np.ndarray) -> np.ndarray:
    """Return ``array`` in this machine's order of bytes, no number wider than float64: what torch takes."""
    kind = np.dtype(np.float64) if array.dtype.kind == "f" and array.dtype.itemsize > 8 else array.dtype
    return array.astype(kind.newbyteorder("="), copy=False)
