"""A timeline: intervals and signal changes, in cycles. The only thing that waveform writers read."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..workloads.errors import InputError, shown

LIMIT = 1_000_000  # events: some 110 MB as Chrome trace JSON, about what its viewers open


@dataclass(frozen=True, slots=True)
class Interval:
    """Unit ``track`` did ``name`` from cycle ``start`` up to, not including, cycle ``end``."""

    track: str
    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Change:
    """Signal ``track`` took ``value`` at cycle ``time``."""

    track: str
    time: int
    value: int


@dataclass
class Timeline:
    """What an event engine saw. ``offset`` is added to every time: layers and inputs follow one another.

    Only cycles of the window [``start``, ``end``) are kept, and at most ``limit`` events: where more come, ``end``
    moves to an earlier cycle, so that all that happened before it is there; ``ends_early`` tells. Raises InputError
    for an empty window, and for one whose first cycle alone holds more events.
    """

    intervals: list[Interval] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    offset: int = 0
    start: int = 0
    end: int | None = None
    limit: int = LIMIT
    ends_early: bool = field(default=False, init=False)
    _before: dict[str, Change] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.start < 2**63 or (self.end is not None and self.end <= self.start):
            end = "" if self.end is None else shown(self.end)
            window = f"{shown(self.start)}:{end}"
            raise InputError(f"a window must start at a cycle from 0 to 2^63 and end after its start, not {window}")
        if self.limit < 1:
            raise InputError(f"the limit of a timeline must be at least 1 event, not {self.limit}")

    def interval(self, track: str, name: str, start: int, end: int) -> None:
        """Note that ``track`` did ``name`` in [start, end), where that is in the window; nothing of an empty one."""
        start, end = max(self.offset + start, self.start), self.offset + end
        if self.end is not None:
            end = min(end, self.end)
        if end > start:
            self.intervals.append(Interval(track, name, start, end))
            self._keep_limit()

    def change(self, track: str, time: int, value: int) -> None:
        """Note that signal ``track`` has ``value`` from cycle ``time`` on."""
        time += self.offset
        if time < self.start:
            known = self._before.get(track)
            if known is None or known.time <= time:
                self._before[track] = Change(track, time, value)
        elif self.end is None or time < self.end:
            self.changes.append(Change(track, time, value))
            self._keep_limit()

    def advance(self, cycles: int) -> None:
        """Let what follows begin ``cycles`` later."""
        self.offset += cycles

    def tracks(self) -> dict[str, list[Interval]]:
        """Return the intervals of each track in order; what overlaps an earlier one stands on a track "NAME (2)"."""
        tracks: dict[str, list[Interval]] = {}
        for interval in sorted(self.intervals, key=lambda i: (i.track, i.start, i.end, i.name)):
            name, lane = interval.track, 1
            while name in tracks and tracks[name][-1].end > interval.start:
                lane += 1
                name = f"{interval.track} ({lane})"
            tracks.setdefault(name, []).append(interval)
        return tracks

    def signals(self) -> dict[str, list[Change]]:
        """Return the changes of each signal in order, the first of them the value with which the window starts."""
        signals: dict[str, list[Change]] = {}
        for change in self._before.values():
            signals[change.track] = [Change(change.track, self.start, change.value)]
        for change in sorted(self.changes, key=lambda c: c.time):
            changes = signals.setdefault(change.track, [])
            if changes and changes[-1].time == change.time:
                changes.pop()  # what a signal had for no time at all
            if not changes or changes[-1].value != change.value:
                changes.append(change)
        return signals

    def warnings(self) -> list[str]:
        """Return what one should know before reading it: that it ends early, or that its window lies behind the run."""
        found = []
        if self.ends_early:
            found.append(
                f"timeline: at most {self.limit:,} events are kept, so it ends before cycle {self.end:,}; choose "
                "cycles with --window, or layers with --layer"
            )
        if 0 < self.offset <= self.start:
            found.append(
                f"timeline: its window starts at cycle {self.start:,}, and the run has {self.offset:,}; "
                "nothing is in it"
            )
        return found

    def _keep_limit(self) -> None:
        """Close the window at an earlier cycle if there are too many events, the later half of which go."""
        if len(self.intervals) + len(self.changes) <= self.limit:
            return
        times = sorted([i.start for i in self.intervals] + [c.time for c in self.changes])
        end = next((time for time in times[len(times) // 2 :] if time > self.start), self.start)
        if end == self.start:
            raise InputError(
                f"the limit of a timeline must be above what starts in one cycle, not {self.limit:,} events; raise it"
            )
        self.intervals[:] = [
            Interval(i.track, i.name, i.start, min(i.end, end)) for i in self.intervals if i.start < end
        ]
        self.changes[:] = [change for change in self.changes if change.time < end]
        self.end, self.ends_early = end, True
