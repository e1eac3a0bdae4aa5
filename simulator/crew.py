"""Who runs the cases of a sweep: this process alone, processes of its own (`pool`), or a Dask cluster's (`cluster`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from ..workloads.trace import Trace
from .cases import Case, Desk, Finished, order_of


class Crew(Protocol):
    """Runs cases; may be asked again and again, and keeps its workers and their traces until it is closed."""

    def run(self, cases: Sequence[Case]) -> Iterator[Finished]:
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


class Alone:
    """Runs cases in this process, and in no other."""

    def __init__(self) -> None:
        self._desk = Desk()

    def run(self, cases: Sequence[Case]) -> Iterator[Finished]:
        """Yield (case, result as JSON, error) of every case, in order."""
        for case in cases:
            yield case, *self._desk.run(case.trace, order_of(case))

    def close(self) -> None:
        """Do nothing: there is nobody to let go."""
