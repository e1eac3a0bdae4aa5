"""Faults: what is finished stays, nothing half-written has a final name, and what is wrong is said in one line."""

import contextlib
import errno
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gossamer
from gossamer.__main__ import main
from gossamer.models import load_machine, vary
from gossamer.simulator import read_result
from gossamer.simulator.store import Store
from gossamer.simulator.sweep import Case, sweep
from gossamer.workloads import InputError, load_trace, save_trace
from gossamer.workloads.files import streamed

FEW = ("--set", "network=mlp-100-100", "--set", "epochs=1", "--set", "sparsity=0.36", "--set", "rewind_step=2")
GRID = ("--grid", "pe_count=1,2,4,8,16", "--grid", "queue_depth=2,4,8")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def environment():
    return os.environ | {"PYTHONPATH": str(Path(gossamer.__file__).parents[1])}


def refused(capsys, *arguments):
    """Run, expect status 2 and one line on standard error, and nothing half-written left behind."""
    status = main(list(map(str, arguments)))
    err = capsys.readouterr().err
    assert status == 2, err
    assert err.startswith("gossamer: error: ")
    assert err.count("\n") == 1, err
    assert not list(Path().rglob(".*.part"))
    return err.removeprefix("gossamer: error: ").rstrip()


@contextlib.contextmanager
def files_of_at_most(size):
    """Let no file grow beyond ``size`` bytes: what a full disk does, and the same to every way of writing."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


SIMULATE = ("simulate", "lenet-digits-imp", "--set", "pe_count=4", "--layer", "fc3")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((*SIMULATE, "--json"), "out.json"),
        ((*SIMULATE, "--csv"), "out.csv"),
        ((*SIMULATE, "--engine", "event", "--timeline"), "out.json"),
        ((*SIMULATE, "--engine", "event", "--timeline"), "out.vcd"),
        (("synth", "random", "--rows", 64, "--cols", 64, "--out"), "out.safetensors"),
        (("synth", "cad", "--out"), "out.ply"),
        (("report", "r.json", "--out"), "out.html"),
        (("plot", "r.json", "--kind", "summary", "--out"), "out.svg"),
        (("compare", "lenet-digits-imp", "lenet-digits-dense", "--csv"), "out.csv"),
        (("compare", "lenet-digits-imp", "lenet-digits-dense", "--json"), "out.json"),
        (("sweep", "lenet-digits-imp", "--grid", "pe_count=2,4", "--json"), "out.json"),
        (("sweep", "lenet-digits-imp", "--grid", "pe_count=2,4", "--csv"), "out.csv"),
        (("explore", "lenet-digits-imp", "--grid", "pe_count=2,4", "--json"), "out.json"),
        (("explore", "lenet-digits-imp", "--grid", "pe_count=2,4", "--csv"), "out.csv"),
        (("export", "w.npz", "--act-density", "0.5", "--out"), "out.safetensors"),
        (("transform", "unroll", "lstm.safetensors", "--out"), "out.safetensors"),
        (("synth", "gemm", "--rows", 8, "--reduction", 8, "--columns", 2, "--out"), "out.safetensors"),
        (("synth", "ese", "--out"), "out.safetensors"),
        (("sources", "--out"), "out.md"),
        (("validate", "spatten", "--json"), "out.json"),
        (("validate", "spatten", "--out"), "out.md"),
        (("plot", "r.json", "--suffix", ".svg", "--all"), "."),
        (("demo", "--out"), "."),
        (("train", "lenet-digits-imp", *FEW, "--out"), "."),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_on_a_full_disk_the_old_file_stays_and_no_half_of_a_new_one(capsys, arguments, name):
    assert main([*SIMULATE, "--json", "r.json"]) == 0
    if "w.npz" in arguments:
        np.savez("w.npz", fc=np.eye(8, dtype=np.float32))
    if "lstm.safetensors" in arguments:
        assert main(["synth", "ese", "--out", "lstm.safetensors"]) == 0
    capsys.readouterr()
    if name != ".":
        Path(name).write_bytes(b"what was there")
    before = sorted(Path().rglob("*"))
    with files_of_at_most(64):
        said = refused(capsys, *arguments, name)
    assert "File too large" in said
    assert name == "." or Path(name).read_bytes() == b"what was there"
    left = [path for path in Path().rglob("*") if path not in before and path.is_file()]
    assert left == []


@pytest.mark.parametrize("size", [64, 40_000])
def test_a_store_on_a_full_disk_keeps_the_cases_that_it_has(capsys, size):
    sweep_ = ["sweep", "lenet-digits-imp", *GRID, "--store", "s.sqlite"]
    with files_of_at_most(size):
        said = refused(capsys, *sweep_)
    assert "s.sqlite: a " in said
    kept = stored("s.sqlite")
    assert kept < 15
    assert main([*sweep_, "--json", "-"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == stored("s.sqlite") == 15


def stored(path):
    if not Path(path).exists():
        return 0
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as database:
        if not database.execute("select count(*) from sqlite_master").fetchone()[0]:
            return 0
        return database.execute("select count(*) from cases").fetchone()[0]


def test_a_disk_that_fills_while_a_file_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "t.safetensors"
    before = save_trace(load_trace("lenet-digits-imp"), path).read_bytes()

    opened = Path.open

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            self.file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(self, mode="r", *options, **more):
        file = opened(self, mode, *options, **more)
        return Full(file) if "w" in mode else file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InputError) as caught:
        save_trace(load_trace("lenet-digits-dense"), path)
    assert str(caught.value) == (
        f"{path}: the output must be writable, and No space left on device; choose a folder and a name that are"
    )
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 KiB, full but for a page."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("a file system can be mounted by root alone")
    try:
        (place / "ballast").write_bytes(bytes(60 << 10))
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full_is_named(capsys, tiny_disk):
    out = tiny_disk / "r.json"
    assert "No space left on device" in refused(capsys, *SIMULATE, "--json", out)
    assert not out.exists()
    assert "s.sqlite: a " in refused(capsys, "sweep", "lenet-digits-imp", *GRID, "--store", tiny_disk / "s.sqlite")
    (tiny_disk / "ballast").unlink()
    assert main([*SIMULATE, "--json", str(out)]) == 0
    assert read_result(out).layers[0].name == "fc3"


@pytest.fixture
def read_only(tmp_path):
    """A folder with a store and a result that cannot be written, not by root either."""
    place = tmp_path / "shut"
    place.mkdir()
    assert main([*SIMULATE, "--json", str(place / "r.json")]) == 0
    assert main(["sweep", "lenet-digits-imp", "--grid", "pe_count=2,4", "--store", str(place / "s.sqlite")]) == 0
    mounted = os.geteuid() == 0
    if mounted:
        done = [
            subprocess.run(["mount", *words, place], capture_output=True, check=False).returncode
            for words in (["--bind", place], ["-o", "remount,bind,ro"])
        ]
        if any(done):
            subprocess.run(["umount", place], capture_output=True, check=False)
            pytest.skip("a folder is writable to root whatever its mode, and nothing can be mounted here")
    else:
        place.chmod(0o500)
    try:
        yield place
    finally:
        if mounted:
            subprocess.run(["umount", place], check=True)
        else:
            place.chmod(0o700)


def test_a_read_only_folder_is_named_and_what_lies_in_it_can_be_shown(capsys, read_only):
    capsys.readouterr()
    for arguments in (
        (*SIMULATE, "--json", read_only / "new.json"),
        (*SIMULATE, "--csv", read_only / "r.json"),
        ("train", "lenet-digits-imp", *FEW, "--out", read_only),
        ("report", read_only / "r.json", "--out", read_only / "r.html"),
        ("sweep", "lenet-digits-imp", "--grid", "pe_count=1,8", "--store", read_only / "s.sqlite"),
        ("demo", "--out", read_only / "demo"),
    ):
        assert str(read_only) in refused(capsys, *arguments)
    assert main(["report", str(read_only / "r.json"), str(read_only / "s.sqlite"), "--out", "out.html"]) == 0
    assert main(["results", str(read_only / "s.sqlite"), "--json", "-"]) == 0
    assert sorted(path.name for path in read_only.iterdir()) == ["r.json", "s.sqlite"]


def test_two_sweeps_on_one_store_both_end_and_no_case_is_there_twice(environment):
    grids = [("pe_count=1,2,4,8,16", "queue_depth=2,4,8"), ("pe_count=4,8,16,32", "queue_depth=2,4,8")]
    commands = [
        [sys.executable, "-m", "gossamer", "sweep", "lenet-digits-imp", *(f"--grid={one}" for one in grid),
         "--store", "s.sqlite", "--csv", f"{name}.csv"]
        for name, grid in zip("ab", grids, strict=True)
    ]  # fmt: skip
    started = [
        subprocess.Popen(c, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) for c in commands
    ]
    for process in started:
        err = process.communicate(timeout=60)[1]
        assert process.returncode == 0, err
    assert [len(Path(f"{name}.csv").read_text().splitlines()) for name in "ab"] == [16, 13]
    assert stored("s.sqlite") == 5 * 3 + 4 * 3 - 3 * 3
    alone = [line.split(",")[:40] for line in Path("a.csv").read_text().splitlines()]
    assert main(["sweep", "lenet-digits-imp", *GRID, "--csv", "alone.csv"]) == 0
    assert alone == [line.split(",")[:40] for line in Path("alone.csv").read_text().splitlines()]


def test_a_store_that_another_has_just_begun_is_joined(tmp_path):
    with Store(tmp_path / "s.sqlite") as one, Store(tmp_path / "s.sqlite") as other:
        one.save("k", "t", "m", "{}", None, "one")
        other.save("k", "t", "m", "{}", None, "other")
        assert [case.error for case in one.cases()] == ["other"]


class Clock:
    """A clock that goes backwards, ever faster."""

    def __init__(self):
        self.now, self.step = 2e9, 1.0

    def __call__(self):
        self.now, self.step = self.now - self.step, self.step * 2
        return self.now


def test_a_sweep_does_not_mind_a_clock_that_goes_backwards(tmp_path, monkeypatch):
    machine = load_machine("eie-64pe")
    trace = load_trace("lenet-digits-imp")
    cases = [Case(trace, vary(machine, pe_count=count), {"pe_count": count}) for count in (1, 2, 4)]
    expected = [outcome.result.to_json() for outcome in sweep(cases)]
    monkeypatch.setattr(time, "time", Clock())
    with Store(tmp_path / "s.sqlite") as store:
        assert [outcome.result.to_json() for outcome in sweep(cases[:2], store=store)] == expected[:2]
    os.utime(tmp_path / "s.sqlite", (0, 0))
    ran = []
    with Store(tmp_path / "s.sqlite") as store:
        found = sweep(cases, store=store, progress=lambda done, in_all: ran.append(done))
    assert [outcome.result.to_json() for outcome in found] == expected
    assert ran == [3]


@pytest.mark.parametrize("moment", [0, 10**9, 4 * 10**9])
def test_a_file_from_any_time_is_streamed_alike_and_a_change_of_it_is_noticed(tmp_path, monkeypatch, moment):
    monkeypatch.setattr(time, "time", Clock())
    path = save_trace(load_trace("lenet-digits-imp"), tmp_path / "t.safetensors")
    os.utime(path, (moment, moment))
    trace = streamed.stream_trace(streamed.StreamedContainer(path))
    assert trace.sha256 == load_trace("lenet-digits-imp").sha256
    os.utime(path, (moment - 1, moment - 1) if moment else (5, 5))
    with pytest.raises(InputError, match="must stay as it is while it is read, and changed; start again"):
        trace.layers[0]
