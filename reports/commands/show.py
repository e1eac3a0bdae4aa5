"""Commands that show: report, list, validate, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import check_outputs, finish, make_folder, progress_bar, show
from .options import JsonOption


def report(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULT...", help="What --json wrote: of simulate, or of compare.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page to write.")] = Path("report.html"),
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="The page's title.")] = None,
) -> None:
    """Show results as one HTML page: summary, layers, where cycles and energy went, load, provenance."""
    from ..html import read_results, write_report

    check_outputs(out, suffixes=(".html", ".htm"))
    read = [result for path in results for result in read_results(path)]
    write_report(read, out, title)
    print(f"{out}: {len(read)} result{'s' if len(read) > 1 else ''}")


def list_command(
    what: Annotated[str, typer.Argument(metavar="[machines|traces|networks|recipes]", help="What to list.")] = "all",
) -> None:
    """List what is bundled: machines, traces, networks and recipes."""
    from ..catalogue import catalogue

    show(catalogue(what))


def validate(
    what: Annotated[str, typer.Argument(metavar="[eie|tensor-core|pointacc]", help="Which accelerator.")] = "eie",
    dump: Annotated[Path | None, typer.Argument(help="The EIE authors' data folder, for the real layer.")] = None,
    json: JsonOption = None,
    plots: Annotated[Path | None, typer.Option(metavar="DIR", help="Draw plots here (tensor-core, pointacc).")] = None,
) -> None:
    """Set published figures beside simulated ones, with error and source; status 1 where one is out of tolerance."""
    import msgspec

    from ..validate import drawings, failed, validations
    from ..verdicts import checks_table

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


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where tables, plots and the timeline go.")] = Path(
        "gossamer-demo"
    ),
) -> None:
    """Tell the whole story on bundled data: simulate, compare, sweep, check; tables and plots written and named."""
    from ..demo import run_demo

    make_folder(out)
    for part in run_demo(out):
        show(part)
