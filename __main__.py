"""The command line: parse, call one function, print.

Tables go to standard output, progress and warnings to standard error. Exit status: 0 done, 1 a check failed, 2 bad
input. Everything is imported where it is needed, so that help comes at once.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .reports.terminal import (
    check_outputs,
    finish,
    make_folder,
    parse_grid,
    parse_set,
    parse_window,
    progress_bar,
    settings,
    show,
    trace_reader,
    warn,
    write,
)  # fmt: skip

if TYPE_CHECKING:
    from .simulator.machine import Machine
    from .simulator.timeline import Timeline
    from .workloads.points import Cloud

INTERRUPTED = 130  # exit status: 128 + SIGINT, as shells have it
PLOT_SUFFIXES = (".png", ".svg", ".pdf")

app = typer.Typer(
    name="gossamer",
    help="Cycle-level simulator for sparse neural-network accelerators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
synth = typer.Typer(help="Make synthetic traces and point clouds with declared statistics.", no_args_is_help=True)
app.add_typer(synth, name="synth")

TraceArgument = Annotated[
    str, typer.Argument(metavar="TRACE", help="A bundled trace, or a path; a point cloud's with --network.")
]
TracesArgument = Annotated[
    list[str], typer.Argument(metavar="TRACE...", help="Bundled traces, or paths; of point clouds with --network.")
]
OnOption = Annotated[str, typer.Option("--on", metavar="MACHINE", help="A bundled machine, or the path of a .toml.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a field of the machine's config.")
]
LayerOption = Annotated[
    str | None, typer.Option("--layer", metavar="PATTERN", help="Only layers whose name fits, as in fc*.")
]
EngineOption = Annotated[str, typer.Option("--engine", metavar="fast|event", help="Recurrences, or stepped units.")]
JsonOption = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write JSON here; - for stdout alone.")]
CsvOption = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the table here.")]
ActDensityOption = Annotated[
    float | None, typer.Option(help="Nonzero share of drawn inputs, for files without activations.")
]
SamplesOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="How many inputs to draw, for files without activations; points to take, with --network."
    ),
]
DrawSeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="N",
        help="Seed of drawn inputs, for files without activations; of all that is drawn, with --network.",
    ),
]
SeedOption = Annotated[int, typer.Option(metavar="N", help="Seed of all that is drawn.")]
CloudOutOption = Annotated[Path, typer.Option(help="The point cloud to write: .npy, .npz, .bin or .ply.")]
InputSizeOption = Annotated[
    str | None, typer.Option(metavar="HxW", help="Size of drawn inputs of convolutions, for files without activations.")
]
NetworkOption = Annotated[
    str | None,
    typer.Option("--network", metavar="NAME", help="Send a point cloud through this network, to simulate that."),
]
VoxelSizeOption = Annotated[
    float | None, typer.Option(metavar="SIDE", help="With --network: side of a voxel, 0.05 unless said.")
]
SparsityOption = Annotated[
    float | None, typer.Option(metavar="SHARE", help="With --network: share of its weights to prune, by magnitude.")
]
ChannelSparsityOption = Annotated[
    float | None, typer.Option(metavar="SHARE", help="With --network: share of its channels to take out, by norm.")
]
WeightsOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="With --network: its weights; drawn from --seed without.")
]


def _show_version(asked: bool) -> None:
    if asked:
        from . import __version__

        typer.echo(f"gossamer {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Cycle-level simulator for sparse neural-network accelerators."""


