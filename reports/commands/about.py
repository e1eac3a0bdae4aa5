"""Commands that tell about Gossamer itself: where its numbers come from, and what its files look like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import check_outputs, show, write


def sources(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A machine or an energy table; a summary of all without one.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="Write all values of all of them, as Markdown.")
    ] = None,
) -> None:
    """Show where the values of a machine or energy table come from: published, derived, assumed, from memory.

    Example: gossamer sources eie-64pe
    """
    from ...workloads import InputError
    from ..provenance import provenance_page, sources_summary, sources_table

    if out is not None:
        if name is not None:
            raise InputError(
                f"--out writes all machines and energy tables, not {name!r} alone; leave one of the two out"
            )
        check_outputs(out, suffixes=(".md",))
        write(out, provenance_page().encode())
        print(out)
        return
    show(sources_summary() if name is None else sources_table(name))


def schema(
    what: Annotated[str, typer.Argument(metavar="result|trace|energy-table", help="Which file.")],
) -> None:
    """Print the JSON schema of a file: a result's JSON, the header of a trace, or an energy table.

    Example: gossamer schema result
    """
    from ..schemas import schema_text

    print(schema_text(what), end="")
