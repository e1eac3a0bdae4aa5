"""A report as one HTML file: no network, no other files, light and dark, on a phone and on paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import msgspec

from ..simulator.result import SCHEMA, Result, read_result
from ..workloads.errors import InputError
from ..workloads.files.container import write_beside
from .cells import figures, percent, times
from .html_plots import (
    cause_bars,
    layer_bars,
    load_map,
    map_cells,
    pareto_charts,
    rooflines,
    sweep_charts,
    unit_causes,
)  # fmt: skip
from .html_tables import (
    baselines,
    energy_sources,
    html_table,
    layers_table,
    network_of,
    provenance,
    queue_rows,
    summary_rows,
    summary_table,
)  # fmt: skip
from .svg import text

MOST_CELLS = 150_000  # of all heat maps; beyond that a result has one row for all layers
MOST_BARS = 1_500  # layers with bars of their own, of all results
LEAST, MOST = 1e-30, 2.0**63  # no figure of a simulation but 0 comes near
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


def write_report(results: Sequence[Result], path: str | Path, title: str | None = None) -> Path:
    """Return ``path``, which now holds the report of ``results``. Raises InputError where it cannot be."""
    path = Path(path)
    write_beside(path, report_html(results, title).encode())
    return path


def report_html(results: Sequence[Result], title: str | None = None) -> str:
    """Return the page that shows ``results``: summary, bars, curves, layers, load, provenance, warnings.

    Speed-ups are over the first result of a dense trace, of the same network where the traces name one; over the first
    result where there is none. Raises InputError for no results, and for one whose numbers cannot be.
    """
    if not results:
        raise InputError("a report needs at least one result, not 0; name a file that gossamer simulate --json wrote")
    for result in results:
        check_result(result, f"{result.trace.name} on {result.machine.name}")
    names = result_names(results)
    sections = [(name, head, body) for name, head, body in _sections(results, names) if body]
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


def read_results(path: str | Path) -> list[Result]:
    """Return the results in the JSON file at ``path``: one, or the list that a comparison writes. Raises InputError."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError:
        return [read_result(path)]  # which tells what is wrong
    if not data.lstrip().startswith(b"["):
        found = [read_result(path)]
    else:
        try:
            found = msgspec.json.decode(data, type=list[Result])
        except msgspec.MsgspecError as error:
            raise InputError(f"{path}: not a list of {SCHEMA}: {error}; write it with gossamer compare") from None
        if not found or any(result.schema != SCHEMA for result in found):
            met = "an empty list" if not found else repr(next(r.schema for r in found if r.schema != SCHEMA))
            raise InputError(f"{path}: results must be of schema {SCHEMA}, not {met}; write it with gossamer compare")
    for result in found:
        check_result(result, str(path))
    return found


def check_result(result: Result, where: str) -> None:
    """Raise InputError, beginning with ``where``, for numbers that no simulation gives and no page can show."""
    remedy = "write it again with gossamer simulate"
    if result.samples < 1:
        raise InputError(f"{where}: samples must be at least 1, not {result.samples}; {remedy}")
    for place, figures_ in [("total", result.total), *((layer.name, layer) for layer in result.layers)]:
        data = msgspec.to_builtins(figures_)
        for name in ("warnings", "tiling", "name", "op"):
            data.pop(name, None)
        arithmetic = data.pop("arithmetic", None)
        for name, value in _numbers(data):
            if value != 0 and not LEAST <= value < MOST:
                limits = f"0, or from {LEAST:g} to 2^63"
                raise InputError(f"{where}: {place}: {name} must be {limits}, not {_short(value)}; {remedy}")
        if arithmetic is not None and not {"rms_error", "rms_reference"} <= set(arithmetic):
            raise InputError(f"{where}: {place}: arithmetic must have rms_error and rms_reference; {remedy}")
        roof = {"macs_per_byte", "ridge_macs_per_byte", "bound_macs_per_s", "achieved_macs_per_s"}
        if data.get("roofline") is not None and not roof <= set(data["roofline"]):
            raise InputError(f"{where}: {place}: roofline must have {', '.join(sorted(roof))}; {remedy}")


