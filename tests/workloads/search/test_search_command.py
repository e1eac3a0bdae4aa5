import json
import re
from pathlib import Path

import pytest

from gossamer.__main__ import main
from gossamer.simulator import simulate
from gossamer.workloads import load_trace

QUICK = ("--recipe", "epochs=2", "--recipe", "samples=2", "--epochs", "1", "--short-epochs", "1", "--steps", "4")
MLP = (*QUICK, "--recipe", "network=mlp-100-100")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(capsys, *arguments):
    status = main(list(map(str, arguments)))
    return (status, *capsys.readouterr())


def test_a_search_writes_the_networks_their_history_and_a_table(capsys):
    status, out, err = run(
        capsys, "search", "netadapt", "--trace", "lenet-digits-dense", "--on", "systolic-8x8", "--target",
        "latency=0.5", "--seeds", 2, "--out", "found", "--json", "s.json", "--plot", "s.png", *MLP,
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines() if line.startswith(("dense ", "netadapt ", "even "))] == [
        "dense", "netadapt", "even",
    ]  # fmt: skip
    told = json.loads(Path("s.json").read_text())
    assert (told["schema"], told["kind"], told["quantity"], told["target"]) == (
        "gossamer.search/1", "channels", "latency", 0.5,
    )  # fmt: skip
    assert [each["seed"] for each in told["runs"]] == [0, 1]
    assert Path("s.png").read_bytes()[:4] == b"\x89PNG"
    from gossamer.models import load_machine

    for each in told["runs"]:
        trace = load_trace(f"found/lenet-digits-dense-netadapt-seed{each['seed']}.safetensors")
        assert simulate(load_machine("systolic-8x8"), trace).total.latency_s == each["found"]["cost"]
        assert 0.49 <= each["found"]["cost_ratio"] <= 0.5
        assert each["even"]["cost"] >= 0.99 * each["found"]["cost"]
        assert each["even"]["epochs"] == each["found"]["epochs"]
    assert json.loads(Path("found/lenet-digits-dense-netadapt.json").read_text()) == told


@pytest.mark.parametrize(("machine", "kind"), [("eie-64pe", "sparsity"), ("sparseloop-stc", "nm")])
def test_what_is_pruned_is_what_the_machine_gains_by(capsys, machine, kind):
    status, out, _ = run(
        capsys, "search", "sensitivity", "--trace", "lenet-digits-imp", "--on", machine, "--max-drop", "0.02", "--json",
        "-", "--plot", "scan.svg", *MLP,
    )  # fmt: skip
    told = json.loads(out)
    assert (status, told["kind"], told["target"]) == (0, kind, None)
    assert len(told["runs"][0]["scan"]["fc1"]["cost"]) == 10
    assert "latency, % of the dense" in Path("scan.svg").read_text()


def test_a_checkpoint_is_gone_on_with_and_the_reader_is_told(capsys):
    assert run(capsys, "train", "lenet-digits-dense", "--out", "runs", "--set", "epochs=1")[0] == 0
    status, out, err = run(
        capsys, "search", "sensitivity", "--trace", "runs/lenet-digits-dense.checkpoint.safetensors", "--on",
        "eie-64pe", "--target", "cycles=0.001", "--epochs", 0,
    )  # fmt: skip
    assert status == 0
    assert "With one layer pruned" in out
    warnings = err.splitlines()
    assert warnings[0].startswith(
        "gossamer: warning: seed 0: the target is 0.001 of the dense network's cycles, and the choices lead to 0."
    )
    assert warnings[1] == "gossamer: warning: validation samples were seen in training: their accuracies flatter"


BASE = ("--trace", "lenet-digits-dense", "--on", "eie-64pe")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("guess", *BASE), "a search must be one of netadapt, amc, sensitivity, not 'guess'"),
        (("netadapt", *BASE), "netadapt needs a --target, as in --target latency=0.5"),
        (
            ("netadapt", *BASE, "--target", "latency=2"),
            "--target must be latency, cycles, energy, edp = a share above 0 and below 1, not 'latency=2'; as in "
            "latency=0.5",
        ),
        (
            ("netadapt", *BASE, "--target", "latency=0.5", "--max-drop", "0.1"),
            "--max-drop is for sensitivity, not netadapt; leave it out",
        ),
        (("sensitivity", *BASE), "a sensitivity search needs --target or --max-drop, one of the two"),
        (
            ("netadapt", *BASE, "--target", "latency=0.5", "--kind", "rows"),
            "--kind must be one of channels, sparsity, nm, not 'rows'",
        ),
        (
            ("netadapt", *BASE, "--target", "latency=0.5", "--n", "8"),
            "--n must be whole numbers from 1 to --m, which is 4, not '8'; as in 1,2",
        ),
        (
            ("netadapt", *BASE, "--target", "latency=0.5", "--kind", "nm", "--pe-count", "4"),
            "--pe-count is for --kind sparsity, and at least 1, not 4 for nm",
        ),
        (
            ("netadapt", "--trace", "layer.smtx", "--on", "eie-64pe", "--target", "latency=0.5"),
            "layer.smtx: a trace needs activations, and a .smtx file has none; give act_density, samples and seed",
        ),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, message):
    Path("layer.smtx").write_text("1, 1, 1\n0 1\n0\n")
    status, out, err = run(capsys, "search", *arguments)
    assert (status, out) == (2, "")
    if "smtx" in message:
        assert err.startswith("gossamer: error: layer.smtx: ")
        assert err.count("\n") == 1
    else:
        assert re.fullmatch(re.escape(f"gossamer: error: {message}\n"), err)


def test_a_trace_without_a_recipe_is_refused(capsys):
    assert run(capsys, "synth", "random", "--out", "r.safetensors")[0] == 0
    status, _, err = run(
        capsys, "search", "netadapt", "--trace", "r.safetensors", "--on", "eie-64pe", "--target", "latency=0.5"
    )
    assert (status, err) == (
        2,
        "gossamer: error: r.safetensors: a search trains the network, and needs a trace that names its recipe, which "
        "this one does not; give one that gossamer train wrote, or a checkpoint\n",
    )
