"""The command line: parse, call one function, print.

Tables go to standard output, progress and warnings to standard error. Exit status: 0 done, 1 a check failed, 2 bad
input. Everything is imported where it is needed, so that help comes at once.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from .reports.commands import about, plot, search, show, simulate, sweeps, synth, train, transform

INTERRUPTED = 130  # exit status: 128 + SIGINT, as shells have it

app = typer.Typer(
    name="gossamer",
    help="Cycle-level simulator for sparse neural-network accelerators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


for command in (
    simulate.simulate,
    simulate.compare,
    sweeps.sweep,
    sweeps.explore,
    sweeps.results,
    show.report,
    plot.plot,
    show.list_command,
    simulate.check,
    show.validate,
    about.sources,
    about.schema,
    train.train,
    train.diagnose,
    train.export,
    search.search,
    show.demo,
):
    app.command(command.__name__.removesuffix("_command"))(command)

makers = typer.Typer(help="Make synthetic traces and point clouds with declared statistics.", no_args_is_help=True)
for maker in (synth.eie, synth.ese, synth.random, synth.gemm, synth.lidar, synth.room, synth.cad):
    makers.command(maker.__name__)(maker)
app.add_typer(makers, name="synth")

transforms = typer.Typer(help="Make one trace of another: with less work, or unrolled.", no_args_is_help=True)
for each in (transform.tokens, transform.temporal, transform.spatial, transform.unroll, transform.roll):
    transforms.command(each.__name__)(each)
app.add_typer(transforms, name="transform")


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
            from .workloads.errors import InputError

            print(f"gossamer: error: {InputError(message)}", file=sys.stderr)  # on one line, whatever was typed
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
    if isinstance(error, MemoryError):
        return "the work must fit in memory, and does not; choose less of it, or a machine with more"
    if isinstance(error, UnicodeEncodeError):  # what was typed, or a file's name, in bytes that are no text
        return f"names and values must be UTF-8, and {error.object[:80]!r} is not; write it so, or rename the file"
    if isinstance(error, ValueError) and "null" in str(error):
        return "a path must not hold a NUL character; check the arguments"
    if isinstance(error, TyperException):
        message = str(getattr(error, "format_message", lambda: error)())
        context = getattr(error, "ctx", None)
        if context is None or not message or message.endswith("?"):  # as in "Did you mean 'simulate'?"
            return message
        return f"{message.rstrip('.')}; see {context.command_path} --help"
    return None


if __name__ == "__main__":
    sys.exit(main())
