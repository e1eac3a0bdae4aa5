"""A command that is killed outright loses nothing finished, and leaves no half of a file under a final name."""

import ast
import contextlib
import os
import random
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
from gossamer.simulator.store import Store
from gossamer.workloads.files.container import write_beside

FEW = ("--set", "network=mlp-100-100", "--set", "epochs=1", "--set", "sparsity=0.36", "--set", "rewind_step=2")
GRID = ("--grid", "pe_count=1,2,4,8,16", "--grid", "queue_depth=2,4,8")
ROOT = Path(gossamer.__file__).parent
# Run a command, and kill it where it writes a file for the given time: with half of it written, or just renamed.
CRASH = """
import os, signal, sys
from pathlib import Path
moment, count = sys.argv[1], int(sys.argv[2])
opened, renamed = Path.open, Path.replace
written = 0
class Half:
    def __init__(self, file):
        self.file = file
    def __enter__(self):
        return self
    def __exit__(self, *error):
        self.file.close()
    def __getattr__(self, name):
        return getattr(self.file, name)
    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
def open_(self, mode="r", *options, **more):
    global written
    file = opened(self, mode, *options, **more)
    if "w" not in mode:
        return file
    written += 1
    return Half(file) if written == count and moment == "half" else file
def replace(self, target):
    renamed(self, target)
    if written == count:
        os.kill(os.getpid(), signal.SIGKILL)
Path.open, Path.replace = open_, replace
from gossamer.__main__ import main
sys.exit(main(sys.argv[3:]))
"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def environment():
    return os.environ | {"PYTHONPATH": str(ROOT.parent)}


def stored(path):
    if not Path(path).exists():
        return 0
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as database:
        if not database.execute("select count(*) from sqlite_master").fetchone()[0]:
            return 0
        return database.execute("select count(*) from cases").fetchone()[0]


def stages_of(folder):
    """Return the files of a training that are there under their final names."""
    return {path.name: path.read_bytes() for path in Path(folder).rglob("*.safetensors") if path.name[0] != "."}


def killed(command, environment, seconds, ready=lambda: True):
    """Run ``command`` and kill it outright so long after it is ``ready``; return whether it was done before."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
    ) as process:
        while process.poll() is None and not ready():
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        done = process.poll() is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return done


def test_a_report_killed_at_random_moments_is_there_whole_or_not_at_all(environment):
    assert main(["sweep", "lenet-digits-imp", *GRID, "--store", "s.sqlite"]) == 0
    command = [sys.executable, "-m", "gossamer", "report", "s.sqlite", "--out", "out.html"]
    begin = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    whole, took = Path("out.html").read_bytes(), time.monotonic() - begin
    rng = random.Random(0)
    for moment in (rng.uniform(0.5, 1.05) for _ in range(3)):
        Path("out.html").write_bytes(b"the old one")
        done = killed(command, environment, took * moment)
        assert Path("out.html").read_bytes() in ((whole,) if done else (b"the old one", whole))
    assert stored("s.sqlite") == 15
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    assert Path("out.html").read_bytes() == whole


def test_a_training_killed_at_random_moments_loses_no_stage_that_was_finished(environment):
    arguments = ["train", "lenet-digits-imp", *FEW, "--out"]
    command = [sys.executable, "-m", "gossamer", *arguments]
    assert main([*arguments, "whole"]) == 0
    rng, kept = random.Random(1), {}
    for stages in range(1, 3):  # with so many stages there, somewhere in the next one
        killed(
            [*command, "broken"],
            environment,
            rng.uniform(0, 0.3),
            lambda least=stages: len(stages_of("broken")) >= least,
        )
        found = stages_of("broken")
        assert kept.items() <= found.items()
        kept = found
    assert main([*arguments, "broken"]) == 0
    files = {path.relative_to("whole"): path.read_bytes() for path in Path("whole").rglob("*.*") if path.is_file()}
    again = {path.relative_to("broken"): path.read_bytes() for path in Path("broken").rglob("*.*") if path.is_file()}
    assert files == {place: data for place, data in again.items() if not place.name.startswith(".")}


