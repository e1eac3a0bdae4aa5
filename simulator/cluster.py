"""A sweep on a Dask cluster: cases go out in batches, a trace goes once to each worker, results come as they are made.

The scheduler runs what a lost worker had in hand on another one; only this process writes to the store, one row a case.
"""

from __future__ import annotations

import itertools
import logging
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from .. import __version__
from ..workloads.errors import InputError
from ..workloads.extras import need
from ..workloads.trace import Trace
from .machine import Machine
from .memo import Memo
from .simulate import simulate

if TYPE_CHECKING:
    from distributed import Client, Future

    from .sweep import Case, Finished

ANSWER_S = 10  # a scheduler that takes longer to answer is not there
WORKERS_S = 60  # without a worker for so long, a sweep gives up; what is finished is stored
LOOK_S = 5  # how often it is seen whether workers are left while nothing comes back
BATCH = 256  # cases in a batch, at most
_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx)://(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(\d{1,5})")

Batch = tuple[int, ...]
Order = tuple[Machine, str, str | None]  # machine, engine and layers of a case: what a worker needs beside the trace


class VersionError(Exception):
    """A worker's gossamer is not this one."""


def check_address(address: str) -> None:
    """Raise InputError unless ``address`` is written as a Dask scheduler's is."""
    met = _ADDRESS.fullmatch(address)
    if met is None or not 0 < int(met[3]) < 65536:
        raise InputError(
            f"--cluster must be tcp://HOST:PORT, not {address!r}; a scheduler prints its own when it starts"
        )


def run_on_cluster(cases: Sequence[Case], address: str) -> Generator[Finished, None, None]:
    """Yield (case, result as JSON, error) of every case, each once, as the workers of the Dask cluster finish them.

    ``address``: the scheduler's. A worker that dies costs time only: what it had goes to another. A case that kills
    every worker it meets fails alone. Raises InputError where there is no scheduler, no worker, or another version.
    """
    check_address(address)
    need("cluster", "distributed")
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what it says of lost workers is no error of ours
    try:
        client = Client(address, timeout=ANSWER_S, set_as_default=False, name="gossamer")
    except (OSError, TimeoutError, ValueError):
        raise InputError(
            f"{address}: a Dask scheduler must answer there within {ANSWER_S} s, and none does; start one with "
            "dask scheduler, or check the address"
        ) from None
    try:
        yield from _Sweep(client, address, cases).run()
    finally:
        client.close(timeout=ANSWER_S)


