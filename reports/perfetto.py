"""A timeline as Chrome trace JSON, for ui.perfetto.dev and chrome://tracing.

Source: "Trace Event Format" (Google, 2016): complete events (X), counters (C) and metadata (M), times in microseconds.
"""

from __future__ import annotations

import math
import re

import msgspec

from ..simulator.timeline import Timeline

PROCESS = 1


def perfetto_json(timeline: Timeline, *, clock_hz: float, name: str) -> bytes:
    """Return the Chrome trace of ``timeline``: one process called ``name``, one thread a track, one counter a signal.

    Cycle numbers stand in the arguments of every event. The viewers count whole nanoseconds: where a cycle is shorter,
    time is stretched by a power of ten, which the name of the process tells.
    """
    stretch = 10 ** max(0, math.ceil(math.log10(clock_hz / 1e9)))
    ns_per_cycle = stretch * 1e9 / clock_hz
    title = name if stretch == 1 else f"{name} (time x {stretch})"
    tracks, signals = timeline.tracks(), timeline.signals()
    threads = list(enumerate(sorted(tracks, key=order_of_units), PROCESS))
    events = [_metadata("process_name", PROCESS, {"name": title})]
    for thread, track in threads:
        events.append(_metadata("thread_name", thread, {"name": track}))
        events.append(_metadata("thread_sort_index", thread, {"sort_index": thread}))
    for thread, interval in ((thread, interval) for thread, track in threads for interval in tracks[track]):
        start, end = _whole_ns(interval.start, ns_per_cycle), _whole_ns(interval.end, ns_per_cycle)
        events.append({
            "ph": "X",
            "name": interval.name,
            "pid": PROCESS,
            "tid": thread,
            "ts": _microseconds(start),
            "dur": _microseconds(end - start),
            "args": {"start_cycle": interval.start, "end_cycle": interval.end},
        })  # fmt: skip
    for change in (change for signal in sorted(signals, key=order_of_units) for change in signals[signal]):
        events.append({
            "ph": "C",
            "name": change.track,
            "pid": PROCESS,
            "ts": _microseconds(_whole_ns(change.time, ns_per_cycle)),
            "args": {"value": change.value},
        })  # fmt: skip
    document = {
        "displayTimeUnit": "ns",
        "otherData": {"name": name, "clock_hz": clock_hz, "time_stretch": stretch},
        "traceEvents": events,
    }
    # One event a line: text tools stay usable on large traces.
    lines = msgspec.json.encode(document).replace(b'},{"ph"', b'},\n{"ph"')
    return lines + b"\n"


def _metadata(name: str, thread: int, args: dict[str, object]) -> dict[str, object]:
    return {"ph": "M", "name": name, "pid": PROCESS, "tid": thread, "args": args}


def _whole_ns(cycle: int, ns_per_cycle: float) -> int:
    # Starts and ends are rounded alike, so that neighbours still touch and never overlap.
    return math.floor(cycle * ns_per_cycle + 1e-6)


def _microseconds(ns: int) -> float:
    """Return ``ns`` in microseconds, as the number that becomes ``ns`` again when multiplied by 1000 and truncated."""
    value = ns / 1000
    return value if int(value * 1000) == ns else math.nextafter(value, math.inf)


def order_of_units(track: str) -> tuple[bool, list[tuple[str, int]]]:
    """Return a key that sorts units that exist once before numbered ones, and PE 10 after PE 9."""
    parts = re.findall(r"(\D*)(\d*)", track)
    return any(number for _, number in parts), [(text, int(number or -1)) for text, number in parts]
