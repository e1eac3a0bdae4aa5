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
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from .. import __version__
from ..workloads.errors import InputError
from ..workloads.extras import need
from ..workloads.trace import Trace
from .cases import Case, Desk, Done, Finished, Order, order_of
from .release import VersionError, check_release, release

if TYPE_CHECKING:
    from distributed import Client, Future, Scheduler, SchedulerPlugin

ANSWER_S = 10  # a scheduler that takes longer to answer is not there
WORKERS_S = 60  # without a worker for so long, a sweep gives up; what is finished is stored
LOOK_S = 5  # how often it is seen whether workers are left while nothing comes back
BATCH = 256  # cases in a batch, at most
DIED = "WorkerDied: the workers that ran this case were killed, one after another (out of memory?)"
_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx)://(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(\d{1,5})")

Batch = tuple[int, ...]


def check_address(address: str) -> None:
    """Raise InputError unless ``address`` is written as a Dask scheduler's is."""
    met = _ADDRESS.fullmatch(address)
    if met is None or not 0 < int(met[3]) < 65536:
        raise InputError(
            f"--cluster must be tcp://HOST:PORT, not {address!r}; a scheduler prints its own when it starts"
        )


class Cluster:
    """The workers of the Dask scheduler at ``address``, asked when the first case is run.

    ``keeps_traces``: they stay with the workers until this is closed, for cases that are still to come.
    Raises InputError where the address is none, and, as cases are run, where there is no scheduler or no worker, or a
    worker has another release than this process.
    """

    def __init__(self, address: str, *, keeps_traces: bool = False) -> None:
        check_address(address)
        need("cluster", "distributed")
        self.address, self.keeps_traces = address, keeps_traces
        self.sent: dict[str, Future] = {}  # traces on the workers, by sha256
        self._client: Client | None = None

    def run(self, cases: Sequence[Case]) -> Generator[Finished, None, None]:
        """Yield (case, result as JSON, error) of every case, each once, as the workers finish them.

        A worker that dies costs time only: what it had goes to another. A case that kills every worker it meets fails
        alone.
        """
        yield from _Sweep(self, cases).run()

    def close(self) -> None:
        """Let the scheduler go; workers and what else they do are left as they are."""
        self.sent.clear()
        if self._client is not None:
            self._client.close(timeout=ANSWER_S)
            self._client = None

    @property
    def client(self) -> Client:
        """Return the connection to the scheduler, made at the first call."""
        if self._client is None:
            from distributed import Client

            for place in ("distributed", "distributed.client"):  # what these say of lost workers is no error
                logging.getLogger(place).setLevel(logging.CRITICAL)
            try:
                self._client = Client(self.address, timeout=ANSWER_S, set_as_default=False, name="gossamer")
            except TypeError as error:  # distributed's word for a tls address without certificates
                raise InputError(f"{self.address}: Dask must be configured for tls, and is not: {error}") from None
            except (OSError, TimeoutError, ValueError):
                raise InputError(
                    f"{self.address}: a Dask scheduler must answer there within {ANSWER_S} s, and none does; start "
                    "one with dask scheduler, or check the address"
                ) from None
        return self._client

    def threads(self) -> int:
        """Return how many cases the cluster can run at once. Raises InputError where the scheduler has gone."""
        if self.client.status not in ("running", "connecting"):
            raise self.gone()
        try:
            return int(sum(self.client.nthreads().values()))
        except (OSError, TimeoutError):
            raise self.gone() from None

    def wait(self) -> None:
        """Return when there is a worker, and all that there are have this release. Raises InputError."""
        try:
            self.client.wait_for_workers(1, timeout=WORKERS_S)
        except TimeoutError:
            raise self.nobody() from None
        except OSError:
            raise self.gone() from None
        try:
            self.client.run(check_release, release())
        except (OSError, TimeoutError):
            pass  # a worker that dies just now; whoever comes later is asked with its first batch
        except Exception as error:
            raise self.unlike(error) from None
        self._keep_replicas()

    def _keep_replicas(self) -> None:
        """Let a trace stay on every worker that has it.

        Dask's memory manager drops copies that no case waits for at the moment: the trace would travel again for the
        next, and be lost with the one worker that kept it. It goes on when this client is gone, killed outright or not.
        """
        # Without it, as where the scheduler takes no plugins, traces travel more often and that is all.
        with suppress(Exception):
            self.client.register_plugin(_replica_keeper(self.client.id), name=f"gossamer-{self.client.id}")

    def unlike(self, error: Exception) -> InputError:
        """Return what to say of a worker that cannot run what this process would: ``error`` is what it says."""
        if isinstance(error, VersionError):
            return InputError(f"{self.address}: {error}")
        kind = (
            "" if type(error) is Exception else f"{type(error).__name__}: "
        )  # Dask wraps some, and says so in the text
        line = (str(error).splitlines() or [""])[0]
        return InputError(
            f"{self.address}: every worker must have gossamer {__version__}, and one says {kind}{line}; "
            "install it there"
        )

    def nobody(self) -> InputError:
        """Return what to say where no worker is left."""
        return InputError(
            f"{self.address}: the cluster must have a worker within {WORKERS_S} s, and has none; start one with "
            f"dask worker {self.address}"
        )

    def gone(self) -> InputError:
        """Return what to say where the scheduler has gone."""
        return InputError(
            f"{self.address}: the scheduler must stay until the sweep is done, and is gone; start it, then resume"
        )


