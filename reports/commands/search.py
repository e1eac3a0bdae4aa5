"""Pruning for what a machine simulates: search netadapt, amc, sensitivity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import check_outputs, check_suffix, finish, make_folder, parse_set, progress_bar, settings, warn, write
from .options import PLOT_SUFFIXES, JsonOption, SetOption, machine_of

METHODS = ("netadapt", "amc", "sensitivity")


def search(
    method: Annotated[str, typer.Argument(metavar="netadapt|amc|sensitivity", help="How to search.")],
    trace: Annotated[
        str,
        typer.Option(
            metavar="TRACE|CHECKPOINT", help="A trace whose recipe trains the dense network; or a checkpoint."
        ),
    ],
    on: Annotated[str, typer.Option("--on", metavar="MACHINE", help="A bundled machine, or the path of a .toml.")],
    target: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT=SHARE", help="latency, cycles, energy or edp, at this share of the dense network's."
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(metavar="channels|sparsity|nm", help="What is pruned; what the machine gains by, if not given."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Search so often, with seeds one after the other.")] = 1,
    set_: SetOption = None,
    recipe: Annotated[
        list[str] | None, typer.Option("--recipe", metavar="KEY=VALUE", help="Replace a field of the trace's recipe.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=0, help="Epochs of fine-tuning at the end.")] = 10,
    short_epochs: Annotated[int, typer.Option(min=0, help="netadapt: epochs of fine-tuning after each trial.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="netadapt: steps from the dense network to the target.")] = 40,
    episodes: Annotated[int, typer.Option(min=1, help="amc: networks that the agent tries.")] = 400,
    max_drop: Annotated[
        float | None, typer.Option(help="sensitivity: accuracy a layer may cost, instead of a --target.")
    ] = None,
    n: Annotated[
        str, typer.Option(metavar="N,N,...", help="With --kind nm: what may be kept of --m, beside all.")
    ] = "2",
    m: Annotated[int, typer.Option(help="With --kind nm: length of the groups.")] = 4,
    pe_count: Annotated[
        int | None, typer.Option(help="With --kind sparsity: prune each layer evenly over so many PEs.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the traces that are found go.")] = None,
    json: JsonOption = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Plot the way of each search, or the first scan.")
    ] = None,
) -> None:
    """Search how much of each layer to keep for a machine's latency, cycles or energy (needs the extra train).

    Beside it stands the network that keeps the same share of every layer, at equal cost and with as much fine-tuning.

    Example: gossamer search netadapt --trace lenet-digits-imp --on systolic-16x16 --target latency=0.5
    """
    from ...workloads import InputError
    from ...workloads.files.trace_file import save_trace
    from ..search import Job, read_target, run_job
    from ..search_tables import scan_table, search_json, search_table

    if method not in METHODS:
        raise InputError(f"a search must be one of {', '.join(METHODS)}, not {method!r}")
    check_outputs(json, plot)
    check_suffix(plot, PLOT_SUFFIXES)
    job = Job(
        method=method,
        source=trace,
        machine=machine_of(on, set_),
        target=read_target(target, method, max_drop),
        kind=kind,
        changes=settings(recipe, parse_set),
        epochs=epochs,
        short_epochs=short_epochs,
        steps=steps,
        episodes=episodes,
        max_drop=max_drop,
        ns=n,
        m=m,
        pe_count=pe_count,
    ).checked()
    if out is not None:
        make_folder(out)
    pairs = []
    with progress_bar(f"{method} {job.name}") as step:
        for number in range(seeds):

            def progress(share: float, what: str, number: int = number) -> None:
                step(round(100 * (number + share)), 100 * seeds, f"seed {job.recipe.seed + number}, {what}")

            pairs.append(run_job(job, job.recipe.seed + number, progress))
    if plot is not None:
        from ..search_plots import plot_cost_scan, plot_search

        if pairs[0].scan is None:
            plot_search(job, pairs, plot)
        else:
            plot_cost_scan(pairs[0].scan, plot, job.quantity)
    if out is not None:
        for pair in pairs:
            path = out / f"{job.name}-{method}-seed{pair.seed}.safetensors"
            save_trace(pair.found.trace(), path)
            typer.echo(str(path), err=json == "-")
        write(out / f"{job.name}-{method}.json", search_json(job, pairs).encode())
    finish(json, lambda: search_json(job, pairs), search_table(job, pairs))
    if json != "-" and pairs[-1].scan is not None:
        finish(None, str, scan_table(pairs[-1].scan))
    warn(
        [
            f"seed {pair.seed}: the target is {pair.found.target / pair.found.dense_cost:.4g} of the dense network's "
            f"{job.quantity}, and the choices lead to {pair.found.ratio:.4g}"
            for pair in pairs
            if job.share is not None and not pair.found.reached
        ]
        + (["validation samples were seen in training: their accuracies flatter"] if pairs[0].seen else [])
    )
