"""The cases of a sweep, what a worker is told of one, and how it runs it: what all crews share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from .. import __version__
from ..workloads.errors import InputError
from ..workloads.names import check_pattern
from ..workloads.trace import Trace
from .machine import Machine
from .memo import Memo
from .simulate import simulate

MOST_CASES = 1_000_000  # that are simulated one and all; more need a search

Order = tuple[Machine, str, str | None]  # machine, engine and layers of a case: what a worker needs beside the trace
Done = tuple[str | None, str | None]  # the result as JSON, or the error that the case ended in


@dataclass(frozen=True, eq=False)
class Case:
    """One simulation of a sweep; ``settings`` is what the sweep varied, for tables. Raises InputError."""

    trace: Trace
    machine: Machine
    settings: Mapping[str, Any] = field(default_factory=dict)
    engine: str = "fast"
    layers: str | None = None

    def __post_init__(self) -> None:
        if self.layers is None:
            return
        check_pattern(self.layers)
        if not self.layers.isprintable():  # no key could be made of it
            raise InputError(f"a layer pattern must have printable characters, not {self.layers!r}; as names have")

    @cached_property
    def key(self) -> str:
        """Return the hash of all that the result depends on (hexadecimal sha256)."""
        parts = [
            self.trace.sha256,
            self.machine.name,
            self.machine.model,
            msgspec.to_builtins(self.machine.config),
            msgspec.to_builtins(self.machine.energy),
            self.engine,
            self.layers,
            __version__,
        ]
        return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


Finished = tuple[Case, str | None, str | None]  # a case and what became of it


def order_of(case: Case) -> Order:
    """Return what a worker that has the trace needs to run ``case``."""
    return case.machine, case.engine, case.layers


class Desk:
    """Runs orders one after another, with one memo for as long as the trace stays the same."""

    def __init__(self) -> None:
        self._sha256 = ""
        self._trace: Trace | None = None
        self._memo = Memo()

    def run(self, trace: Trace, order: Order) -> Done:
        """Return the result as JSON, or the error; whatever a case ends in is its outcome, and others go on."""
        if self._trace is None or trace.sha256 != self._sha256:
            self._sha256, self._trace, self._memo = trace.sha256, trace, Memo.for_trace(trace)
        machine, engine, layers = order
        try:
            result = simulate(machine, self._trace, engine=engine, layers=layers, memo=self._memo)
        except Exception as error:
            return None, f"{type(error).__name__}: {error}"
        return msgspec.json.encode(result).decode(), None
