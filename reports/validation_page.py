"""All checks as a page of Markdown: published beside simulated figures, and every miss with its cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .cells import figures
from .markdown import plain, sentence, table_lines
from .published import Check
from .verdicts import VERDICT_STYLES, error_words, figure_cells

HEAD = """# Published against simulated

Figures that papers and measurements give, beside what Gossamer simulates. This page is written by

    gossamer validate {what}{data} --out validation.md

and holds every check that command has: none is left out, and nothing is tuned until it fits.{about}

- **hit**: within the tolerance that stands beside it.
- **miss**: out of it. `gossamer validate` then leaves with status 1.
- **known miss**: out of it by an amount that is known, and listed with its cause. Another amount is a miss.
- **information**: shown, never asserted, because the published figure is from memory, a range, or not comparable.
- **skipped**: needs data that cannot be bundled, or a figure that nobody has published.
"""
DATA = " EIE-simulator/data"
ABOUT_DATA = """ `EIE-simulator/data` is
the one thing that it needs and that is not bundled, as nobody has given a licence for it: AlexNet FC8 with its real \
weights,
from the EIE authors' simulator (`git clone https://github.com/RalphMao/EIE-simulator`). Without that path the checks of
this layer are skipped, and all others come out as here."""
SIMULATED = ("published", "simulated", "error", "within", "verdict", "source")


def validation_page(what: str, checks: Mapping[str, Sequence[Check]], *, data: bool = False) -> str:
    """Return the page of ``checks``, those of each accelerator, as ``gossamer validate what`` made them.

    ``data``: whether it was given the EIE authors' folder. The same checks give the same text: it holds no date,
    version or path of yours.
    """
    about = {"data": DATA, "about": ABOUT_DATA} if data else {"data": "", "about": ""}
    lines = [HEAD.format(what=what, **about), *_summary(checks), *_misses(checks)]
    for name, of_one in checks.items():
        lines += [f"## {name}", "", f"`gossamer validate {name}` prints these.", "", *_section(of_one)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _summary(checks: Mapping[str, Sequence[Check]]) -> list[str]:
    """Return how many checks of each accelerator came out how."""
    rows = []
    together = [check for of_one in checks.values() for check in of_one]
    for name, some in [*checks.items(), ("all", together)]:
        verdicts = [check.verdict for check in some]
        rows.append((name, len(verdicts), *(verdicts.count(verdict) for verdict in VERDICT_STYLES)))
    heads = ("accelerator", "checks", *VERDICT_STYLES)
    return table_lines(heads, rows if len(checks) > 1 else rows[:1], right=range(1, len(heads)))


def _misses(checks: Mapping[str, Sequence[Check]]) -> list[str]:
    """Return every figure that is out of tolerance, grouped by what is known of the cause."""
    lines = ["## Every miss, and its cause", ""]
    for name, of_one in checks.items():
        causes: dict[str, list[Check]] = {}
        for check in of_one:
            if check.verdict in ("miss", "known miss"):
                causes.setdefault(check.note, []).append(check)
        for cause, missed in causes.items():
            shown = "; ".join(f"{check.name} {_by(check)}" for check in missed)
            lines.append(f"- **{name}**: {plain(shown)}. {sentence(cause)}")
    return [*lines, ""] if len(lines) > 2 else [*lines, "There is none.", ""]


def _by(check: Check) -> str:
    """Return by how much a check is out: the error, or the value where there is only a bound."""
    if check.error is not None:
        return error_words(check.error)
    return "" if check.simulated is None else f"{figures(check.simulated)} ({check.tolerance})"


def _section(checks: Sequence[Check]) -> list[str]:
    """Return a table for each group of checks, the notes below it, and the sources below them all."""
    sources = list(dict.fromkeys(check.source for check in checks))
    lines = []
    for group in dict.fromkeys(check.group for check in checks):
        rows, notes = [], dict[str, list[str]]()
        for check in (check for check in checks if check.group == group):
            rows.append(_row(check, sources.index(check.source) + 1))
            if check.note and check.verdict not in ("miss", "known miss"):
                notes.setdefault(check.note, []).append(check.name)
        lines += [f"**{plain(group)}**", "", *table_lines(("figure", *SIMULATED), rows, right=(1, 2, 3, 4))]
        for note, names in notes.items():
            about = "" if len(names) > 4 else plain("; ".join(names)) + ": "
            lines.append(f"- {about}{sentence(note)}" if about else f"- {sentence(note)}")
        lines += [""] if notes else []
    return [*lines, "Sources:", "", *(f"{number}. {sentence(source)}" for number, source in enumerate(sources, 1)), ""]


def _row(check: Check, source: int) -> tuple[str, ...]:
    return (*figure_cells(check), check.verdict, f"[{source}]")
