"""Who runs the cases of a sweep: this process alone, processes of its own (`pool`), or a Dask cluster's (`cluster`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from ..workloads.trace import Trace
from .machine import Machine
from .memo import Memo
from .simulate import simulate

if TYPE_CHECKING:
    from .sweep import Case

Order = tuple[Machine, str, str | None]  # machine, engine and layers of a case: what a worker needs beside the trace
Done = tuple[str | None, str | None]  # the result as JSON, or the error that the case ended in


class Crew(Protocol):
    """Runs cases; may be asked again and again, and keeps its workers and their traces until it is closed."""

    def run(self, cases: Sequence[Case]) -> Iterator[tuple[Case, str | None, str | None]]:
        """Yield (case, result as JSON, error) of every case, each once, as they are finished."""

    def close(self) -> None:
        """Let the workers go."""


def crew_of(traces: Iterable[Trace], workers: int = 1, cluster: str | None = None, *, stays: bool = False) -> Crew:
    """Return who runs cases on ``traces``: the workers of the scheduler at ``cluster``, or ``workers`` processes.

    ``stays``: the crew will run more than one list of cases. Raises InputError for an address that is none.
    """
    if cluster is not None:
        from .cluster import Cluster

        return Cluster(cluster, keeps_traces=stays)
    if workers > 1:
        from .pool import Pool

        return Pool(workers, traces)
    return Alone()


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


class Alone:
    """Runs cases in this process, and in no other."""

    def __init__(self) -> None:
        self._desk = Desk()

    def run(self, cases: Sequence[Case]) -> Iterator[tuple[Case, str | None, str | None]]:
        """Yield (case, result as JSON, error) of every case, in order."""
        for case in cases:
            yield case, *self._desk.run(case.trace, order_of(case))

    def close(self) -> None:
        """Do nothing: there is nobody to let go."""
