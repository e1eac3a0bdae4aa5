"""Options and arguments that several commands share, and the machine that they name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..terminal import parse_set, settings

if TYPE_CHECKING:
    from ...simulator.machine import Machine

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
CSV_SUFFIXES = (".csv", ".txt")

TraceArgument = Annotated[
    str, typer.Argument(metavar="TRACE", help="A bundled trace, or a path; a point cloud's with --network.")
]
TracesArgument = Annotated[
    list[str], typer.Argument(metavar="TRACE...", help="Bundled traces, or paths; of point clouds with --network.")
]
OnOption = Annotated[str, typer.Option("--on", metavar="MACHINE", help="A bundled machine, or the path of a .toml.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a field of the machine's config; may be repeated."),
]
LayerOption = Annotated[
    str | None, typer.Option("--layer", metavar="PATTERN", help="Only layers whose name fits, as in fc*.")
]
EngineOption = Annotated[
    str,
    typer.Option("--engine", metavar="fast|event", help="Exact recurrences, or each unit stepped: the same figures."),
]
JsonOption = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write JSON here; - for stdout alone.")]
CsvOption = Annotated[Path | None, typer.Option("--csv", metavar="FILE.csv", help="Write the table here.")]
SeedOption = Annotated[int, typer.Option(metavar="N", help="Seed of all that is drawn.")]
CloudOutOption = Annotated[
    Path, typer.Option(metavar="FILE", help="The point cloud to write: .npy, .npz, .bin or .ply.")
]


def matching(names: list[str], known: Iterable[str], what: str) -> list[str]:
    """Return ``names``, each pattern such as lenet-* replaced by the ``known`` names that fit it, none of them twice.

    Raises InputError for a pattern that nothing fits; ``what`` is the noun, as in trace.
    """
    from ...workloads import InputError
    from ...workloads.names import fits

    known, found = list(known), []
    for name in names:
        fitting = [name]
        if any(sign in name for sign in "*?[") and not Path(name).exists():
            fitting = [each for each in known if fits(each, name)]
            if not fitting:
                raise InputError(
                    f"{name}: a pattern must fit a bundled {what}, and none does; see gossamer list {what}s"
                )
        found += fitting
    return list(dict.fromkeys(found)) if len(found) > len(names) else found


def machine_of(name: str, set_: list[str] | None) -> Machine:
    """Return the machine that ``--on`` and ``--set`` name. Raises InputError."""
    from ...models import load_machine

    return load_machine(name, **settings(set_, parse_set))
