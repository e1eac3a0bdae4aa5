"""A timeline: intervals and signal changes, in cycles. The only thing that waveform writers read."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Interval:
    """Unit ``track`` did ``name`` from cycle ``start`` up to, not including, cycle ``end``."""

    track: str
    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Change:
    """Signal ``track`` took ``value`` at cycle ``time``."""

    track: str
    time: int
    value: int


@dataclass
class Timeline:
    """What an event engine saw. ``offset`` is added to every time: layers and inputs follow one another."""

    intervals: list[Interval] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    offset: int = 0

    def interval(self, track: str, name: str, start: int, end: int) -> None:
        """Note that ``track`` did ``name`` in [start, end); nothing is noted where it is empty."""
        if end > start:
            self.intervals.append(Interval(track, name, self.offset + start, self.offset + end))

    def change(self, track: str, time: int, value: int) -> None:
        """Note that signal ``track`` has ``value`` from cycle ``time`` on."""
        self.changes.append(Change(track, self.offset + time, value))

    def advance(self, cycles: int) -> None:
        """Let what follows begin ``cycles`` later."""
        self.offset += cycles
