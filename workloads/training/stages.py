"""Resumable runs: each training of a run leaves its weights in a file, and is not done again while that stands."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..errors import InputError
from ..files.container import container_bytes, read_container, write_beside
from ..pruning import Masks, Weights

KEY = "gossamer.stage"
MASK = ".mask"  # "fc1.weight.mask" is the mask of "fc1.weight"


@dataclass(frozen=True, eq=False)
class Stages:
    """The stages in ``folder``: ``<name>.safetensors`` each, weights, buffers and the masks they were trained under.

    A file is used only if it is whole and was made from the same inputs by the same versions of packages
    (``made_with``); any other is written anew. The recipe is the folder's to tell apart. ``skip`` is told of the steps
    that a file saves.
    """

    folder: Path
    made_with: Mapping[str, str]
    skip: Callable[[int], None] = lambda steps: None

    def __call__(self, name: str, inputs: Mapping[str, Any], act: Callable[[], Weights]) -> Weights:
        """Return what ``act`` gives, or what it gave before from the same ``inputs``."""
        path = self.folder / f"{name}.safetensors"
        key = digest({"made_with": dict(self.made_with), **inputs})
        found = _read(path, key)
        if found is not None:
            self.skip(inputs["last"] - inputs["first"])
            return {each: found[each] for each in inputs["weights"]}  # in the network's order
        trained = act()
        self.folder.mkdir(parents=True, exist_ok=True)
        masks: Masks = {each + MASK: mask for each, mask in inputs["masks"].items()}
        write_beside(path, container_bytes(trained | masks, {KEY: f"{key} {digest(trained)}"}))
        return trained


def digest(value: Any) -> str:
    """Return the SHA-256 of arrays, mappings of text and whatever JSON knows, in hexadecimal digits."""
    sha = hashlib.sha256()

    def take(part: Any) -> None:
        if isinstance(part, np.ndarray):
            sha.update(f"{part.dtype.str}{part.shape}".encode())
            sha.update(np.asarray(part, order="C").tobytes())
        elif isinstance(part, Mapping):
            sha.update(f"{len(part)} keys".encode())
            for key in sorted(part):
                sha.update(msgspec.json.encode(key))
                take(part[key])
        else:
            sha.update(msgspec.json.encode(part))

    take(value)
    return sha.hexdigest()


def _read(path: Path, key: str) -> Weights | None:
    """Return the weights in the stage at ``path`` if they are whole and its key is this one, else None."""
    if not path.is_file():
        return None
    try:
        container = read_container(path, "a stage of a run")
    except InputError:  # cut short by something else: made again
        return None
    found = {name: array.copy() for name, (_, array) in container.tensors.items() if not name.endswith(MASK)}
    return found if container.metadata.get(KEY) == f"{key} {digest(found)}" else None