@app.command("simulate")
def simulate_command(
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
    act_density: ActDensityOption = None,
    samples: SamplesOption = None,
    seed: DrawSeedOption = None,
    input_size: InputSizeOption = None,
    network: NetworkOption = None,
    voxel_size: VoxelSizeOption = None,
    sparsity: SparsityOption = None,
    channel_sparsity: ChannelSparsityOption = None,
    weights: WeightsOption = None,
) -> None:
    """Simulate a trace on a machine: cycles, energy and the reasons for them."""
    from .reports.tables import csv_text, layer_rows, result_table
    from .simulator import simulate

    check_outputs(json, csv, timeline)
    recorded = _timeline(timeline, window)
    machine = _machine(on, set_)
    read = trace_reader(
        act_density, samples, seed, input_size, network, voxel_size, sparsity, channel_sparsity, weights
    )
    loaded = read(trace)
    with progress_bar(f"{loaded.name} on {machine.name}") as step:
        result = simulate(
            machine, loaded, engine=engine, layers=layer, timeline=recorded, progress=lambda name: step(0, 0, name)
        )
    if timeline is not None and recorded is not None:
        from .reports.perfetto import perfetto_json
        from .reports.vcd import vcd_text

        text = vcd_text if timeline.suffix.lower() == ".vcd" else perfetto_json
        write(timeline, text(recorded, clock_hz=machine.config.clock_hz, name=f"{loaded.name} on {machine.name}"))
    if csv is not None:
        write(csv, csv_text(layer_rows(result)).encode())
    finish(json, result.to_json, result_table(result))
    warn(result.warnings + ([] if recorded is None else recorded.warnings()))


def _timeline(path: Path | None, window: str | None) -> Timeline | None:
    """Return a timeline of ``window`` for the output at ``path``, whose kind can be written; None without one."""
    from .simulator.timeline import Timeline
    from .workloads import InputError
    from .workloads.extras import need

    if path is None:
        if window is not None:
            raise InputError(f"--window is for --timeline, not {window!r} alone; name a file with --timeline")
        return None
    check_outputs(path, suffixes=(".json", ".vcd"))
    if path.suffix.lower() == ".vcd":
        need("wave", "vcd")
    start, end = (0, None) if window is None else parse_window(window)
    return Timeline(start=start, end=end)


@app.command()
def compare(
    traces: TracesArgument,
    on: Annotated[list[str] | None, typer.Option("--on", metavar="MACHINE", help="One or more machines.")] = None,
    set_: SetOption = None,
    layer: LayerOption = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Plot cycles by cause and energy.")] = None,
    act_density: ActDensityOption = None,
    samples: SamplesOption = None,
    seed: DrawSeedOption = None,
    input_size: InputSizeOption = None,
    network: NetworkOption = None,
    voxel_size: VoxelSizeOption = None,
    sparsity: SparsityOption = None,
    channel_sparsity: ChannelSparsityOption = None,
    weights: WeightsOption = None,
) -> None:
    """Compare traces and machines side by side: speed, energy, balance and accuracy; the first row is 1."""
    import msgspec

    from .reports.tables import compare_rows, compare_table, csv_text
    from .simulator import simulate

    check_outputs(json, csv)
    check_outputs(plot, suffixes=PLOT_SUFFIXES)
    machines = [_machine(name, set_) for name in on or ["eie-64pe"]]
    read = trace_reader(
        act_density, samples, seed, input_size, network, voxel_size, sparsity, channel_sparsity, weights
    )
    loaded = [read(trace) for trace in traces]
    with progress_bar("compare") as step:
        pairs = [(machine, trace) for machine in machines for trace in loaded]
        results = []
        for done, (machine, trace) in enumerate(pairs):
            step(done, len(pairs), f"{trace.name} on {machine.name}")
            results.append(simulate(machine, trace, layers=layer))
    if csv is not None:
        write(csv, csv_text(compare_rows(results)).encode())
    if plot is not None:
        from .reports.plots import plot_causes

        plot_causes(results, plot)
    finish(json, lambda: msgspec.json.format(msgspec.json.encode(results), indent=1).decode() + "\n",
            compare_table(results))  # fmt: skip
    warn([f"{r.trace.name} on {r.machine.name}: {w}" for r in results for w in r.warnings])


