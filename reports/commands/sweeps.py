"""Commands over many cases: sweep, explore, and results of their stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import check_outputs, finish, parse_grid, progress_bar, settings, warn, write
from .options import (
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
from .reading import Reading, with_reading


@with_reading
def sweep(
    traces: TracesArgument,
    grid: Annotated[list[str], typer.Option(metavar="KEY=V,V,...", help="Values of a config field; may be repeated.")],
    on: OnOption = "eie-64pe",
    set_: SetOption = None,
    layer: LayerOption = None,
    engine: EngineOption = "fast",
    store: Annotated[Path | None, typer.Option(metavar="FILE.sqlite", help="Keep results here, and resume.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the work.")] = 1,
    cluster: Annotated[
        str | None, typer.Option(metavar="tcp://HOST:PORT", help="A Dask scheduler whose workers share it instead.")
    ] = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Plot the sweep over its first field.")] = None,
    *,
    reading: Reading,
) -> None:
    """Sweep a machine's parameters over a grid: cycles, speed-up, balance, padding and energy at each point."""
    import msgspec

    from ...models import vary
    from ...simulator.store import Store
    from ...simulator.sweep import Case, grid_points
    from ...simulator.sweep import sweep as run_sweep
    from ..tables import csv_text, sweep_rows, sweep_table

    check_outputs(json, csv, store)
    check_outputs(plot, suffixes=PLOT_SUFFIXES)
    if cluster is not None:
        from ...simulator.cluster import check_address
        from ...workloads.extras import need

        check_address(cluster)
        need("cluster", "distributed")
    machine = machine_of(on, set_)
    values = settings(grid, parse_grid)
    points = [(point, vary(machine, **point)) for point in grid_points(values)]
    read = reading.reader()
    cases = [
        Case(trace, varied, point, engine, layer)
        for trace in [read(name) for name in traces]
        for point, varied in points
    ]
    try:
        with Store(store) as kept, progress_bar("sweep", rate="cases") as step:
            outcomes = run_sweep(
                cases, store=kept, workers=workers, cluster=cluster, progress=lambda done, all_: step(done, all_, "")
            )
    except KeyboardInterrupt:
        if store is not None:
            warn([f"the cases that were finished are kept in {store}; the same command goes on from there"])
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


def explore(
    traces: Annotated[list[str], typer.Argument(metavar="TRACE...", help="Bundled traces, or paths.")],
    grid: Annotated[list[str], typer.Option(metavar="KEY=V,V,...", help="Values of a config field; may be repeated.")],
    on: Annotated[list[str] | None, typer.Option("--on", metavar="MACHINE", help="One or more machines.")] = None,
    set_: SetOption = None,
    layer: LayerOption = None,
    store: Annotated[Path | None, typer.Option(metavar="FILE.sqlite", help="Keep results here, and resume.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the work.")] = 1,
    json: JsonOption = None,
    csv: CsvOption = None,
) -> None:
    """Find the cases of a grid that no other beats in accuracy, latency, energy and area, over traces and machines."""
    import msgspec

    from ...models import vary
    from ...simulator.store import Store
    from ...simulator.sweep import Case, grid_points
    from ...simulator.sweep import sweep as run_sweep
    from ...workloads import load_trace
    from ..explore import front_of
    from ..tables import csv_text

    check_outputs(json, csv, store)
    points = grid_points(settings(grid, parse_grid))
    machines = [machine_of(name, set_) for name in on or ["eie-64pe"]]
    varied = [(point, vary(machine, **point)) for machine in machines for point in points]
    loaded = [load_trace(name) for name in traces]
    cases = [Case(trace, machine, point, layers=layer) for trace in loaded for point, machine in varied]
    with Store(store) as kept, progress_bar("explore", rate="cases") as step:
        outcomes = run_sweep(cases, store=kept, workers=workers, progress=lambda done, all_: step(done, all_, ""))
    front = front_of(outcomes)
    if csv is not None:
        write(csv, csv_text(front.rows).encode())
    finish(json, lambda: msgspec.json.format(msgspec.json.encode(front.rows), indent=1).decode() + "\n",
            front.table())  # fmt: skip
    failed = [
        f"{o.case.trace.name} on {o.case.machine.name}, {o.case.settings}: {o.error}" for o in outcomes if o.error
    ]
    warn(front.warnings + failed)
    if failed:
        raise typer.Exit(1)


def results(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="What gossamer sweep --store wrote.")],
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="CONDITION", help="As in pe_count>=16 or trace=lenet*; may be repeated."),
    ] = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table here (needs the extra parquet).")
    ] = None,
) -> None:
    """Show what the store of a sweep holds, all of it or what fits, and write it as CSV, JSON or Parquet."""
    import msgspec

    from ...simulator.store import Store
    from ...workloads.extras import need
    from ..stored import choose, parquet_bytes
    from ..tables import csv_text

    check_outputs(json, csv, parquet)
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
