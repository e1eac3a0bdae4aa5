"""Tables of a page: the summary, the layers of a result, and what is known of where the figures come from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import msgspec

from .. import models
from ..models import list_energy_tables
from ..simulator.energy import EnergyTable
from ..simulator.result import Result, layer_rows, total_row
from .cells import Format
from .comparison import summary_rows
from .svg import text
from .tables import COMPARE_ROWS, LAYER_COLUMNS

LONG = 400  # characters of a value; more are cut


def html_table(heads: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1, foot: Sequence[str] = ()) -> str:
    """Return a table that sorts where a heading is pressed; its first ``words`` columns are words, others numbers."""
    kinds = ["" if index < words else ' class="n"' for index in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<td{k}>{text(c)}</td>" for k, c in zip(kinds, cells, strict=True)) + "</tr>\n"

    head = "".join(
        f'<th scope="col"{k}><button type="button">{text(h)}</button></th>' for k, h in zip(kinds, heads, strict=True)
    )
    last = f"<tfoot>{line(foot)}</tfoot>" if foot else ""
    body = "".join(map(line, rows))
    about = ' class="results"' if heads[0] == "result" else ""  # whose names are long
    return f'<div class="scroll"><table{about}><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{last}</table></div>'


def facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """Return a table of names and values."""
    rows = "".join(f'<tr><th scope="row">{text(name)}</th><td>{text(_word(value))}</td></tr>' for name, value in pairs)
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>'


def summary_table(results: Sequence[Result], names: Sequence[str], most: int) -> str:
    """Return the summary of ``results``, of at most the first ``most``: the columns that any of them has."""
    rows = summary_rows(results)
    columns = [(key, head, form) for key, head, form in COMPARE_ROWS if key != "energy_table"]
    columns.append(("area_mm2", "area, mm2", lambda value: f"{value:.2f}"))
    shown = [column for column in columns if any(row.get(column[0]) is not None for row in rows)]
    heads = ["result", *(head for _, head, _ in shown), "energy table"]
    listed = zip(names[:most], rows[:most], strict=True)
    body = [[name, *cells(row, shown), row["energy_table"] or "\u2013"] for name, row in listed]
    return html_table(heads, body)


def cells(row: Mapping[str, Any], columns: Iterable[tuple[str, str, Format]]) -> list[str]:
    """Return the figures of ``row`` in these columns, a dash where there is none."""
    return ["\u2013" if row.get(key) is None else form(row[key]) for key, _, form in columns]


def layers_table(result: Result) -> str:
    """Return a sortable row a layer, with the cause that most cycles of its first kind of unit went to."""
    rows = layer_rows(result)
    shown = [column for column in LAYER_COLUMNS if any(row.get(column[0]) is not None for row in rows)]
    heads = ["layer", "operation", "weight", "most cycles", *(head.replace("\n", " ") for _, head, _ in shown)]
    body = [
        [layer.name, layer.op, row["shape"], _most(layer.cycles_by_cause), *cells(row, shown)]
        for layer, row in zip(result.layers, rows, strict=True)
    ]
    foot = ["total", "", "", _most(result.total.cycles_by_cause), *cells(total_row(result), shown)]
    return html_table([head.replace("- ", "") for head in heads], body, words=4, foot=foot)


def queue_rows(results: Sequence[Result], names: Sequence[str]) -> list[list[str]]:
    """Return for machines with queues how long these were full (the broadcast waits) and empty (a PE waits), in %."""
    rows = []
    for name, result in zip(names, results, strict=True):
        causes = result.total.cycles_by_cause
        full, empty = causes.get("broadcaster", {}), causes.get("pe", {})
        if "stalled" not in full or "starved" not in empty:
            continue
        shares = [
            100 * some[cause] / spent if (spent := sum(some.values())) else 0.0
            for some, cause in ((full, "stalled"), (empty, "starved"))
        ]
        depth = result.machine.config.get("queue_depth", "\u2013")
        pushes = result.total.counts.get("queue_pushes", 0)
        rows.append([name, str(depth), f"{pushes:,}", *(f"{share:.2f}" for share in shares)])
    return rows


def provenance(result: Result) -> str:
    """Return what was run on what: trace, recipe, seeds, machine, engine, version."""
    trace, machine, energy = result.trace, result.machine, result.total.energy_j
    run = [
        ("trace", trace.name), ("sha256", trace.sha256), ("sparsity", trace.sparsity),
        ("machine", machine.name), ("model", machine.model), ("engine", result.engine),
        ("gossamer", result.version), ("samples", result.samples),
        ("energy table", "none" if energy is None else f"{energy.table} ({energy.mode})"),
    ]  # fmt: skip
    parts = [("Run", run), ("Configuration of the machine", list(machine.config.items()))]
    parts.append(("Provenance of the trace", list(_flat(trace.provenance))))
    return "".join(f"<h3>{text(head)}</h3>{facts(pairs)}" for head, pairs in parts if pairs)


def energy_sources(results: Sequence[Result]) -> str:
    """Return every value of the energy tables in use with its source, for those tables that are bundled."""
    parts = []
    names = {result.total.energy_j.table: None for result in results if result.total.energy_j is not None}
    for name in names:
        table = _bundled_table(name)
        if table is None:
            parts.append(f"<p>{text(name)}: no bundled table; its own file gives its sources.</p>")
            continue
        rows = [[e.part, f"per cycle of {e.unit}", e.source, f"{e.pj:g} pJ"] for e in table.per_cycle]
        rows += [[e.part, f"per {e.count}", e.source, f"{e.pj:g} pJ"] for e in table.per_event]
        rows += [[e.part, f"area of {e.unit}", e.source, f"{e.um2:g} um2"] for e in table.area]
        listed = html_table(["part", "of", "source", "value"], rows, words=3)
        about = f'<p class="soft">{text(table.description)}</p>' if table.description else ""
        parts.append(f"<details><summary>{text(name)} ({text(table.mode)})</summary>{about}{listed}</details>")
    return "".join(parts)


def _bundled_table(name: str) -> EnergyTable | None:
    if name not in list_energy_tables():
        return None
    data = (resources.files(models) / "energy" / f"{name}.toml").read_bytes()
    return msgspec.toml.decode(data, type=EnergyTable)


def _most(by_cause: Mapping[str, Mapping[str, int]]) -> str:
    for causes in by_cause.values():
        spent = sum(causes.values())
        if spent:
            cause = max(causes, key=lambda name: causes[name])
            return f"{cause} {causes[cause] / spent:.0%}".replace("_", " ").replace(" ", "\u00a0")
    return "\u2013"


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict) and value and prefix.count(".") < 3:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _word(value: Any) -> str:
    word = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return word if len(word) <= LONG else f"{word[:LONG]}\u2026 ({len(word):,} characters)"
