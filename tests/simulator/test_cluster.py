"""Sweeps on a Dask cluster: a real scheduler, real worker processes, some of them killed."""

import contextlib
import importlib.util
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gossamer
from gossamer.__main__ import main
from gossamer.models import load_machine, vary
from gossamer.simulator.cluster import check_address
from gossamer.simulator.store import Store
from gossamer.simulator.sweep import Case, grid_points, sweep
from gossamer.workloads import InputError
from gossamer.workloads.synth import random_layer

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="dask is not installed; the extra cluster brings it"
)
# Runs in each worker when it starts: notes every trace that arrives, and dies of a trace called killer.
PRELOAD = """
import os
from gossamer.simulator import cluster
from gossamer.workloads.trace import Trace

def arrive(trace, state):
    trace.__dict__.update(state)
    with open("arrivals", "a") as file:
        file.write(f"{os.getpid()} {trace.name}\\n")

def simulate(machine, trace, _simulate=cluster.simulate, **options):
    if trace.name == "killer":
        os._exit(1)
    return _simulate(machine, trace, **options)

Trace.__setstate__ = arrive
cluster.simulate = simulate
"""


class Cluster:
    """A scheduler and ``count`` worker processes of one thread each, on loopback, that work in ``folder``."""

    def __init__(self, folder, count, **environment):
        self.folder = folder
        (folder / "arrive.py").write_text(PRELOAD)
        paths = [str(Path(gossamer.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        self.environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | environment
        where = folder / "scheduler.json"
        self.processes = [self.start("scheduler", "--port", "0", "--scheduler-file", where)]
        waited = time.monotonic() + 30
        while not where.exists() or not where.read_text():
            assert time.monotonic() < waited, "the scheduler does not start"
            time.sleep(0.05)
        self.address = json.loads(where.read_text())["address"]
        options = ("--no-nanny", "--nthreads", "1", "--preload", folder / "arrive.py", self.address)
        self.workers = [self.start("worker", *options) for _ in range(count)]
        self.processes += self.workers

    def start(self, what, *options):
        module = f"distributed.cli.dask_{what}"
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, "--host", "127.0.0.1", "--no-dashboard", *map(str, options)],
                cwd=self.folder, env=self.environment, stdout=log, stderr=log,
            )  # fmt: skip

    def wait(self):
        """Return when all workers have come."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(len(self.workers), timeout=30)
        return self

    def arrivals(self):
        """Return (process id, trace) of each trace that reached a worker."""
        return [tuple(line.split()) for line in (self.folder / "arrivals").read_text().splitlines()]

    def stop(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


@contextlib.contextmanager
def running(folder, count, **environment):
    cluster = Cluster(folder, count, **environment)
    try:
        yield cluster.wait()
    finally:
        cluster.stop()


def cases(traces, **grid):
    machine = load_machine("eie-64pe")
    points = [(point, vary(machine, **point)) for point in grid_points(grid)]
    return [Case(trace, varied, point) for trace in traces for point, varied in points]


def rows(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute("select * from cases order by key").fetchall()


@needs_dask
def test_a_worker_killed_in_mid_sweep_loses_nothing_and_nothing_is_stored_twice(tmp_path):
    traces = [random_layer(500, 600, 0.2, 0.4, seed=seed, name=f"layer{seed}") for seed in (1, 2)]
    all_cases = cases(traces, pe_count=[1, 4, 16, 64], queue_depth=list(range(2, 27)), entries_per_row=[4, 8])
    with Store(tmp_path / "alone.sqlite") as store:
        sweep(all_cases, store=store)
    seen, saved = [], []
    with running(tmp_path, 2) as cluster, Store(tmp_path / "shared.sqlite") as store:
        keep = store.save
        store.save = lambda key, *rest: (saved.append(key), keep(key, *rest))

        def kill(done, in_all):
            seen.append((done, in_all))
            if done == 60:
                assert cluster.workers[0].poll() is None
                cluster.workers[0].kill()

        outcomes = sweep(all_cases, store=store, cluster=cluster.address, progress=kill)
        assert cluster.workers[0].poll() == -9
        assert cluster.workers[1].poll() is None
        arrivals = cluster.arrivals()
    assert seen == [(n, 400) for n in range(1, 401)]
    assert sorted(saved) == sorted({case.key for case in all_cases})
    assert all(outcome.error is None for outcome in outcomes)
    assert rows(tmp_path / "shared.sqlite") == rows(tmp_path / "alone.sqlite")
    # Each trace came to each worker once at most, for all of its batches.
    assert len(arrivals) == len(set(arrivals))
    assert {name for _, name in arrivals} == {"layer1", "layer2"}
    assert len({process for process, name in arrivals if name == "layer1"}) == 2


@needs_dask
def test_a_case_that_kills_its_workers_fails_alone_and_a_failing_one_says_why(tmp_path):
    killer = random_layer(20, 30, 0.2, 0.4, name="killer")
    good = random_layer(20, 30, 0.2, 0.4, name="good")
    all_cases = [*cases([good], queue_depth=[2, 3, 4]), Case(good, load_machine("eie-64pe"), layers="none"),
                 *cases([killer], queue_depth=[2])]  # fmt: skip
    with running(tmp_path, 3, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as cluster:
        outcomes = sweep(all_cases, cluster=cluster.address)
    assert [outcome.error for outcome in outcomes] == [
        None, None, None,
        "InputError: good: layer pattern 'none' must fit at least one of its layers: good",
        "WorkerDied: the workers that ran this case were killed, one after another (out of memory?)",
    ]  # fmt: skip


@pytest.mark.parametrize("address", ["", "localhost", "tcp://localhost", "tcp://:8786", "tcp://a:0", "http://a:1",
                                     "tcp://a:99999", "tcp://a b:1"])  # fmt: skip
def test_an_address_that_is_none_is_refused_in_one_line(address):
    with pytest.raises(InputError) as caught:
        check_address(address)
    assert str(caught.value) == (
        f"--cluster must be tcp://HOST:PORT, not {address!r}; a scheduler prints its own when it starts"
    )


@pytest.mark.parametrize("address", ["tcp://localhost:8786", "tls://10.0.0.1:1", "tcp://[::1]:8786"])
def test_an_address_as_a_scheduler_prints_it_is_taken(address):
    check_address(address)


@needs_dask
def test_a_scheduler_that_is_not_there_is_an_error_of_one_line(capsys, monkeypatch):
    monkeypatch.setattr("gossamer.simulator.cluster.ANSWER_S", 1)
    with socket.socket() as held:  # bound, and nobody listens
        held.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{held.getsockname()[1]}"
        status = main(["sweep", "lenet-digits-imp", "--grid", "pe_count=1,2", "--cluster", address])
    assert status == 2
    assert capsys.readouterr().err == (
        f"gossamer: error: {address}: a Dask scheduler must answer there within 1 s, and none does; start one with "
        "dask scheduler, or check the address\n"
    )
