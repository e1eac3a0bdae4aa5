"""Worker processes of this machine: each gets every trace when it starts, and cases in groups after that."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..workloads.trace import Trace
from .crew import Desk, Done, Order, order_of

if TYPE_CHECKING:
    from .sweep import Case

HAND_OVER_S = 0.2  # how often a worker hands over what it has finished
GROUP = 256  # cases that a worker is told of at once, at most
DIED = "WorkerDied: the process that ran this case was killed (out of memory?)"

Finished = tuple["Case", str | None, str | None]


class Pool:
    """``workers`` processes that run cases on ``traces``; they start with the first case and stay until closed."""

    def __init__(self, workers: int, traces: Iterable[Trace]) -> None:
        by_hash = {trace.sha256: trace for trace in traces}
        self._workers = workers
        self._traces = list(by_hash.values())
        self._place = {sha256: place for place, sha256 in enumerate(by_hash)}
        self._pool: ProcessPoolExecutor | None = None
        self._running: dict[Future[list[Done]], range] = {}

    def run(self, cases: Sequence[Case]) -> Generator[Finished, None, None]:
        """Yield (case, result as JSON, error) of every case. One that kills its worker fails alone."""
        share = -(-len(cases) // (4 * self._workers))
        groups = deque(range(first, min(first + share, len(cases))) for first in range(0, len(cases), share or 1))
        suspects: deque[range] = deque()
        while groups or suspects:
            if not suspects:
                in_flight = yield from self._share(cases, groups, self._workers)
                # One of these killed its worker. Each runs alone, so that the next death has one cause.
                suspects.extend(range(index, index + 1) for group in in_flight for index in group[:GROUP])
                groups.extend(group[GROUP:] for group in in_flight if len(group) > GROUP)
            elif killed := (yield from self._share(cases, suspects, 1)):
                yield cases[killed[0][0]], None, DIED

    def close(self) -> None:
        """Let the processes go; what they are at is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=not self._running, cancel_futures=True)
            self._pool = None
        self._running = {}

    def _share(
        self, cases: Sequence[Case], groups: deque[range], at_once: int
    ) -> Generator[Finished, None, list[range]]:
        """Yield what is finished of ``groups``; return those in flight when a worker dies, else none."""
        running = self._running
        try:
            while groups or running:
                while groups and len(running) < at_once:
                    told = [cases[index] for index in groups[0][:GROUP]]  # the rest stays this worker's, for its memo
                    orders = [(self._place[case.trace.sha256], order_of(case)) for case in told]
                    with _interrupts_held():
                        future = self._executor().submit(_run_some, orders)
                    running[future] = groups.popleft()  # only now: a pool that is broken takes none
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    finished = future.result()
                    group = running.pop(future)
                    for index, (text, error) in zip(group, finished, strict=False):
                        yield cases[index], text, error
                    if len(finished) < len(group):
                        groups.appendleft(group[len(finished) :])
        except BrokenProcessPool:
            in_flight = list(running.values())
            running.clear()
            self.close()
            return in_flight
        return []

    def _executor(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self._workers, context, initializer=_start_worker, initargs=(self._traces,)
            )
        return self._pool


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


_traces: Sequence[Trace] = ()  # a worker process's own; set once, when it starts
_desk = Desk()


def _start_worker(traces: Sequence[Trace]) -> None:
    global _traces
    _traces = traces
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """End this worker when the process that started it is gone, however it went: nobody else would."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _run_some(orders: Sequence[tuple[int, Order]]) -> list[Done]:
    """Return the outcomes of the first of ``orders``: as many as fit the time between two hand-overs."""
    until = time.monotonic() + HAND_OVER_S
    finished = []
    for place, order in orders:
        finished.append(_desk.run(_traces[place], order))
        if time.monotonic() > until:
            break
    return finished
