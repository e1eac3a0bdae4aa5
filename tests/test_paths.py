"""Names that stand in files are no paths: nothing is read or written but what the command line names."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from gossamer.__main__ import main
from gossamer.workloads import InputError, Layer, Trace, load_trace, save_trace
from gossamer.workloads.files.drawn import Draw
from gossamer.workloads.importers import import_model
from gossamer.workloads.training import load_recipe

EVIL = "../../evil"


@pytest.fixture
def inner(tmp_path, monkeypatch):
    """The folder that commands run in: two below the test's own, so that ``../../evil`` would be seen."""
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def trace(inner):
    weight, inputs = np.eye(8, dtype=np.float32), np.ones((2, 8), np.float32)
    layers = [Layer(name=name, op="linear", weight=weight, inputs=inputs) for name in (EVIL, "/etc/evil")]
    path = save_trace(
        Trace(name=EVIL, layers=layers, provenance={"network": EVIL, "recipe": {"name": EVIL}}), "t.safetensors"
    )
    assert load_trace(path).name == EVIL
    return path


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (["simulate", "t.safetensors", "--json", "o/r.json", "--csv", "o/r.csv"], {"r.json", "r.csv"}),
        (["simulate", "t.safetensors", "--engine", "event", "--timeline", "o/t.json"], {"t.json"}),
        (["simulate", "t.safetensors", "--engine", "event", "--timeline", "o/t.vcd"], {"t.vcd"}),
        (["compare", "t.safetensors", "--on", "eie-64pe", "--on", "ese", "--csv", "o/c.csv"], {"c.csv"}),
        (["sweep", "t.safetensors", "--grid", "pe_count=1,2", "--store", "o/s.sqlite"], {"s.sqlite"}),
        (["transform", "roll", "t.safetensors", "--out", "o/x.safetensors"], set()),
        (["search", "sensitivity", "--trace", "t.safetensors", "--on", "eie-64pe", "--max-drop", "0.1", "--out", "o"],
         set()),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_names_in_a_trace_are_no_paths(inner, trace, capsys, arguments, written):
    Path("o").mkdir()
    status = main(arguments)
    assert (status == 0) == bool(written), capsys.readouterr().err
    found = {path.relative_to(inner.parents[1]).as_posix() for path in inner.parents[1].rglob("*") if path.is_file()}
    assert found == {"a/b/t.safetensors"} | {f"a/b/o/{name}" for name in written}


def test_plots_and_pages_of_such_a_trace_lie_where_they_were_asked_for(inner, trace):
    assert main(["simulate", "t.safetensors", "--json", "r.json"]) == 0
    assert main(["plot", "r.json", "--all", "o", "--suffix", ".svg"]) == 0
    assert main(["report", "r.json", "--out", "o/p.html"]) == 0
    found = {path for path in inner.parents[1].rglob("*") if path.is_file()}
    assert all(path.parent in (inner, inner / "o") for path in found)
    assert EVIL in Path("o/p.html").read_text("utf-8")


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "."])
def test_a_recipe_is_named_as_a_file_and_no_path(inner, name):
    with pytest.raises(InputError, match="name must be the stem of a file, not "):
        load_recipe("lenet-digits-imp", name=name)


def test_a_checkpoint_cannot_bring_a_recipe_with_a_path(inner, capsys):
    few = ("network=mlp-100-100", "epochs=1", "sparsity=0.36", "rewind_step=2", "name=mine")
    assert main(["train", "lenet-digits-imp", *(word for each in few for word in ("--set", each)), "--out", "run"]) == 0
    path = Path("run/mine.checkpoint.safetensors")
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    head = data[8 : 8 + size].replace(b'\\"name\\":\\"mine\\"', b'\\"name\\":\\"../../evil\\"')
    assert head != data[8 : 8 + size]
    path.write_bytes(len(head).to_bytes(8, "little") + head + data[8 + size :])
    capsys.readouterr()
    for arguments in (["export", path, "--out", "x.safetensors"], ["diagnose", path, "--out", "o"]):
        assert main(list(map(str, arguments))) == 2
        said = capsys.readouterr().err
        assert (
            said.startswith(f"gossamer: error: {path}: ")
            and "name must be the stem of a file, not '../../evil'" in said
        )
    assert not (inner.parents[1] / "evil").exists()


@pytest.mark.parametrize("name", ["../../evil:make", "/tmp/evil:make", "evil:../make", ".evil:make", "evil:"])
def test_a_module_is_named_by_identifiers_and_no_path(inner, name):
    (inner.parents[1] / "evil.py").write_text("raise SystemExit('was run')")
    with pytest.raises(InputError, match=r"a model must be package\.module:function or end in"):
        import_model(name)


@pytest.mark.parametrize("name", ["../configs/eie-64pe", "/etc/hostname", "../../evil"])
def test_machines_and_energy_tables_are_known_by_name_or_named_as_toml(inner, name, capsys):
    for option in (["--on", name], ["--set", f"energy={name}"]):
        assert main(["simulate", "lenet-digits-imp", *option]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_link_in_the_way_is_followed_to_what_it_names_and_no_further(inner, trace):
    Path("other.json").write_text("old")
    Path("r.json").symlink_to("other.json")
    assert main(["simulate", "t.safetensors", "--json", "r.json"]) == 0
    assert Path("r.json").readlink() == Path("other.json") and Path("other.json").read_text() != "old"


def test_activations_are_not_drawn_without_end():
    with pytest.raises(
        InputError, match=r"activations must come to at most 2147483648 numbers, not 1073741824 x \(4,\)"
    ):
        Draw(act_density=0.5, samples=2**30).activations(0, (4,))


def test_a_tensor_of_a_pytorch_file_has_a_limit(inner, monkeypatch):
    torch = pytest.importorskip("torch", reason="needs the extra train")
    monkeypatch.setattr("gossamer.workloads.importers.tensors.ELEMENTS_LIMIT", 10)
    torch.save({"fc.weight": torch.ones(4, 3)}, "s.pt")
    with pytest.raises(InputError, match=r"a tensor must have at most 10 elements, not \(4, 3\)"):
        import_model("s.pt", draw={"act_density": 0.5})


def test_a_claim_of_a_result_is_not_a_path_either(inner, trace):
    assert main(["simulate", "t.safetensors", "--json", "r.json"]) == 0
    head = msgspec.json.decode(Path("r.json").read_bytes())
    head["machine"]["config"]["energy"] = "/etc/hostname.toml"
    Path("r.json").write_bytes(msgspec.json.encode(head))
    assert main(["report", "r.json", "--out", "p.html"]) == 0
    assert main(["plot", "r.json", "--kind", "summary", "--out", "p.svg"]) == 0
