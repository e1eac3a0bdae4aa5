"""Commands that run traces on machines: simulate, compare, check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..terminal import check_outputs, check_suffix, finish, parse_window, progress_bar, show, warn, write
from .options import (
    CSV_SUFFIXES,
    PLOT_SUFFIXES,
    CsvOption,
    EngineOption,
    JsonOption,
    LayerOption,
    OnOption,
    SetOption,
    TraceArgument,
    TracesArgument,
    machine_of,
    matching,
)
from .trace_options import TraceOptions, with_trace_options

if TYPE_CHECKING:
    from ...simulator.timeline import Timeline
    from ...workloads.trace import Trace

PAIRS_AS_COLUMNS = 8  # of a comparison; more stand in rows


@with_trace_options
def simulate(
    trace: TraceArgument,
    on: OnOption = "eie-64pe",
    set_: SetOption = None,
    layer: LayerOption = None,
    engine: EngineOption = "fast",
    json: JsonOption = None,
    csv: CsvOption = None,
    timeline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json|.vcd",
            help="Write a timeline for Perfetto, or a waveform for GTKWave (needs --engine event).",
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(metavar="START:END", help="With --timeline: only cycles from START up to, not including, END."),
    ] = None,
    *,
    trace_options: TraceOptions,
) -> None:
    """Simulate a trace on a machine: cycles, energy and the reasons for them.

    Example: gossamer simulate lenet-digits-imp --on eie-64pe --set queue_depth=16 --json result.json
    """
    from ...simulator import simulate
    from ..tables import csv_text, layer_rows, result_table

    check_outputs(json, csv, timeline)
    check_suffix(csv, CSV_SUFFIXES)
    recorded = _timeline(timeline, window)
    machine = machine_of(on, set_)
    read = trace_options.reader()
    loaded = read(trace)
    with progress_bar(f"{loaded.name} on {machine.name}") as step:
        progress = _by_layer(step, loaded, layer)
        result = simulate(machine, loaded, engine=engine, layers=layer, timeline=recorded, progress=progress)
    if timeline is not None and recorded is not None:
        from ..perfetto import perfetto_json
        from ..vcd import vcd_text

        text = vcd_text if timeline.suffix.lower() == ".vcd" else perfetto_json
        write(timeline, text(recorded, clock_hz=machine.config.clock_hz, name=f"{loaded.name} on {machine.name}"))
    if csv is not None:
        write(csv, csv_text(layer_rows(result)).encode())
    finish(json, result.to_json, result_table(result))
    warn(result.warnings + ([] if recorded is None else recorded.warnings()))


def _by_layer(step: Callable[[int, int, str], None], trace: Trace, pattern: str | None) -> Callable[[str], None]:
    """Return what to call with the name of each layer that ``pattern`` chooses as it begins, to move a bar on."""
    from ...workloads.names import fits

    count = sum(pattern is None or fits(name, pattern) for name in trace.names)
    begun = iter(range(count))
    return lambda name: step(next(begun), count, name)


def _timeline(path: Path | None, window: str | None) -> Timeline | None:
    """Return a timeline of ``window`` for the output at ``path``, whose kind can be written; None without one."""
    from ...simulator.timeline import Timeline
    from ...workloads import InputError
    from ...workloads.extras import need

    if path is None:
        if window is not None:
            raise InputError(f"--window is for --timeline, not {window!r} alone; name a file with --timeline")
        return None
    check_suffix(path, (".json", ".vcd"))
    if path.suffix.lower() == ".vcd":
        need("wave", "vcd")
    start, end = (0, None) if window is None else parse_window(window)
    return Timeline(start=start, end=end)


@with_trace_options
def compare(
    traces: TracesArgument,
    on: Annotated[
        list[str] | None,
        typer.Option(
            "--on",
            metavar="MACHINE",
            help="One or more machines, eie-64pe unless said; a pattern such as eie-*; or all.",
        ),
    ] = None,
    set_: SetOption = None,
    layer: LayerOption = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Plot cycles by cause and energy.")] = None,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="Write what each pruning gains on each machine, as Markdown.")
    ] = None,
    *,
    trace_options: TraceOptions,
) -> None:
    """Compare traces and machines side by side: speed, energy, balance and accuracy; the first result is 1.

    A pair of a pattern's that cannot be simulated is named with its reason; one that was asked for is an error.

    Example: gossamer compare lenet-digits-dense lenet-digits-imp --on eie-64pe --on eie-256pe
    """
    import msgspec

    from ...models.loader import list_machines
    from ...workloads.load import bundled_traces
    from ..side_by_side import compare_all, pairs_table, refusal_notes
    from ..side_by_side import page as page_of
    from ..tables import compare_rows, compare_table, csv_text

    check_outputs(json, csv, page, plot)
    check_suffix(csv, CSV_SUFFIXES)
    check_suffix(page, (".md",))
    check_suffix(plot, PLOT_SUFFIXES)
    asked = ["*" if name == "all" else name for name in on or ["eie-64pe"]]
    names = matching(asked, list_machines(), "machine")
    machines = [machine_of(name, set_) for name in names]
    read = trace_options.reader()
    loaded = [read(trace) for trace in matching(traces, bundled_traces(), "trace")]
    with progress_bar("compare") as step:
        results, refused = compare_all(machines, loaded, layers=layer, strict=names == asked, progress=step)
    if csv is not None:
        write(csv, csv_text(compare_rows(results)).encode())
    if page is not None:
        write(page, page_of(results, refused, _as_typed(traces, on, set_, page)).encode())
    if plot is not None:
        from ..plots import plot_causes

        plot_causes(results, plot)
    few = len(results) <= PAIRS_AS_COLUMNS
    finish(json, lambda: msgspec.json.format(msgspec.json.encode(results), indent=1).decode() + "\n",
            compare_table(results) if few else pairs_table(results))  # fmt: skip
    warn([note.plain for note in refusal_notes(refused)])
    if few:
        warn([f"{r.trace.name} on {r.machine.name}: {w}" for r in results for w in r.warnings])


def _as_typed(traces: list[str], on: list[str] | None, set_: list[str] | None, page: Path) -> str:
    """Return the command that made a page, quoted as a shell needs it."""
    from shlex import join

    machines = [word for name in on or [] for word in ("--on", name)]
    fields = [word for text in set_ or [] for word in ("--set", text)]
    return join(["gossamer", "compare", *traces, *machines, *fields, "--page", page.name])


@with_trace_options
def check(
    trace: TraceArgument,
    on: OnOption = "eie-64pe",
    set_: SetOption = None,
    layer: LayerOption = None,
    *,
    trace_options: TraceOptions,
) -> None:
    """Check the engines against each other and their numbers against numpy, on a trace of yours.

    Example: gossamer check lenet-digits-imp --on systolic-16x16
    """
    from ...simulator.check import check as run_check
    from ..verdicts import engines_table

    machine = machine_of(on, set_)
    features = trace_options.network is not None
    read = trace_options.reader(features)
    loaded = read(trace)
    with progress_bar("check") as step:
        found = run_check(machine, loaded, layers=layer, progress=_by_layer(step, loaded, layer))
    show(engines_table(found))
    if not all(layer.passed for layer in found):
        raise typer.Exit(1)