@app.command()
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
    act_density: ActDensityOption = None,
    samples: SamplesOption = None,
    seed: DrawSeedOption = None,
    input_size: InputSizeOption = None,
    network: NetworkOption = None,
    voxel_size: VoxelSizeOption = None,
    sparsity: SparsityOption = None,
    channel_sparsity: ChannelSparsityOption = None,
    weights: WeightsOption = None,
) -> None:
    """Sweep a machine's parameters over a grid: cycles, speed-up, balance, padding and energy at each point."""
    import msgspec

    from .models import vary
    from .reports.tables import csv_text, sweep_rows, sweep_table
    from .simulator.store import Store
    from .simulator.sweep import Case, grid_points
    from .simulator.sweep import sweep as run_sweep

    check_outputs(json, csv, store)
    check_outputs(plot, suffixes=PLOT_SUFFIXES)
    if cluster is not None:
        from .simulator.cluster import check_address
        from .workloads.extras import need

        check_address(cluster)
        need("cluster", "distributed")
    machine = _machine(on, set_)
    values = settings(grid, parse_grid)
    points = [(point, vary(machine, **point)) for point in grid_points(values)]
    read = trace_reader(
        act_density, samples, seed, input_size, network, voxel_size, sparsity, channel_sparsity, weights
    )
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
        from .reports.plots import plot_sweep

        plot_sweep(outcomes, next(iter(values)), plot)
    finish(json, lambda: msgspec.json.format(msgspec.json.encode(rows), indent=1).decode() + "\n",
            sweep_table(outcomes))  # fmt: skip
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    warn([f"{outcome.case.settings}: {outcome.error}" for outcome in failed])
    if failed:
        raise typer.Exit(1)


@app.command()
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

    from .models import vary
    from .reports.explore import front_of
    from .reports.tables import csv_text
    from .simulator.store import Store
    from .simulator.sweep import Case, grid_points
    from .simulator.sweep import sweep as run_sweep
    from .workloads import load_trace

    check_outputs(json, csv, store)
    points = grid_points(settings(grid, parse_grid))
    machines = [_machine(name, set_) for name in on or ["eie-64pe"]]
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


@app.command()
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

    from .reports.stored import choose, parquet_bytes
    from .reports.tables import csv_text
    from .simulator.store import Store
    from .workloads.extras import need

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


@app.command()
def report(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULT...", help="What --json wrote: of simulate, or of compare.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page to write.")] = Path("report.html"),
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="The page's title.")] = None,
) -> None:
    """Show results as one HTML page: summary, layers, where cycles and energy went, load, provenance."""
    from .reports.html import read_results, write_report

    check_outputs(out, suffixes=(".html", ".htm"))
    read = [result for path in results for result in read_results(path)]
    write_report(read, out, title)
    print(f"{out}: {len(read)} result{'s' if len(read) > 1 else ''}")


@app.command("list")
def list_command(
    what: Annotated[str, typer.Argument(metavar="[machines|traces|networks|recipes]", help="What to list.")] = "all",
) -> None:
    """List what is bundled: machines, traces, networks and recipes."""
    from .reports.catalogue import catalogue

    show(catalogue(what))


@app.command()
def check(
    trace: TraceArgument,
    on: OnOption = "eie-64pe",
    set_: SetOption = None,
    layer: LayerOption = None,
    act_density: ActDensityOption = None,
    samples: SamplesOption = None,
    seed: DrawSeedOption = None,
    input_size: InputSizeOption = None,
    network: NetworkOption = None,
    voxel_size: VoxelSizeOption = None,
    sparsity: SparsityOption = None,
    channel_sparsity: ChannelSparsityOption = None,
    weights: WeightsOption = None,
) -> None:
    """Check the engines against each other and their numbers against numpy, on a trace of yours."""
    from .reports.verdicts import engines_table
    from .simulator.check import check as run_check

    machine = _machine(on, set_)
    features = network is not None
    read = trace_reader(
        act_density, samples, seed, input_size, network, voxel_size, sparsity, channel_sparsity, weights, features
    )
    loaded = read(trace)
    with progress_bar("check") as step:
        found = run_check(machine, loaded, layers=layer, progress=lambda name: step(0, 0, name))
    show(engines_table(found))
    if not all(layer.passed for layer in found):
        raise typer.Exit(1)


