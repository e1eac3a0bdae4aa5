"""The cases of a sweep that no other beats in accuracy, latency, energy and area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from ..simulator.pareto import non_dominated
from .cells import Format, figures, new_table, percent
from .rows import Row

if TYPE_CHECKING:
    from ..simulator.sweep import Outcome

# Column, sign (less is better: an accuracy counts negative), heading, format.
OBJECTIVES: tuple[tuple[str, int, str, Format], ...] = (
    ("accuracy", -1, "accuracy\n%", percent),
    ("latency_per_sample_us", 1, "time a\nsample, us", figures),
    ("energy_per_sample_uj", 1, "energy a\nsample, uJ", figures),
    ("area_mm2", 1, "area\nmm2", figures),
)


@dataclass(frozen=True)
class Front:
    """The non-dominated cases, fastest first; ``objectives``: the columns that every finished case has a figure in."""

    rows: list[Row]
    settings: list[str]
    objectives: list[str]
    cases: int
    warnings: list[str]

    def table(self) -> RenderableType:
        """Return the cases as a table for a terminal."""
        table = new_table(f"{len(self.rows):,} of {self.cases:,} cases that no other beats")
        table.add_column("trace", overflow="fold")
        table.add_column("machine", overflow="fold")
        for name in self.settings:
            table.add_column(name.replace("_", "\n", 1), justify="right", no_wrap=True)
        shown = [objective for objective in OBJECTIVES if objective[0] in self.objectives]
        for _, _, heading, _ in shown:
            table.add_column(heading, justify="right", no_wrap=True)
        for row in self.rows:
            cells = [escape(str(row[name])) for name in ("trace", "machine")]
            cells += [escape(str(row.get(name, ""))) for name in self.settings]
            table.add_row(*cells, *(form(row[column]) for column, _, _, form in shown))
        return Group(table, Text(f"Judged by {', '.join(self.objectives)}.", style="dim"))


def front_of(outcomes: Sequence[Outcome]) -> Front:
    """Return the cases that no other beats: no worse in every objective, and better in one.

    An objective counts where every case that finished has a figure for it; a warning names those that do not.
    """
    rows: list[Row] = []
    for outcome in outcomes:
        if outcome.result is None:
            continue
        result, total = outcome.result, outcome.result.total
        energy = None if total.energy_j is None else total.energy_j.total / result.samples * 1e6
        rows.append({
            "trace": result.trace.name, "machine": result.machine.name, **outcome.case.settings,
            "accuracy": result.trace.provenance.get("accuracy"),
            "latency_per_sample_us": total.latency_s / result.samples * 1e6,
            "energy_per_sample_uj": energy,
            "energy_table": None if total.energy_j is None else total.energy_j.table,
            "area_mm2": total.area_mm2,
        })  # fmt: skip
    warnings, objectives, costs = [], [], []
    for column, sign, _, _ in OBJECTIVES:
        values = [row[column] for row in rows]
        missing = sum(not isinstance(value, int | float) for value in values)
        if missing:
            warnings.append(f"{column} does not count: {missing:,} of {len(rows):,} cases have no figure for it")
        else:
            objectives.append(column)
            costs.append([sign * float(value) for value in values])
    tables = sorted({row["energy_table"] for row in rows if row["energy_table"]})
    if len(tables) > 1:
        warnings.append(f"energies come from different tables and do not compare: {', '.join(tables)}")
    kept = non_dominated(np.array(costs, np.float64).T) if rows else np.zeros(0, bool)
    front = sorted(
        (row for row, keep in zip(rows, kept, strict=True) if keep), key=lambda r: r["latency_per_sample_us"]
    )
    settings = list(dict.fromkeys(name for outcome in outcomes for name in outcome.case.settings))
    return Front(front, settings, objectives, len(rows), warnings)
