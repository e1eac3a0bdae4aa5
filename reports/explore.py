"""The cases of a sweep that no other beats in accuracy, latency, energy and area."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from ..simulator.design_search import search
from ..simulator.pareto import non_dominated
from ..simulator.sweep import sweep
from ..workloads.checks import whole
from ..workloads.errors import InputError
from .cells import Format, figures, new_table, percent
from .comparison import accuracy_of
from .rows import Row

if TYPE_CHECKING:
    from ..simulator.space import Space
    from ..simulator.store import Store
    from ..simulator.sweep import Case, Outcome

# Column, sign (less is better: an accuracy counts negative), heading, format.
OBJECTIVES: tuple[tuple[str, int, str, Format], ...] = (
    ("accuracy", -1, "accuracy\n%", percent),
    ("latency_per_sample_us", 1, "time a\nsample, us", figures),
    ("energy_per_sample_uj", 1, "energy a\nsample, uJ", figures),
    ("area_mm2", 1, "area\nmm2", figures),
)


@dataclass(frozen=True)
class Front:
    """The non-dominated cases, fastest first; ``objectives``: the columns that they are judged by.

    ``cases``: how many were simulated and finished; ``failed``: what became of the others; ``space``: how many cases
    there are, where not all were simulated.
    """

    rows: list[Row]
    settings: list[str]
    objectives: list[str]
    cases: int
    warnings: list[str]
    failed: list[str] = field(default_factory=list)
    space: int | None = None

    def table(self) -> RenderableType:
        """Return the cases as a table for a terminal."""
        searched = "" if self.space is None else f", out of {self.space:,}"
        table = new_table(f"{len(self.rows):,} of {self.cases:,} cases that no other beats{searched}")
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


def explore(
    space: Space,
    *,
    trials: int | None = None,
    sampler: str = "tpe",
    seed: int = 0,
    store: Store | None = None,
    workers: int = 1,
    cluster: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Front:
    """Return the cases of ``space`` that no other beats: of all of them, or of the ``trials`` that a search simulates.

    Where there are no more than ``trials``, all are simulated. A combination that a machine refuses is an error where
    every value was named, and left out, with a warning, where a range brought it. ``progress`` is called with
    (done, all, what is known by then). Raises InputError as `search` does, and for more cases than can be simulated.
    """
    if trials is not None:
        whole(trials, "--trials", 1)
    show = progress or (lambda done, all_, what: None)
    show(0, space.size if trials is None else min(trials, space.size), "")
    if trials is None or space.size <= trials:
        cases, refused, refusal = _all_cases(space)
        outcomes = sweep(
            cases, store=store, workers=workers, cluster=cluster, progress=lambda done, all_: show(done, all_, "")
        )
        front = front_of(outcomes)
    else:
        found = search(
            space, figures_of, trials, sampler=sampler, seed=seed, store=store, workers=workers, cluster=cluster,
            progress=lambda done, all_, size: show(done, all_, f"front of {size}" if size else ""),
        )  # fmt: skip
        outcomes, refused, refusal = found.outcomes, found.refused, found.refusal
        front = replace(front_of(outcomes, [OBJECTIVES[i][0] for i in found.counted]), space=space.size)
    left_out = [f"{refused:,} combinations were left out, for their machine refuses them: {refusal}"] if refused else []
    failed = [
        f"{o.case.trace.name} on {o.case.machine.name}, {o.case.settings}: {o.error}" for o in outcomes if o.error
    ]
    return replace(
        front, settings=list(space.values), warnings=space.warnings() + front.warnings + left_out, failed=failed
    )


def _all_cases(space: Space) -> tuple[list[Case], int, str]:
    """Return every case of ``space``, how many combinations were refused, and why the first was."""
    cases, refused, refusal = [], 0, ""
    for point in space.points():
        try:
            cases.append(space.case(point))
        except InputError as error:
            if not space.ordered:
                raise
            refused, refusal = refused + 1, refusal or str(error)
    if not cases:
        raise InputError(refusal)
    return cases, refused, refusal


def figures_of(outcome: Outcome) -> list[float | None]:
    """Return what is to be small of an outcome that has a result, in the order of OBJECTIVES; None for no figure."""
    row = _row(outcome)
    values = ((row[column], sign) for column, sign, _, _ in OBJECTIVES)
    return [sign * float(v) if isinstance(v, int | float) and math.isfinite(v) else None for v, sign in values]


def front_of(outcomes: Sequence[Outcome], judged_by: Sequence[str] | None = None) -> Front:
    """Return the cases that no other beats: no worse in every objective, and better in one.

    An objective counts where every case that finished has a figure for it; a warning names those that do not. Where
    the objectives are given, by ``judged_by``, it is the cases without such a figure that are set aside.
    """
    finished = [(_row(outcome), figures_of(outcome)) for outcome in outcomes if outcome.result is not None]
    warnings, counted = [], []
    for place, (column, *_) in enumerate(OBJECTIVES):
        missing = sum(figures[place] is None for _, figures in finished)
        if judged_by is not None and column in judged_by:
            counted.append(place)
            if missing:
                warnings.append(f"{missing:,} of {len(finished):,} cases are set aside: no figure for {column}")
        elif judged_by is not None or missing:
            warnings.append(f"{column} does not count: {missing:,} of {len(finished):,} cases have no figure for it")
        else:
            counted.append(place)
    weighed = [(row, [figures[place] for place in counted]) for row, figures in finished]
    whole = [(row, [float(f) for f in cost if f is not None]) for row, cost in weighed if None not in cost]
    tables = sorted({row["energy_table"] for row, _ in finished if row["energy_table"]})
    if len(tables) > 1:
        warnings.append(f"energies come from different tables and do not compare: {', '.join(tables)}")
    kept = non_dominated(np.array([cost for _, cost in whole])) if whole else np.zeros(0, bool)
    front = [row for (row, _), keep in zip(whole, kept, strict=True) if keep]
    front.sort(key=lambda row: row["latency_per_sample_us"])
    settings = list(dict.fromkeys(name for outcome in outcomes for name in outcome.case.settings))
    return Front(front, settings, [OBJECTIVES[place][0] for place in counted], len(finished), warnings)


def _row(outcome: Outcome) -> Row:
    result = outcome.result
    assert result is not None
    total = result.total
    return {
        "trace": result.trace.name, "machine": result.machine.name, **outcome.case.settings,
        "accuracy": accuracy_of(result),
        "latency_per_sample_us": total.latency_s / result.samples * 1e6,
        "energy_per_sample_uj": None if total.energy_j is None else total.energy_j.total / result.samples * 1e6,
        "energy_table": None if total.energy_j is None else total.energy_j.table,
        "area_mm2": total.area_mm2,
    }  # fmt: skip
