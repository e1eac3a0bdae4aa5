"""Commands over many cases: sweep, explore, and results of their stores."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from ..terminal import check_outputs, check_suffix, finish, parse_grid, parse_set, progress_bar, settings, warn, write
from .options import (
    CSV_SUFFIXES,
    PLOT_SUFFIXES,
    CsvOption,
    EngineOption,
    JsonOption,
    LayerOption,
    OnOption,
    SetOption,
    TracesArgument,
    machine_of,
)
from .trace_options import TraceOptions, with_trace_options


@with_trace_options
def sweep(
    traces: TracesArgument,
    grid: Annotated[list[str], typer.Option(metavar="KEY=V,V,...", help="Values of a config field; may be repeated.")],
    on: OnOption = "eie-64pe",
    set_: SetOption = None,
    layer: LayerOption = None,
    engine: EngineOption = "fast",
    store: Annotated[Path | None, typer.Option(metavar="FILE.sqlite", help="Keep results here, and resume.")] = None,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Processes that share the work.")] = 1,
    cluster: Annotated[
        str | None, typer.Option(metavar="tcp://HOST:PORT", help="A Dask scheduler whose workers share it instead.")
    ] = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Plot the sweep over its first field.")] = None,
    *,
    trace_options: TraceOptions,
) -> None:
    """Sweep a machine's parameters over a grid: cycles, speed-up, balance, padding and energy at each point.

    Example: gossamer sweep lenet-digits-imp --grid pe_count=16,64 --grid queue_depth=2,8 --store sweep.sqlite
    """
    import msgspec

    from ...models import vary
    from ...simulator.store import Store
    from ...simulator.sweep import Case, check_count, grid_points
    from ...simulator.sweep import sweep as run_sweep
    from ..tables import csv_text, sweep_rows, sweep_table

    check_outputs(json, csv, store, plot)
    check_suffix(csv, CSV_SUFFIXES)
    check_suffix(plot, PLOT_SUFFIXES)
    _check_cluster(cluster)
    machine = machine_of(on, set_)
    values = settings(grid, parse_grid)
    _check_once(set_, values)
    check_count(len(traces) * math.prod(map(len, values.values())))
    points = [(point, vary(machine, **point)) for point in grid_points(values)]
    read = trace_options.reader()
    cases = [
        Case(trace, varied, point, engine, layer)
        for trace in [read(name) for name in traces]
        for point, varied in points
    ]
    try:
        with Store(store) as kept, progress_bar("sweep", rate="cases") as step:
            step(0, len(cases), "")
            outcomes = run_sweep(
                cases, store=kept, workers=workers, cluster=cluster, progress=lambda done, all_: step(done, all_, "")
            )
    except KeyboardInterrupt:
        _say_what_is_kept(store)
        raise
    rows = sweep_rows(outcomes)
    if csv is not None:
        write(csv, csv_text(rows).encode())
    if plot is not None:
        from ..plots import plot_sweep

        plot_sweep(outcomes, next(iter(values)), plot)
    finish(json, lambda: msgspec.json.format(msgspec.json.encode(rows), indent=1).decode() + "\n",
            sweep_table(outcomes))  # fmt: skip
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    warn([f"{outcome.case.settings}: {outcome.error}" for outcome in failed])
    if failed:
        raise typer.Exit(1)


@with_trace_options
def explore(
    traces: TracesArgument,
    grid: Annotated[
        list[str] | None, typer.Option(metavar="KEY=V,V,...", help="Values of a config field; may be repeated.")
    ] = None,
    range_: Annotated[
        list[str] | None,
        typer.Option(
            "--range", metavar="KEY=LOW:HIGH[:STEP|:log2]", help="A range of them, in order; may be repeated."
        ),
    ] = None,
    on: Annotated[
        list[str] | None, typer.Option("--on", metavar="MACHINE", help="One or more machines, eie-64pe unless said.")
    ] = None,
    set_: SetOption = None,
    layer: LayerOption = None,
    trials: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Search: simulate so many cases at most; all of them without."),
    ] = None,
    sampler: Annotated[
        str, typer.Option(metavar="tpe|nsga2", help="Who chooses them, of Optuna's (needs the extra explore).")
    ] = "tpe",
    search_seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of that choice.")] = 0,
    store: Annotated[Path | None, typer.Option(metavar="FILE.sqlite", help="Keep results here, and resume.")] = None,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Processes that share the work.")] = 1,
    cluster: Annotated[
        str | None, typer.Option(metavar="tcp://HOST:PORT", help="A Dask scheduler whose workers share it instead.")
    ] = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    *,
    trace_options: TraceOptions,
) -> None:
    """Find the cases that no other beats in accuracy, latency, energy and area, over traces, machines and configs.

    Example: gossamer explore lenet-digits-imp lenet-digits-dense --grid pe_count=4,16,64
    """
    import msgspec

    from ...models import vary
    from ...simulator.space import Space
    from ...simulator.store import Store
    from ...workloads import InputError
    from ..explore import explore as find
    from ..ranges import parse_range
    from ..tables import csv_text

    check_outputs(json, csv, store)
    check_suffix(csv, CSV_SUFFIXES)
    _check_cluster(cluster)
    values, ranges = settings(grid, parse_grid), settings(range_, parse_range)
    for key in ranges:
        if key in values:
            raise InputError(f"{key}: a key must have a grid or a range, and has both; leave one out")
    _check_once(set_, values | ranges)
    machines = [machine_of(name, set_) for name in on or ["eie-64pe"]]
    read = trace_options.reader()
    space = Space([read(name) for name in traces], machines, values | ranges, vary, frozenset(ranges), layer)
    try:
        with Store(store) as kept, progress_bar("explore", rate="cases") as step:
            front = find(
                space, trials=trials, sampler=sampler, seed=search_seed, store=kept, workers=workers, cluster=cluster,
                progress=step,
            )  # fmt: skip
    except KeyboardInterrupt:
        _say_what_is_kept(store)
        raise
    if csv is not None:
        write(csv, csv_text(front.rows).encode())
    finish(json, lambda: msgspec.json.format(msgspec.json.encode(front.rows), indent=1).decode() + "\n",
            front.table())  # fmt: skip
    warn(front.warnings + front.failed)
    if front.failed:
        raise typer.Exit(1)


def _check_once(set_: list[str] | None, varied: Iterable[str]) -> None:
    """Raise InputError for a key that is set and ``varied`` too: one of the two would be dropped."""
    from ...workloads import InputError

    twice = set(settings(set_, parse_set)) & set(varied)
    if twice:
        raise InputError(f"{min(twice)}: a key must be set or varied, and is both; leave it out of --set")


def _check_cluster(address: str | None) -> None:
    if address is not None:
        from ...simulator.cluster import check_address
        from ...workloads.extras import need

        check_address(address)
        need("cluster", "distributed")


def _say_what_is_kept(store: Path | None) -> None:
    if store is not None:
        warn([f"the cases that were finished are kept in {store}; the same command goes on from there"])


def results(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="What gossamer sweep --store wrote.")],
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="CONDITION", help="As in pe_count>=16 or trace=lenet*; may be repeated."),
    ] = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE.parquet", help="Write the table here (needs the extra parquet).")
    ] = None,
) -> None:
    """Show what the store of a sweep holds, all of it or what fits, and write it as CSV, JSON or Parquet.

    Example: gossamer results sweep.sqlite --where "pe_count>=64" --csv wide.csv
    """
    import msgspec

    from ...simulator.store import Store
    from ...workloads.extras import need
    from ..stored import choose, parquet_bytes
    from ..tables import csv_text

    check_outputs(json, csv, parquet)
    check_suffix(csv, CSV_SUFFIXES)
    check_suffix(parquet, (".parquet",))
    if parquet is not None:
        need("parquet", "pyarrow")
    with Store(store, must_exist=True) as kept:
        chosen = choose(kept, where or [])
    if csv is not None:
        write(csv, csv_text(chosen.rows).encode())
    if parquet is not None:
        write(parquet, parquet_bytes(chosen.rows))
    finish(json, lambda: msgspec.json.format(msgspec.json.encode(chosen.rows), indent=1).decode() + "\n",
            chosen.table())  # fmt: skip
