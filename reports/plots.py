"""Plots of results and sweeps as .png, .svg or .pdf, by kind: what `gossamer plot` draws, and the page of a report too.

Every plot is a function of its own that returns the path it has written; `KINDS` has them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..simulator.result import Result
from ..workloads.errors import InputError
from .plots_bars import plot_causes, plot_compare, plot_cycles, plot_energy, plot_summary
from .plots_curves import plot_curves, plot_pareto, plot_roofline, plot_sweep
from .plots_style import SUFFIXES, drawing, plot_path
from .plots_units import plot_load, plot_load_map, plot_queues

__all__ = [
    "KINDS", "SUFFIXES", "draw", "draw_all", "drawing", "plot_causes", "plot_compare", "plot_curves", "plot_cycles",
    "plot_energy", "plot_load", "plot_load_map", "plot_pareto", "plot_path", "plot_queues", "plot_roofline",
    "plot_summary", "plot_sweep",
]  # fmt: skip

KINDS: dict[str, Callable[[Sequence[Result], str | Path], Path]] = {
    "summary": plot_summary,
    "causes": plot_cycles,
    "energy": plot_energy,
    "load": plot_load_map,
    "queues": plot_queues,
    "roofline": plot_roofline,
    "sweep": plot_curves,
    "pareto": plot_pareto,
    "compare": plot_compare,
}


def draw(kind: str, results: Sequence[Result], path: str | Path, *, over: str | None = None) -> Path:
    """Return ``path``, which now shows ``results`` as ``kind`` says, a key of `KINDS`.

    ``over``: the one setting of a plot of kind sweep. Raises InputError for a kind that is unknown, or cannot show
    these results.
    """
    if kind not in KINDS:
        raise InputError(f"a kind of plot must be one of {', '.join(KINDS)}, not {kind!r}")
    if over is not None and kind != "sweep":
        raise InputError(f"--over is for plots of kind sweep, not {kind!r}; leave it out")
    if over is not None:
        return plot_curves(results, path, over)
    return KINDS[kind](results, path)


def draw_all(results: Sequence[Result], folder: str | Path, suffix: str = ".png") -> list[Path]:
    """Return the paths of all plots that ``results`` can fill, drawn into ``folder``: KIND.png and so on."""
    if not results:
        raise InputError(f"{folder}: a plot needs at least one result, not 0")
    written = []
    for kind in KINDS:
        if kind in _fitting(results):
            written.append(draw(kind, results, Path(folder) / f"{kind}{suffix}"))
    return written


def _fitting(results: Sequence[Result]) -> set[str]:
    """Return the kinds of plots that ``results`` have something for."""
    from .plots_data import curves_of, fronts_of, levels_of, loads_of, roofs_of
    from .reading import result_names

    names = result_names(results)
    found = {"summary", "causes"}
    found |= {"energy"} if any(result.total.energy_j is not None for result in results) else set()
    found |= {"load"} if any(loads_of(result, False) is not None for result in results) else set()
    found |= {"queues"} if levels_of(results, names) else set()
    found |= {"roofline"} if roofs_of(results) else set()
    found |= {"sweep"} if curves_of(results) else set()
    found |= {"pareto"} if fronts_of(results, names) else set()
    found |= {"compare"} if len(results) > 1 else set()
    return found
