"""What all commands do at the terminal: read settings, see whether outputs can be written, write and print them.

Everything is imported where it is needed, so that help comes at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Task


def parse_set(text: str) -> tuple[str, Any]:
    """Return the key and value of KEY=VALUE; the value is read as in TOML, else as a bare word."""
    from ..workloads import InputError

    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise InputError(f"a setting must be KEY=VALUE, not {text!r}; as in queue_depth=16")
    return key.strip(), _value(value.strip())


def parse_grid(text: str) -> tuple[str, list[Any]]:
    """Return the key and values of KEY=VALUE,VALUE,..., each read as `parse_set` reads it."""
    from ..workloads import InputError

    key, equals, values = text.partition("=")
    if not equals or not key or not all(value.strip() for value in values.split(",")):
        raise InputError(f"a grid must be KEY=VALUE,VALUE,..., not {text!r}; as in pe_count=1,2,4")
    return key.strip(), [_value(value.strip()) for value in values.split(",")]


def parse_window(text: str) -> tuple[int, int | None]:
    """Return the first cycle of START:END, and the one after the last; None for what follows to the end."""
    import re

    from ..workloads import InputError

    ends = re.fullmatch(r"([0-9]{0,18}):([0-9]{0,18})", text)
    if ends is None:
        raise InputError(f"a window must be START:END in cycles, not {text!r}; as in 1000:2000, :2000 or 1000:")
    return int(ends[1] or 0), int(ends[2]) if ends[2] else None


def settings(texts: list[str] | None, parse: Callable[[str], tuple[str, Any]]) -> dict[str, Any]:
    """Return settings by key; one that is given twice is an error, for one of the two would be dropped."""
    from ..workloads import InputError

    given: dict[str, Any] = {}
    for key, value in map(parse, texts or []):
        if key in given:
            raise InputError(f"{key}: a key must be given once, and is given twice; write its values together")
        given[key] = value
    return given


def _value(text: str) -> Any:
    from ..workloads.files.settings import parse_toml

    try:
        parsed = parse_toml(f"value = {text}")
    except ValueError:  # a number of thousands of digits among them
        return text
    # What has more in it than a value (a second line, a comment) is no value but the text itself.
    return text if "\n" in text or ("#" in text and not isinstance(parsed["value"], str)) else parsed["value"]


def check_suffix(path: Path | None, suffixes: tuple[str, ...]) -> None:
    """Raise InputError for an output whose name, where one is given, ends in none of ``suffixes``."""
    from ..workloads import InputError

    if path is not None and path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: the name of this output must end in {', '.join(suffixes)}, not {path.suffix!r}")


def check_outputs(*paths: Path | str | None, suffixes: tuple[str, ...] = ()) -> None:
    """Find out before the work, not after it, that a result could not be written. Raises InputError.

    ``suffixes``: in one of which each of them must end, where any will not do.
    """
    import os

    from ..workloads import InputError

    given = [str(path) for path in paths if path is not None and str(path) != "-"]
    places = [os.path.realpath(path.replace("\0", "")) for path in given]
    for path in given:
        place, folder = Path(path), Path(path).parent
        if not path:
            raise InputError(f"{path!r}: an output needs a name; choose another")
        if places.count(os.path.realpath(path.replace("\0", ""))) > 1:
            raise InputError(f"{path}: two outputs must not have one name; choose another")
        if suffixes:
            check_suffix(place, suffixes)
        if place.is_dir():
            raise InputError(f"{path}: an output must be a file, and this is a folder; give a name in it")
        if not folder.is_dir():
            raise InputError(f"{path}: an output needs a folder to lie in, and {folder} is none; make it first")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{path}: an output must be writable, and {folder} is not; choose another folder")


def write(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path`` and rename it. Raises InputError."""
    from ..workloads.files.container import write_beside

    write_beside(path, data)


def make_folder(path: Path) -> None:
    """Make the folder at ``path`` unless it is there. Raises InputError."""
    from ..workloads import InputError

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: a folder must be writable, and: {error.strerror}; choose another") from None


def finish(json: str | None, text: Callable[[], str], table: RenderableType) -> None:
    """Print the table, and write the JSON; where that goes to standard output it goes there alone."""
    if json == "-":
        sys.stdout.write(text())
        return
    if json is not None:
        write(Path(json), text().encode())
    show(table)


def show(table: RenderableType) -> None:
    """Print ``table`` to standard output."""
    from rich.console import Console

    if sys.stdout is None:  # closed by whoever started us
        return
    # A pipe has no width of its own; a table squeezed to 80 columns would lose figures.
    width = None if sys.stdout.isatty() else 120
    Console(highlight=False, soft_wrap=False, width=width).print(table)


def warn(warnings: list[str]) -> None:
    """Print each of ``warnings`` to standard error."""
    for warning in warnings:
        print(f"gossamer: warning: {warning}", file=sys.stderr)


@contextmanager
def progress_bar(title: str, rate: str = "") -> Iterator[Callable[[int, int, str], None]]:
    """Give a function (done, all, what) that shows progress on standard error, if that is a terminal.

    ``rate``: what is counted, where it is worth saying how many of it are done in a second.
    """
    if not sys.stderr.isatty():
        yield lambda done, all_, what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:,.3g} {rate}/s", style="progress.data.speed")

    class CountColumn(MofNCompleteColumn):
        def render(self, task: Task) -> Text:
            return Text() if task.total is None else super().render(task)

    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn(), CountColumn()]
    columns += [RateColumn()] if rate else []
    columns.append(TimeRemainingColumn(elapsed_when_finished=True))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, all_, what: bar.update(
            task, completed=done, total=all_ or None, description=f"{title} {what}".strip()
        )