class _Sweep:
    """The cases that are out, those that wait, and where their traces are."""

    def __init__(self, client: Client, address: str, cases: Sequence[Case]) -> None:
        self.client, self.address, self.cases = client, address, cases
        self.sent: dict[str, Future] = {}  # traces on the workers, by sha256
        self.left = Counter(case.trace.sha256 for case in cases)  # how many cases of each trace are not done
        self.out: dict[Future, tuple[Batch, Future]] = {}  # what runs, and with which trace
        self.waiting: deque[Batch] = deque()
        self.suspects: deque[Batch] = deque()  # batches that were there when workers died
        self.alone = False

    def run(self) -> Generator[Finished, None, None]:
        self._batch_up(self._threads())
        last_worker = time.monotonic()
        while self.waiting or self.suspects or self.out:
            if not self.waiting and not self.out:
                self.alone, self.waiting, self.suspects = True, self.suspects, deque()
            self._submit()
            finished = self._wait()
            if finished or self._threads(wait=False):
                last_worker = time.monotonic()
            elif time.monotonic() - last_worker > WORKERS_S:
                raise self._nobody()
            for future in finished:
                yield from self._take(future, *self.out.pop(future))

    def _batch_up(self, threads: int) -> None:
        """Cut the cases into batches of one trace each, small enough that all workers end at about the same time."""
        size = max(1, min(BATCH, len(self.cases) // (4 * threads)))
        for _, group in itertools.groupby(range(len(self.cases)), key=lambda i: self.cases[i].trace.sha256):
            indices = tuple(group)
            self.waiting.extend(indices[first : first + size] for first in range(0, len(indices), size))

    def _threads(self, wait: bool = True) -> int:
        """Return how many cases the cluster can run at once. Raises InputError where nobody comes to ``wait`` for."""
        if wait:
            try:
                self.client.wait_for_workers(1, timeout=WORKERS_S)
            except TimeoutError:
                raise self._nobody() from None
        if self.client.status not in ("running", "connecting"):
            raise self._gone()
        try:
            return int(sum(self.client.nthreads().values()))
        except (OSError, TimeoutError):
            raise self._gone() from None

    def _submit(self) -> None:
        """Send batches until every thread has one at work and one to go on with."""
        while self.waiting and len(self.out) < (1 if self.alone else 2 * max(1, self._threads(wait=False))):
            batch = self.waiting.popleft()
            trace = self.cases[batch[0]].trace
            if trace.sha256 not in self.sent:
                self.sent[trace.sha256] = self._send(trace)
            orders = [(case.machine, case.engine, case.layers) for case in (self.cases[i] for i in batch)]
            sent = self.sent[trace.sha256]
            self.out[self.client.submit(_run_batch, sent, orders, __version__, pure=False)] = batch, sent

    def _send(self, trace: Trace) -> Future:
        """Bring ``trace`` to every worker that there is; later ones get it from these, once each."""
        trace.sha256  # noqa: B018 -- worked out here, so that it goes along
        until = time.monotonic() + WORKERS_S
        while True:
            try:
                sent: Future = self.client.scatter(trace, broadcast=True, hash=False, timeout=WORKERS_S)
                return sent
            except (OSError, TimeoutError):  # a worker that died on the way; the others are asked again
                if not self._threads(wait=False) or time.monotonic() > until:
                    raise self._nobody() from None

    def _wait(self) -> list[Future]:
        from distributed import CancelledError, wait

        # One that is cancelled is done as well, and says so when its result is asked for.
        with suppress(TimeoutError, CancelledError), self.client.as_current():
            wait(list(self.out), timeout=LOOK_S, return_when="FIRST_COMPLETED")
        return [future for future in self.out if future.done()]

    def _take(self, future: Future, batch: Batch, sent: Future) -> Generator[Finished, None, None]:
        from distributed import CancelledError, KilledWorker

        try:
            found = future.result(timeout=WORKERS_S)
        except (CancelledError, TimeoutError):
            self._put_back(batch, sent)
        except KilledWorker:
            if self.alone:
                why = "WorkerDied: the workers that ran this case were killed, one after another (out of memory?)"
                yield from self._done(batch, [(None, why)])
            else:
                self.suspects.extend((index,) for index in batch)
        except VersionError as error:
            raise InputError(f"{self.address}: {error}") from None
        except ModuleNotFoundError as error:
            raise InputError(
                f"{self.address}: every worker must have gossamer {__version__}, and one says: {error}; "
                "install it there"
            ) from None
        else:
            yield from self._done(batch, found)

    def _put_back(self, batch: Batch, sent: Future) -> None:
        """Let ``batch`` be sent again: its trace went down with the last worker that had it, or the scheduler did."""
        if self.client.status not in ("running", "connecting"):
            raise self._gone()
        sha256 = self.cases[batch[0]].trace.sha256
        if self.sent.get(sha256) is sent:
            del self.sent[sha256]
        self.waiting.appendleft(batch)

    def _done(self, batch: Batch, found: Sequence[tuple[str | None, str | None]]) -> Generator[Finished, None, None]:
        for index, (text, error) in zip(batch, found, strict=True):
            yield self.cases[index], text, error
        sha256 = self.cases[batch[0]].trace.sha256
        self.left[sha256] -= len(batch)
        if not self.left[sha256]:  # not before: a result that is lost with its worker is worked out again
            self.sent.pop(sha256, None)

    def _nobody(self) -> InputError:
        return InputError(
            f"{self.address}: the cluster must have a worker within {WORKERS_S} s, and has none; start one with "
            f"dask worker {self.address}"
        )

    def _gone(self) -> InputError:
        return InputError(
            f"{self.address}: the scheduler must stay until the sweep is done, and is gone; start it, then resume"
        )


_desk = threading.local()  # a worker thread's own: the trace it simulated last, and the memo of that


def _run_batch(trace: Trace, orders: Sequence[Order], version: str) -> list[tuple[str | None, str | None]]:
    """Return (result as JSON, error) of each of ``orders``, on a worker."""
    if version != __version__:
        raise VersionError(f"every worker must have gossamer {version}, and one has {__version__}; install the same")
    if getattr(_desk, "sha256", None) != trace.sha256:
        _desk.sha256, _desk.trace, _desk.memo = trace.sha256, trace, Memo.for_trace(trace)
    finished: list[tuple[str | None, str | None]] = []
    for machine, engine, layers in orders:
        try:
            result = simulate(machine, _desk.trace, engine=engine, layers=layers, memo=_desk.memo)
        except Exception as error:  # whatever a case ends in is its outcome, and the others go on
            finished.append((None, f"{type(error).__name__}: {error}"))
        else:
            finished.append((msgspec.json.encode(result).decode(), None))
    return finished
