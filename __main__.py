"""The command line: parse, call one function, print.

Tables go to standard output, progress and warnings to standard error. Exit status: 0 done, 1 a check failed, 2 bad
input. Everything is imported where it is needed, so that help comes at once.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .simulator.machine import Machine
    from .workloads.trace import Trace

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
synth = typer.Typer(help="Make synthetic traces with declared statistics.", no_args_is_help=True)
app.add_typer(synth, name="synth")

TraceArgument = Annotated[str, typer.Argument(metavar="TRACE", help="A bundled trace, or the path of a file or dump.")]
TracesArgument = Annotated[list[str], typer.Argument(metavar="TRACE...", help="Bundled traces, or paths.")]
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
    int | None, typer.Option(metavar="N", help="How many inputs to draw, for files without activations.")
]
DrawSeedOption = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Seed of drawn inputs, for files without activations.")
]
SeedOption = Annotated[int, typer.Option(metavar="N", help="Seed of all that is drawn.")]
InputSizeOption = Annotated[
    str | None, typer.Option(metavar="HxW", help="Size of drawn inputs of convolutions, for files without activations.")
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
        Path | None, typer.Option(metavar="FILE.json", help="Write a Perfetto timeline (needs --engine event).")
    ] = None,
    act_density: ActDensityOption = None,
    samples: SamplesOption = None,
    seed: DrawSeedOption = None,
    input_size: InputSizeOption = None,
) -> None:
    """Simulate a trace on a machine: cycles, energy and the reasons for them."""
    from .reports.tables import csv_text, layer_rows, result_table
    from .simulator import simulate
    from .simulator.timeline import Timeline

    _check_outputs(json, csv)
    _check_outputs(timeline, suffixes=(".json",))
    machine = _machine(on, set_)
    loaded = _trace(trace, act_density, samples, seed, input_size)
    recorded = None if timeline is None else Timeline()
    with _progress(f"{loaded.name} on {machine.name}") as step:
        result = simulate(
            machine, loaded, engine=engine, layers=layer, timeline=recorded, progress=lambda name: step(0, 0, name)
        )
    if timeline is not None and recorded is not None:
        from .reports.perfetto import perfetto_json

        name = f"{loaded.name} on {machine.name}"
        _write(timeline, perfetto_json(recorded, clock_hz=machine.config.clock_hz, name=name))
    if csv is not None:
        _write(csv, csv_text(layer_rows(result)).encode())
    _finish(json, result.to_json, result_table(result))
    _warn(result.warnings)


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
) -> None:
    """Compare traces and machines side by side: speed, energy, balance and accuracy; the first row is 1."""
    import msgspec

    from .reports.tables import compare_rows, compare_table, csv_text
    from .simulator import simulate

    _check_outputs(json, csv)
    _check_outputs(plot, suffixes=PLOT_SUFFIXES)
    machines = [_machine(name, set_) for name in on or ["eie-64pe"]]
    loaded = [_trace(trace, act_density, samples, seed, input_size) for trace in traces]
    with _progress("compare") as step:
        pairs = [(machine, trace) for machine in machines for trace in loaded]
        results = []
        for done, (machine, trace) in enumerate(pairs):
            step(done, len(pairs), f"{trace.name} on {machine.name}")
            results.append(simulate(machine, trace, layers=layer))
    if csv is not None:
        _write(csv, csv_text(compare_rows(results)).encode())
    if plot is not None:
        from .reports.plots import plot_causes

        plot_causes(results, plot)
    _finish(json, lambda: msgspec.json.format(msgspec.json.encode(results), indent=1).decode() + "\n",
            compare_table(results))  # fmt: skip
    _warn([f"{r.trace.name} on {r.machine.name}: {w}" for r in results for w in r.warnings])


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
    json: JsonOption = None,
    csv: CsvOption = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Plot the sweep over its first field.")] = None,
    act_density: ActDensityOption = None,
    samples: SamplesOption = None,
    seed: DrawSeedOption = None,
    input_size: InputSizeOption = None,
) -> None:
    """Sweep a machine's parameters over a grid: cycles, speed-up, balance, padding and energy at each point."""
    import msgspec

    from .models import vary
    from .reports.tables import csv_text, sweep_rows, sweep_table
    from .simulator.store import Store
    from .simulator.sweep import Case, grid_points
    from .simulator.sweep import sweep as run_sweep

    _check_outputs(json, csv, store)
    _check_outputs(plot, suffixes=PLOT_SUFFIXES)
    machine = _machine(on, set_)
    values = _settings(grid, _parse_grid)
    points = [(point, vary(machine, **point)) for point in grid_points(values)]
    cases = [
        Case(trace, varied, point, engine, layer)
        for trace in [_trace(name, act_density, samples, seed, input_size) for name in traces]
        for point, varied in points
    ]
    try:
        with Store(store) as kept, _progress("sweep") as step:
            outcomes = run_sweep(cases, store=kept, workers=workers, progress=lambda done, all_: step(done, all_, ""))
    except KeyboardInterrupt:
        if store is not None:
            _warn([f"the cases that were finished are kept in {store}; the same command goes on from there"])
        raise
    rows = sweep_rows(outcomes)
    if csv is not None:
        _write(csv, csv_text(rows).encode())
    if plot is not None:
        from .reports.plots import plot_sweep

        plot_sweep(outcomes, next(iter(values)), plot)
    _finish(json, lambda: msgspec.json.format(msgspec.json.encode(rows), indent=1).decode() + "\n",
            sweep_table(outcomes))  # fmt: skip
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    _warn([f"{outcome.case.settings}: {outcome.error}" for outcome in failed])
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_command(
    what: Annotated[str, typer.Argument(metavar="[machines|traces|networks|recipes]", help="What to list.")] = "all",
) -> None:
    """List what is bundled: machines, traces, networks and recipes."""
    from .reports.catalogue import catalogue

    _print(catalogue(what))


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
) -> None:
    """Check the engines against each other and their numbers against numpy, on a trace of yours."""
    from .reports.verdicts import engines_table
    from .simulator.check import check as run_check

    machine = _machine(on, set_)
    loaded = _trace(trace, act_density, samples, seed, input_size)
    with _progress("check") as step:
        found = run_check(machine, loaded, layers=layer, progress=lambda name: step(0, 0, name))
    _print(engines_table(found))
    if not all(layer.passed for layer in found):
        raise typer.Exit(1)


