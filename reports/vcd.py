"""A timeline as a Value Change Dump, for GTKWave and Surfer. Needs pyvcd, which the extra wave installs.

Source: IEEE Std 1364-2005, section 18, and GTKWave's string variables.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from .. import __version__
from ..simulator.timeline import Timeline
from ..workloads.extras import need
from .perfetto import order_of_units

TOP = "gossamer"
IDLE = "idle"
FEMTOSECONDS = 10**15  # in a second
# (fs, timescale), coarsest first: the standard allows 1, 10 and 100 of each unit.
TIMESCALES = [
    (10**power * many, f"{many} {unit}")
    for power, unit in ((15, "s"), (12, "ms"), (9, "us"), (6, "ns"), (3, "ps"), (0, "fs"))
    for many in (100, 10, 1)
]

Scope = tuple[str, ...]


def vcd_text(timeline: Timeline, *, clock_hz: float, name: str) -> bytes:
    """Return the VCD of ``timeline``: a string variable a track, ``idle`` between its intervals; an integer a signal.

    A cycle is a whole number of ticks of the timescale (see `timescale`), which the comment in the header tells.
    Numbered units share a scope, and a unit with several tracks has one of its own. The text depends on the arguments
    alone. Raises InputError where pyvcd is missing.
    """
    need("wave", "vcd")
    from vcd import VCDWriter
    from vcd.writer import Variable

    scale, ticks, exact = timescale(clock_hz)
    about = "" if exact else f", in place of {float(FEMTOSECONDS / Fraction(clock_hz)):.6f} fs"
    title = re.sub(r"[^!-~]+", " ", name).replace("$", "_").strip()
    comment = f"{title}\nclock {clock_hz:.15g} Hz: a cycle is {ticks} x {scale}{about}"
    tracks, signals = timeline.tracks(), timeline.signals()
    file = io.StringIO()
    writer = VCDWriter(
        file, scale, date="", comment=comment, version=f"gossamer {__version__}", init_timestamp=timeline.start * ticks
    )
    places = _places([*tracks, *signals])
    variables: list[Variable[Any]] = []
    events: list[tuple[int, int, str | int]] = []  # (cycle, variable, value)
    for track, intervals in sorted(tracks.items(), key=lambda item: order_of_units(item[0])):
        for cycle, doing in _values([(i.name, i.start, i.end) for i in intervals]):
            events.append((cycle, len(variables), doing))
        variables.append(writer.register_var(*next(places[track]), "string", init=IDLE))
    for signal, changes in sorted(signals.items(), key=lambda item: order_of_units(item[0])):
        events += [(change.time, len(variables), change.value) for change in changes]
        variables.append(writer.register_var(*next(places[signal]), "integer", size=64))
    end = max([timeline.start, *(cycle for cycle, _, _ in events)])
    for cycle, variable, value in sorted(events, key=lambda event: event[:2]):
        writer.change(variables[variable], cycle * ticks, value)
    writer.close(end * ticks)
    return file.getvalue().encode("ascii")


def timescale(clock_hz: float) -> tuple[str, int, bool]:
    """Return a timescale, the ticks of it that make a cycle of ``clock_hz``, and whether they make it exactly.

    It is the coarsest of which a cycle is a whole number; where there is none, ticks are femtoseconds, rounded.
    """
    length = FEMTOSECONDS / Fraction(clock_hz)
    for femtoseconds, scale in TIMESCALES:
        if length % femtoseconds == 0:
            return scale, int(length / femtoseconds), True
    return "1 fs", max(1, round(length)), False


def _values(intervals: list[tuple[str, int, int]]) -> Iterator[tuple[int, str]]:
    """Yield (cycle, value) for each change of a track that does ``intervals``, which are in order and disjoint."""
    for place, (name, start, end) in enumerate(intervals):
        yield start, re.sub(r"[^ -~]", lambda met: ascii(met[0])[1:-1].replace("\\", "%"), name)
        if place + 1 == len(intervals) or intervals[place + 1][1] > end:
            yield end, IDLE


def _places(names: list[str]) -> dict[str, Iterator[tuple[Scope, str]]]:
    """Return where each of ``names`` stands, once for each time it is named: its scope, and a name unique in there."""
    parts = {name: _parts(name) for name in names}
    whole = {unit for _, unit, part in parts.values() if part}  # units of several tracks
    taken: set[tuple[Scope, str]] = set()
    found: dict[str, list[tuple[Scope, str]]] = {}
    for name in names:
        kind, unit, part = parts[name]
        scope = (TOP, *([kind] if kind else []), *([unit] if unit in whole else []))
        plain, number = part or unit, 1
        variable = plain
        while (scope, variable) in taken:
            number += 1
            variable = f"{plain}_{number}"
        taken.add((scope, variable))
        found.setdefault(name, []).append((scope, variable))
    return {name: iter(places) for name, places in found.items()}


def _parts(name: str) -> tuple[str, str, str]:
    """Return the kind of unit, the unit, and what of it is shown: ("sm", "sm0", "l2"), ("PE", "PE_3", "")."""
    numbered = re.fullmatch(r"([^\d\s]+)\s?(\d+)(?:\s+(.+))?", name)
    if numbered is None:
        return "", _word(name), ""
    kind, _, part = numbered.groups()
    unit = re.sub(r"\s", "_", name[: numbered.end(2)])
    return _word(kind), _word(unit), _word(part) if part else ""


def _word(text: str) -> str:
    """Return ``text`` as a name that every reader of VCD takes."""
    word = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_") or "unnamed"
    return f"_{word}" if word[0].isdigit() else word
