"""A report as one HTML file: no network, no other files, light and dark, on a phone and on paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from ..simulator.result import Result
from ..workloads.errors import InputError
from ..workloads.files.container import write_beside
from .cells import figures, percent, times
from .comparison import baselines, network_of, summary_rows
from .html_plots import (
    cause_bars,
    layer_bars,
    load_map,
    map_cells,
    pareto_charts,
    queue_maps,
    queue_times,
    rooflines,
    sweep_charts,
    unit_causes,
)  # fmt: skip
from .html_tables import energy_sources, html_table, layers_table, provenance, queue_rows, summary_table
from .plots_data import best_of, fronts_of
from .reading import check_result, result_names
from .svg import text

MOST_CELLS = 150_000  # of all heat maps; beyond that a result has one row for all layers
MOST_BARS = 1_500  # layers with bars of their own, of all results
MOST_SHOWN = 200  # results that are shown one by one; of more, those that none beats
MOST_LISTED = 1_000  # rows of the summary
MOST_TIMES = 12  # results whose queues are drawn over time
MOST_NAMED = 20  # results that are named with a warning, and cases that failed
MOST_WARNINGS = 200
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>
<pattern id="hatch" width="4" height="4" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<path d="M0 0V4" stroke="#fff" stroke-width="2"/></pattern></defs></svg>
<header><h1>$title</h1><p class="soft">$about</p><nav>$links</nav></header>
<main>
$body
</main>
<script>
$script</script>
</body>
</html>
""")


def write_report(
    results: Sequence[Result], path: str | Path, title: str | None = None, *, failed: Sequence[str] = ()
) -> Path:
    """Return ``path``, which now holds the report of ``results``. Raises InputError where it cannot be."""
    path = Path(path)
    write_beside(path, report_html(results, title, failed=failed).encode())
    return path


def report_html(results: Sequence[Result], title: str | None = None, *, failed: Sequence[str] = ()) -> str:
    """Return the page that shows ``results``: summary, bars, curves, layers, load, provenance, warnings.

    Speed-ups are over the first result of a dense trace, of the same network where the traces name one; over the first
    result where there is none. Of more than `MOST_SHOWN` results, bars, layers and provenance are of those that none
    beats. ``failed``: a sentence for each case of a sweep that has no result. Raises InputError for no results, and for
    one whose numbers cannot be.
    """
    if not results:
        raise InputError("a report needs at least one result, not 0; name a file that gossamer simulate --json wrote")
    for result in results:
        check_result(result, f"{result.trace.name} on {result.machine.name}")
    names = result_names(results)
    sections = [(name, head, body) for name, head, body in _sections(results, names, failed) if body]
    fallback = names[0] if len(results) == 1 else f"{len(results)} simulations"
    versions = ", ".join(dict.fromkeys(result.version for result in results))
    assets = resources.files(__package__) / "assets"
    return PAGE.substitute(
        title=text(title or fallback),
        about=text(f"Gossamer {versions}; cycles, energy and the reasons for them. Figures are of all samples together "
                   "unless they say a sample."),
        links="".join(f'<a href="#{name}">{text(head)}</a>' for name, head, _ in sections),
        body="\n".join(
            f'<section id="{name}"><h2>{text(head)}</h2>\n{body}</section>' for name, head, body in sections
        ),
        style=(assets / "report.css").read_text("utf-8"),
        script=(assets / "report.js").read_text("utf-8"),
    )  # fmt: skip


def _sections(results: Sequence[Result], names: Sequence[str], failed: Sequence[str]) -> Iterable[tuple[str, str, str]]:
    yield "summary", "Summary", _summary(results, names)
    curves = [f"<h3>{text(field)}</h3>{_grid(charts)}" for field, charts in sweep_charts(results)]
    fronts = _grid(pareto_charts(results, names))
    roofs = _grid(rooflines(results))
    warned = _warnings(results, names, failed)
    results, names, some = _shown(results, names)
    yield "causes", "Cycles by cause, energy by part", some + _grid([cause_bars(results, names)])
    queues = queue_rows(results, names)
    heads = ["result", "queue depth", "pushes", "queue full, % of the broadcaster's time", "empty, % of the PEs' time"]
    drawn = [*queue_maps(results, names), *queue_times(results[:MOST_TIMES], names[:MOST_TIMES])]
    yield "queues", "Queues", (html_table(heads, queues) if queues else "") + _grid(drawn)
    yield "sweep", "Over a setting", "".join(curves)
    yield "pareto", "Pareto fronts", fronts
    yield "roofline", "Roofline", roofs
    by_layer = sum(map(map_cells, results)) <= MOST_CELLS
    bars = sum(len(result.layers) for result in results) <= MOST_BARS
    layers = []
    for place, (result, name) in enumerate(zip(results, names, strict=True)):
        drawn = [layer_bars(result) if bars else "", unit_causes(result), load_map(result, by_layer)]
        opened = " open" if len(results) <= 2 or place == 0 else ""
        shown = f"{layers_table(result)}{_grid(drawn)}"
        layers.append(f"<details{opened}><summary>{text(name)}</summary>{shown}</details>\n")
    yield "layers", "Layers, and the load of each unit", some + "".join(layers)
    yield "warnings", "Warnings", warned
    yield "energy", "Energy sources", energy_sources(results)
    told = [
        f"<details><summary>{text(name)}</summary>{provenance(result)}</details>\n"
        for name, result in zip(names, results, strict=True)
    ]
    yield "provenance", "Provenance", some + "".join(told)


