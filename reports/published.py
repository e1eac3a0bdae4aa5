"""Published figures, from the files in ``papers``, and the verdict on what is simulated for each of them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any

Figures = dict[str, tuple[float | None, str]]  # by key: the simulated value, None where nothing gives it, and a note


@dataclass(frozen=True, kw_only=True)
class Check:
    """A published figure beside the simulated one.

    ``published`` is None where the paper tells a trend in words, ``simulated`` where the check was skipped. ``error``
    is simulated / published - 1. ``tolerance`` says what a hit is. ``verdict``: "hit"; "miss", out of tolerance;
    "known miss", out of tolerance by the stated amount, the note giving the cause; "information", not asserted;
    "skipped". ``group``: the heading.
    """

    name: str
    source: str
    published: float | None
    simulated: float | None
    unit: str
    error: float | None
    tolerance: str
    verdict: str
    note: str = ""
    group: str = ""


def failed(checks: Iterable[Check]) -> bool:
    """Tell whether any check is out of its tolerance without being a known miss of the stated size."""
    return any(check.verdict == "miss" for check in checks)


def read_paper(name: str) -> dict[str, Any]:
    """Return the published figures of ``papers/NAME.toml``."""
    file = resources.files(__package__) / "papers" / f"{name}.toml"
    return tomllib.loads(file.read_text("utf-8"))


def judge(entry: dict[str, Any], value: float | None, slack: float, *, group: str = "", note: str = "") -> Check:
    """Return the check that ``entry``, a table of a papers file, makes of the simulated ``value``; None skips it.

    ``entry`` has name, source and unit, and either published and tolerance (relative) or within (in the unit), or
    at_least or at_most; its known_miss gives the error (of a bound: the value) that is known, met when it is off by
    ``slack`` at most. With ``information`` nothing is asserted.
    """
    published = entry.get("published")
    known = entry.get("known_miss")
    error = None if published is None or value is None else value / published - 1
    informs = entry.get("information", False)
    if informs:
        tolerance, off, hit = "not asserted", error, True
    elif "within" in entry:
        tolerance, off = f"{entry['within']:g} {entry['unit']}", error
        hit = value is not None and abs(value - entry["published"]) <= entry["within"] + 1e-12
    elif published is not None:
        tolerance, off = _percent(entry["tolerance"]), error
        hit = error is not None and abs(error) <= entry["tolerance"] + 1e-12
    elif "at_least" in entry:
        tolerance, off = f"at least {entry['at_least']:,}", value
        hit = value is not None and value >= entry["at_least"]
    else:
        tolerance, off = f"at most {entry['at_most']:,}", value
        hit = value is not None and value <= entry["at_most"]
    verdict = "information" if informs else "hit" if hit else "miss"
    if off is None and not (informs and value is not None):
        verdict = "skipped"
    elif not hit and known is not None:
        same = abs(off - known["error"]) <= slack + 1e-12
        verdict = "known miss" if same else "miss"
        note = known["cause"] if same else f"the known miss was {known['error']:+.3g}: {known['cause']}"
    words = [f"the paper says: {entry['words']}"] if "words" in entry else []
    return Check(
        name=entry["name"],
        source=entry["source"],
        published=published,
        simulated=value,
        unit=entry["unit"],
        error=error,
        tolerance=tolerance,
        verdict=verdict,
        note="; ".join([*words, *([note] if note else [])]),
        group=group,
    )


def _percent(tolerance: float) -> str:
    return "exact" if tolerance == 0 else f"{100 * tolerance:.3g} %"
