"""A space of cases: traces, machines, and the values that fields of their configs may take."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from ..workloads.errors import InputError
from ..workloads.trace import Trace
from .cases import MOST_CASES, Case
from .machine import Machine

Point = tuple[int, ...]  # which trace, which machine, which value of each field


@dataclass(frozen=True, eq=False)
class Space:
    """Every trace on every machine at every combination of ``values``; ``make`` gives a machine other fields.

    A field must be one of at least one machine; the others are taken as they are. ``ordered`` names the fields whose
    values stand in an order, so that next to a good one may lie a better one. ``layers``: as `simulate` has it.
    Raises InputError for a field that no machine has.
    """

    traces: Sequence[Trace]
    machines: Sequence[Machine]
    values: Mapping[str, Sequence[Any]]
    make: Callable[..., Machine]
    ordered: frozenset[str] = frozenset()
    layers: str | None = None

    def __post_init__(self) -> None:
        for name, values in self.values.items():
            if not len(values):
                raise InputError(f"{name}: at least one value is needed, and there is none; leave the key out")
            if not any(name in has for has in self._fields):
                self.make(self.machines[0], **{name: values[0]})  # says which fields there are

    @cached_property
    def _fields(self) -> list[frozenset[str]]:
        """Return which of the varied fields each machine has."""
        of_configs = [{field.name for field in msgspec.structs.fields(m.config)} for m in self.machines]
        return [frozenset(name for name in self.values if name in has) for has in of_configs]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return how many traces, machines and values of each field there are."""
        return (len(self.traces), len(self.machines), *(len(values) for values in self.values.values()))

    @property
    def is_ordered(self) -> tuple[bool, ...]:
        """Return of each place of a point whether neighbouring choices are alike."""
        return (False, False, *(name in self.ordered for name in self.values))

    @property
    def size(self) -> int:
        """Return how many different cases there are."""
        per_machine = (math.prod(len(self.values[name]) for name in has) for has in self._fields)
        return len(self.traces) * sum(per_machine)

    def warnings(self) -> list[str]:
        """Return a line for each field that only some machines have."""
        lines = []
        for name in self.values:
            without = [m.name for m, has in zip(self.machines, self._fields, strict=True) if name not in has]
            if without:
                lines.append(f"{name} is no field of {', '.join(without)}; taken as it is, whatever {name} is")
        return lines

    def points(self) -> Iterator[Point]:
        """Yield every different case, the last field varying fastest. Raises InputError where there are too many."""
        if self.size > MOST_CASES:
            raise InputError(
                f"at most {MOST_CASES:,} cases can all be simulated, not {self.size:,}; give --trials, or fewer values"
            )
        yield from self.every()

    def every(self) -> Iterator[Point]:
        """Yield every different case, however many."""
        for trace, (machine, has) in itertools.product(range(len(self.traces)), enumerate(self._fields)):
            spans = (range(len(values)) if name in has else (0,) for name, values in self.values.items())
            yield from ((trace, machine, *choice) for choice in itertools.product(*spans))

    def plain(self, point: Sequence[int]) -> Point:
        """Return the one of all points of the same case whose fields that the machine lacks are 0."""
        trace, machine, *choices = point
        has = self._fields[machine]
        return trace, machine, *(i if name in has else 0 for name, i in zip(self.values, choices, strict=True))

    def case(self, point: Point) -> Case:
        """Return the case at ``point``. Raises InputError where the machine refuses the combination."""
        trace, machine, *choices = point
        chosen = zip(self.values.items(), choices, strict=True)
        settings = {name: values[i] for (name, values), i in chosen if name in self._fields[machine]}
        return Case(self.traces[trace], self.make(self.machines[machine], **settings), settings, layers=self.layers)

    def starts(self, most: int) -> list[Point]:
        """Return the middle of all fields for each trace on each machine, and then both ends; at most ``most``."""
        pairs = list(itertools.product(range(len(self.traces)), range(len(self.machines))))
        sizes = self.shape[2:]
        corners = [[n // 2 for n in sizes], [n - 1 for n in sizes], [0 for _ in sizes]]
        found = dict.fromkeys(self.plain((*pair, *corner)) for corner in corners for pair in pairs)
        return list(found)[:most]

    def draw(self, rng: np.random.Generator) -> Point:
        """Return any point, all choices as likely."""
        return self.plain([int(rng.integers(n)) for n in self.shape])

    def near(self, point: Point) -> list[Point]:
        """Return the points one choice away: of what is ordered the next, and a tenth of all further on."""
        found: list[Point] = []
        for place, (n, ordered) in enumerate(zip(self.shape, self.is_ordered, strict=True)):
            here = point[place]
            steps = (1, n // 10) if n >= 20 else (1,)
            others = [here + way * step for step in steps for way in (-1, 1)] if ordered else range(min(n, 100))
            found += [
                self.plain((*point[:place], other, *point[place + 1 :]))
                for other in others
                if 0 <= other < n and other != here
            ]
        return [other for other in dict.fromkeys(found) if other != point]
