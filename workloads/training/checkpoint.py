"""Checkpoints: a finished run in one .safetensors file, parameters and masks as tensors, the rest as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..errors import InputError
from ..extras import need
from ..files.container import Container, container_bytes, one_line, read_container
from ..trace import Trace
from .recipe import build_recipe
from .run import Level, Run

KEY = "gossamer.checkpoint"
VERSION = 1
MASK = ".mask"  # "fc1.weight.mask" is the mask of "fc1.weight"


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    recipe: dict[str, Any]
    history: tuple[Level, ...]
    made_with: dict[str, str]


class _Version(msgspec.Struct):
    version: int


def is_checkpoint(path: str | Path) -> bool:
    """Tell whether the file at ``path`` is a checkpoint of `train`: False for any other, missing ones too."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return False


def export_checkpoint(path: str | Path) -> Trace:
    """Return the trace of the checkpoint at ``path``: the one that `train` gave, to the bit.

    Raises InputError naming file, tensor, rule and value.
    """
    run = load_checkpoint(path)
    try:
        return run.trace
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def checkpoint_bytes(run: Run) -> bytes:
    """Return the checkpoint of ``run``; the same run gives the same bytes."""
    header = _Header(VERSION, msgspec.to_builtins(run.recipe), run.history, run.made_with)
    tensors = run.weights | {name + MASK: mask for name, mask in run.masks.items()}
    return container_bytes(tensors, {KEY: msgspec.json.encode(header, order="deterministic").decode()})


def load_checkpoint(path: str | Path) -> Run:
    """Return the run in the checkpoint at ``path``, every parameter checked against the recipe's network.

    Raises InputError naming file, tensor, rule and value.
    """
    path = Path(path)
    container = read_container(path, "a checkpoint")
    header = _read_header(container, path)
    recipe = build_recipe(header.recipe, str(path))
    if not header.history:
        raise InputError(f"{path}: the history must have at least one level, and has none; train again")
    need("train", "torch", "sklearn")
    from .loop import Loop

    expected = Loop.of(recipe).weights()
    tensors = {name: _array(name, *tensor, path) for name, tensor in container.tensors.items()}
    masks = {name.removesuffix(MASK): array for name, array in tensors.items() if name.endswith(MASK)}
    weights = {name: array for name, array in tensors.items() if not name.endswith(MASK)}
    if weights.keys() != expected.keys() or not masks.keys() <= expected.keys():
        raise InputError(
            f"{path}: the parameters of {recipe.network} must be {', '.join(expected)}, with masks of these alone, "
            f"not {', '.join(sorted(tensors))}; train again"
        )
    for name, array in tensors.items():
        shape = expected[name.removesuffix(MASK)].shape
        if array.shape != shape:
            raise InputError(f"{path}: tensor {name} must be {shape} in {recipe.network}, not {array.shape}")
    for name, mask in masks.items():
        broken = np.argwhere((weights[name] != 0) & ~mask)
        if len(broken):
            place = tuple(int(i) for i in broken[0])
            raise InputError(
                f"{path}: tensor {name} must be 0 where its mask prunes it, and is {weights[name][place]} at {place}; "
                "train again"
            )
    # The network's order, which is that of its layers; a container sorts by name.
    return Run(
        recipe,
        {name: weights[name] for name in expected},
        {name: masks[name] for name in expected if name in masks},
        header.history,
        header.made_with,
    )


def _read_header(container: Container, path: Path) -> _Header:
    text = container.metadata.get(KEY)
    if text is None:
        raise InputError(
            f"{path}: a checkpoint must carry the metadata key {KEY}, and has none; give one that gossamer train wrote"
        )
    try:
        version = msgspec.json.decode(text, type=_Version).version
        if version != VERSION:
            raise InputError(f"{path}: version must be {VERSION}, not {version}; use the gossamer that wrote it")
        return msgspec.json.decode(text, type=_Header)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InputError(
            f"{path}: the metadata {KEY} must be the header of a checkpoint, and is not ({one_line(error)}); "
            "train again"
        ) from None


def _array(name: str, dtype: str, array: np.ndarray, path: Path) -> np.ndarray:
    wanted = "BOOL" if name.endswith(MASK) else "F32"
    if dtype != wanted:
        raise InputError(f"{path}: tensor {name} must be {wanted}, not {dtype}; train again")
    return array.astype(bool) if wanted == "BOOL" else array.copy()
