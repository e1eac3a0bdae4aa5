"""A sweep: many independent cases, each run once, all kept."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import msgspec

from ..workloads.errors import InputError
from .cases import MOST_CASES, Case, Finished
from .crew import Crew, crew_of
from .result import Result
from .store import Store

__all__ = ["Case", "Outcome", "grid_points", "sweep"]


@dataclass(frozen=True)
class Outcome:
    """What became of a case: its result, or the error that it ended in."""

    case: Case
    result: Result | None
    error: str | None


def grid_points(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of the values in ``grid``, the last name varying fastest.

    Raises InputError where they are more than can all be simulated.
    """
    check_count(math.prod(len(values) for values in grid.values()))
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def check_count(count: int) -> None:
    """Raise InputError for more cases than can all be simulated."""
    if count > MOST_CASES:
        raise InputError(
            f"at most {MOST_CASES:,} cases can all be simulated, not {count:,}; give fewer values, or search among "
            "them with explore --trials"
        )


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

    There may be a million of them. A case that fails is recorded with its error and does not stop the others.
    ``workers`` processes share the work (1: none but this one), or those of the Dask cluster whose scheduler is at
    ``cluster``; or a ``crew`` that is there already, and stays. ``progress`` is called with (done, all). An interrupt
    loses only what is being computed.
    A script must ask for ``workers`` under ``if __name__ == "__main__":``, for each of them runs the script's file, as
    Python has it; where it does not, this raises InputError.
    """
    cases = list(itertools.islice(cases, MOST_CASES + 1))
    if len(cases) > MOST_CASES:
        raise InputError(f"at most {MOST_CASES:,} cases can all be simulated, and there are more; sweep a part of them")
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


def _run(cases: Sequence[Case], workers: int, cluster: str | None) -> Iterator[Finished]:
    if not cases:
        return
    workers = min(workers, len(cases))
    with closing(crew_of([case.trace for case in cases], workers, cluster)) as crew:
        yield from crew.run(cases)


def _order(case: Case) -> tuple[tuple[str, Any], ...]:
    return tuple((type(value).__name__, value) for value in msgspec.structs.astuple(case.machine.config))


def _json(value: Any) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()
