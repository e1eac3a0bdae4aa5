"""All diagnostics that fit a finished run, as numbers; `gossamer.reports.diagnose` draws and writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..extras import need
from ..pruning import Weights
from ..pruning.sparsity import LayerBalance, LayerGroups, LayerSparsity, balance_report, nm_report, sparsity_report
from .curvature import Eigenvalue, TraceEstimate, hessian_trace, top_eigenvalue
from .landscape import Line, Surface, lines_between, loss_surface
from .measure import State, has_batch_norm
from .sensitivity import Scan, choose_sparsities, sensitivity_scan

if TYPE_CHECKING:
    from torch import nn

    from .loop import Loop
    from .measure import Loader
    from .run import Run

TOGETHER = 256  # samples that go through a bundled network at once: the batches of training are smaller, and slower
MAX_DROP = 0.01  # of accuracy, for the sparsities that the scan suggests


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found in a run; what does not fit it is empty or None.

    ``groups``: of an N:M recipe. ``chosen``: by layer, the largest sparsity that costs at most `MAX_DROP` of accuracy,
    on top of the run's own. ``curvature``: of the training loss, the result's and its particles'.
    ``between_particles``: lines between every two particles of the last level. ``between_levels``: lines between the
    results of successive levels. ``surface``: through the first three particles.
    ``train_samples``, ``test_samples``: how many were used.
    """

    name: str
    train_samples: int
    test_samples: int
    sparsity: tuple[LayerSparsity, ...]
    balance: tuple[LayerBalance, ...]
    groups: tuple[LayerGroups, ...]
    scan: Scan | None
    chosen: dict[str, float]
    curvature: dict[str, tuple[TraceEstimate, Eigenvalue]]
    between_particles: tuple[Line, ...] = ()
    between_levels: tuple[Line, ...] = ()
    surface: Surface | None = field(default=None)


