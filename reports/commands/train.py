"""Commands around training: train, diagnose, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import check_outputs, make_folder, parse_set, progress_bar, settings, show
from .options import PLOT_SUFFIXES
from .reading import Reading, with_reading


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
    """Diagnose a training run: sparsity, balance, sensitivity, curvature, and the loss between its solutions."""
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


@with_reading
def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT", help="A training run's, or a file of weights; a point cloud with --network."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="The trace to write.")],
    features: Annotated[
        bool, typer.Option("--features", help="With --network: every layer's inputs too, not only its geometry.")
    ] = False,
    products: Annotated[
        bool, typer.Option("--products", help="Keep products of activations too, as in an attention (of a run).")
    ] = False,
    fold_batch_norm: Annotated[
        bool, typer.Option("--fold-batch-norm", help="Put batch norms into the layers before them (of a run).")
    ] = False,
    *,
    reading: Reading,
) -> None:
    """Export a trace from a training run's checkpoint, from masked weights of yours, or of a network on a cloud."""
    from ...workloads import InputError, save_trace
    from ...workloads.training import export_checkpoint, is_checkpoint

    check_outputs(out)
    if reading.network is None and is_checkpoint(checkpoint):
        trace = export_checkpoint(checkpoint, products=products, fold_batch_norm=fold_batch_norm)
    elif products or fold_batch_norm:
        option = "--products" if products else "--fold-batch-norm"
        raise InputError(f"{checkpoint}: {option} needs the checkpoint of a training run, not weights; leave it out")
    else:
        read = reading.reader(features)
        trace = read(checkpoint)
    save_trace(trace, out)
    typer.echo(f"{out}: {trace.name}, {len(trace.layers)} layers, {trace.sparsity:.1%} sparse")
