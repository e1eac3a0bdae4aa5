"""The diagnostics of a finished run, measured, drawn and written: plots for people, one JSON file for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from rich.console import RenderableType
from rich.text import Text

from ..workloads.files.container import write_beside
from . import diagnostic_plots as plots
from . import diagnostic_tables as tables
from .terminal import make_folder

if TYPE_CHECKING:
    from ..workloads.training import Run
    from ..workloads.training.examine import Diagnosis


def diagnose(run: Run | str | Path, out: str | Path, *, suffix: str = ".png", **options: Any) -> list[Path]:
    """Return what was written in the folder ``out``, made where it is missing: a plot each, and diagnostics.json.

    ``run`` is what `train` or `prune` gave, or the path of a checkpoint; ``options`` are those of
    `gossamer.workloads.training.examine.examine`. Raises InputError.
    """
    return write_diagnosis(diagnosis_of(run, **options), out, suffix=suffix)


def diagnosis_of(
    run: Run | str | Path, *, progress: Callable[[str], None] = lambda what: None, **options: Any
) -> Diagnosis:
    """Return all diagnostics of a run, or of the checkpoint at a path; see `diagnose`."""
    from ..workloads.training import load_checkpoint
    from ..workloads.training.examine import examine

    if isinstance(run, str | Path):
        checkpoint: Path | None = Path(run)
        run = load_checkpoint(run)
    else:
        checkpoint = run.files.get("checkpoint")
    return examine(run, checkpoint=checkpoint, progress=progress, **options)


def write_diagnosis(found: Diagnosis, out: str | Path, *, suffix: str = ".png") -> list[Path]:
    """Return the files that now show ``found``, in the folder ``out``: a plot of each diagnostic that there is."""
    folder = Path(out)
    make_folder(folder)
    drawings: list[tuple[str, Any, Callable[[Path], Path]]] = [
        ("sparsity", found.sparsity, lambda path: plots.plot_sparsity(found.sparsity, path)),
        ("groups", found.groups, lambda path: plots.plot_groups(found.groups, path)),
        ("balance", found.balance, lambda path: plots.plot_balance(found.balance, path)),
        ("curvature", found.curvature, lambda path: plots.plot_curvature(found.curvature, path)),
        (
            "lines-between-particles",
            found.between_particles,
            lambda path: plots.plot_lines(found.between_particles, path, title="between particles"),
        ),
        (
            "lines-between-levels",
            found.between_levels,
            lambda path: plots.plot_lines(found.between_levels, path, title="between the results of successive levels"),
        ),
    ]
    written = [draw(folder / f"{name}{suffix}") for name, shown, draw in drawings if shown]
    if found.scan is not None:
        written.append(plots.plot_scan(found.scan, folder / f"sensitivity{suffix}", chosen=found.chosen))
    if found.surface is not None:
        written.append(plots.plot_surface(found.surface, folder / f"surface{suffix}"))
    return [*written, write_beside(folder / "diagnostics.json", diagnosis_json(found).encode())]


def diagnosis_json(found: Diagnosis) -> str:
    """Return ``found`` as JSON, under the names of its fields; what is not finite becomes null."""
    return msgspec.json.format(msgspec.json.encode(_plain(found)), indent=1).decode() + "\n"


def diagnosis_tables(found: Diagnosis) -> list[RenderableType]:
    """Return the tables of all diagnostics that there are."""
    shown: list[RenderableType] = [tables.sparsity_table(found.sparsity), tables.balance_table(found.balance)]
    if found.groups:
        shown.append(tables.groups_table(found.groups))
    if found.scan is not None:
        shown.append(tables.scan_table(found.scan, found.chosen))
    shown.append(tables.curvature_table(found.curvature))
    if found.between_particles:
        shown.append(tables.lines_table(found.between_particles, "Lines between particles"))
    if found.between_levels:
        shown.append(tables.lines_table(found.between_levels, "Lines between the results of successive levels"))
    shown.append(
        Text(
            f"Curvature on {found.train_samples:,} training samples; accuracy and lines on {found.test_samples:,} "
            "test samples.",
            style="dim",
        )
    )
    return [part for table in shown for part in (table, Text(""))][:-1]


def _plain(value: Any) -> Any:
    """Return ``value`` as plain JSON data: dataclasses by their fields and what their properties say."""
    if is_dataclass(value) and not isinstance(value, type):
        derived = [name for name, each in vars(type(value)).items() if isinstance(each, property)]
        return {name: _plain(getattr(value, name)) for name in [*(f.name for f in fields(value)), *derived]}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
