"""Hostile input: a few cases of every target of `benchmarks/fuzz.py`."""

import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from gossamer.workloads import InputError

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
FEW = {
    "command-line": 12, "config": 40, "config-event": 3, "plots": 2, "checkpoint": 5, "npz": 10, "store": 15,
    "checked": 3, "timeline": 4, "training": 4, "shown": 5, "space": 8,
}  # fmt: skip
COMPILED = ("config", "config-event", "range", "numbers", "checked", "timeline")  # as they are met, not before


@pytest.fixture(scope="module")
def fuzz():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import fuzz

        sys.addaudithook(fuzz._audit)  # which watches only while a case runs
        yield fuzz
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in [name for name in sys.modules if name == "fuzz" or name.startswith("fuzz_")]:
            del sys.modules[name]


NAMES = (
    "trace", "trace-streamed", "masked", "masked-streamed", "npz", "mtx", "smtx", "dump", "cloud", "mesh", "weights",
    "data",
    "layer", "machine", "name", "recipe", "energy", "ert", "result", "plots", "store", "checkpoint", "config",
    "config-event",
    "range", "command-line", "state-dict", "shards", "onnx", "onnx-program", "numbers", "checked", "timeline",
    "synth", "transform", "points", "cloud-values", "drawn", "samples",
    "space", "job", "training", "address", "shown", "compared",
)  # fmt: skip


def test_no_target_is_left_out(fuzz):
    assert sorted(fuzz.targets()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_hostile_input_is_refused_in_one_line_or_read(fuzz, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    if name.startswith("onnx"):
        pytest.importorskip("onnx", reason="a model of ONNX needs the extra onnx")
    if name not in COMPILED:
        fuzz.prepare(name)
    tally = fuzz.run_target(fuzz.targets()[name], FEW.get(name, 25), 2026, tmp_path)
    assert (tally.wrong, tally.first) == (0, "")
    assert tally.done == FEW.get(name, 25)


def test_every_command_and_option_stands_in_a_line_that_fits(fuzz):
    import fuzz_commands
    import fuzz_lines

    assert fuzz_lines.unknown(fuzz_commands.commands()) == []
    assert fuzz_lines.unknown([(("fly",), [])]) == ["fly"]


def test_most_lines_that_fit_do_their_work(fuzz, tmp_path, monkeypatch):
    import fuzz_commands
    import fuzz_files
    import fuzz_lines

    monkeypatch.chdir(tmp_path)
    fuzz.prepare("command-line")
    refused = []
    for number in range(40):
        fuzz_files.put_back(tmp_path)
        line = fuzz_lines.line(random.Random(number))
        status, _, said = fuzz_commands.run_line(line, tmp_path)
        if status == 2 and not said.rstrip().endswith(fuzz_commands.REACHED):
            refused.append((line, said))
    assert len(refused) <= 8, refused


def test_a_command_line_writes_nothing_outside_of_its_folder(fuzz, tmp_path, monkeypatch):
    import fuzz_commands

    fuzz.prepare("command-line")
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    monkeypatch.chdir(inside)
    status, _, said = fuzz_commands.run_line(["sources", "--out", str(outside / "out.md")], inside)
    assert (status, list(outside.iterdir())) == (2, [])
    assert said.startswith(f"gossamer: error: {outside / 'out.md'}: the output must be writable, and Permission denied")
    assert fuzz_commands.run_line(["sources", "--out", "out.md"], inside)[0] == 0
    (outside / "free.txt").write_text("no line runs")


def test_a_file_that_a_line_changed_is_put_back(fuzz, tmp_path):
    import fuzz_files

    fuzz_files.put_back(tmp_path)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for number in range(30):
        fuzz_files.harm(random.Random(number), tmp_path / "m.mtx")
    (tmp_path / "dump" / "x").write_text("x")
    (tmp_path / "new").mkdir()
    fuzz_files.put_back(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == kept
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["dump"]
    assert list((tmp_path / "dump").iterdir()) == []


def _loop():
    while True:
        pass


def _lines():
    raise InputError("")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: {}["x"], "KeyError: \"'x'\" at test_fuzz.py:"),
        (_loop, "took more than 0.2 s"),
        (_lines, "a message of more than one line: ''"),
        (lambda: warnings.warn("odd", RuntimeWarning, stacklevel=1), "RuntimeWarning: 'odd' at test_fuzz.py:"),
        (lambda: Path("/nowhere/x").read_bytes(), "FileNotFoundError: "),
        (lambda: next(iter(Path("/etc").glob("hostname*"))).read_bytes(), "opened what is not its own: open '/etc/"),
        (lambda: np.zeros(3 << 30, np.uint8).sum(), "asked for "),
    ],
)
def test_what_is_wrong_is_noticed(fuzz, tmp_path, act, message):
    target = fuzz.Target("mine", lambda rng, folder: act(), limit_s=10 if "asked" in message else 0.2)
    refused, wrong = fuzz.run_case(target, 0, 0, tmp_path)
    assert wrong.startswith(message)
    assert refused == (act is _lines)


def test_a_case_is_the_same_each_time(fuzz, tmp_path):
    drawn = []
    target = fuzz.Target("mine", lambda rng, folder: drawn.append(rng.random()))
    fuzz.run_target(target, 3, 7, tmp_path)
    fuzz.run_target(target, 3, 7, tmp_path)
    assert drawn[:3] == drawn[3:]
    assert len(set(drawn)) == 3
