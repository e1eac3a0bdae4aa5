"""Tables for a terminal of 80 to 120 columns; figures, units and definitions come from `gossamer.reports.rows`.

Everything that can be printed, as a table or as CSV, is importable from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from ..simulator.result import Result, layer_rows, output_error, total_row
from .cells import Format, figures, new_table, percent, small_percent, times, whole
from .comparison import compare_rows
from .rows import COLUMNS, Row, csv_text, sweep_rows
from .verdicts import checks_table, engines_table

if TYPE_CHECKING:
    from ..simulator.sweep import Outcome
    from ..workloads.training import Run

__all__ = [
    "COLUMNS", "cases_table", "checks_table", "compare_rows", "compare_table", "csv_text", "engines_table",
    "history_table", "layer_rows", "result_table", "seeds_table", "summary", "sweep_rows", "sweep_table",
]  # fmt: skip

WIDTH_FOR_NAMES = 92  # beside the names of the figures; wider headings are numbered instead
COLUMNS_AT_ONCE = 8  # of a comparison
ROWS_AT_ONCE = 500  # of a sweep: nobody reads more at a terminal, and laying them out takes longer than a sweep
TRAINING_FLOPS = "FLOPs of all training so far that the masks leave; 1 is a dense training over the same schedule."
UNITS = {  # how a kind of unit is written where it is not a plain word
    "pe": "PE", "sm": "SM", "gpu": "GPU",
    "mapping": "mapping unit", "matrix": "matrix unit", "memory": "memory unit", "element_wise": "element-wise unit",
}  # fmt: skip
IMBALANCE = ("starved", "drained")
LAYER_COLUMNS: tuple[tuple[str, str, Format], ...] = (
    ("cycles", "cycles", whole),
    ("latency_us", "time\nus", figures),
    ("utilization", "util\n%", percent),
    ("load_balance", "bal.\n%", percent),
    ("padding_ratio", "pad\n%", percent),
    ("macs", "useful\nMACs", whole),
    ("energy_uj", "energy\nuJ", figures),
    ("output_error", "error\n%", small_percent),
)
SWEEP_COLUMNS: tuple[tuple[str, str, Format], ...] = (
    ("cycles", "cycles", whole),
    ("latency_us", "time\nus", figures),
    ("speedup", "speed-\nup", times),
    ("load_balance", "bal.\n%", percent),
    ("padding_ratio", "pad\n%", percent),
    ("energy_uj", "energy\nuJ", figures),
    ("area_mm2", "area\nmm2", figures),
)
COMPARE_ROWS: tuple[tuple[str, str, Format], ...] = (
    ("accuracy", "accuracy, %", percent),
    ("sparsity", "sparsity, %", percent),
    ("samples", "samples", whole),
    ("cycles", "cycles, all samples", whole),
    ("cycles_per_sample", "cycles a sample", figures),
    ("latency_per_sample_us", "time a sample, us", figures),
    ("speedup", "speed-up", times),
    ("speedup_over_dense", "over dense, same machine", times),
    ("load_balance", "load balance, %", percent),
    ("utilization", "utilization, %", percent),
    ("padding_ratio", "padding of entries, %", percent),
    ("energy_per_sample_uj", "energy a sample, uJ", figures),
    ("energy_delay_pjs", "energy x delay, pJ s", figures),
    ("energy_table", "energy table", str),
    ("storage_bits", "storage, KiB", lambda bits: f"{bits / 8192:,.1f}"),
    ("output_error", "output error, % rms", small_percent),
)


def result_table(result: Result) -> RenderableType:
    """Return the layers of ``result`` as a table with a total, below it the summary.

    Its warnings are not in it: whoever prints the table sends them to standard error.
    """
    rows = layer_rows(result)
    shown = [column for column in LAYER_COLUMNS if any(row.get(column[0]) is not None for row in rows)]
    table = new_table(f"{result.trace.name} on {result.machine.name}")
    table.add_column("layer", overflow="fold")
    table.add_column("weight", no_wrap=True)
    for _, heading, _ in shown:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(escape(row["layer"]), row["shape"], *_cells(row, shown))
    if len(rows) > 1:
        table.add_section()
        table.add_row("total", "", *_cells(total_row(result), shown), style="bold")
    return Group(table, *map(Text, summary(result)))


def summary(result: Result) -> list[str]:
    """Return a few sentences that say how long it took, where the cycles and the energy went, and what came out."""
    total = result.total
    kind, units = _units(result)
    batch = "" if result.samples == 1 else f" for {result.samples:,} samples"
    sentences = [
        f"{total.cycles:,} cycles = {figures(total.latency_s * 1e6)} us{batch} on {units:,} "
        f"{UNITS.get(kind, kind)}{'s' if units > 1 else ''}"
        + (f", {total.cycles / total.theoretical_cycles:.2f} x perfect balance." if total.theoretical_cycles else ".")
    ]
    for name, causes in total.cycles_by_cause.items():
        spent = sum(causes.values())
        if not spent:
            continue
        shares = [f"{percent(causes[cause] / spent)} % {cause}" for cause in _largest(causes)]
        lost = sum(causes.get(cause, 0) for cause in IMBALANCE)
        imbalance = f"; {percent(lost / spent)} % lost to imbalance (starved + drained)" if lost else ""
        sentences.append(f"{UNITS.get(name, name)} cycles: {', '.join(shares).replace('_', ' ')}{imbalance}.")
    if total.energy_j is not None and total.energy_j.total:
        energy = total.energy_j
        part = _largest(energy.by_part)[0]
        power = f" = {figures(energy.total / total.latency_s * 1e3)} mW" if energy.mode == "calibrated" else ""
        area = f"; {total.area_mm2:.2f} mm2" if total.area_mm2 is not None else ""
        sentences.append(
            f"{figures(energy.total * 1e6)} uJ{power}, {energy.by_part[part] / energy.total:.0%} of it in {part}"
            f"{area}; energy table {energy.table} ({energy.mode})."
        )
    else:
        sentences.append("No energy table, no energy.")
    error = output_error(result)
    if error is not None:
        same = min(layer.arithmetic["same_argmax"] for layer in result.layers if layer.arithmetic is not None)
        clipped = math.fsum(layer.arithmetic["saturated"] for layer in result.layers if layer.arithmetic is not None)
        sentences.append(
            f"Outputs in the machine's arithmetic: rms error {100 * error:.2g} % at most, largest output where float64 "
            f"has it in {percent(same)} % at least, {clipped:,.0f} additions saturated."
        )
    return sentences


def sweep_table(outcomes: Sequence[Outcome]) -> RenderableType:
    """Return the cases of a sweep, one table a trace and machine; errors of those that failed stand below."""
    warned = [outcome.result.warnings for outcome in outcomes if outcome.result is not None]
    return cases_table(sweep_rows(outcomes), [outcome.case.settings for outcome in outcomes], warned)


def cases_table(
    rows: Sequence[Row], varied: Sequence[Mapping[str, Any]], warned: Iterable[list[str]]
) -> RenderableType:
    """Return ``rows`` of cases with the settings ``varied`` in each, as `sweep_table` does.

    ``warned``: the warnings of each case that finished. Of more than `ROWS_AT_ONCE` cases of a trace and machine, the
    first are shown, and it is said how many there are.
    """
    if not rows:
        return Text("No case fits.", style="yellow")
    parts: list[RenderableType] = []
    failures = []
    for trace, machine in dict.fromkeys((row["trace"], row["machine"]) for row in rows):
        own = [i for i, row in enumerate(rows) if (row["trace"], row["machine"]) == (trace, machine)]
        settings = list(dict.fromkeys(name for i in own for name in varied[i]))
        shown = [column for column in SWEEP_COLUMNS if any(rows[i].get(column[0]) is not None for i in own)]
        table = new_table(f"{trace} on {machine}")
        for name in settings:
            table.add_column(name.replace("_", "\n", 1), justify="right", no_wrap=True)
        for _, heading, _ in shown or SWEEP_COLUMNS[:1]:
            table.add_column(heading, justify="right", no_wrap=True)
        failed = [i for i in own if rows[i]["error"]]
        for i in failed[:ROWS_AT_ONCE]:
            where = "".join(f", {name}={rows[i].get(name)}" for name in settings)
            failures.append(Text(f"{trace} on {machine}{where}: {rows[i]['error']}", style="red"))
        for i in own[:ROWS_AT_ONCE]:
            cells = [Text("failed", style="red")] if rows[i]["error"] else _cells(rows[i], shown)
            table.add_row(*(escape(str(rows[i].get(name, ""))) for name in settings), *cells)
        parts += [table, Text("")]
        if len(own) > ROWS_AT_ONCE:
            failures_of = f", {len(failed):,} of which failed" if failed else ""
            rest = f"The first {ROWS_AT_ONCE:,} of {len(own):,} cases{failures_of}; --csv writes all."
            parts.insert(-1, Text(rest, style="yellow"))
    parts += failures
    parts.append(Text("Speed-up: over the first case of the same trace and machine.", style="dim"))
    parts += _energy_notes(rows)
    met = [warnings for warnings in warned if warnings]
    if met:
        parts.append(Text(f"Warnings in {len(met)} of {len(rows)} cases; the first: {met[0][0]}", style="yellow"))
    return Group(*parts)


def compare_table(results: Sequence[Result]) -> RenderableType:
    """Return ``results`` side by side, one a column; speed-ups are over the first."""
    rows = compare_rows(results)
    alike = len({row["machine"] for row in rows}) == 1
    names = [row["trace"] if alike else f"{row['trace']}\non {row['machine']}" for row in rows]
    legend: list[Text] = []
    if sum(max(map(len, name.split("\n"))) + 1 for name in names) > WIDTH_FOR_NAMES:
        legend = [Text(f"{i}: {name}".replace("\n", " ")) for i, name in enumerate(names, start=1)]
        names = [str(i) for i in range(1, len(names) + 1)]
    tables = []
    for first in range(0, len(rows), COLUMNS_AT_ONCE):  # more would not fit, and break their figures
        some = slice(first, first + COLUMNS_AT_ONCE)
        table = new_table(escape(f"on {rows[0]['machine']}") if alike and first == 0 else "")
        table.add_column("", no_wrap=True)
        for name in names[some]:
            table.add_column(escape(name), justify="right", overflow="fold")
        for column, heading, form in COMPARE_ROWS:
            values = [row.get(column) for row in rows]
            twice = (column == "energy_table" and legend) or (column == "speedup_over_dense" and alike)
            if any(value is not None for value in values) and not twice:
                table.add_row(heading, *("" if value is None else form(value) for value in values[some]))
        tables.append(table)
    return Group(*legend, *tables, *_energy_notes(rows))


def history_table(run: Run) -> RenderableType:
    """Return the levels of a training run: how much was pruned, and what the network could then do."""
    table = new_table(_trained(run.recipe.name, run))
    for heading in ("level", "sparsity\n%", "weights\nkept", "accuracy\n%", "loss\nnats", "training\nFLOPs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for level in run.history:
        table.add_row(
            str(level.level),
            f"{100 * level.sparsity:.2f}",
            whole(level.kept),
            f"{100 * level.accuracy:.2f}",
            f"{level.loss:.4f}",
            f"{level.training_flops:.2f}",
        )
    if run.dense_accuracy is None:
        return Group(table, Text(TRAINING_FLOPS))
    change = 100 * (run.accuracy - run.dense_accuracy)
    return Group(
        table,
        Text(TRAINING_FLOPS),
        Text(f"Accuracy of the pruned network: {change:+.2f} points against the dense one."),
    )


def seeds_table(name: str, runs: Sequence[Run]) -> RenderableType:
    """Return accuracy by sparsity over runs of one recipe that differ in their seed: mean, spread, and each of them."""
    first = runs[0]
    table = new_table(_trained(name, first))
    headings = ("level", "sparsity\n%", "mean\n%", "spread\npoints", *(f"seed {run.recipe.seed}\n%" for run in runs))
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for levels in zip(*(run.history for run in runs), strict=True):
        found = [100 * level.accuracy for level in levels]
        table.add_row(
            str(levels[0].level),
            f"{100 * fmean(level.sparsity for level in levels):.2f}",
            f"{fmean(found):.2f}",
            f"{stdev(found):.2f}",
            *(f"{value:.2f}" for value in found),
        )
    return Group(
        table, Text(f"Accuracy over {len(runs)} seeds; the spread is the standard deviation (n - 1) between them.")
    )


def _trained(name: str, run: Run) -> str:
    return f"{name}: {run.recipe.network} on {run.recipe.data}" if run.recipe.network else name


def _cells(row: Row, columns: Iterable[tuple[str, str, Format]]) -> list[str | Text]:
    return ["" if row.get(name) is None else form(row[name]) for name, _, form in columns]


def _units(result: Result) -> tuple[str, int]:
    """Return the kind of unit that computes and how many of it the machine has."""
    for kind, causes in result.layers[0].cycles_per_unit.items():
        return kind, max((len(units) for units in causes.values()), default=1)
    return "machine", 1


def _largest(shares: dict[str, Any]) -> list[str]:
    """Return the names of what is not 0, the largest first."""
    return sorted((name for name in shares if shares[name]), key=lambda name: -shares[name])


def _energy_notes(rows: Sequence[Row]) -> list[Text]:
    tables = sorted({row["energy_table"] for row in rows if row.get("energy_table")})
    if len(tables) < 2:
        return [Text(f"Energy table: {tables[0]}.", style="dim")] if tables else []
    return [Text(f"Energies come from different tables and do not compare: {', '.join(tables)}.", style="yellow")]
