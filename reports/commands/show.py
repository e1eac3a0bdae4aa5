"""Commands that show: report, list, validate, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import check_outputs, check_suffix, finish, make_folder, progress_bar, show, write
from .options import JsonOption


def report(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT...", help="What --json wrote, of simulate or compare; or a sweep's store."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page to write.")] = Path("report.html"),
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="The page's title.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="CONDITION", help="Of a store, only cases that keep it, as in pe_count>=16."),
    ] = None,
) -> None:
    """Show results as one HTML page: summary, layers, where cycles and energy went, load, provenance.

    Example: gossamer report result.json --out report.html
    """
    from ..html import write_report
    from ..reading import read_inputs

    check_outputs(out, suffixes=(".html", ".htm"))
    read = read_inputs(results, where or [])
    write_report(read.results, out, title, failed=read.failed)
    print(f"{out}: {len(read.results)} result{'s' if len(read.results) > 1 else ''}")


def list_command(
    what: Annotated[str, typer.Argument(metavar="machines|traces|networks|recipes", help="What to list.")] = "all",
) -> None:
    """List what is bundled: machines, traces, networks and recipes.

    Example: gossamer list machines
    """
    from ..catalogue import catalogue

    show(catalogue(what))


def validate(
    what: Annotated[
        str,
        typer.Argument(
            metavar="ACCELERATOR",
            help="One of eie, ese, tensor-core, pointacc, patdnn, spatten, gpu-kernels; or all of them.",
        ),
    ] = "eie",
    dump: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="The EIE authors' data folder, for the real layer.")
    ] = None,
    json: JsonOption = None,
    plots: Annotated[Path | None, typer.Option(metavar="DIR", help="Draw plots here (tensor-core, pointacc).")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="Write all figures, and the cause of each miss, as Markdown.")
    ] = None,
) -> None:
    """Set published figures beside simulated ones, with error and source; status 1 where one is out of tolerance.

    Example: gossamer validate spatten
    """
    import msgspec

    from ..published import failed
    from ..validate import VALIDATIONS, drawings, validations
    from ..verdicts import checks_table

    check_outputs(json, out)
    check_suffix(out, (".md",))
    runs = {name: validations(name) for name in (VALIDATIONS if what == "all" else [what])}
    draw_all = None if plots is None else drawings(what)
    if plots is not None:
        make_folder(plots)
    made = {}
    with progress_bar("validate") as progress:
        for done, (name, run) in enumerate(runs.items()):
            progress(done, len(runs), name)
            made[name] = run(dump if what != "all" or name == "eie" else None)
        drawn = [] if plots is None or draw_all is None else draw_all(plots)
    checks = [check for of_one in made.values() for check in of_one]
    if out is not None:
        from ..validation_page import validation_page

        write(out, validation_page(what, made, data=dump is not None).encode())
    finish(json, lambda: msgspec.json.format(msgspec.json.encode(checks), indent=1).decode() + "\n",
            checks_table(checks))  # fmt: skip
    if json != "-":
        for path in drawn:
            typer.echo(str(path))
    if failed(checks):
        raise typer.Exit(1)


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report, plots and all else go.")] = Path(
        "gossamer-demo"
    ),
) -> None:
    """Tell the whole story on bundled data: simulate, compare, sweep, check; report and plots written and named.

    Example: gossamer demo --out gossamer-demo
    """
    from ..demo import run_demo

    make_folder(out)
    for part in run_demo(out):
        show(part)