def _replica_keeper(client: str) -> SchedulerPlugin:
    """Return what stops the memory manager of the scheduler that it is sent to, until the last such client is gone.

    The class is a local one, which travels as code: a scheduler need not have gossamer.
    """
    from distributed import SchedulerPlugin

    class ReplicaKeeper(SchedulerPlugin):  # type: ignore[misc]
        def __init__(self) -> None:
            self.client = client
            self.stopped = False  # whether the manager was at work when the first of these came

        def others(self, scheduler: Scheduler) -> list[ReplicaKeeper]:
            alike = [each for each in scheduler.plugins.values() if type(each).__name__ == type(self).__name__]
            return [each for each in alike if each is not self and each.client in scheduler.clients]

        async def start(self, scheduler: Scheduler) -> None:
            manager = scheduler.extensions["amm"]
            self.stopped = manager.running or any(each.stopped for each in self.others(scheduler))
            if self.client in scheduler.clients:  # not gone already
                manager.stop()

        def remove_client(self, scheduler: Scheduler, client: str) -> None:
            if client == self.client:
                scheduler.remove_plugin(name=f"gossamer-{client}")
                if self.stopped and not self.others(scheduler):
                    scheduler.extensions["amm"].start()

    return ReplicaKeeper()


class _Sweep:
    """The cases that are out, those that wait, and where their traces are."""

    def __init__(self, cluster: Cluster, cases: Sequence[Case]) -> None:
        self.cluster, self.client, self.cases = cluster, cluster.client, cases
        self.left = Counter(case.trace.sha256 for case in cases)  # how many cases of each trace are not done
        self.out: dict[Future, tuple[Batch, Future]] = {}  # what runs, and with which trace
        self.waiting: deque[Batch] = deque()
        self.suspects: deque[Batch] = deque()  # batches that were there when workers died
        self.alone = False

    def run(self) -> Generator[Finished, None, None]:
        self.cluster.wait()
        self._batch_up(max(1, self.cluster.threads()))
        last_worker = time.monotonic()
        while self.waiting or self.suspects or self.out:
            if not self.waiting and not self.out:
                self.alone, self.waiting, self.suspects = True, self.suspects, deque()
            self._submit()
            finished = self._wait()
            if finished or self.cluster.threads():
                last_worker = time.monotonic()
            elif time.monotonic() - last_worker > WORKERS_S:
                raise self.cluster.nobody()
            for future in finished:
                yield from self._take(future, *self.out.pop(future))

    def _batch_up(self, threads: int) -> None:
        """Cut the cases into batches of one trace each, small enough that all workers end at about the same time."""
        size = max(1, min(BATCH, len(self.cases) // (4 * threads)))
        for _, group in itertools.groupby(range(len(self.cases)), key=lambda i: self.cases[i].trace.sha256):
            indices = tuple(group)
            self.waiting.extend(indices[first : first + size] for first in range(0, len(indices), size))

    def _submit(self) -> None:
        """Send batches until every thread has one at work and one to go on with."""
        while self.waiting and len(self.out) < (1 if self.alone else 2 * max(1, self.cluster.threads())):
            batch = self.waiting.popleft()
            trace = self.cases[batch[0]].trace
            if trace.sha256 not in self.cluster.sent:
                self.cluster.sent[trace.sha256] = self._send(trace)
            orders = [order_of(self.cases[i]) for i in batch]
            sent = self.cluster.sent[trace.sha256]
            self.out[self.client.submit(_run_batch, sent, orders, release(), pure=False)] = batch, sent

    def _send(self, trace: Trace) -> Future:
        """Bring ``trace`` to every worker that there is; later ones get it from these, once each."""
        trace.sha256  # noqa: B018 -- worked out here, so that it goes along
        until = time.monotonic() + WORKERS_S
        while True:
            try:
                sent: Future = self.client.scatter(trace, broadcast=True, hash=False, timeout=WORKERS_S)
                return sent
            except (OSError, TimeoutError):  # a worker that died on the way; the others are asked again
                if not self.cluster.threads() or time.monotonic() > until:
                    raise self.cluster.nobody() from None

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
                yield from self._done(batch, [(None, DIED)])
            else:
                self.suspects.extend((index,) for index in batch)
        except Exception as error:  # not a case's own, which is its outcome: the worker could not even begin
            raise self.cluster.unlike(error) from None
        else:
            yield from self._done(batch, found)

    def _put_back(self, batch: Batch, sent: Future) -> None:
        """Let ``batch`` be sent again: its trace went down with the last worker that had it, or the scheduler did."""
        if self.client.status not in ("running", "connecting"):
            raise self.cluster.gone()
        sha256 = self.cases[batch[0]].trace.sha256
        if self.cluster.sent.get(sha256) is sent:
            del self.cluster.sent[sha256]
        self.waiting.appendleft(batch)

    def _done(self, batch: Batch, found: Sequence[Done]) -> Generator[Finished, None, None]:
        for index, (text, error) in zip(batch, found, strict=True):
            yield self.cases[index], text, error
        sha256 = self.cases[batch[0]].trace.sha256
        self.left[sha256] -= len(batch)
        if not self.left[sha256] and not self.cluster.keeps_traces:  # not before: a lost result is worked out again
            self.cluster.sent.pop(sha256, None)


_desks = threading.local()  # a worker thread's own


def _run_batch(trace: Trace, orders: Sequence[Order], wanted: Mapping[str, str]) -> list[Done]:
    """Return (result as JSON, error) of each of ``orders``, on a worker. Raises VersionError for another release."""
    check_release(wanted)
    if not hasattr(_desks, "desk"):
        _desks.desk = Desk()
    return [_desks.desk.run(trace, order) for order in orders]