def examine(
    run: Run,
    *,
    module: nn.Module | None = None,
    train_loader: Loader | None = None,
    test_loader: Loader | None = None,
    samples: int = 2048,
    pe_count: int | None = None,
    points: int = 30,
    steps: int = 15,
    checkpoint: Path | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Diagnosis:
    """Return all diagnostics that fit ``run``, measured on at most ``samples`` training and test samples, the first.

    A run of `prune` needs its loaders, and its checkpoint the ``module`` as well; a run of `train` has its own.
    ``pe_count`` is the recipe's where it has one, else 64.
    ``checkpoint``: the run's, with its stages beside it; where they are, lines go through all levels, not the last two.
    ``points`` a line, ``steps`` a side of the surface. ``progress`` is told what is being measured. Raises InputError.
    """
    need("train", "torch")
    from .kernels import kernels

    module, train, test, loop = _subject(run, module, train_loader, test_loader, samples)
    recipe, masks = run.recipe, run.masks
    result: Weights = run.weights | run.buffers
    layers = {name: run.weights[name] for name in kernels(module)}
    pruned = {name: layers[name] for name, mask in masks.items() if mask.ndim > 1}
    recalibrate = train if has_batch_norm(module) else None
    particles: Sequence[Weights] = run.particles
    levels: Sequence[Weights] = run.averages
    if checkpoint is not None and loop is not None:
        particles, levels = _stages(checkpoint, run, loop) or (particles, levels)
    names = [f"particle {n}" for n in range(1, len(particles) + 1)]

    progress("sparsity")
    groups: tuple[LayerGroups, ...] = ()
    if recipe.n is not None and recipe.m is not None and pruned:
        groups = nm_report(pruned, recipe.n, recipe.m, recipe.axis)
    balance = balance_report(layers, (recipe.pe_count or 64) if pe_count is None else pe_count)
    progress("sensitivity")
    scan = sensitivity_scan(module, result, masks, test, recalibrate=recalibrate) if pruned else None
    curvature = {}
    shown: list[tuple[str, State]] = [("result", result)]
    if len(particles) > 1:
        shown += list(zip(names, particles, strict=True))
    for name, solution in shown:
        progress(f"curvature, {name}")
        curvature[name] = (
            hessian_trace(module, solution, train, masks=masks),
            top_eigenvalue(module, solution, train, masks=masks),
        )
    between_particles: tuple[Line, ...] = ()
    between_levels: tuple[Line, ...] = ()
    surface = None
    if len(particles) > 1:
        progress("lines between particles")
        between_particles = lines_between(
            module, particles, test, points=points, recalibrate=recalibrate, names=names, every_pair=True
        )
    if len(levels) > 1:
        progress("lines between levels")
        called = [f"level {n}" for n in range(len(run.history) - len(levels), len(run.history))]
        between_levels = lines_between(module, levels, test, points=points, recalibrate=recalibrate, names=called)
    if len(particles) > 2:
        progress("surface")
        a, b, c = particles[:3]
        called_so = (names[0], names[1], names[2])
        surface = loss_surface(module, a, b, c, test, steps=steps, recalibrate=recalibrate, names=called_so)
    return Diagnosis(
        name=recipe.name,
        train_samples=sum(len(labels) for _, labels in train),
        test_samples=sum(len(labels) for _, labels in test),
        sparsity=sparsity_report(layers, masks),
        balance=balance,
        groups=groups,
        scan=scan,
        chosen={} if scan is None else choose_sparsities(scan, MAX_DROP),
        curvature=curvature,
        between_particles=between_particles,
        between_levels=between_levels,
        surface=surface,
    )


def _subject(
    run: Run, module: nn.Module | None, train_loader: Loader | None, test_loader: Loader | None, samples: int
) -> tuple[nn.Module, Loader, Loader, Loop | None]:
    """Return the run's module, its training and test samples, and its loop if it is of a bundled network."""
    from .loop import Loop

    if samples < 1:
        raise InputError(f"samples must be at least 1, not {samples}")
    if run.recipe.network:
        loop = Loop.of(run.recipe)
        train_loader = _larger(loop.batches.epoch(run.recipe.seed, 0, 0)) if train_loader is None else train_loader
        test_loader = _larger(loop.in_order()) if test_loader is None else test_loader
        return loop.network.cpu(), _first(train_loader, samples), _first(test_loader, samples), loop
    if module is None and run.subject is not None:
        module = run.subject.module
    given = {"module": module, "train_loader": train_loader, "test_loader": test_loader}
    missing = [name for name, value in given.items() if value is None]
    if module is None or train_loader is None or test_loader is None:
        raise InputError(
            f"run {run.recipe.name}: a run of prune() is diagnosed with what prune() was given, and lacks "
            f"{', '.join(missing)}; call gossamer.reports.diagnose.diagnose in Python with these"
        )
    return module, _first(train_loader, samples), _first(test_loader, samples), None


def _larger(loader: Loader) -> Loader:
    """Return the samples of a loader in batches of `TOGETHER`."""
    import torch

    inputs, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    return list(zip(torch.split(inputs, TOGETHER), torch.split(labels, TOGETHER), strict=True))


def _first(loader: Loader, samples: int) -> Loader:
    """Return the first ``samples`` of a loader, in its batches, on the CPU."""
    kept, left = [], samples
    for inputs, labels in loader:
        kept.append((inputs[:left].cpu(), labels[:left].cpu()))
        left -= len(labels)
        if left <= 0:
            break
    return kept


def _stages(checkpoint: Path, run: Run, loop: Loop) -> tuple[Sequence[Weights], Sequence[Weights]] | None:
    """Return the particles of the last level and the results of all levels, from the stages of this run.

    None where the stages are gone, damaged, or not those of this run: their last result is not the run's.
    """
    from ..files.container import read_container
    from .methods.swamp import mean

    folder = checkpoint.parent / f"{run.recipe.name}-{run.recipe.digest}"
    levels: dict[int, list[Weights]] = {}
    for path in sorted(folder.glob("level-*.safetensors")):
        place = re.fullmatch(r"level-(\d+)(?:-particle-\d+)?", path.stem)
        if place is None:
            continue
        try:
            tensors = read_container(path, "a stage of a run").tensors
        except InputError:  # cut short by something else
            return None
        solution = {name: tensors[name][1].copy() for name in loop.weights() if name in tensors}
        levels.setdefault(int(place[1]), []).append(solution)
    if sorted(levels) != list(range(len(run.history))):
        return None
    particles = [levels[level] for level in sorted(levels)]
    results = [each[0] if len(each) == 1 else loop.recalibrate(mean(each)) for each in particles]
    last = results[-1]
    if not all(name in last and np.array_equal(last[name], value) for name, value in run.weights.items()):
        return None
    return particles[-1], results
