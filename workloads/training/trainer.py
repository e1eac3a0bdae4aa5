"""The trainer: from a recipe to a run, and to its files."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ..errors import InputError
from ..extras import need
from ..files.container import write_beside
from ..files.trace_file import save_trace
from ..pruning import Masks, Weights
from .checkpoint import checkpoint_bytes
from .recipe import Recipe, load_recipe, override
from .run import Run, Subject
from .trained import Level

if TYPE_CHECKING:
    from torch import nn

    from .loop import Loop
    from .methods import Solution

Progress = Callable[[int, int], None]


def train(recipe: Recipe | str | Path, *, out: str | Path | None = None, progress: Progress | None = None) -> Run:
    """Return the run of ``recipe``: a `Recipe`, a bundled name, or a TOML file.

    ``out`` names a folder, made where it is missing, for ``<name>.safetensors`` (the trace),
    ``<name>.checkpoint.safetensors`` and ``<name>.history.csv``; the stages of the run lie beside them in
    ``<name>-<digest>``, and what is there is not trained again. ``progress`` is called with the steps done and in all.
    On one machine the same recipe gives the same bytes, however often it was interrupted. Raises InputError, before
    training, for a bad recipe, for missing packages, and for a folder that cannot be written.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    need("train", "torch", "sklearn")
    from .loop import Loop

    folder = None if out is None else _folder(Path(out))
    run = _run(Loop.of(recipe), folder, recipe.digest, progress)
    return run if folder is None else _write(run, folder)


def prune(
    module: nn.Module,
    train_loader: Iterable[Any],
    test_loader: Iterable[Any],
    recipe: Recipe | str | Path,
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Run:
    """Return the run of ``recipe`` on ``module``, whose weights it starts from; the module stays as it is.

    The loaders are iterables of batches (inputs, labels) that can be gone through again and again, such as torch's
    DataLoader: outputs of shape (batch, classes) and whole-number labels meet in cross-entropy. torch's generator is
    seeded before each pass, by the recipe's seed, the particle and the epoch, so that a loader that shuffles does it
    alike each time. The recipe's network, data and batch size are of no account: the loaders have theirs.
    ``out`` and ``progress`` are as in `train`; the run's folder is told apart by the module's weights and the test
    labels as well. `Run.load_into` gives a module the result. Raises InputError.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    recipe = override(recipe, network="", data="")
    need("train", "torch")
    from .batches import LoaderBatches
    from .loop import Loop, check_device, deterministic
    from .redraw import redrawn
    from .stages import digest

    folder = None if out is None else _folder(Path(out))
    device = check_device(recipe)
    network = copy.deepcopy(module).to(device)
    with deterministic(recipe.seed):  # loaders draw from torch's generator, which is to be left as it was
        batches = LoaderBatches.of(train_loader, device, "train_loader")
        tests = LoaderBatches.of(test_loader, device, "test_loader")
        loop = Loop(recipe, network, batches, tests, lambda: redrawn(module)).checked()
        inputs, labels = next(iter(loop.in_order()))
    first = {"inputs": inputs.cpu().numpy(), "labels": labels.cpu().numpy()}
    identity = digest(
        {"recipe": recipe.digest, "weights": loop.weights(), "labels": first["labels"],
         "batches": [len(loop.batches), len(loop.tests)]}
    )  # fmt: skip
    run = _run(loop, folder, identity[:10], progress)
    traced = copy.deepcopy(network).cpu().eval()
    run.load_into(traced)
    samples = slice(0, recipe.samples)
    run = replace(run, subject=Subject(traced, first["inputs"][samples], first["labels"][samples]))
    return run if folder is None else _write(run, folder)


def _run(loop: Loop, folder: Path | None, digest: str, progress: Progress | None) -> Run:
    """Return the run of the loop's recipe, its stages kept in a folder of their own where ``folder`` is given."""
    import torch

    from .methods import METHODS
    from .stages import Stages

    recipe = loop.recipe
    method = METHODS[recipe.method]
    in_all, done, flops = method.steps(loop), 0, 0.0

    def step(steps: int) -> None:
        nonlocal done
        done += steps
        if progress is not None:
            progress(done, in_all)

    def spent(cost: float) -> None:
        nonlocal flops
        flops += cost

    made_with = {"torch": str(torch.__version__), "numpy": np.__version__}
    loop = replace(loop, progress=step, spent=spent)
    if folder is not None:
        loop = replace(loop, memo=Stages(folder / f"{recipe.name}-{digest}", made_with, step))
    history: list[Level] = []
    averages: list[Weights] = []
    found: Solution | None = None
    for found in method.solutions(loop):
        history.append(_level(len(history), found.masks, *loop.evaluate(found.weights), flops))
        averages = [*averages[-1:], found.weights]
    assert found is not None
    names = [name for name, _ in loop.network.named_parameters()]
    return Run(
        recipe,
        {name: found.weights[name] for name in names},
        found.masks,
        tuple(history),
        made_with,
        buffers={name: value for name, value in found.weights.items() if name not in names},
        particles=found.particles,
        averages=tuple(averages),
    )


def _level(level: int, masks: Masks, accuracy: float, loss: float, flops: float) -> Level:
    kernels = [mask for mask in masks.values() if mask.ndim > 1]  # what goes with a channel is not counted
    kept = sum(int(np.count_nonzero(mask)) for mask in kernels)
    size = sum(mask.size for mask in kernels)
    return Level(level, 1 - kept / size if size else 0.0, kept, accuracy, loss, flops)


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
