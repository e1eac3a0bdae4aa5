"""Tables of verdicts: published figures beside simulated ones, and the engines beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from .cells import figures, new_table, percent, whole

if TYPE_CHECKING:
    from ..simulator.check import LayerCheck
    from .published import Check

PURE = ("ratio", "share", "index")  # units that are none
VERDICT_STYLES = {"hit": "green", "miss": "bold red", "known miss": "yellow", "information": "", "skipped": "dim"}


def checks_table(checks: Sequence[Check]) -> RenderableType:
    """Return published beside simulated figures by group, with error, tolerance, verdict and source; notes below."""
    sources = list(dict.fromkeys(check.source for check in checks))
    parts: list[RenderableType] = []
    for group in dict.fromkeys(check.group for check in checks):
        table = new_table(group)
        table.add_column("", ratio=1, overflow="fold")
        for heading in ("published", "simulated", "error", "within"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        table.add_column("source", justify="right", no_wrap=True)
        notes: dict[str, list[str]] = {}
        for check in checks:
            if check.group != group:
                continue
            table.add_row(
                *map(escape, figure_cells(check)),
                Text(check.verdict, style=VERDICT_STYLES.get(check.verdict, "")),
                escape(f"[{sources.index(check.source) + 1}]"),
            )
            if check.note:
                notes.setdefault(check.note, []).append(check.name)
        parts += [table, *(_note(note, names) for note, names in notes.items()), Text("")]
    parts += [Text(f"[{number}] {source}", style="dim") for number, source in enumerate(sources, 1)]
    verdicts = [check.verdict for check in checks]
    counted = [f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICT_STYLES if verdict in verdicts]
    return Group(*parts, Text(f"{len(checks)} checks: {', '.join(counted)}.", style="bold"))


def figure_cells(check: Check) -> tuple[str, str, str, str, str]:
    """Return name, published, simulated, error and tolerance; of a bound, the bound stands for what was published."""
    return (
        check.name if check.unit in PURE else f"{check.name}, {check.unit}",
        check.tolerance if check.published is None else as_published(check.published),
        "" if check.simulated is None else figures(check.simulated),
        "" if check.error is None else error_words(check.error),
        "" if check.published is None else check.tolerance,
    )


def _note(note: str, names: list[str]) -> Text:
    """Return ``note`` after the names it is about; none where it is about many."""
    return Text(f"{note}." if len(names) > 4 else f"{'; '.join(names)}: {note}.", style="dim")


def as_published(value: float) -> str:
    """Return a published figure with the digits that it was given in."""
    return f"{value:,}" if len(str(value)) <= 8 else figures(value)


def error_words(error: float) -> str:
    """Return a relative error in percent, signed; 0 only where it is."""
    return f"{100 * error:+.1f} %" if abs(error) >= 0.0005 else "0.0 %" if error else "0"


def engines_table(checks: Sequence[LayerCheck]) -> RenderableType:
    """Return what both engines and numpy made of each layer; the differences, where there are any, stand below."""
    table = new_table("Engines against each other, outputs against numpy in float64")
    table.add_column("layer", overflow="fold")
    for heading in ("cycles", "largest\nerror", "largest\noutput", "same top\noutput %"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("engines", no_wrap=True)
    table.add_column("numbers", no_wrap=True)
    for check in checks:
        table.add_row(
            escape(check.name),
            whole(check.cycles),
            figures(check.max_abs_error),
            figures(check.max_abs_reference),
            percent(check.same_argmax),
            _passed(not check.differences, "equal", "differ"),
            Text(f"{check.saturated:,} saturated", style="yellow")
            if check.numbers_agree and check.saturated
            else _passed(check.numbers_agree, "within formats", "wrong"),
        )
    differences = [Text(f"{check.name}: {line}", style="red") for check in checks for line in check.differences]
    failures = sum(not check.passed for check in checks)
    verdict = f"{failures} of {len(checks)} layers failed." if failures else f"All {len(checks)} layers agree."
    return Group(table, *differences, Text(verdict, style="bold red" if failures else "bold"))


def _passed(passed: bool, yes: str, no: str) -> Text:
    return Text(yes, style="green") if passed else Text(no, style="bold red")
