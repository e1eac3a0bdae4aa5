"""Sweeps: the same outcomes however they are run, and nothing finished is lost."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import msgspec
import numpy as np
import pytest

from gossamer.__main__ import main
from gossamer.models import load_machine, vary
from gossamer.simulator import pool, simulate
from gossamer.simulator.store import Store
from gossamer.simulator.sweep import Case, grid_points, sweep
from gossamer.workloads import InputError, Layer, Trace


def trace(seed=0, rows=60, cols=40):
    rng = np.random.default_rng(seed)
    weight = ((rng.random((rows, cols)) < 0.3) * rng.normal(size=(rows, cols))).astype(np.float32)
    inputs = ((rng.random((2, cols)) < 0.5) * rng.random((2, cols))).astype(np.float32)
    return Trace(name=f"trace{seed}", layers=(Layer(name="fc", op="linear", weight=weight, inputs=inputs),))


def cases(points, traces=None, **grid):
    machine = load_machine("eie-64pe")
    return [
        Case(one, vary(machine, **point), point) for one in traces or [trace()] for point in points or grid_points(grid)
    ]


GRID = {"queue_depth": [2, 8], "pe_count": [1, 4, 16], "entries_per_row": [4, 8], "index_bits": [3, 4]}


def test_a_grid_is_every_combination_the_last_name_fastest():
    assert grid_points({"a": [1, 2], "b": ["x", "y"]}) == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"},
    ]  # fmt: skip


def test_each_point_is_what_simulating_it_alone_gives():
    traces = [trace(1), trace(2)]
    for outcome in sweep(cases(grid_points(GRID), traces)):
        alone = simulate(outcome.case.machine, outcome.case.trace)
        assert msgspec.to_builtins(outcome.result) == msgspec.to_builtins(alone)


def test_worker_processes_give_the_same_outcomes_in_the_same_order():
    all_cases = cases(grid_points(GRID), [trace(1), trace(2)])
    one, two = sweep(all_cases), sweep(all_cases, workers=2)
    assert [msgspec.to_builtins(o.result) for o in one] == [msgspec.to_builtins(o.result) for o in two]


def test_a_sweep_resumes_where_it_was_interrupted(tmp_path):
    all_cases = cases(grid_points(GRID))
    path = tmp_path / "results.sqlite"
    seen = []

    def interrupt(done, in_all):
        seen.append((done, in_all))
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Store(path) as store:
        sweep(all_cases, store=store, progress=interrupt)
    with Store(path) as store:
        assert len(store.finished(case.key for case in all_cases)) == 7
        resumed = sweep(all_cases, store=store, progress=lambda done, in_all: seen.append((done, in_all)))
    assert seen == [(n, 24) for n in range(1, 25)]
    assert [o.result.to_dict() for o in resumed] == [o.result.to_dict() for o in sweep(all_cases)]


def test_a_case_that_fails_is_recorded_and_tried_again_and_stops_nobody(tmp_path):
    # A convolution-less EIE has no rule for this op, because no reader can make it: damage a layer behind its back.
    broken = trace(3)
    object.__setattr__(broken.layers[0], "inputs", np.zeros((2, 7), np.float32))
    good = trace(4)
    machine = load_machine("eie-64pe")
    with Store(tmp_path / "s.sqlite") as store:
        for _ in range(2):
            outcomes = sweep([Case(broken, machine), Case(good, machine)], store=store)
            assert outcomes[0].result is None
            assert outcomes[0].error
            assert outcomes[1].error is None
            assert store.finished([outcomes[0].case.key]) == set()


class Killer(Trace):
    """A trace that ends the process that simulates it."""

    @property
    def sparsity(self):
        os._exit(1)


def test_a_worker_that_dies_costs_only_the_case_that_killed_it():
    killer = Killer(name="killer", layers=trace(5).layers)
    machine = load_machine("eie-64pe")
    all_cases = [*cases(grid_points(GRID)), Case(killer, machine)]
    outcomes = sweep(all_cases, workers=2)
    assert outcomes[-1].error == "WorkerDied: the process that ran this case was killed (out of memory?)"
    assert all(outcome.error is None for outcome in outcomes[:-1])


SCRIPT = """
import os
import numpy as np
from gossamer.models import load_machine
from gossamer.simulator.sweep import Case, sweep
from gossamer.workloads import Layer, Trace

def run():
    weight = np.eye(200, dtype=np.float32)  # more bytes than a pipe holds
    trace = Trace(name="eye", layers=[Layer(name="fc", op="linear", weight=weight, inputs=weight[:1])])
    cases = [Case(trace, load_machine("eie-64pe", queue_depth=depth)) for depth in range(2, {cases})]
    print(*{{outcome.error for outcome in sweep(cases, workers=2)}})

