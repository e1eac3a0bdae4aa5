"""How full queues are over time, in a number of samples that does not grow with the run."""

from __future__ import annotations

from .result import OverTime

SAMPLES = 128  # at most; at least half as many once a run has that many cycles


class Sampler:
    """Gathers at which level several queues stand, and gives mean, least and most in equal stretches of time.

    A stretch grows from one cycle by doubling, so that `SAMPLES` of them hold all that was added.
    """

    def __init__(self) -> None:
        self.step = 1
        self._held = [0] * SAMPLES  # level x cycles, summed over queues
        self._spent = [0] * SAMPLES  # cycles, summed over queues
        self._least: list[int | None] = [None] * SAMPLES
        self._most = [0] * SAMPLES

    def add(self, level: int, start: int, end: int, queues: int = 1) -> None:
        """Note that so many ``queues`` held ``level`` each from cycle ``start`` up to, not including, ``end``."""
        while end > self.step * SAMPLES:
            self._double()
        while start < end:
            place = start // self.step
            until = min(end, (place + 1) * self.step)
            self._held[place] += queues * level * (until - start)
            self._spent[place] += queues * (until - start)
            least = self._least[place]
            self._least[place] = level if least is None else min(least, level)
            self._most[place] = max(self._most[place], level)
            start = until

    def samples(self) -> OverTime:
        """Return what was added, up to the last cycle of it; a stretch of which nothing is known counts as empty."""
        count = max((place + 1 for place, spent in enumerate(self._spent) if spent), default=0)
        return OverTime(
            step=self.step,
            mean=[
                held / spent if spent else 0.0
                for held, spent in zip(self._held[:count], self._spent[:count], strict=True)
            ],
            least=[least or 0 for least in self._least[:count]],
            most=self._most[:count],
        )

    def _double(self) -> None:
        half = [0] * (SAMPLES // 2)
        self._held = [a + b for a, b in zip(self._held[::2], self._held[1::2], strict=True)] + half
        self._spent = [a + b for a, b in zip(self._spent[::2], self._spent[1::2], strict=True)] + half
        pairs = zip(self._least[::2], self._least[1::2], strict=True)
        known = [[level for level in pair if level is not None] for pair in pairs]
        self._least = [min(levels, default=None) for levels in known] + [None] * len(half)
        self._most = [max(a, b) for a, b in zip(self._most[::2], self._most[1::2], strict=True)] + half
        self.step *= 2
