"""Commands around training: train, diagnose, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import check_outputs, make_folder, parse_set, progress_bar, settings, show, warn
from .options import PLOT_SUFFIXES
from .trace_options import TraceOptions, with_trace_options


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

    Example: gossamer train lenet-digits-imp --set sparsity=0.9 --out runs
    """
    from ...workloads.training import load_recipe
    from ...workloads.training import train as run_train
    from ...workloads.training.recipe import override
    from ..tables import history_table, seeds_table

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


def diagnose(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A training run's checkpoint.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where plots and diagnostics.json go.")] = Path("diagnosis"),
    samples: Annotated[int, typer.Option(help="Training and test samples to measure on, at most.")] = 2048,
    pe_count: Annotated[
        int | None, typer.Option(help="Processing elements of the balance; the recipe's, or 64, by default.")
    ] = None,
    suffix: Annotated[str, typer.Option(metavar=".png|.svg|.pdf", help="Kind of plots.")] = ".png",
) -> None:
    """Diagnose a training run: sparsity, balance, sensitivity, curvature, and the loss between its solutions.

    Example: gossamer diagnose runs/lenet-digits-imp.checkpoint.safetensors --out diagnosis
    """
    from ...workloads import InputError
    from ..diagnose import diagnosis_of, diagnosis_tables, write_diagnosis

    if suffix not in PLOT_SUFFIXES:
        raise InputError(f"--suffix must be one of {', '.join(PLOT_SUFFIXES)}, not {suffix!r}")
    make_folder(out)
    with progress_bar(f"diagnose {checkpoint.name}") as step:
        found = diagnosis_of(checkpoint, samples=samples, pe_count=pe_count, progress=lambda what: step(0, 0, what))
    for table in diagnosis_tables(found):
        show(table)
    for path in write_diagnosis(found, out, suffix=suffix):
        typer.echo(str(path))


@with_trace_options
def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A run's checkpoint, a file of weights, .onnx, package.module:function; a cloud with --network.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="The trace to write.")],
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Samples for a model that can be run: .npy, .npz or .safetensors."),
    ] = None,
    prune: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Prune once: N:M, SHARE, global:, balanced:, channel:, block: or equal-blocks:SHARE...",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="With --prune: layers left as they are, as in fc*.")
    ] = None,
    features: Annotated[
        bool, typer.Option("--features", help="With --network: every layer's inputs too, not only its geometry.")
    ] = False,
    products: Annotated[
        bool, typer.Option("--products", help="Keep products of activations too, as in an attention.")
    ] = False,
    fold_batch_norm: Annotated[
        bool, typer.Option("--fold-batch-norm", help="Put batch norms into the layers before them (run or module).")
    ] = False,
    *,
    trace_options: TraceOptions,
) -> None:
    """Export a trace from a training run, a model or masked weights of yours, or of a network on a cloud.

    Example: gossamer export weights.npz --prune 2:4 --act-density 0.4 --out mine.safetensors
    """
    from ...workloads import InputError, save_trace
    from ...workloads.files.trace_file import check_place
    from ...workloads.importers import notes_of
    from ...workloads.importers.door import import_model, is_model, is_state_dict, pruned
    from ...workloads.training import export_checkpoint, is_checkpoint

    check_outputs(out)
    check_place(out)  # before a model runs for minutes
    unnamed = trace_options.network is None
    if unnamed and is_checkpoint(source):
        trace = export_checkpoint(source, products=products, fold_batch_norm=fold_batch_norm)
        trace = pruned(trace, prune, exclude or (), source)
    elif unnamed and is_model(source):
        trace = import_model(
            source,
            inputs=inputs,
            draw=trace_options.drawn(features),
            prune=prune,
            exclude=exclude or (),
            products=products,
            fold_batch_norm=fold_batch_norm,
        )
    elif products or fold_batch_norm:
        option = "--products" if products else "--fold-batch-norm"
        raise InputError(f"{source}: {option} needs the checkpoint of a training run, not weights; leave it out")
    elif inputs is not None:
        raise InputError(f"{source}: --inputs needs a model that can be run, not weights; leave it out")
    elif unnamed and is_state_dict(source):
        trace = import_model(source, draw=trace_options.drawn(features), prune=prune, exclude=exclude or ())
    else:
        trace = pruned(trace_options.reader(features)(source), prune, exclude or (), source)
    save_trace(trace, out)
    warn(notes_of(trace))
    typer.echo(f"{out}: {trace.name}, {len(trace.layers)} layers, {trace.sparsity:.1%} sparse")