def _shown(results: Sequence[Result], names: Sequence[str]) -> tuple[list[Result], list[str], str]:
    """Return the results, with their names, that are shown one by one, and a note where these are not all."""
    if len(results) <= MOST_SHOWN:
        return list(results), list(names), ""
    best = {name for front in fronts_of(results, names) for name in best_of(front)}
    chosen = [place for place, name in enumerate(names) if not best or name in best][:MOST_SHOWN]
    which = "that no other beats" if best else "that come first"
    note = f'<p class="soft">{len(chosen):,} of {len(results):,} results are shown here: those {which}.</p>'
    return [results[i] for i in chosen], [names[i] for i in chosen], note


def _summary(results: Sequence[Result], names: Sequence[str]) -> str:
    rows = summary_rows(results)
    known = [place for place, row in enumerate(rows) if row["latency_per_sample_us"]]
    best = min(known, key=lambda place: rows[place]["latency_per_sample_us"], default=0)
    row = rows[best]
    which = "" if len(results) == 1 else f"<p>Fastest a sample: {text(names[best])}</p>"
    energy = row["energy_per_sample_uj"]
    cards: list[tuple[str, Any]] = [
        ("latency a sample", f"{figures(row['latency_per_sample_us'])} us"),
        ("energy a sample", None if energy is None else f"{figures(energy)} uJ"),
        ("speed-up", None if row["speedup"] is None or len(results) == 1 else f"{times(row['speedup'])} x"),
        ("accuracy", None if row["accuracy"] is None else f"{percent(row['accuracy'])} %"),
        ("sparsity", f"{percent(row['sparsity'])} %"),
    ]
    boxes = "".join(f"<div>{text(head)}<b>{text(value)}</b></div>" for head, value in cards if value is not None)
    base = baselines(results)
    place = {id(result): name for result, name in zip(results, names, strict=True)}
    over = [
        f"{place[id(one)]}{f' (for {network})' if network and len(base) > 1 else ''}" for network, one in base.items()
    ]
    note = "" if len(results) == 1 else f'<p class="soft">Speed-ups are over {text("; ".join(over))}.</p>'
    networks = {network_of(result) for result in results}
    if len(networks) > 1:
        note += '<p class="soft">Several networks: figures of different ones are not compared with each other.</p>'
        which, boxes = "", ""
    if len(results) > MOST_LISTED:
        note += f'<p class="soft">The first {MOST_LISTED:,} of {len(results):,} results are listed.</p>'
    listed = summary_table(results, names, MOST_LISTED)
    shown = f'<div class="cards">{boxes}</div>' if boxes else ""
    return f"{which}{shown}{listed}{note}"


def _warnings(results: Sequence[Result], names: Sequence[str], failed: Sequence[str]) -> str:
    found: dict[str, list[str]] = {}
    for name, result in zip(names, results, strict=True):
        own = [*result.warnings, *(f"{layer.name}: {warning}" for layer in result.layers for warning in layer.warnings)]
        for warning in dict.fromkeys(own):
            found.setdefault(warning, []).append(name)
    items = []
    for warning, members in list(found.items())[:MOST_WARNINGS]:
        more = f"; and {len(members) - MOST_NAMED:,} more" if len(members) > MOST_NAMED else ""
        who = "all results" if len(members) == len(results) > 1 else "; ".join(members[:MOST_NAMED]) + more
        items.append(f'<li>{text(warning)} <span class="soft">({text(who)})</span></li>')
    if len(found) > MOST_WARNINGS:
        items.append(f"<li>and {len(found) - MOST_WARNINGS:,} more warnings</li>")
    items += [f"<li>failed: {text(one)}</li>" for one in failed[:MOST_NAMED]]
    if len(failed) > MOST_NAMED:
        items.append(f"<li>and {len(failed) - MOST_NAMED:,} more cases that failed</li>")
    return f'<ul class="warnings">{"".join(items)}</ul>' if items else "<p>None.</p>"


def _grid(drawn: Iterable[str]) -> str:
    inside = "".join(drawn)
    return f'<div class="figures">{inside}</div>' if inside else ""
