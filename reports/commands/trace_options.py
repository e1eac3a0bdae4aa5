"""How a command reads its traces: the options that say so, given once for every command that has them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from ...workloads.trace import Trace

OF_BOTH = ("samples", "seed")
OF_FILES = ("act_density", "input_size")
OF_NETWORKS = ("voxel_size", "sparsity", "channel_sparsity", "weights")


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """How a trace is to be read, as it was asked for; each field is an option of the command line."""

    act_density: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Nonzero share of drawn inputs, 0 to 1, for files without activations."),
    ] = None
    samples: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Inputs to draw, for files without activations, 1 unless said; with --network, points to take.",
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            help="Seed of drawn inputs, for files without activations; with --network, of all that is drawn.",
        ),
    ] = None
    input_size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Size of drawn inputs of convolutions, for files without activations."),
    ] = None
    network: Annotated[
        str | None,
        typer.Option("--network", metavar="NAME", help="Send a point cloud through this network, to simulate that."),
    ] = None
    voxel_size: Annotated[
        float | None, typer.Option(metavar="SIDE", help="With --network: side of a voxel in m, 0.05 unless said.")
    ] = None
    sparsity: Annotated[
        float | None, typer.Option(metavar="SHARE", help="With --network: share of its weights to prune, by magnitude.")
    ] = None
    channel_sparsity: Annotated[
        float | None, typer.Option(metavar="SHARE", help="With --network: share of its channels to take out, by norm.")
    ] = None
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --network: its weights; drawn from --seed without.")
    ] = None

    def reader(self, features: bool = False) -> Callable[[str], Trace]:
        """Return what loads a trace by name, or sends the cloud of that name through ``network``, as the options say.

        Only what was asked for is passed on, so that asking in vain is an error. ``features``: with a network, every
        layer's inputs too. Raises InputError.
        """
        from ...workloads import InputError, load_trace

        network = self.network
        if network is None:
            asked = self.drawn(features)
        else:
            vain = [_option(key) for key in OF_FILES if getattr(self, key) is not None]
            if vain:
                raise InputError(f"{vain[0]} is for files without activations, not with --network; leave it out")
            given = {key: getattr(self, key) for key in (*OF_BOTH, *OF_NETWORKS)} | {"features": features or None}
            asked = {key: value for key, value in given.items() if value is not None}

        def read(name: str) -> Trace:
            if not name:
                raise InputError("a trace needs a name, not ''; gossamer list traces names the bundled ones")
            if network is None:
                return load_trace(name, **asked)
            from ...workloads.points.network import build_from_file

            return build_from_file(name, network, **asked)

        return read

    def drawn(self, features: bool = False) -> dict[str, Any]:
        """Return what was asked of inputs that are drawn. Raises InputError for options that need a network."""
        from ...workloads import InputError

        vain = [_option(key) for key in OF_NETWORKS if getattr(self, key) is not None] + ["--features"] * features
        if vain:
            raise InputError(f"{vain[0]} must come with --network, and there is none; leave it out")
        given = {key: getattr(self, key) for key in (*OF_BOTH, "act_density")} | {"input_size": _size(self.input_size)}
        return {key: value for key, value in given.items() if value is not None}


def with_trace_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return ``command`` with an option for each field of `TraceOptions` in place of its parameter ``trace_options``.

    ``command`` takes that one by keyword. Typer reads the options of a command from its signature: this writes it.
    """
    hints = get_type_hints(command, include_extras=True)
    options = get_type_hints(TraceOptions, include_extras=True)
    names = [field.name for field in fields(TraceOptions)]
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name == "trace_options":
            parameters += [
                inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=options[name])
                for name in names
            ]
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))

    @wraps(command)
    def with_options(**given: Any) -> None:
        command(trace_options=TraceOptions(**{name: given.pop(name) for name in names}), **given)

    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del with_options.__wrapped__  # typer would follow it to the command's own annotations
    return with_options


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _size(text: str | None) -> tuple[int, int] | None:
    from ...workloads import InputError
    from ...workloads.checks import counted

    if text is None:
        return None
    sides = [counted(side) for side in text.lower().split("x")]
    if len(sides) != 2 or min(sides) < 1:
        raise InputError(f"--input-size must be HEIGHTxWIDTH, as in 32x32, not {text!r}")
    return sides[0], sides[1]