@app.command()
def validate(
    what: Annotated[str, typer.Argument(metavar="[eie|tensor-core]", help="Which accelerator.")] = "eie",
    dump: Annotated[Path | None, typer.Argument(help="The EIE authors' data folder, for the real layer.")] = None,
    json: JsonOption = None,
    plots: Annotated[Path | None, typer.Option(metavar="DIR", help="Draw plots here (tensor-core).")] = None,
) -> None:
    """Set published figures beside simulated ones, with error and source; status 1 where one is out of tolerance."""
    import msgspec

    from .reports.validate import failed, validations
    from .reports.verdicts import checks_table
    from .workloads import InputError

    _check_outputs(json)
    run = validations(what)
    if plots is not None and what != "tensor-core":
        raise InputError(f"--plots must come with tensor-core, whose plots it draws, not with {what}; leave it out")
    if plots is not None:
        _make_folder(plots)
    with _progress(f"validate {what}"):
        checks = run(dump)
        if plots is not None:
            from .reports.tensorcore_plots import draw_all

            drawn = draw_all(plots)
    _finish(json, lambda: msgspec.json.format(msgspec.json.encode(checks), indent=1).decode() + "\n",
            checks_table(checks))  # fmt: skip
    if plots is not None and json != "-":
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
        _check_outputs(out)
    names = [known.name for known in EIE_LAYERS] if layer == "all" else [layer]
    with _progress("synth") as step:
        for done, name in enumerate(names):
            step(done, len(names), name)
            trace = eie_layer(name, row_sigma=row_sigma, seed=seed)
            path = out / f"{trace.name}.safetensors" if layer == "all" else out
            if layer == "all":
                _make_folder(out)
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

    _check_outputs(out)
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

    _check_outputs(out)
    with _progress("synth"):
        trace = gemm_layer(rows, reduction, columns, pattern, act_density=act_density, seed=seed, name=out.stem)
        save_trace(trace, out)
    typer.echo(f"{out}: {trace.name}, {trace.layers[0].shape} x {columns}, {1 - trace.sparsity:.1%} of weights kept")


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

    loaded = load_recipe(recipe, **_settings(set_, _parse_set))
    recipes = [loaded]
    if seeds > 1:
        numbers = range(loaded.seed, loaded.seed + seeds)
        recipes = [override(loaded, seed=seed, name=f"{loaded.name}-seed{seed}") for seed in numbers]
    runs = []
    with _progress(loaded.name) as step:
        for each in recipes:
            seed = f"seed {each.seed}" if seeds > 1 else ""

            def progress(done: int, all_: int, seed: str = seed) -> None:
                step(done, all_, seed)

            runs.append(run_train(each, out=out, progress=progress))
    _print(history_table(runs[0]) if seeds == 1 else seeds_table(loaded.name, runs))
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
    _make_folder(out)
    with _progress(f"diagnose {checkpoint.name}") as step:
        found = diagnosis_of(checkpoint, samples=samples, pe_count=pe_count, progress=lambda what: step(0, 0, what))
    for table in diagnosis_tables(found):
        _print(table)
    for path in write_diagnosis(found, out, suffix=suffix):
        typer.echo(str(path))


@app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A training run's, or a file of weights.")],
    out: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="The trace to write.")],
    act_density: ActDensityOption = None,
    samples: SamplesOption = None,
    seed: DrawSeedOption = None,
    input_size: InputSizeOption = None,
) -> None:
    """Export a trace from a training run's checkpoint, or from masked weights of yours."""
    from .workloads import save_trace
    from .workloads.training import export_checkpoint, is_checkpoint

    _check_outputs(out)
    if is_checkpoint(checkpoint):
        trace = export_checkpoint(checkpoint)
    else:
        trace = _trace(checkpoint, act_density, samples, seed, input_size)
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

    _make_folder(out)
    for part in run_demo(out):
        _print(part)


