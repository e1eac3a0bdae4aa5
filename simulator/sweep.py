"""A sweep: many independent cases, each run once, all kept."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from .. import __version__
from ..workloads.trace import Trace
from .machine import Machine
from .memo import Memo
from .result import Result
from .simulate import simulate
from .store import Store

HAND_OVER_S = 0.2  # how often a worker hands over what it has finished


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
    progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Return the outcome of every case, in order; those that ``store`` has finished are not run again.

    A case that fails is recorded with its error and does not stop the others. ``workers`` processes share the work
    (1: none but this one), or those of the Dask cluster whose scheduler is at ``cluster``. ``progress`` is called with
    (done, all). An interrupt loses only what is being computed.
    """
    cases = list(cases)
    own = Store(None) if store is None else None
    kept = store if store is not None else own
    assert kept is not None
    try:
        done = kept.finished(case.key for case in cases)
        by_key = {case.key: case for case in cases if case.key not in done}
        # Cases that share a trace and the first fields of a config share most of their work: let them meet.
        todo = sorted(by_key.values(), key=lambda case: (case.trace.sha256, case.machine.model, _order(case)))
        finished = len(cases) - len(todo)
        for case, text, error in _run(todo, workers) if cluster is None else _run_on_cluster(todo, cluster):
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


def _order(case: Case) -> tuple[tuple[str, Any], ...]:
    return tuple((type(value).__name__, value) for value in msgspec.structs.astuple(case.machine.config))


def _json(value: Any) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


Finished = tuple[Case, str | None, str | None]


def _run_on_cluster(cases: Sequence[Case], address: str) -> Iterable[Finished]:
    from .cluster import check_address, run_on_cluster

    check_address(address)
    return run_on_cluster(cases, address) if cases else ()


class _Bench:
    """Runs cases one after another, with one memo for as long as the trace stays the same."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases
        self._trace: Trace | None = None
        self._memo = Memo()

    def run(self, index: int) -> tuple[str | None, str | None]:
        case = self.cases[index]
        if case.trace is not self._trace:
            self._trace, self._memo = case.trace, Memo.for_trace(case.trace)
        try:
            result = simulate(case.machine, case.trace, engine=case.engine, layers=case.layers, memo=self._memo)
        except Exception as error:  # whatever a case ends in is its outcome, and the others go on
            return None, f"{type(error).__name__}: {error}"
        return msgspec.json.encode(result).decode(), None


def _run(cases: Sequence[Case], workers: int) -> Generator[Finished, None, None]:
    if workers <= 1 or len(cases) <= 1:
        bench = _Bench(cases)
        for index, case in enumerate(cases):
            yield case, *bench.run(index)
        return
    share = -(-len(cases) // (4 * workers))
    groups = deque(range(first, min(first + share, len(cases))) for first in range(0, len(cases), share))
    suspects: deque[range] = deque()
    while groups or suspects:
        if not suspects:
            in_flight = yield from _run_pool(cases, groups, workers)
            # One of these killed its worker. Each runs alone, so that the next death has one cause.
            suspects.extend(range(index, index + 1) for group in in_flight for index in group)
        elif killed := (yield from _run_pool(cases, suspects, 1)):
            yield cases[killed[0][0]], None, "WorkerDied: the process that ran this case was killed (out of memory?)"


def _run_pool(cases: Sequence[Case], groups: deque[range], workers: int) -> Generator[Finished, None, list[range]]:
    """Yield what a pool of workers finishes of ``groups``; return those in flight when a worker dies, else none."""
    context = multiprocessing.get_context("spawn")
    workers = min(workers, len(groups))
    running: dict[Future[list[tuple[str | None, str | None]]], range] = {}
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(cases,))
    try:
        while groups or running:
            while groups and len(running) < workers:
                group = groups.popleft()
                with _interrupts_held():
                    running[pool.submit(_run_some, group)] = group
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                finished = future.result()
                group = running.pop(future)
                for index, (text, error) in zip(group, finished, strict=False):
                    yield cases[index], text, error
                if len(finished) < len(group):
                    groups.appendleft(group[len(finished) :])
    except BrokenProcessPool:
        return list(running.values())
    finally:
        pool.shutdown(wait=not running, cancel_futures=True)
    return []


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let processes that start here ignore the terminal's interrupt: this process is the one that answers it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_bench: _Bench | None = None  # a worker process's own; set once, when it starts


def _start_worker(cases: Sequence[Case]) -> None:
    global _bench
    _bench = _Bench(cases)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """End this worker when the process that started it is gone, however it went: nobody else would."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _run_some(group: range) -> list[tuple[str | None, str | None]]:
    """Return the outcomes of the first cases of ``group``: as many as fit the time between two hand-overs."""
    assert _bench is not None
    until = time.monotonic() + HAND_OVER_S
    finished = []
    for index in group:
        finished.append(_bench.run(index))
        if time.monotonic() > until:
            break
    return finished
