"""Plots that have a row a result or layer: its name, room for it, room for figures, and what is cut off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..simulator.result import Result
from ..workloads.errors import InputError
from .plots_style import HEAT, SMALL, clean, plain_axis, powers
from .reading import result_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 60  # of a plot; of more, the first are shown
IN_CELLS = 17  # columns of a heat map up to which cells hold their figures


def demand(results: Sequence[Result], path: Path) -> None:
    """Raise InputError for no results."""
    if not results:
        raise InputError(f"{path}: a plot needs at least one result, not 0")


def row_names(names: Sequence[str]) -> list[str]:
    """Return names for rows: long ones on two lines where there are few, else the middle left out."""
    if len(names) > 12:
        return [clean(name) for name in names]
    halves = [name.partition(" on ") for name in names]
    return [
        f"{clean(a, 40)}\non {clean(b, 40)}" if on and len(a + b) > 28 else clean(a + on + b, 40) for a, on, b in halves
    ]


def short_names(results: Sequence[Result]) -> list[str]:
    """Return names that tell results apart, without the machine where it is the same for all and so in the title."""
    names = result_names(results)
    if not machine_of(results):
        return names
    return [name.replace(f" on {results[0].machine.name}", "", 1) for name in names]


def machine_of(results: Sequence[Result]) -> str:
    """Return "on MACHINE" where all results are of one, else nothing."""
    names = {result.machine.name for result in results}
    return f"on {clean(names.pop())}" if len(names) == 1 else ""


def tables_of(results: Sequence[Result]) -> str:
    """Return the energy tables of the results, and the warning that goes with several."""
    tables = list(dict.fromkeys(r.total.energy_j.table for r in results if r.total.energy_j is not None))
    return " and ".join(tables[:2]) + (" \u2026" if len(tables) > 2 else "") + " (do not compare)" * (len(tables) > 1)


def cut(results: Sequence[Result]) -> str:
    """Return what to say where there are more results than rows, else nothing."""
    return f"the first {MOST_ROWS} of {len(results):,} results" if len(results) > MOST_ROWS else ""


def after(words: str) -> str:
    """Return the words after a comma, nothing for none."""
    return f", {words}" if words else ""


def label_inches(names: Sequence[str]) -> float:
    """Return the room that the names of rows take."""
    return 0.25 + 0.068 * max((len(line) for name in names for line in name.split("\n")), default=0)


def row_inches(names: Sequence[str]) -> float:
    """Return the height of the rows."""
    return len(names) * (0.42 if any("\n" in name for name in names) else 0.24)


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Name the rows of a plot, from above."""
    ax.set_yticks(np.arange(len(names)), names, fontsize=SMALL if len(names) > 8 else None)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


def leave_room(ax: Axes, values: Sequence[float], log: bool) -> None:
    """Leave room for the figures to the right of bars, on an axis that begins at 0 or is logarithmic."""
    top = max(values, default=1.0) or 1.0
    if log:
        low = min(values) / 2
        ax.set_xlim(low, top * (top / low) ** 0.45)
        powers(ax.xaxis)
    else:
        ax.set_xlim(0, 1.35 * top)
        ax.locator_params(axis="x", nbins=4)
        plain_axis(ax.xaxis)


def heat_cells(ax: Axes, rows: Sequence[np.ndarray], most: float, written: bool = False) -> Any:
    """Draw rows of cells, those that a row does not have in grey; few enough have their figures ``written`` in them."""
    import matplotlib

    cells = np.full((len(rows), max(map(len, rows))), np.nan)
    for at, row in enumerate(rows):
        cells[at, : len(row)] = row
    colours = matplotlib.colormaps[HEAT].with_extremes(bad="#E4E7EA")
    image = ax.imshow(cells, cmap=colours, vmin=0, vmax=max(most, 1e-12), aspect="auto", interpolation="nearest")
    if written and cells.shape[1] <= IN_CELLS:
        for (at, place), share in np.ndenumerate(cells):
            if share > 0:
                word = f"{share:.0f}" if share >= 0.5 else "<1"
                colour = "white" if share > 0.55 * most else "black"
                ax.text(place, at, word, ha="center", va="center", fontsize=SMALL - 1, color=colour)
    ax.grid(visible=False)
    return image


def colour_bar(figure: Figure, image: Any, axes: Sequence[Axes], height: float, label: str) -> None:
    """Add a slim scale to the right of ``axes``, which are ``height`` inches high together."""
    height = max(height, 1.0)
    length = min(height, 2.2)
    figure.colorbar(
        image, ax=list(axes), label=label, pad=0.01, shrink=length / height, aspect=length / 0.12, anchor=(0.0, 1.0)
    )
