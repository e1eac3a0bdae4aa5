"""The command that draws: results and stores of sweeps as PNG, SVG or PDF."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import check_outputs, make_folder, progress_bar, warn
from .options import PLOT_SUFFIXES


def plot(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT...", help="What --json wrote, of simulate or compare; or a sweep's store."),
    ],
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="summary, causes, energy, load, queues, roofline, sweep, pareto or compare."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The .png, .svg or .pdf to write.")] = None,
    all_: Annotated[
        Path | None, typer.Option("--all", metavar="DIR", help="Draw every kind that fits the results here instead.")
    ] = None,
    suffix: Annotated[str, typer.Option(metavar=".png|.svg|.pdf", help="With --all: kind of files.")] = ".png",
    over: Annotated[
        str | None, typer.Option(metavar="FIELD", help="With --kind sweep: the setting to draw over; all by default.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="CONDITION", help="Of a store, only cases that keep it, as in pe_count>=16."),
    ] = None,
) -> None:
    """Draw results: where cycles and energy went, load, queues, roofline, sweeps, fronts, comparisons.

    Example: gossamer plot result.json --kind causes --out causes.png
    """
    from ...workloads import InputError
    from ..plots import KINDS, draw, draw_all
    from ..reading import read_inputs

    if (all_ is None) == (kind is None) or (all_ is None) != (out is not None):
        raise InputError("a plot needs --kind KIND with --out FILE, or --all DIR for every kind; give one of the two")
    if kind is not None and kind not in KINDS:
        raise InputError(f"--kind must be one of {', '.join(KINDS)}, not {kind!r}")
    if suffix not in PLOT_SUFFIXES:
        raise InputError(f"--suffix must be one of {', '.join(PLOT_SUFFIXES)}, not {suffix!r}")
    check_outputs(out, suffixes=PLOT_SUFFIXES)
    read = read_inputs(results, where or [])
    if all_ is not None:
        if over is not None:
            raise InputError(f"--over is for --kind sweep, not for --all: {over!r}; leave it out")
        make_folder(all_)
        with progress_bar("plot"):
            written = draw_all(read.results, all_, suffix)
    else:
        assert kind is not None and out is not None
        with progress_bar("plot"):
            written = [draw(kind, read.results, out, over=over)]
    for path in written:
        typer.echo(str(path))
    if read.failed:
        warn([f"{len(read.failed):,} cases of the store failed and are not shown; the first: {read.failed[0]}"])
