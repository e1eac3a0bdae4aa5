"""The same input, configuration and seed give the same bytes: on repeat, by either engine, whoever does the work."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gossamer
from gossamer.__main__ import main
from gossamer.models import list_machines, load_machine, vary
from gossamer.reports.schemas import SCHEMAS, schema_text
from gossamer.simulator import simulate
from gossamer.simulator.result import read_result
from gossamer.simulator.store import Store
from gossamer.simulator.sweep import Case, sweep
from gossamer.workloads import Layer, Trace, save_trace
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.training import load_recipe, train

MACHINES = {  # one of each model, and which layers it runs here
    "eie-64pe": ("linear", "conv2d"), "systolic-8x8": ("linear", "conv2d"), "a100-sparse": ("n:m",),
    "a100-block-ell": ("linear",), "a100-row-split": ("linear",), "dstc-a100": ("linear",), "sparseloop-stc": ("n:m",),
    "ese": ("lstm",), "patdnn-kryo485": ("kernels",), "pointacc": ("points", "linear"), "spatten": ("matmul",),
    "torchsparse-2080ti": ("points",),
}  # fmt: skip


def sparse(rng, *shape, density=0.4):
    return (rng.standard_normal(shape) * (rng.random(shape) < density)).astype(np.float32)


def layer(kind):
    rng = np.random.default_rng(3)
    if kind == "linear":
        given = {"op": "linear", "weight": sparse(rng, 24, 32), "inputs": sparse(rng, 2, 32)}
    elif kind == "n:m":
        weight = sparse(rng, 32, 64, density=1) * (np.arange(64) % 4 < 2)
        given = {
            "op": "linear",
            "weight": weight,
            "inputs": sparse(rng, 4, 64),
            "pattern": Pattern("n:m", n=2, m=4, axis=1),
        }
    elif kind == "conv2d":
        given = {"op": "conv2d", "weight": sparse(rng, 4, 3, 3, 3), "inputs": sparse(rng, 1, 3, 6, 6)}
    elif kind == "kernels":
        weight = np.zeros((8, 4, 3, 3), np.float32)
        weight[:, ::2, :2, :2] = rng.standard_normal((8, 2, 2, 2))
        given = {"op": "conv2d", "weight": weight, "inputs": sparse(rng, 1, 4, 6, 6), "attributes": {"padding": (1, 1)},
                 "pattern": Pattern("kernel-pattern", n=4, m=1)}  # fmt: skip
    elif kind == "lstm":
        given = {"op": "lstm", "weight": sparse(rng, 16, 7), "bias": sparse(rng, 16), "inputs": sparse(rng, 2, 3, 3)}
    elif kind == "matmul":
        scores = np.exp(rng.normal(size=(2, 3, 8)))
        given = {"op": "matmul", "weight": sparse(rng, 2, 4, 8), "attributes": {"samples": 1},
                 "inputs": (scores / scores.sum(-1, keepdims=True)).astype(np.float32)}  # fmt: skip
    else:
        points = np.unique(rng.integers(-3, 4, (30, 3), np.int32), axis=0)
        given = {"op": "sparse_conv3d", "weight": sparse(rng, 4, 3, 27), "inputs": sparse(rng, len(points), 3),
                 "coordinates": points}  # fmt: skip
    return Layer(name=kind, **given)


def trace(*kinds):
    return Trace(name="mixed", layers=[layer(kind) for kind in kinds], provenance={"seed": 3})


def test_every_model_is_among_the_machines():
    models = {load_machine(name).model for name in list_machines()}
    assert {load_machine(name).model for name in MACHINES} == models


@pytest.mark.parametrize("name", MACHINES)
def test_repeating_a_simulation_gives_the_same_bytes_and_the_other_engine_all_but_its_name(name):
    machine, made = load_machine(name), trace(*MACHINES[name])
    fast = simulate(machine, made).to_json()
    assert simulate(load_machine(name), trace(*MACHINES[name])).to_json() == fast
    event = simulate(machine, made, engine="event").to_json()
    assert simulate(machine, made, engine="event").to_json() == event
    assert event.replace('"engine": "event"', '"engine": "fast"', 1) == fast


@pytest.mark.parametrize("name", MACHINES)
def test_a_result_that_is_read_and_written_again_keeps_its_bytes(name, tmp_path):
    """A whole number where a fraction belongs would come back as one, as from the store of a sweep."""
    written = simulate(load_machine(name), trace(*MACHINES[name])).to_json()
    (tmp_path / "r.json").write_text(written, "utf-8")
    assert read_result(tmp_path / "r.json").to_json() == written


def stored(path):
    with Store(path, must_exist=True) as store:
        return [(case.trace, case.machine, case.settings, case.result.to_json()) for case in store.cases()]


def test_a_sweep_gives_the_same_bytes_with_any_number_of_workers_and_in_any_order(tmp_path):
    cases = []
    for name, field, values in (
        ("eie-64pe", "pe_count", (1, 4, 16)), ("ese", "channels", (1, 4)), ("a100-row-split", "sm_count", (1, 8)),
        ("patdnn-kryo485", "cores", (1, 3)), ("spatten", "comparators", (1, 8)), ("pointacc", "rows", (2, 16)),
    ):  # fmt: skip
        made, machine = trace(*MACHINES[name]), load_machine(name)
        cases += [Case(made, vary(machine, **{field: value}), {field: value}) for value in values]
    texts = {}
    for way, (ordered, workers) in {"one": (cases, 1), "two": (cases, 2), "back": (cases[::-1], 3)}.items():
        with Store(tmp_path / f"{way}.sqlite") as store:
            outcomes = sweep(ordered, store=store, workers=workers)
        assert [outcome.error for outcome in outcomes] == [None] * len(cases)
        texts[way] = {outcome.case.key: outcome.result.to_json() for outcome in outcomes}
    assert texts["one"] == texts["two"] == texts["back"]
    assert stored(tmp_path / "one.sqlite") == stored(tmp_path / "two.sqlite") == stored(tmp_path / "back.sqlite")


@pytest.fixture
def environment():
    return os.environ | {"PYTHONPATH": str(Path(gossamer.__file__).parents[1])}


ELSEWHERE = [  # each way from the one before in hash seed, time zone, locale, threads of the linear algebra, width
    {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C", "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "80"},
    {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "2", "COLUMNS": "80"},
    {"PYTHONHASHSEED": "4711", "TZ": "America/Lima", "LANG": "de_DE.UTF-8", "COLUMNS": "200"},
]
SCRIPT = """
import sys
from gossamer.__main__ import main
for name in sys.argv[1:]:
    given = [f"{name}.safetensors", "--on", name]
    assert main(["simulate", *given, "--json", f"{name}.json", "--csv", f"{name}.csv"]) == 0
