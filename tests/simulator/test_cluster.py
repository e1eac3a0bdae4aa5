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
from gossamer.reports.explore import figures_of
from gossamer.simulator.cluster import check_address
from gossamer.simulator.design_search import search
from gossamer.simulator.release import release
from gossamer.simulator.space import Space
from gossamer.simulator.store import Store
from gossamer.simulator.sweep import Case, grid_points, sweep
from gossamer.workloads import InputError
from gossamer.workloads.synth import random_layer

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="dask is not installed; the extra cluster brings it"
)
# Runs in each worker when it starts: notes every trace that arrives, and dies of a trace called killer. May pretend to
# be of another release, or to have no gossamer.
PRELOAD = """
import json, os, sys
if os.environ.get("PRETEND") == "nothing":
    for name in [name for name in sys.modules if name.partition(".")[0] == "gossamer"]:
        del sys.modules[name]
    sys.modules["gossamer"] = None
else:
    import arrive_gossamer
"""
PRELOAD_GOSSAMER = """
import json, os
from gossamer.simulator import cases, release
from gossamer.workloads.trace import Trace

pretended = json.loads(os.environ["RELEASE"]) | json.loads(os.environ.get("PRETEND", "{}"))
release.release = lambda: pretended

def arrive(trace, state):
    trace.__dict__.update(state)
    with open("arrivals", "a") as file:
        file.write(f"{os.getpid()} {trace.name}\\n")

def simulate(machine, trace, _simulate=cases.simulate, **options):
    if trace.name == "killer":
        os._exit(1)
    return _simulate(machine, trace, **options)

Trace.__setstate__ = arrive
cases.simulate = simulate
"""