def _machine(name: str, settings: list[str] | None) -> Machine:
    from .models import load_machine

    return load_machine(name, **_settings(settings, _parse_set))


def _trace(
    name: str,
    act_density: float | None = None,
    samples: int | None = None,
    seed: int | None = None,
    input_size: str | None = None,
) -> Trace:
    """Return the trace of that name; only what was asked for is passed on, so that asking in vain is an error."""
    from .workloads import InputError, load_trace

    if not name:
        raise InputError("a trace needs a name, not ''; gossamer list traces names the bundled ones")
    size = None
    if input_size is not None:
        sides = input_size.lower().split("x")
        if len(sides) != 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
            raise InputError(f"--input-size must be HEIGHTxWIDTH, as in 32x32, not {input_size!r}")
        size = (int(sides[0]), int(sides[1]))
    asked: dict[str, Any] = {"act_density": act_density, "samples": samples, "seed": seed, "input_size": size}
    return load_trace(name, **{key: value for key, value in asked.items() if value is not None})


def _parse_set(text: str) -> tuple[str, Any]:
    """Return the key and value of KEY=VALUE; the value is read as in TOML, else as a bare word."""
    from .workloads import InputError

    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise InputError(f"a setting must be KEY=VALUE, not {text!r}; as in queue_depth=16")
    return key.strip(), _value(value.strip())


def _parse_grid(text: str) -> tuple[str, list[Any]]:
    from .workloads import InputError

    key, equals, values = text.partition("=")
    if not equals or not key or not all(value.strip() for value in values.split(",")):
        raise InputError(f"a grid must be KEY=VALUE,VALUE,..., not {text!r}; as in pe_count=1,2,4")
    return key.strip(), [_value(value.strip()) for value in values.split(",")]


def _settings(texts: list[str] | None, parse: Callable[[str], tuple[str, Any]]) -> dict[str, Any]:
    """Return settings by key; one that is given twice is an error, for one of the two would be dropped."""
    from .workloads import InputError

    settings: dict[str, Any] = {}
    for key, value in map(parse, texts or []):
        if key in settings:
            raise InputError(f"{key}: a key must be given once, and is given twice; write its values together")
        settings[key] = value
    return settings


def _value(text: str) -> Any:
    import tomllib

    try:
        parsed = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    # What has more in it than a value (a second line, a comment) is no value but the text itself.
    return text if "\n" in text or ("#" in text and not isinstance(parsed["value"], str)) else parsed["value"]


def _check_outputs(*paths: Path | str | None, suffixes: tuple[str, ...] = ()) -> None:
    """Find out before the work, not after it, that a result could not be written. Raises InputError."""
    import os

    from .workloads import InputError

    given = [str(path) for path in paths if path is not None]
    for path in given:
        if path == "-":
            continue
        place = Path(path)
        if not path or given.count(path) > 1:
            rule = "an output needs a name" if not path else "two outputs must not have one name"
            raise InputError(f"{path or repr(path)}: {rule}; choose another")
        folder = place.parent
        if suffixes and place.suffix.lower() not in suffixes:
            raise InputError(f"{path}: the name of this output must end in {', '.join(suffixes)}, not {place.suffix!r}")
        if place.is_dir():
            raise InputError(f"{path}: an output must be a file, and this is a folder; give a name in it")
        if not folder.is_dir():
            raise InputError(f"{path}: an output needs a folder to lie in, and {folder} is none; make it first")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{path}: an output must be writable, and {folder} is not; choose another folder")


def _write(path: Path, data: bytes) -> None:
    from .workloads.files.container import write_beside

    write_beside(path, data)


def _make_folder(path: Path) -> None:
    from .workloads import InputError

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: a folder must be writable, and: {error.strerror}; choose another") from None


def _finish(json: str | None, text: Callable[[], str], table: RenderableType) -> None:
    """Print the table, and write the JSON; where that goes to standard output it goes there alone."""
    if json == "-":
        sys.stdout.write(text())
        return
    if json is not None:
        _write(Path(json), text().encode())
    _print(table)


def _print(table: RenderableType) -> None:
    from rich.console import Console

    if sys.stdout is None:  # closed by whoever started us
        return
    # A pipe has no width of its own; a table squeezed to 80 columns would lose figures.
    width = None if sys.stdout.isatty() else 120
    Console(highlight=False, soft_wrap=False, width=width).print(table)


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        print(f"gossamer: warning: {warning}", file=sys.stderr)


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Give a function (done, all, what) that shows progress on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, all_, what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, all_, what: bar.update(
            task, completed=done, total=all_ or None, description=f"{title} {what}".strip()
        )


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