@app.command()
def validate(
    what: Annotated[str, typer.Argument(metavar="[eie|tensor-core|pointacc]", help="Which accelerator.")] = "eie",
    dump: Annotated[Path | None, typer.Argument(help="The EIE authors' data folder, for the real layer.")] = None,
    json: JsonOption = None,
    plots: Annotated[Path | None, typer.Option(metavar="DIR", help="Draw plots here (tensor-core, pointacc).")] = None,
) -> None:
    """Set published figures beside simulated ones, with error and source; status 1 where one is out of tolerance."""
    import msgspec

    from .reports.validate import drawings, failed, validations
    from .reports.verdicts import checks_table

    check_outputs(json)
    run = validations(what)
    draw_all = None if plots is None else drawings(what)
    if plots is not None:
        make_folder(plots)
    with progress_bar(f"validate {what}"):
        checks = run(dump)
        drawn = [] if plots is None or draw_all is None else draw_all(plots)
    finish(json, lambda: msgspec.json.format(msgspec.json.encode(checks), indent=1).decode() + "\n",
            checks_table(checks))  # fmt: skip
    if json != "-":
        for path in drawn:
            typer.echo(str(path))
    if failed(checks):
        raise typer.Exit(1)


@synth.command("eie")
def synth_eie(
    layer: Annotated[str, typer.Argument(metavar="LAYER|all", help="A layer of Table III, as in alex-7; or all.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file, or for all the folder, to write.")],
    row_sigma: Annotated[float, typer.Option(help="Spread of the rows' densities (lognormal); real ones differ.")] = 0,
    seed: SeedOption = 0,
) -> None:
    """Make one of the nine layers of EIE's Table III (or all), of its size and densities, with random weights."""
    from .workloads import save_trace
    from .workloads.synth import EIE_LAYERS, eie_layer

    if layer != "all":
        check_outputs(out)
    names = [known.name for known in EIE_LAYERS] if layer == "all" else [layer]
    with progress_bar("synth") as step:
        for done, name in enumerate(names):
            step(done, len(names), name)
            trace = eie_layer(name, row_sigma=row_sigma, seed=seed)
            path = out / f"{trace.name}.safetensors" if layer == "all" else out
            if layer == "all":
                make_folder(out)
            save_trace(trace, path)
            typer.echo(f"{path}: {trace.name}, {trace.layers[0].shape}, {1 - trace.sparsity:.1%} of weights kept")


@synth.command("random")
def synth_random(
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    rows: Annotated[int, typer.Option(help="Outputs.")] = 1024,
    cols: Annotated[int, typer.Option(help="Inputs.")] = 1024,
    density: Annotated[float, typer.Option(help="Share of weights that are kept.")] = 0.1,
    act_density: Annotated[float, typer.Option(help="Share of activations that are nonzero.")] = 0.35,
    row_sigma: Annotated[float, typer.Option(help="Spread of the rows' densities (lognormal).")] = 0,
    samples: Annotated[int, typer.Option(help="Inputs in the batch.")] = 1,
    bias: Annotated[bool, typer.Option("--bias", help="Add a bias.")] = False,
    seed: SeedOption = 0,
) -> None:
    """Make a random linear layer."""
    from .workloads import save_trace
    from .workloads.synth import random_layer

    check_outputs(out)
    trace = random_layer(
        rows, cols, density, act_density, row_sigma=row_sigma, seed=seed, samples=samples, bias=bias, name=out.stem
    )
    save_trace(trace, out)
    typer.echo(f"{out}: {trace.name}, {trace.layers[0].shape}, {1 - trace.sparsity:.1%} of weights kept")


