"""Worker processes of this machine: each gets cases in groups, and a trace when it first meets it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from ..workloads.errors import InputError
from ..workloads.trace import Trace
from .cases import Case, Desk, Done, Finished, Order, order_of

HAND_OVER_S = 0.2  # how often a worker hands over what it has finished
GROUP = 256  # cases that a worker is told of at once, at most
DIED = "WorkerDied: the process that ran this case was killed (out of memory?)"
WORKER = "gossamer-worker"  # the name of a worker process: it knows itself by it
UNGUARDED = 117  # what a worker ends with that was about to start workers of its own


class Pool:
    """``workers`` processes that run cases on ``traces``; they start with the first case and stay until closed.

    Each begins by running the file that the program was started from, as Python's ``spawn`` has it. Running cases
    raises InputError where that file starts workers again, without asking whether it is the program itself.
    """

    def __init__(self, workers: int, traces: Iterable[Trace]) -> None:
        self._workers = workers
        self._traces = {trace.sha256: trace for trace in traces}
        self._pool: ProcessPoolExecutor | None = None
        self._context = _Spawn()
        self._running: dict[Future[tuple[list[Done], bool]], range] = {}

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
        asked: set[int] = set()  # cases whose worker had not their trace yet
        try:
            while groups or running:
                while groups and len(running) < at_once:
                    told = [cases[index] for index in groups[0][:GROUP]]  # the rest stays this worker's, for its memo
                    orders = [(case.trace.sha256, order_of(case)) for case in told]
                    trace = self._traces[orders[0][0]] if groups[0][0] in asked else None
                    with _interrupts_held():
                        future = self._executor().submit(_run_some, orders, trace)
                    running[future] = groups.popleft()  # only now: a pool that is broken takes none
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    finished, lacks_trace = future.result()
                    group = running.pop(future)
                    for index, (text, error) in zip(group, finished, strict=False):
                        yield cases[index], text, error
                    if len(finished) < len(group):
                        groups.appendleft(group[len(finished) :])
                    if lacks_trace:
                        asked.add(group[len(finished)])
        except BrokenProcessPool:
            in_flight = list(running.values())
            running.clear()
            self.close()
            if any(worker.exitcode == UNGUARDED for worker in self._context.started):
                file = getattr(sys.modules["__main__"], "__file__", "the program")
                raise InputError(
                    f"{file}: each worker process runs this file, so what starts workers must stand under "
                    'if __name__ == "__main__":, and does not; put it there, or take workers=1'
                ) from None
            return in_flight
        return []

    def _executor(self) -> ProcessPoolExecutor:
        if multiprocessing.current_process().name == WORKER:  # it runs no cases yet, but the program's file
            os._exit(UNGUARDED)
        if self._pool is None:
            # Nothing large goes along with the start: where a worker dies before it has read all, that never returns.
            self._context = _Spawn()
            self._pool = ProcessPoolExecutor(self._workers, self._context, initializer=_start_worker)
        return self._pool


class _Spawn(SpawnContext):
    """Starts processes as ``spawn`` does, under the name of workers, and keeps them: to see how they ended."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *args: Any, **options: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: N802
        process = SpawnProcess(*args, **options)
        process.name = WORKER
        self.started.append(process)
        return process


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let processes that start here not hear the terminal's interrupt: this process answers it, once this is over.

    A signal that is blocked, unlike one that is ignored, waits; what starts meanwhile is born with it blocked.
    Another thread may have taken it all the same, so that Python calls the handler here: that too waits.
    """
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    heard: list[int] = []
    if callable(handler):
        signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # what waited is heard here
        if callable(handler):
            signal.signal(signal.SIGINT, handler)
        if heard:
            signal.raise_signal(signal.SIGINT)


_traces: dict[str, Trace] = {}  # a worker process's own, by sha256: those that it has met
_desk = Desk()


def _start_worker() -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """End this worker when the process that started it is gone, however it went: nobody else would."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _run_some(orders: Sequence[tuple[str, Order]], trace: Trace | None) -> tuple[list[Done], bool]:
    """Return the outcomes of the first of ``orders``, and whether the trace of the next is what is lacking.

    They are as many as fit the time between two hand-overs. ``trace``: that of the first, where it was lacking.
    """
    if trace is not None:
        _traces[trace.sha256] = trace
    until = time.monotonic() + HAND_OVER_S
    finished: list[Done] = []
    for sha256, order in orders:
        if sha256 not in _traces:
            return finished, True
        finished.append(_desk.run(_traces[sha256], order))
        if time.monotonic() > until:
            break
    return finished, False
