"""Checkpoints: a finished run in one .safetensors file, parameters, buffers and masks as tensors, the rest as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..errors import InputError
from ..extras import need
from ..files.container import Container, container_bytes, one_line, read_container
from ..pruning import Weights
from ..trace import Trace
from .recipe import Recipe, build_recipe
from .run import Run
from .stages import MASK
from .trained import Level, Trained

KEY = "gossamer.checkpoint"
VERSION = 2


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    recipe: dict[str, Any]
    history: tuple[Level, ...]
    made_with: dict[str, str]
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]


class _Version(msgspec.Struct):
    version: int


def is_checkpoint(path: str | Path) -> bool:
    """Tell whether the file at ``path`` is a checkpoint of `train`: False for any other, missing ones too."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():  # opening a pipe would take its beginning
        return False
    try:
        with safe_open(path, framework="numpy") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return False


def export_checkpoint(path: str | Path, *, products: bool = False, fold_batch_norm: bool = False) -> Trace:
    """Return the trace of the checkpoint at ``path``: the one that `train` gave, to the bit.

    ``products``: with the products of activations too, as in an attention; not every machine runs them.
    ``fold_batch_norm`` puts batch norms into the layers before them.
    Raises InputError naming file, tensor, rule and value.
    """
    run = load_checkpoint(path)
    try:
        return run.traced(products=products, fold_batch_norm=fold_batch_norm)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def checkpoint_bytes(run: Trained) -> bytes:
    """Return the checkpoint of ``run``; the same run gives the same bytes."""
    names = tuple(run.weights), tuple(run.buffers)  # in the network's order; a container sorts by name
    header = _Header(VERSION, msgspec.to_builtins(run.recipe), run.history, run.made_with, *names)
    tensors = run.weights | run.buffers | {name + MASK: mask for name, mask in run.masks.items()}
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
    tensors = {name: _array(name, *tensor, path) for name, tensor in container.tensors.items()}
    masks = {name.removesuffix(MASK): array for name, array in tensors.items() if name.endswith(MASK)}
    state = {name: array for name, array in tensors.items() if not name.endswith(MASK)}
    shapes = _shapes(recipe, state)
    if state.keys() != shapes.keys() or {*header.parameters, *header.buffers} != shapes.keys() or masks.keys() - shapes:
        raise InputError(
            f"{path}: the parameters of {recipe.network} must be {', '.join(shapes)}, with masks of these alone, "
            f"not {', '.join(sorted(tensors))}; train again"
        )
    for name, array in tensors.items():
        shape = shapes[name.removesuffix(MASK)]
        if array.shape != shape:
            raise InputError(f"{path}: tensor {name} must be {shape} in {recipe.network}, not {array.shape}")
    for name, array in state.items():
        if name in header.parameters and array.dtype != np.float32:
            raise InputError(f"{path}: tensor {name} must be F32, not {container.tensors[name][0]}; train again")
    for name, mask in masks.items():
        broken = np.argwhere((state[name] != 0) & ~mask)
        if len(broken):
            place = tuple(int(i) for i in broken[0])
            raise InputError(
                f"{path}: tensor {name} must be 0 where its mask prunes it, and is {state[name][place]} at {place}; "
                "train again"
            )
    return Run(
        recipe,
        {name: state[name] for name in header.parameters},
        {name: masks[name] for name in header.parameters if name in masks},
        header.history,
        header.made_with,
        buffers={name: state[name] for name in header.buffers},
    )


def _shapes(recipe: Recipe, state: Weights) -> dict[str, tuple[int, ...]]:
    """Return the shapes that the recipe's network wants; of a module given to `prune`, those that are there."""
    if not recipe.network:
        return {name: array.shape for name, array in state.items()}
    need("train", "torch", "sklearn")
    from .loop import Loop

    return {name: array.shape for name, array in Loop.of(recipe).weights().items()}


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
    if name.endswith(MASK) and dtype != "BOOL":
        raise InputError(f"{path}: tensor {name} must be BOOL, not {dtype}; train again")
    return array.astype(bool) if dtype == "BOOL" else array.copy()
