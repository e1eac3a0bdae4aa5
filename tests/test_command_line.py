"""The command line: what it prints where, its exit status, and what it says of bad input."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gossamer.__main__ import main
from gossamer.simulator import read_result
from gossamer.workloads import load_trace, save_trace


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(capsys, *arguments):
    status = main(list(map(str, arguments)))
    return (status, *capsys.readouterr())


def refused(capsys, *arguments):
    """Run, expect bad input: status 2, one line on standard error, nothing else said and nothing written."""
    before = sorted(Path().rglob("*"))
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("gossamer: error: ")
    assert err.count("\n") == 1, err
    assert sorted(Path().rglob("*")) == before
    return err.removeprefix("gossamer: error: ").rstrip("\n")


def test_simulate_prints_a_table_and_writes_what_it_is_asked_to(capsys):
    status, out, err = run(capsys, "simulate", "lenet-digits-imp", "--json", "r.json", "--csv", "r.csv")
    assert (status, err) == (0, "")
    assert "fc1" in out
    result = read_result("r.json")
    assert f"{result.total.cycles:,} cycles" in out
    rows = Path("r.csv").read_text().splitlines()
    assert rows[0].startswith("trace,machine,")
    assert [row.split(",")[3] for row in rows[1:4]] == ["fc1", "fc2", "fc3"]


def test_json_to_standard_output_comes_alone(capsys):
    status, out, _ = run(capsys, "simulate", "lenet-digits-imp", "--json", "-", "--layer", "fc2")
    assert status == 0
    data = json.loads(out)
    assert data["schema"] == "gossamer.result/1"
    assert [layer["name"] for layer in data["layers"]] == ["fc2"]


def test_the_same_command_gives_the_same_bytes(capsys):
    texts = {run(capsys, "simulate", "lenet-digits-imp", "--json", "-")[1] for _ in range(3)}
    assert len(texts) == 1


def test_both_engines_give_the_same_json_but_for_their_name(capsys):
    texts = [run(capsys, "simulate", "lenet-digits-imp", "--json", "-", "--engine", e)[1] for e in ("fast", "event")]
    assert texts[0].replace('"engine": "fast"', '"engine": "event"') == texts[1]


def test_a_timeline_is_a_chrome_trace_with_a_track_a_pe(capsys):
    run(capsys, "simulate", "lenet-digits-imp", "--engine", "event", "--layer", "fc3", "--set", "pe_count=4",
        "--timeline", "t.json")  # fmt: skip
    events = json.loads(Path("t.json").read_text())["traceEvents"]
    tracks = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {"broadcaster", "PE 0", "PE 1", "PE 2", "PE 3"} <= tracks
    assert {event["ph"] for event in events} == {"M", "X", "C"}


def test_compare_sets_traces_side_by_side(capsys):
    status, out, _ = run(capsys, "compare", "lenet-digits-imp", "lenet-digits-imp-balanced", "--csv", "c.csv")
    assert status == 0
    for word in ("speed-up", "energy", "load balance", "accuracy"):
        assert word in out
    assert len(Path("c.csv").read_text().splitlines()) == 3


def test_sweep_keeps_a_store_and_runs_nothing_twice(capsys, monkeypatch):
    arguments = ("sweep", "lenet-digits-imp", "--grid", "pe_count=1,4", "--grid", "queue_depth=2,8",
                 "--store", "s.sqlite", "--json", "-")  # fmt: skip
    first = run(capsys, *arguments)
    rows = json.loads(first[1])
    assert [(row["pe_count"], row["queue_depth"]) for row in rows] == [(1, 2), (1, 8), (4, 2), (4, 8)]
    assert {"cycles", "speedup", "load_balance", "padding_ratio", "energy_uj"} <= set(rows[0])
    monkeypatch.setattr("gossamer.simulator.cases.simulate", None)
    assert run(capsys, *arguments) == first


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_sweep_keeps_what_it_finished(workers):
    grid = ",".join(map(str, range(1, 400)))
    command = [sys.executable, "-m", "gossamer", "sweep", "lenet-digits-dense", "--grid", f"pe_count={grid}",
               "--grid", "queue_depth=2,3,4,5,6,7,8", "--store", "s.sqlite", "--workers", str(workers)]  # fmt: skip
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what a shell starts in the background ignores it
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=heed
    )

    def finished():
        if not Path("s.sqlite").exists():
            return 0
        database = sqlite3.connect("s.sqlite")
        try:
            return database.execute("select count(*) from cases").fetchone()[0]
        except sqlite3.OperationalError:
            return 0
        finally:
            database.close()

    until = time.monotonic() + 60
    while finished() < 20 and time.monotonic() < until:
        time.sleep(0.02)
    assert started.poll() is None, started.stderr.read()
    os.killpg(started.pid, signal.SIGINT)
    out, err = started.communicate(timeout=30)
    assert started.returncode == 130
    assert out == b""
    assert b"interrupted" in err
    assert b"kept in s.sqlite" in err
    assert b"Error" not in err
    kept = finished()
    assert 20 <= kept < 399 * 7


def test_check_passes_on_a_bundled_trace(capsys):
    status, out, _ = run(capsys, "check", "lenet-digits-imp", "--set", "pe_count=4")
    assert status == 0
    assert "fc3" in out


def test_check_fails_with_status_1_where_the_engines_differ(capsys, monkeypatch):
    from gossamer.models.parts.eie import units as eie_units

    monkeypatch.setattr(eie_units, "PIPELINE", 7)
    status, out, _ = run(capsys, "check", "lenet-digits-imp", "--layer", "fc3", "--set", "pe_count=4")
    assert status == 1
    assert "cycles" in out


def test_synth_makes_what_simulate_takes(capsys):
    assert (
        run(capsys, "synth", "random", "--rows", 30, "--cols", 20, "--density", 0.5, "--out", "a.safetensors")[0] == 0
    )
    assert run(capsys, "simulate", "a.safetensors", "--on", "systolic-8x8")[0] == 0
    assert run(capsys, "synth", "eie", "nt-we", "--out", "b.safetensors", "--row-sigma", 0.13)[0] == 0
    assert load_trace("b.safetensors").layers[0].shape == (600, 4096)


def test_plain_weights_are_exported_with_drawn_inputs(capsys):
    weight = np.eye(8, dtype=np.float32)
    np.savez("w.npz", fc=weight)
    assert run(capsys, "export", "w.npz", "--out", "t.safetensors", "--act-density", 0.5, "--samples", 3)[0] == 0
    layer = load_trace("t.safetensors").layers[0]
    assert np.array_equal(layer.weight, weight)
    assert layer.inputs.shape == (3, 8)


def test_list_names_what_is_bundled(capsys):
    status, out, _ = run(capsys, "list")
    assert status == 0
    for name in ("eie-64pe", "systolic-16x16", "lenet-digits-imp-balanced", "lenet-300-100", "lenet-digits-oneshot"):
        assert name in out
    assert "eie-64pe" not in run(capsys, "list", "traces")[1]


def test_the_demonstration_writes_what_it_names(capsys):
    status, out, _ = run(capsys, "demo", "--out", "here")
    assert status == 0
    written = out[out.index("Written") :].split()[1:]
    assert len(written) >= 7
    assert all(Path(name).stat().st_size for name in written)
    assert {Path(name).suffix for name in written} >= {".json", ".csv", ".png", ".sqlite", ".html"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("simulate", "nope"), "unknown trace 'nope'; known: convnet-digits-block, convnet-digits-dense, "),
        (("simulate", "lenet-digits-imp", "--on", "eie"),
         "unknown machine 'eie' (did you mean eie-256pe or eie-64pe?); known: a100-"),
        (("simulate", "lenet-digits-imp", "--set", "pe_count=0"), "eie-64pe: pe_count must be at least 1, not 0"),
        (("simulate", "lenet-digits-imp", "--set", "pe_count=3.5"),
         "eie-64pe: pe_count must be a whole number, not 3.5"),
        (("simulate", "lenet-digits-imp", "--set", "pes=3"), "eie-64pe: unknown key 'pes'"),
        (("simulate", "lenet-digits-imp", "--set", "pe_count"), "a setting must be KEY=VALUE, not 'pe_count'; as in "),
        (("simulate", "lenet-digits-imp", "--layer", "x*"),
         "lenet-digits-imp: layer pattern 'x*' must fit at least one of its layers: fc1, fc2, fc3"),
        (("simulate", "lenet-digits-imp", "--engine", "quick"), "engine must be fast or event, not 'quick'"),
        (("simulate", "lenet-digits-imp", "--timeline", "t.json"), "a timeline needs engine event, not 'fast'"),
        (("simulate", "lenet-digits-imp", "--timeline", "t.txt", "--engine", "event"),
         "t.txt: the name of this output must end in .json, .vcd, not '.txt'"),
        (("simulate", "lenet-digits-imp", "--timeline", "t.vcd", "--engine", "event", "--window", "5"),
         "a window must be START:END in cycles, not '5'; as in 1000:2000, :2000 or 1000:"),
        (("simulate", "lenet-digits-imp", "--timeline", "t.vcd", "--engine", "event", "--window", "7:7"),
         "a window must start at a cycle from 0 to 2^63 and end after its start, not 7:7"),
        (("simulate", "lenet-digits-imp", "--window", "5:6"),
         "--window is for --timeline, not '5:6' alone; name a file with --timeline"),
        (("simulate", "lenet-digits-imp", "--json", "no/such/r.json"),
         "no/such/r.json: an output needs a folder to lie in, and no/such is none; make it first"),
        (("simulate", "lenet-digits-imp", "--csv", "a.csv", "--json", "."),
         ".: an output must be a file, and this is a folder; give a name in it"),
        (("simulate", "lenet-digits-imp", "--act-density", "0.5"), "lenet-digits-imp: act_density, samples, seed and "),
        (("simulate", "."), ".: "),
        (("compare", "lenet-digits-imp", "nope"), "unknown trace 'nope'"),
        (("sweep", "lenet-digits-imp", "--grid", "pe_count=1,,2"), "a grid must be KEY=VALUE,VALUE,..., not "),
        (("sweep", "lenet-digits-imp", "--grid", "pe_count=1,0"), "eie-64pe: pe_count must be at least 1, not 0"),
        (("sweep", "lenet-digits-imp", "--grid", "pe_count=1", "--plot", "p.txt"), "p.txt: the name of this output "),
        (("list", "things"), "what to list must be one of machines, traces, networks, recipes, or nothing for all, "),
        (("validate", "tpu"), "unknown accelerator 'tpu' to validate; known: eie"),
        (("validate", "eie", "none"), "none: "),
        (("synth", "eie", "alex-9", "--out", "a.safetensors"), "unknown EIE layer 'alex-9'; known: Alex-6, "),
        (("synth", "random", "--density", "2", "--out", "a.safetensors"), "density must be "),
        (("train", "nope"), "nope: a recipe must be a bundled name or a TOML file, "),
        (("train", "lenet-digits-imp", "--set", "sparsity=1"), "sparsity must be a number of at least 0 and below 1"),
        (("export", "nope.npz", "--out", "t.safetensors"), "nope.npz: "),
        (("export", "nope", "--out", "t.safetensors"), "unknown trace 'nope'"),
        (("simulate", "lenet-digits-imp", "--json", "a", "--csv", "a"), "a: two outputs must not have one name; "),
        (("simulate", "lenet-digits-imp", "--json", "x" * 300), "x: must be usable, and: File name too long"),
        (("simulate", "y" * 5000), "y: must be usable, and: File name too long"),
        (("simulate", "lenet-digits-imp", "--on", "a\0.toml"), "a\\x00.toml: a machine file must be a readable file, "),
        (("simulate", "lenet-digits-imp", "--json", "a\0"), "a\\x00: the output must be writable, "),
        (("simulate", "lenet-digits-imp", "--set", "pe_count=" + "[" * 5000), "pe_count must be a whole number, not "),
        (("simulate", "lenet-digits-imp", "--set", "pe_count=4\nqueue_depth=3"), "pe_count must be a whole number"),
        (("simulate", "lenet-digits-imp", "--set", "pe_count=4", "--set", "pe_count=5"), "pe_count: a key must be "),
        (("sweep", "lenet-digits-imp", "--grid", "pe_count=1", "--grid", "pe_count=2"), "pe_count: a key must be "),
        (("simulate", "lenet-digits-imp", "--samples", "3"), "recorded; leave out samples 3"),
        (("simulate", ""), "a trace needs a name, not ''"),
        (("simulate",), "Missing argument 'TRACE'; see gossamer simulate --help"),
        (("frobnicate",), "No such command 'frobnicate'; see gossamer --help"),
        (("simulat",), "No such command 'simulat'. Did you mean 'simulate'?"),
        (("simulate", "lenet-digits-im"), "unknown trace 'lenet-digits-im' (did you mean lenet-digits-imp or lenet-"),
        (("train", "lenet-digits-imp", "--set", "sparsty=1"), "unknown key 'sparsty' (did you mean sparsity?); "),
        (("train", "no.toml"), "no.toml: a recipe must be a readable file, and No such file or directory; check the "),
        (("simulate", "lenet-digits-imp", "--json", "./a.csv", "--csv", "a.csv"), "./a.csv: two outputs must not have"),
        (("simulate", "lenet-digits-imp", "--csv", "a.xlsx"), "a.xlsx: the name of this output must end in .csv, .txt"),
        (("simulate", "lenet-digits-imp", "--json", "-", "--csv", "-"), "-: the name of this output must end in .csv"),
        (("compare", "lenet-digits-imp", "--plot", "a.png", "--page", "a.png"), "a.png: two outputs must not have one"),
        (("compare", "lenet-digits-imp", "--page", "p.html"), "p.html: the name of this output must end in .md, not "),
        (("sweep", "lenet-digits-imp", "--grid", "pe_count=1,2", "--set", "pe_count=4"),
         "pe_count: a key must be set or varied, and is both; leave it out of --set"),
        (("simulate", "lenet-digits-imp", "--input-size", "3"), "--input-size must be HEIGHTxWIDTH, as in 32x32, not "),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else None,
)  # fmt: skip
def test_bad_input_is_one_line_and_status_2(capsys, arguments, message):
    said = refused(capsys, *arguments)
    assert message in said


def test_a_damaged_trace_is_named(capsys):
    save_trace(load_trace("lenet-digits-imp"), "t.safetensors")
    data = Path("t.safetensors").read_bytes()
    for damaged in (b"", data[:1000], data[:-5], data[:9000] + b"\xff" + data[9001:]):
        Path("t.safetensors").write_bytes(damaged)
        assert refused(capsys, "simulate", "t.safetensors").startswith("t.safetensors: ")


def test_a_link_stays_a_link_and_a_pipe_stays_a_pipe(capsys):
    Path("real.json").write_text("old")
    Path("link.json").symlink_to("real.json")
    assert run(capsys, "simulate", "lenet-digits-imp", "--json", "link.json")[0] == 0
    assert Path("link.json").is_symlink()
    assert read_result("real.json").trace.name == "lenet-digits-imp"
    os.mkfifo("pipe")
    with subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE) as reader:
        assert run(capsys, "simulate", "lenet-digits-imp", "--json", "pipe")[0] == 0
        assert reader.stdout.read() == Path("real.json").read_bytes()
    assert Path("pipe").is_fifo()


def test_workers_leave_with_the_process_that_started_them():
    grid = ",".join(map(str, range(1, 400)))
    command = [sys.executable, "-m", "gossamer", "sweep", "lenet-digits-dense", "--grid", f"pe_count={grid}",
               "--grid", "queue_depth=2,3,4,5", "--store", "s.sqlite", "--workers", "2"]  # fmt: skip
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (Path("s.sqlite-wal").exists() and Path("s.sqlite-wal").stat().st_size) and time.monotonic() < until:
        time.sleep(0.05)
    started.kill()
    # The workers hold the pipe's other end: it closes when the last of them is gone.
    assert started.communicate(timeout=20)[0] == b""


def test_files_without_activations_are_compared_and_swept_with_drawn_ones(capsys):
    np.savez("w.npz", fc=np.eye(8, dtype=np.float32))
    drawn = ("--act-density", "0.5", "--samples", "2", "--seed", "3")
    assert run(capsys, "compare", "w.npz", *drawn)[0] == 0
    assert run(capsys, "sweep", "w.npz", "--grid", "pe_count=1,2", *drawn)[0] == 0


def test_the_version_is_told(capsys):
    import gossamer

    assert run(capsys, "--version")[:2] == (0, f"gossamer {gossamer.__version__}\n")


def test_without_a_command_help_is_shown(capsys):
    status, out, err = run(capsys)
    assert status in (0, 2)
    assert "simulate" in out + err
    assert "error" not in err


def test_an_unwritable_folder_is_named(capsys):
    if os.geteuid() == 0:
        pytest.skip("a folder is writable to root whatever its mode")
    Path("shut").mkdir(mode=0o500)
    assert "an output must be writable" in refused(capsys, "simulate", "lenet-digits-imp", "--json", "shut/r.json")


def test_train_over_seeds_prints_mean_and_spread_and_does_not_train_twice(capsys):
    few = ("--set", "network=mlp-100-100", "--set", "epochs=1", "--set", "sparsity=0.36", "--set", "rewind_step=2")
    status, out, _ = run(capsys, "train", "lenet-digits-imp", *few, "--seeds", 2, "--out", "runs")
    assert status == 0
    assert "lenet-digits-imp: mlp-100-100 on digits" in out
    assert "Accuracy over 2 seeds" in out
    rows = [line.split() for line in out.splitlines() if line.strip()[:2] in ("0 ", "1 ", "2 ")]
    assert [row[1] for row in rows] == ["0.00", "20.00", "36.00"]
    for row in rows:
        mean, spread, one, other = map(float, row[2:])
        assert abs(mean - (one + other) / 2) < 0.011
        assert abs(spread - abs(one - other) / 2**0.5) < 0.011
    for seed in (0, 1):
        name = f"runs/lenet-digits-imp-seed{seed}"
        for suffix in (".safetensors", ".checkpoint.safetensors", ".history.csv"):
            assert f"{name}{suffix}" in out
            assert Path(name + suffix).is_file()
    start = time.perf_counter()
    assert run(capsys, "train", "lenet-digits-imp", *few, "--seeds", 2, "--out", "runs")[1] == out
    assert time.perf_counter() - start < 10
