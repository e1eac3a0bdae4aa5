"""A training run: from a recipe to weights, masks, their history and the trace."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from ..errors import InputError
from ..extras import need
from ..files.container import write_beside
from ..files.trace_file import save_trace
from ..pruning import Masks, Weights
from ..trace import Trace
from .recipe import Recipe, load_recipe


class Level(msgspec.Struct, frozen=True):
    """One trained network of a run: level 0 is the dense one.

    ``sparsity``: of the prunable weights. ``kept``: how many of them are left. ``accuracy``: a fraction of the test
    samples. ``loss``: mean cross-entropy on them, in nats.
    """

    level: int
    sparsity: float
    kept: int
    accuracy: float
    loss: float


@dataclass(frozen=True, eq=False)
class Run:
    """What a recipe came to: parameters by name, the masks of the prunable ones, and every level on the way.

    ``made_with``: versions of the packages that trained. ``files``: what was written, by kind.
    """

    recipe: Recipe
    weights: Weights
    masks: Masks
    history: tuple[Level, ...]
    made_with: dict[str, str]
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Return the fraction of test samples that the pruned network gets right."""
        return self.history[-1].accuracy

    @property
    def dense_accuracy(self) -> float:
        """Return the fraction of test samples that the network got right before it was pruned."""
        return self.history[0].accuracy

    @cached_property
    def trace(self) -> Trace:
        """Return the network with the activations of real test samples, ready to simulate."""
        from .export import trace_of

        return trace_of(self)


def train(
    recipe: Recipe | str | Path, *, out: str | Path | None = None, progress: Callable[[int, int], None] | None = None
) -> Run:
    """Return the run of ``recipe``: a `Recipe`, a bundled name, or a TOML file.

    ``out`` names a folder, made where it is missing, for ``<name>.safetensors`` (the trace),
    ``<name>.checkpoint.safetensors`` and ``<name>.history.csv``. ``progress`` is called with the steps done and in all.
    On one machine the same recipe gives the same bytes. Raises InputError, before training, for a bad recipe, for
    missing packages, and for a folder that cannot be written.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    need("train", "torch", "sklearn")
    import torch

    from .loop import Loop
    from .methods import METHODS, steps_in_all

    folder = None if out is None else _folder(Path(out))
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, in_all)

    loop = Loop.of(recipe, step)
    in_all = steps_in_all(loop)
    history: list[Level] = []
    for weights, masks in METHODS[recipe.method](loop):
        history.append(_level(len(history), masks, *loop.evaluate(weights)))
    run = Run(recipe, weights, masks, tuple(history), {"torch": str(torch.__version__), "numpy": np.__version__})
    return run if folder is None else _write(run, folder)


def _level(level: int, masks: Masks, accuracy: float, loss: float) -> Level:
    kept = sum(int(np.count_nonzero(mask)) for mask in masks.values())
    size = sum(mask.size for mask in masks.values())
    return Level(level, 1 - kept / size if size else 0.0, kept, accuracy, loss)


def _folder(path: Path) -> Path:
    """Return the folder, made where it is missing and found to be writable: to be known before hours of training."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(path, os.W_OK | os.X_OK) else "Permission denied"
    except OSError as error:
        reason = str(error.strerror)
    if reason is not None:
        raise InputError(f"{path}: the output must be a folder that can be written, and {reason}; choose another")
    return path


def _write(run: Run, folder: Path) -> Run:
    from .checkpoint import checkpoint_bytes

    name = run.recipe.name
    files = {
        "trace": save_trace(run.trace, folder / f"{name}.safetensors"),
        "checkpoint": write_beside(folder / f"{name}.checkpoint.safetensors", checkpoint_bytes(run)),
        "history": write_beside(folder / f"{name}.history.csv", _csv(run.history)),
    }
    return replace(run, files=files)


def _csv(history: tuple[Level, ...]) -> bytes:
    rows = [",".join(Level.__struct_fields__)]
    rows += [",".join(repr(value) for value in msgspec.structs.astuple(level)) for level in history]
    return ("\n".join(rows) + "\n").encode()