COMMANDS = {
    "simulate": (["simulate", "lenet-digits-imp", "--json", "out.json", "--csv", "out.csv"], 2),
    "compare": (["compare", "lenet-digits-imp", "lenet-digits-dense", "--json", "out.json", "--csv", "out.csv"],
                2),
    "export": (["export", "w.npz", "--act-density", "0.5", "--out", "out.safetensors"], 1),
    "plot": (["plot", "r.json", "--all", "plots", "--suffix", ".svg"], 3),
    "explore": (["explore", "lenet-digits-imp", "--grid", "pe_count=1,2,4", "--json", "out.json", "--csv", "out.csv"],
                2),
}  # fmt: skip


def files(place="."):
    return {str(path): path.read_bytes() for path in Path(place).rglob("*") if path.is_file() and path.name[0] != "."}


@pytest.mark.parametrize("moment", ["half", "renamed"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_killed_while_it_writes_leaves_whole_files_alone(command, moment, environment):
    assert main(["simulate", "lenet-digits-imp", "--json", "r.json"]) == 0
    np.savez("w.npz", fc=np.eye(8, dtype=np.float32))
    before = files()
    arguments, last = COMMANDS[command]
    assert main(arguments) == 0
    whole = {path: data for path, data in files().items() if path not in before}
    assert len(whole) >= last
    old = dict.fromkeys(whole, b"what was there")
    for path, data in old.items():
        Path(path).write_bytes(data)
    crashed = subprocess.run(
        [sys.executable, "-c", CRASH, moment, str(last), *arguments], env=environment, capture_output=True, check=False
    )
    assert crashed.returncode == -signal.SIGKILL, crashed.stderr
    found = files()
    written = [path for path in whole if found[path] == whole[path]]
    assert len(written) == last - (moment == "half")
    assert all(found[path] == old[path] for path in whole if path not in written)
    assert found.keys() == before.keys() | whole.keys()
    assert main(arguments) == 0
    assert files() == before | whole


def test_a_sweep_killed_at_random_moments_keeps_every_case_that_it_had(environment):
    command = ["sweep", "lenet-digits-imp", *GRID, "--store"]
    assert main([*command, "whole.sqlite"]) == 0
    rng, kept = random.Random(2), 0
    for least in (1, 5):
        killed(
            [sys.executable, "-m", "gossamer", *command, "broken.sqlite"],
            environment,
            rng.uniform(0, 0.02),
            lambda least=least: stored("broken.sqlite") >= least,
        )
        found = stored("broken.sqlite")
        assert found >= max(kept, least)
        kept = found
    assert main([*command, "broken.sqlite"]) == 0
    results = []
    for name in ("whole", "broken"):
        with Store(f"{name}.sqlite") as store:
            results.append([(case.settings, case.result.to_json()) for case in store.cases()])
    assert results[0] == results[1] and len(results[0]) == 15


def test_nothing_but_one_function_opens_a_file_to_write_it():
    """Then what holds for that function holds for every output."""
    writers = []
    for path in [ROOT / "__main__.py", *(p for part in ("workloads", "simulator", "models", "reports")
                                         for p in (ROOT / part).rglob("*.py"))]:  # fmt: skip
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = [getattr(each, "value", None) for each in (*node.args, *(word.value for word in node.keywords))]
            modes = [word for word in given if isinstance(word, str) and len(word) < 4 and set(word) & set("wax+")]
            if (name == "open" and modes) or name in ("write_bytes", "write_text", "tofile", "save_file", "dump"):
                writers.append((path.relative_to(ROOT).as_posix(), name))
    assert set(writers) == {("workloads/files/container.py", "open")}


def test_a_write_is_not_put_off_by_what_a_killed_one_has_left(tmp_path):
    path = tmp_path / "r.json"
    (tmp_path / f".r.json.{os.getpid()}.part").write_bytes(b"half")
    assert write_beside(path, b"whole").read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]