class Cluster:
    """A scheduler and ``count`` worker processes of one thread each, on loopback, that work in ``folder``."""

    def __init__(self, folder, count, port=0, **environment):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "arrive.py").write_text(PRELOAD)
        (folder / "arrive_gossamer.py").write_text(PRELOAD_GOSSAMER)
        paths = [str(Path(gossamer.__file__).parents[1]), str(folder), os.environ.get("PYTHONPATH", "")]
        # Who connects to a process that has just died tries for so long; by default 30 s.
        self.environment = os.environ | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}
        self.environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "RELEASE": json.dumps(release())}
        self.environment |= environment
        where = folder / "scheduler.json"
        self.processes = [self.start("scheduler", "--port", str(port), "--scheduler-file", where)]
        waited = time.monotonic() + 30
        while not where.exists() or not where.read_text():
            assert time.monotonic() < waited, "the scheduler does not start"
            time.sleep(0.05)
        self.address = json.loads(where.read_text())["address"]
        self.workers = []
        for _ in range(count):
            self.add_worker()

    def add_worker(self, **environment):
        self.environment |= environment
        options = ("--no-nanny", "--nthreads", "1", "--preload", self.folder / "arrive.py", self.address)
        self.workers.append(self.start("worker", *options))
        self.processes.append(self.workers[-1])

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
            waited = time.monotonic() + 30
            while len(client.nthreads()) < len(self.workers):
                assert time.monotonic() < waited, "the workers do not come"
                time.sleep(0.05)
        return self

    def drops_replicas(self, within_s=0):
        """Tell whether Dask's memory manager is at work, or comes to be within so long."""
        from distributed import Client

        waited = time.monotonic() + within_s
        with Client(self.address, set_as_default=False) as client:
            while not client.amm.running() and time.monotonic() < waited:
                time.sleep(0.05)
            return client.amm.running()

    def arrivals(self):
        """Return (process id, trace) of each trace that reached a worker."""
        return [tuple(line.split()) for line in (self.folder / "arrivals").read_text().splitlines()]

    def stop(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


@contextlib.contextmanager
def running(folder, count, **options):
    cluster = Cluster(folder, count, **options)
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
    # Dask's memory manager would drop a trace wherever no case waits for it; made to look all the time, it would here.
    often = {"DASK_DISTRIBUTED__SCHEDULER__ACTIVE_MEMORY_MANAGER__INTERVAL": "10ms"}
    with running(tmp_path, 2, **often) as cluster, Store(tmp_path / "shared.sqlite") as store:
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
        assert cluster.drops_replicas(within_s=10)  # again, as before
    assert seen == [(n, 400) for n in range(1, 401)]
    assert sorted(saved) == sorted({case.key for case in all_cases})
    assert all(outcome.error is None for outcome in outcomes)
    assert rows(tmp_path / "shared.sqlite") == rows(tmp_path / "alone.sqlite")
    # Each trace came to each worker once at most, for all of its batches.
    assert len(arrivals) == len(set(arrivals))
    assert {name for _, name in arrivals} == {"layer1", "layer2"}
    assert len({process for process, name in arrivals if name == "layer1"}) == 2


@needs_dask
def test_a_client_killed_outright_leaves_the_memory_manager_as_the_last_of_them_found_it(tmp_path):
    script = (
        "import sys, time, arrive_gossamer; from gossamer.simulator.cluster import Cluster\n"
        "cluster = Cluster(sys.argv[1]); cluster.wait(); print('here', flush=True); time.sleep(60)\n"
    )
    with running(tmp_path, 1) as cluster:
        assert cluster.drops_replicas()
        clients = [
            subprocess.Popen([sys.executable, "-c", script, cluster.address], env=cluster.environment,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for _ in range(2)
        ]  # fmt: skip
        try:
            assert [client.stdout.readline() for client in clients] == ["here\n"] * 2
            assert not cluster.drops_replicas()
            clients[0].kill()
            clients[0].wait()
            assert not cluster.drops_replicas(within_s=1)  # the other still needs what it sent
            clients[1].kill()
            clients[1].wait()
            assert cluster.drops_replicas(within_s=20)
        finally:
            for client in clients:
                client.kill()
                client.wait()
                client.stdout.close()


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


@needs_dask
def test_a_search_keeps_its_workers_and_their_traces_from_round_to_round(tmp_path):
    pytest.importorskip("optuna", reason="optuna is not installed; the extra explore brings it")
    traces = [random_layer(30, 40, 0.2, 0.4, seed=seed, name=f"layer{seed}") for seed in (1, 2)]
    values = {"pe_count": range(1, 33), "queue_depth": range(2, 18)}
    space = Space(traces, [load_machine("eie-64pe")], values, vary, frozenset(values))
    with running(tmp_path, 2) as cluster:
        shared = search(space, figures_of, 70, cluster=cluster.address)
        arrivals = cluster.arrivals()
    assert len(arrivals) == len(set(arrivals))
    assert {name for _, name in arrivals} == {"layer1", "layer2"}
    alone = search(space, figures_of, 70)
    assert [outcome.case.key for outcome in shared.outcomes] == [outcome.case.key for outcome in alone.outcomes]
    assert all(outcome.error is None for outcome in shared.outcomes)


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
def test_a_scheduler_lost_in_mid_sweep_is_one_error_and_the_same_sweep_goes_on_from_there(tmp_path, monkeypatch):
    import dask

    monkeypatch.setattr("gossamer.simulator.cluster.ANSWER_S", 2)
    all_cases = cases([random_layer(500, 600, 0.2, 0.4, name="layer")], pe_count=[1, 4, 16], queue_depth=range(2, 52))
    path = tmp_path / "s.sqlite"
    with running(tmp_path / "first", 1) as cluster:
        address = cluster.address

        def kill(done, in_all):
            if done == 40:
                cluster.processes[0].kill()
                cluster.processes[0].wait()

        with (
            dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
            Store(path) as store,
            pytest.raises(InputError) as caught,
        ):
            sweep(all_cases, store=store, cluster=address, progress=kill)
    assert str(caught.value) == (
        f"{address}: the scheduler must stay until the sweep is done, and is gone; start it, then resume"
    )
    kept = len(rows(path))
    assert 40 <= kept < 150
    seen = []
    with running(tmp_path / "second", 1, port=int(address.rpartition(":")[2])) as cluster, Store(path) as store:
        assert cluster.address == address
        outcomes = sweep(all_cases, store=store, cluster=address, progress=lambda done, in_all: seen.append(done))
    assert seen == list(range(kept + 1, 151))
    assert all(outcome.error is None for outcome in outcomes)


@needs_dask
def test_a_cluster_without_a_worker_is_an_error_of_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gossamer.simulator.cluster.WORKERS_S", 1)
    with running(tmp_path, 0) as cluster:
        status = main(["sweep", "lenet-digits-imp", "--grid", "pe_count=1,2", "--cluster", cluster.address])
    assert status == 2
    assert capsys.readouterr().err == (
        f"gossamer: error: {cluster.address}: the cluster must have a worker within 1 s, and has none; start one with "
        f"dask worker {cluster.address}\n"
    )


@needs_dask
@pytest.mark.parametrize(
    ("pretend", "message"),
    [
        ('{"gossamer": "0.0.9"}', f"every worker must have gossamer {gossamer.__version__}, and one has 0.0.9; install "
         "the same there"),
        ('{"numpy": "1.26"}', f"every worker must have numpy {release()['numpy']}, and one has 1.26; install the same "
         "there"),
        ("nothing", f"every worker must have gossamer {gossamer.__version__}, and one says ModuleNotFoundError("
         "\"No module named 'gossamer.simulator'; 'gossamer' is not a package\"); install it there"),
    ],
)  # fmt: skip
def test_a_worker_of_another_release_is_refused_before_it_runs_anything(tmp_path, capsys, pretend, message):
    store = tmp_path / "s.sqlite"
    with running(tmp_path, 1, PRETEND=pretend) as cluster:
        status = main(["sweep", "lenet-digits-imp", "--grid", "pe_count=1,2", "--cluster", cluster.address,
                       "--store", str(store)])  # fmt: skip
    assert status == 2
    assert capsys.readouterr().err == f"gossamer: error: {cluster.address}: {message}\n"
    assert rows(store) == []
    assert not (tmp_path / "arrivals").exists()


@needs_dask
def test_a_worker_of_another_release_that_comes_late_is_refused_too(tmp_path, monkeypatch):
    monkeypatch.setattr("gossamer.simulator.cluster.BATCH", 2)  # many batches, so that it gets one
    all_cases = cases([random_layer(300, 400, 0.2, 0.4, name="layer")], queue_depth=range(2, 202))
    with running(tmp_path, 1) as cluster:

        def add(done, in_all):
            if done == 10:
                cluster.add_worker(PRETEND='{"Python": "2.7"}')
                cluster.wait()

        with pytest.raises(InputError) as caught:
            sweep(all_cases, cluster=cluster.address, progress=add)
    assert str(caught.value) == (
        f"{cluster.address}: every worker must have Python {release()['Python']}, and one has 2.7; install the same "
        "there"
    )


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