@synth.command("gemm")
def synth_gemm(
    rows: Annotated[int, typer.Option(help="Outputs: rows of the weight.")],
    reduction: Annotated[int, typer.Option(help="Inputs: what is summed up.")],
    columns: Annotated[int, typer.Option(help="Input vectors in the batch.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    pattern: Annotated[str, typer.Option(metavar="N:M|V:N:M|dense|random:D", help="Which weights are kept.")] = "2:4",
    act_density: Annotated[float, typer.Option(help="Share of activations that are nonzero.")] = 1.0,
    seed: SeedOption = 0,
) -> None:
    """Make a matrix product: a linear layer in an N:M pattern, with a batch of input vectors."""
    from .workloads import save_trace
    from .workloads.synth import gemm_layer

    check_outputs(out)
    with progress_bar("synth"):
        trace = gemm_layer(rows, reduction, columns, pattern, act_density=act_density, seed=seed, name=out.stem)
        save_trace(trace, out)
    typer.echo(f"{out}: {trace.name}, {trace.layers[0].shape} x {columns}, {1 - trace.sparsity:.1%} of weights kept")


@synth.command("lidar")
def synth_lidar(out: CloudOutOption, seed: SeedOption = 0) -> None:
    """Make a scan of a street by a spinning LiDAR of 64 beams, with remission, as sparse as a real one."""
    from .workloads.points import lidar

    _write_cloud(lambda: lidar(seed), out, voxel_size=0.05)


@synth.command("room")
def synth_room(out: CloudOutOption, seed: SeedOption = 0) -> None:
    """Make a furnished room, its surfaces scanned densely."""
    from .workloads.points import room

    _write_cloud(lambda: room(seed), out, voxel_size=0.05)


@synth.command("cad")
def synth_cad(
    out: CloudOutOption,
    shape: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which object; the seed chooses one without.")
    ] = None,
    points: Annotated[int, typer.Option(metavar="N", help="How many points of its surface.")] = 1024,
    seed: SeedOption = 0,
) -> None:
    """Make one object, a solid or a piece of furniture, in the unit sphere."""
    from .workloads.points import cad

    _write_cloud(lambda: cad(seed, shape, points=points), out)


def _write_cloud(make: Callable[[], Cloud], out: Path, voxel_size: float | None = None) -> None:
    """Write the cloud and say what it is like; with ``voxel_size``, to a sparse network."""
    from .workloads.points import write_cloud
    from .workloads.points.files import WRITTEN_SUFFIXES
    from .workloads.points.statistics import statistics

    check_outputs(out, suffixes=WRITTEN_SUFFIXES)
    with progress_bar("synth"):
        cloud = make()
        write_cloud(cloud, out)
    text = f"{out}: {cloud.name}, {len(cloud.points):,} points"
    if voxel_size is not None:
        found = statistics(cloud.points, voxel_size, (1,))
        text += f", {found.voxels[0]:,} voxels of {voxel_size:g} m with {found.neighbours[0]:.2f} neighbours of 27"
    typer.echo(text)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A bundled recipe, or the path of a .toml.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where trace, checkpoint and history go.")] = Path("runs"),
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a field of the recipe.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train so many, with seeds one after the other.")] = 1,
) -> None:
    """Train and prune a network by a recipe, and write its trace (needs the extra train).

    What DIR holds of an interrupted run is not trained again.
    """
    from .reports.tables import history_table, seeds_table
    from .workloads.training import load_recipe
    from .workloads.training import train as run_train
    from .workloads.training.recipe import override

    loaded = load_recipe(recipe, **settings(set_, parse_set))
    recipes = [loaded]
    if seeds > 1:
        numbers = range(loaded.seed, loaded.seed + seeds)
        recipes = [override(loaded, seed=seed, name=f"{loaded.name}-seed{seed}") for seed in numbers]
    runs = []
    with progress_bar(loaded.name) as step:
        for each in recipes:
            seed = f"seed {each.seed}" if seeds > 1 else ""

            def progress(done: int, all_: int, seed: str = seed) -> None:
                step(done, all_, seed)

            runs.append(run_train(each, out=out, progress=progress))
    show(history_table(runs[0]) if seeds == 1 else seeds_table(loaded.name, runs))
    for run in runs:
        for path in run.files.values():
            typer.echo(str(path))