first = ["eie-64pe.json", "systolic-8x8.json"]
assert main(["report", *first, "--out", "r.html"]) == 0
assert main(["plot", *first, "--kind", "summary", "--out", "summary.svg"]) == 0
grid = ["--grid", "pe_count=1,4", "--grid", "weights=exact,codebook"]
assert main(["sweep", "eie-64pe.safetensors", *grid, "--json", "sweep.json", "--plot", "sweep.png"]) == 0
"""


def written_by(python, folder, environment):
    """Return the bytes of each file that a process of ``python`` writes in a new ``folder``, by name."""
    folder.mkdir()
    for name in MACHINES:
        save_trace(trace(*MACHINES[name]), folder / f"{name}.safetensors")
    subprocess.run([python, "-c", SCRIPT, *MACHINES], check=True, cwd=folder, env=environment)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_processes_of_other_surroundings_give_the_same_bytes(tmp_path, environment):
    """Sets of text come in another order in each of them, and so do the parts of a matrix product."""
    found = [
        written_by(sys.executable, tmp_path / f"folder {number}", environment | other)
        for number, other in enumerate(ELSEWHERE)
    ]
    assert found[0] == found[1] == found[2]
    assert {Path(name).suffix for name in found[0]} == {".safetensors", ".json", ".csv", ".html", ".svg", ".png"}


@pytest.mark.skipif(
    not os.environ.get("GOSSAMER_PYTHONS"),
    reason="GOSSAMER_PYTHONS, paths with a colon between them, names no other interpreters with gossamer's packages",
)
def test_other_interpreters_give_the_same_bytes(tmp_path, environment):
    (tmp_path / "path").mkdir()  # gossamer alone, not what is compiled for this interpreter beside it
    (tmp_path / "path" / "gossamer").symlink_to(Path(gossamer.__file__).parent)
    environment |= {"PYTHONPATH": str(tmp_path / "path")}
    expected = written_by(sys.executable, tmp_path / "this", environment)
    for number, python in enumerate(os.environ["GOSSAMER_PYTHONS"].split(":")):
        assert written_by(python, tmp_path / str(number), environment) == expected


def test_no_sum_of_floats_is_left_to_the_interpreter(tmp_path, monkeypatch):
    """From 3.12 on, sum rounds floats otherwise than before: what is written must come of math.fsum or numpy."""
    met = set()

    def checked(items, /, start=0, _sum=sum):
        items, caller = list(items), sys._getframe(1)
        name = caller.f_globals["__name__"]
        if name.startswith("gossamer.") and any(isinstance(item, float) for item in items):
            met.add(f"{name}:{caller.f_lineno}")
        return _sum(items, start)

    monkeypatch.setattr("builtins.sum", checked)
    monkeypatch.chdir(tmp_path)
    for name, kinds in MACHINES.items():
        save_trace(trace(*kinds), f"{name}.safetensors")
        for engine in ("fast", "event"):
            given = ["simulate", f"{name}.safetensors", "--on", name, "--engine", engine, "--json", f"{name}.json"]
            assert main(given) == 0
    assert main(["report", *(f"{name}.json" for name in MACHINES)]) == 0
    for name in ("eie-64pe", "a100-sparse"):
        assert main(["plot", f"{name}.json", "--all", "plots", "--suffix", ".svg"]) == 0
    assert main(["compare", "eie-64pe.safetensors", "--on", "eie-64pe", "--on", "systolic-8x8"]) == 0
    assert main(["explore", "eie-64pe.safetensors", "--grid", "pe_count=1,4", "--store", "s.sqlite"]) == 0
    assert main(["report", "s.sqlite"]) == 0
    assert main(["synth", "room", "--out", "room.ply"]) == 0
    assert met == set()


@pytest.mark.parametrize("what", SCHEMAS)
def test_a_schema_shows_docstrings_without_the_indentation_that_only_older_interpreters_keep(what):
    assert "\\n  " not in schema_text(what)  # as JSON writes a new line


@pytest.mark.parametrize("command", ["sweep", "explore"])
def test_tables_and_fronts_are_the_same_with_more_workers_and_after_a_resume(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    names = [save_trace(trace(kind), f"{kind}.safetensors").name for kind in ("linear", "conv2d")]
    whole, part = "pe_count=1,2,4,16", "pe_count=16,2"  # done before, in another order

    def tables(way, *more, grid=whole):
        plot = ["--plot", f"{way}.svg"] if command == "sweep" else []
        files = ["--json", f"{way}.json", "--csv", f"{way}.csv", *plot]
        assert main([command, *names, "--grid", grid, "--grid", "queue_depth=2,8", *files, *more]) == 0
        return [Path(file).read_bytes() for file in files[1::2]]

    tables("part", "--store", "s.sqlite", grid=part)
    one = tables("one")
    assert tables("two", "--workers", "2") == one
    assert tables("resumed", "--store", "s.sqlite") == one
    assert tables("again", "--store", "s.sqlite") == one


TRAININGS = {
    "lenet-digits-swamp": {"rewind_step": 2, "particles": 2, "solo_levels": 0, "swa_epochs": 1},
    "lenet-digits-equal-blocks": {"finetune_epochs": 1},
    "convnet-digits-imp": {"rewind_step": 2},
    "lstm-digits-imp": {"rewind_step": 2},
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_given_twice_writes_the_same_bytes_whatever_the_clock_says(name, tmp_path, monkeypatch):
    recipe = load_recipe(name, epochs=1, batch_size=256, samples=2, sparsity=0.3, **TRAININGS[name])
    first = trained(recipe, tmp_path / "one")
    backwards = itertools.count(2e9, -1e6)
    monkeypatch.setattr(time, "time", lambda: next(backwards))
    assert trained(recipe, tmp_path / "two") == first
    # A stage is there or is not: how old it is does not matter, nor that the one after it is older.
    for place, path in enumerate(sorted((tmp_path / "two").rglob("*"))):
        os.utime(path, (4e9 - 1e7 * place, 4e9 - 1e7 * place))
    (tmp_path / "two" / f"{name}.safetensors").unlink()
    assert trained(recipe, tmp_path / "two") == first


def trained(recipe, folder):
    """Return the bytes of each file that a training leaves in ``folder``, by name."""
    train(recipe, out=folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "arguments",
    [
        ("synth", "random", "--rows", "40", "--cols", "30", "--seed", "9", "--out", "{}.safetensors"),
        ("synth", "gemm", "--rows", "32", "--reduction", "64", "--columns", "8", "--seed", "9", "--out",
         "{}.safetensors"),
        ("synth", "cad", "--seed", "9", "--out", "{}.ply"),
        ("simulate", "lenet-digits-imp", "--engine", "event", "--layer", "fc3", "--set", "pe_count=4",
         "--timeline", "{}.json"),
        ("compare", "lenet-digits-imp", "lenet-digits-imp-balanced", "--on", "eie-64pe", "--on", "ese",
         "--csv", "{}.csv"),
        ("sweep", "lenet-digits-imp", "--grid", "pe_count=1,4", "--csv", "{}.csv"),
        ("explore", "lenet-digits-imp", "--grid", "pe_count=1,4,16", "--csv", "{}.csv"),
    ],
    ids=lambda words: " ".join(words[:2]),
)  # fmt: skip
def test_a_command_given_twice_writes_the_same_bytes(arguments, tmp_path, monkeypatch):
    files = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        assert main([word.format("out") for word in arguments]) == 0
        files.append([path.read_bytes() for path in (tmp_path / folder).iterdir()])
    assert files[0] == files[1]
    assert len(files[0]) == 1


def test_drawn_inputs_depend_on_the_seed_alone(tmp_path, capsys):
    np.savez(
        tmp_path / "w.npz", fc1=sparse(np.random.default_rng(0), 16, 24), fc2=sparse(np.random.default_rng(1), 8, 16)
    )

    def run(*more):
        assert main(["simulate", str(tmp_path / "w.npz"), "--act-density", "0.5", "--json", "-", *more]) == 0
        return json.loads(capsys.readouterr().out)

    assert run() == run("--seed", "0")
    assert run("--seed", "1") == run("--seed", "1") != run()
