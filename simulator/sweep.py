"""A sweep: many independent cases, each run once, all kept."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from .. import __version__
from ..workloads.trace import Trace
from .crew import Crew, crew_of
from .machine import Machine
from .result import Result
from .store import Store


@dataclass(frozen=True, eq=False)
class Case:
    """One simulation of a sweep; ``settings`` is what the sweep varied, for tables."""

    trace: Trace
    machine: Machine
    settings: Mapping[str, Any] = field(default_factory=dict)
    engine: str = "fast"
    layers: str | None = None

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


@dataclass(frozen=True)
class Outcome:
    """What became of a case: its result, or the error that it ended in."""

    case: Case
    result: Result | None
    error: str | None


def grid_points(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of the values in ``grid``, the last name varying fastest."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def sweep(
    cases: Iterable[Case],
    *,
    store: Store | None = None,
    workers: int = 1,
    cluster: str | None = None,
    crew: Crew | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Return the outcome of every case, in order; those that ``store`` has finished are not run again.

    A case that fails is recorded with its error and does not stop the others. ``workers`` processes share the work
    (1: none but this one), or those of the Dask cluster whose scheduler is at ``cluster``; or a ``crew`` that is there
    already, and stays. ``progress`` is called with (done, all). An interrupt loses only what is being computed.
    """
    cases = list(cases)
    if cluster is not None:
        from .cluster import check_address

        check_address(cluster)
    own = Store(None) if store is None else None
    kept = store if store is not None else own
    assert kept is not None
    try:
        done = kept.finished(case.key for case in cases)
        by_key = {case.key: case for case in cases if case.key not in done}
        # Cases that share a trace and the first fields of a config share most of their work: let them meet.
        todo = sorted(by_key.values(), key=lambda case: (case.trace.sha256, case.machine.model, _order(case)))
        finished = len(cases) - len(todo)
        for case, text, error in crew.run(todo) if crew is not None else _run(todo, workers, cluster):
            kept.save(case.key, case.trace.name, case.machine.name, _json(case.settings), text, error)
            finished += 1
            if progress is not None:
                progress(finished, len(cases))
        loaded = kept.load(case.key for case in cases)
        return [
            Outcome(case, None if text is None else kept.read(text), error)
            for case, (text, error) in zip(cases, loaded, strict=True)
        ]
    finally:
        if own is not None:
            own.close()


def _run(cases: Sequence[Case], workers: int, cluster: str | None) -> Iterator[tuple[Case, str | None, str | None]]:
    if not cases:
        return
    workers = min(workers, len(cases))
    with closing(crew_of([case.trace for case in cases], workers, cluster)) as crew:
        yield from crew.run(cases)


def _order(case: Case) -> tuple[tuple[str, Any], ...]:
    return tuple((type(value).__name__, value) for value in msgspec.structs.astuple(case.machine.config))


def _json(value: Any) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()