"""


def run_script(path, ending, cases=6):
    path.write_text(SCRIPT.format(cases=cases) + ending)
    return subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("cases", [4, 2000])
def test_a_script_that_its_workers_would_run_again_is_told_so_in_one_line(tmp_path, cases):
    done = run_script(tmp_path / "mine.py", "run()", cases)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.splitlines()[-1] == (
        f"gossamer.workloads.errors.InputError: {tmp_path / 'mine.py'}: each worker process runs this file, so what "
        'starts workers must stand under if __name__ == "__main__":, and does not; put it there, or take workers=1'
    )
    assert done.stderr.count("Traceback") == 1  # the workers say nothing


def test_a_script_that_asks_whether_it_is_the_program_has_its_workers(tmp_path):
    done = run_script(tmp_path / "mine.py", 'if __name__ == "__main__":\n    run()')
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")


def test_workers_that_die_before_they_have_begun_end_a_sweep(tmp_path):
    done = run_script(tmp_path / "mine.py", 'if __name__ == "__main__":\n    run()\nelse:\n    os._exit(1)', 4)
    assert (done.returncode, done.stdout) == (
        0,
        "WorkerDied: the process that ran this case was killed (out of memory?)\n",
    )


def test_each_worker_meets_the_traces_of_a_sweep_one_after_another():
    all_cases = cases(grid_points({"queue_depth": [2, 8]}), [trace(seed) for seed in range(7)])
    one, two = sweep(all_cases), sweep(all_cases, workers=2)
    assert [msgspec.to_builtins(o.result) for o in one] == [msgspec.to_builtins(o.result) for o in two]


def test_a_key_depends_on_all_that_the_result_depends_on():
    base = Case(trace(), load_machine("eie-64pe"))
    others = [
        Case(trace(1), load_machine("eie-64pe")),
        Case(trace(), load_machine("eie-64pe", queue_depth=9)),
        Case(trace(), load_machine("eie-64pe", energy="eie-45nm-event")),
        Case(trace(), load_machine("eie-64pe"), engine="event"),
        Case(trace(), load_machine("eie-64pe"), layers="f*"),
    ]
    assert len({base.key, *(other.key for other in others)}) == 6
    assert Case(trace(), load_machine("eie-64pe")).key == base.key


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"not a database" * 100), "a store must be a writable SQLite file: "),
        (lambda path: path.mkdir(), "a store must be a writable SQLite file: "),
        (lambda path: sqlite3.connect(path).execute("pragma user_version = 99").connection.close(),
         "store version must be at most 1, not 99; upgrade gossamer"),
        (lambda path: sqlite3.connect(path).execute("create table mine (a)").connection.close(),
         "a store must be a file that gossamer made, and this database has other tables; choose another"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path, make, message):
    path = tmp_path / "s.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(InputError) as caught:
        Store(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_damaged_row_is_named_with_its_store(tmp_path):
    path = tmp_path / "s.sqlite"
    all_cases = cases(grid_points({"pe_count": [1, 2]}))
    with Store(path) as store:
        sweep(all_cases, store=store)
    database = sqlite3.connect(path)
    database.execute("update cases set result = '{\"schema\": 3'")
    database.commit()
    database.close()
    with Store(path) as store, pytest.raises(InputError) as caught:
        sweep(all_cases, store=store)
    assert str(caught.value).startswith(f"{path}: a stored result is damaged: ")


def test_a_foreign_table_of_the_same_name_is_refused(tmp_path):
    path = tmp_path / "s.sqlite"
    for version in (0, 1):
        path.unlink(missing_ok=True)
        database = sqlite3.connect(path)
        database.execute("create table cases (a)")
        database.execute(f"pragma user_version = {version}")
        database.commit()
        database.close()
        with pytest.raises(InputError) as caught:
            Store(path)
        assert "this database has other tables" in str(caught.value)


def test_progress_tells_rate_and_remaining_time_at_a_terminal_and_nothing_elsewhere(monkeypatch, capsys):
    grid = ["sweep", "lenet-digits-imp", "--grid", "queue_depth=2,3,4,5,6,7"]
    assert main(grid) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    assert main(grid) == 0
    shown = capsys.readouterr().err
    assert "6/6" in shown
    assert "cases/s" in shown


@pytest.mark.parametrize("other_threads", [0, 1])
def test_an_interrupt_while_workers_start_is_heard_when_they_have(other_threads):
    """Whichever thread the system hands it to: with the first one blocked, it chooses another where there is one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background of a shell
    over = threading.Event()
    threads = [threading.Thread(target=over.wait) for _ in range(other_threads)]
    reached = False
    try:
        for thread in threads:
            thread.start()
        with pytest.raises(KeyboardInterrupt), pool._interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            reached = True
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        over.set()
        for thread in threads:
            thread.join()
        signal.signal(signal.SIGINT, before)
    assert reached


def test_an_interrupt_that_is_ignored_stays_so_while_workers_start():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pool._interrupts_held():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
