"""The same input, configuration and seed give the same bytes: on repeat, by either engine, whoever does the work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gossamer
from gossamer.__main__ import main
from gossamer.models import list_machines, load_machine, vary
from gossamer.simulator import simulate
from gossamer.simulator.store import Store
from gossamer.simulator.sweep import Case, sweep
from gossamer.workloads import Layer, Trace, save_trace
from gossamer.workloads.patterns import Pattern

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


def test_processes_with_other_hash_seeds_give_the_same_bytes(tmp_path, environment):
    """Sets of text come in another order in each of them."""
    names = [name for name in MACHINES if "linear" in MACHINES[name] or name in ("ese", "spatten", "patdnn-kryo485")]
    for name in names:
        save_trace(trace(*MACHINES[name]), tmp_path / f"{name}.safetensors")
    script = (
        "import sys; from gossamer.__main__ import main\n"
        "for name in sys.argv[1:]:\n"
        "    assert main(['simulate', f'{name}.safetensors', '--on', name, '--json', '-']) == 0\n"
        "assert main(['report', 'r.json', '--out', '/dev/stdout']) in (0, 2)\n"
        "assert main(['sweep', 'eie-64pe.safetensors', '--grid', 'pe_count=1,4', '--grid', 'weights=exact,codebook', "
        "'--json', '-']) == 0\n"
    )
    assert main(["simulate", str(tmp_path / "eie-64pe.safetensors"), "--json", str(tmp_path / "r.json")]) == 0
    said = [
        subprocess.run([sys.executable, "-c", script, *names], check=True, stdout=subprocess.PIPE, cwd=tmp_path,
                       env=environment | {"PYTHONHASHSEED": seed}).stdout
        for seed in ("0", "1", "4711")
    ]  # fmt: skip
    assert said[0] == said[1] == said[2]
    assert said[0].count(b"gossamer.result/1") >= len(names)


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