def result_names(results: Sequence[Result]) -> list[str]:
    """Return a name a result that tells it from the others: trace, machine, and the config fields that differ."""
    plain = [f"{result.trace.name} on {result.machine.name}" for result in results]
    names = []
    for place, (result, name) in enumerate(zip(results, plain, strict=True)):
        twins = [other for other, same in zip(results, plain, strict=True) if same == name]
        config = result.machine.config
        varied = [k for k in config if any(other.machine.config.get(k) != config[k] for other in twins)]
        names.append(", ".join([name, *(f"{key}={config[key]}" for key in varied)]))
        if names[-1] in names[:-1]:
            names[-1] += f" ({place + 1})"
    return names


def _sections(results: Sequence[Result], names: Sequence[str]) -> Iterable[tuple[str, str, str]]:
    yield "summary", "Summary", _summary(results, names)
    yield "causes", "Cycles by cause, energy by part", _grid([cause_bars(results, names)])
    queues = queue_rows(results, names)
    heads = ["result", "queue depth", "pushes", "queue full, % of the broadcaster's time", "empty, % of the PEs' time"]
    yield "queues", "Queues", html_table(heads, queues) if queues else ""
    curves = [f"<h3>{text(field)}</h3>{_grid(charts)}" for field, charts in sweep_charts(results)]
    yield "sweep", "Over a setting", "".join(curves)
    yield "pareto", "Pareto fronts", _grid(pareto_charts(results, names))
    yield "roofline", "Roofline", _grid(rooflines(results))
    by_layer = sum(map(map_cells, results)) <= MOST_CELLS
    bars = sum(len(result.layers) for result in results) <= MOST_BARS
    layers = []
    for place, (result, name) in enumerate(zip(results, names, strict=True)):
        drawn = [layer_bars(result) if bars else "", unit_causes(result), load_map(result, by_layer)]
        opened = " open" if len(results) <= 2 or place == 0 else ""
        shown = f"{layers_table(result)}{_grid(drawn)}"
        layers.append(f"<details{opened}><summary>{text(name)}</summary>{shown}</details>\n")
    yield "layers", "Layers, and the load of each unit", "".join(layers)
    yield "warnings", "Warnings", _warnings(results, names)
    yield "energy", "Energy sources", energy_sources(results)
    told = [
        f"<details><summary>{text(name)}</summary>{provenance(result)}</details>\n"
        for name, result in zip(names, results, strict=True)
    ]
    yield "provenance", "Provenance", "".join(told)


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
    return f'{which}<div class="cards">{boxes}</div>{summary_table(results, names)}{note}'


def _warnings(results: Sequence[Result], names: Sequence[str]) -> str:
    found: dict[str, list[str]] = {}
    for name, result in zip(names, results, strict=True):
        own = [*result.warnings, *(f"{layer.name}: {warning}" for layer in result.layers for warning in layer.warnings)]
        for warning in dict.fromkeys(own):
            found.setdefault(warning, []).append(name)
    items = []
    for warning, members in found.items():
        who = "all results" if len(members) == len(results) > 1 else "; ".join(members)
        items.append(f'<li>{text(warning)} <span class="soft">({text(who)})</span></li>')
    return f'<ul class="warnings">{"".join(items)}</ul>' if items else "<p>None.</p>"


def _grid(drawn: Iterable[str]) -> str:
    inside = "".join(drawn)
    return f'<div class="figures">{inside}</div>' if inside else ""


def _short(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e300 else "a number beyond 1e300"


def _numbers(data: Any, name: str = "") -> Iterable[tuple[str, float]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _numbers(value, f"{name}.{key}" if name else str(key))
    elif isinstance(data, list | tuple):
        for value in data:
            yield from _numbers(value, name)
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield name, data