@app.command()
def diagnose(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A training run's checkpoint.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where plots and diagnostics.json go.")] = Path("diagnosis"),
    samples: Annotated[int, typer.Option(help="Training and test samples to measure on, at most.")] = 2048,
    pe_count: Annotated[
        int | None, typer.Option(help="Processing elements of the balance; the recipe's, or 64, by default.")
    ] = None,
    suffix: Annotated[str, typer.Option(metavar=".png|.svg|.pdf", help="Kind of plots.")] = ".png",
) -> None:
    """Diagnose a training run: sparsity, balance, sensitivity, curvature, and the loss between its solutions."""
    from .reports.diagnose import diagnosis_of, diagnosis_tables, write_diagnosis
    from .workloads import InputError

    if suffix not in PLOT_SUFFIXES:
        raise InputError(f"--suffix must be one of {', '.join(PLOT_SUFFIXES)}, not {suffix!r}")
    make_folder(out)
    with progress_bar(f"diagnose {checkpoint.name}") as step:
        found = diagnosis_of(checkpoint, samples=samples, pe_count=pe_count, progress=lambda what: step(0, 0, what))
    for table in diagnosis_tables(found):
        show(table)
    for path in write_diagnosis(found, out, suffix=suffix):
        typer.echo(str(path))


@app.command()
def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT", help="A training run's, or a file of weights; a point cloud with --network."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="The trace to write.")],
    act_density: ActDensityOption = None,
    samples: SamplesOption = None,
    seed: DrawSeedOption = None,
    input_size: InputSizeOption = None,
    network: NetworkOption = None,
    voxel_size: VoxelSizeOption = None,
    sparsity: SparsityOption = None,
    channel_sparsity: ChannelSparsityOption = None,
    weights: WeightsOption = None,
    features: Annotated[
        bool, typer.Option("--features", help="With --network: every layer's inputs too, not only its geometry.")
    ] = False,
    products: Annotated[
        bool, typer.Option("--products", help="Keep products of activations too, as in an attention (of a run).")
    ] = False,
    fold_batch_norm: Annotated[
        bool, typer.Option("--fold-batch-norm", help="Put batch norms into the layers before them (of a run).")
    ] = False,
) -> None:
    """Export a trace from a training run's checkpoint, from masked weights of yours, or of a network on a cloud."""
    from .workloads import InputError, save_trace
    from .workloads.training import export_checkpoint, is_checkpoint

    check_outputs(out)
    if network is None and is_checkpoint(checkpoint):
        trace = export_checkpoint(checkpoint, products=products, fold_batch_norm=fold_batch_norm)
    elif products or fold_batch_norm:
        option = "--products" if products else "--fold-batch-norm"
        raise InputError(f"{checkpoint}: {option} needs the checkpoint of a training run, not weights; leave it out")
    else:
        read = trace_reader(
            act_density, samples, seed, input_size, network, voxel_size, sparsity, channel_sparsity, weights, features
        )
        trace = read(checkpoint)
    save_trace(trace, out)
    typer.echo(f"{out}: {trace.name}, {len(trace.layers)} layers, {trace.sparsity:.1%} sparse")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where tables, plots and the timeline go.")] = Path(
        "gossamer-demo"
    ),
) -> None:
    """Tell the whole story on bundled data: simulate, compare, sweep, check; tables and plots written and named."""
    from .reports.demo import run_demo

    make_folder(out)
    for part in run_demo(out):
        show(part)


def _machine(name: str, set_: list[str] | None) -> Machine:
    from .models import load_machine

    return load_machine(name, **settings(set_, parse_set))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no error
    try:
        status = app(args=arguments, prog_name="gossamer", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; say nothing more, on any descriptor, at exit either.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        message = _bad_input(error)
        if message is None:
            raise
        if message:
            print(f"gossamer: error: {message}", file=sys.stderr)
        return 2
    if status == INTERRUPTED:
        print("gossamer: interrupted", file=sys.stderr)
    return status if isinstance(status, int) else 0


def _bad_input(error: Exception) -> str | None:
    """Return what to tell the user if it was the input that was wrong, None if it was this program."""
    from typer.exceptions import TyperException

    from .workloads.errors import InputError

    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):  # a full disk, a name too long: the environment's, not this program's
        return f"{error.filename or 'output'}: must be usable, and: {error.strerror or error}; choose another"
    if isinstance(error, ValueError) and "null" in str(error):
        return "a path must not hold a NUL character; check the arguments"
    if isinstance(error, TyperException):
        return str(getattr(error, "format_message", lambda: error)())
    return None


if __name__ == "__main__":
    sys.exit(main())
