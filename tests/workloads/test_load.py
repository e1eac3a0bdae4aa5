import subprocess
import sys

import numpy as np
import pytest

from gossamer import workloads
from gossamer.workloads import InputError, Layer, Trace, load, load_trace, save_trace
from gossamer.workloads.load import bundled_traces


@pytest.fixture
def trace():
    weight = np.array([[1, 0], [0, 2]], np.float32)
    return Trace(name="net", layers=[Layer(name="fc", op="linear", weight=weight, inputs=weight)])


@pytest.fixture
def bundle(tmp_path, monkeypatch, trace):
    """A package that comes with the traces net-a and net-b."""
    folder = tmp_path / "bundled"
    folder.mkdir()
    for name in ("net-b", "net-a"):
        save_trace(Trace(name=name, layers=trace.layers), folder / f"{name}.safetensors")
    (folder / "README").touch()
    monkeypatch.setattr(load, "_bundled", lambda: folder)
    return folder


def test_the_door_is_as_wide_as_documented():
    assert sorted(workloads.__all__) == ["InputError", "Layer", "Trace", "load_trace", "save_trace"]


def test_bundled_traces_are_listed_and_loaded_by_name(bundle):
    assert bundled_traces() == ["net-a", "net-b"]
    assert load_trace("net-b").name == "net-b"


def test_what_is_bundled_now_is_readable():
    for name in bundled_traces():
        assert load_trace(name).name == name


def test_a_trace_file_is_told_from_plain_weights_by_its_metadata(tmp_path, trace):
    assert load_trace(str(save_trace(trace, tmp_path / "x.safetensors"))).sha256 == trace.sha256


@pytest.mark.parametrize("suffix", [".NPZ", ".Mtx", ".SMTX", ".Safetensors"])
def test_suffixes_may_be_in_capitals(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(b"junk")
    with pytest.raises(InputError, match=f"^{path}: (the f|sizes must be)"):
        load_trace(path)


def test_an_unknown_name_lists_the_known_ones_and_says_that_a_path_would_do(bundle):
    with pytest.raises(InputError) as error:
        load_trace("lenet")
    assert str(error.value) == (
        "unknown trace 'lenet'; known: net-a, net-b; or give the path of a file (.safetensors, .npz, .mtx, .smtx) "
        "or folder"
    )


def test_an_unknown_suffix_lists_the_known_ones(tmp_path):
    path = tmp_path / "model.onnx"
    path.touch()
    with pytest.raises(InputError) as error:
        load_trace(path)
    assert str(error.value) == (
        f"{path}: the name of a workload file must end in .safetensors, .npz, .mtx, .smtx, not '.onnx'; convert it, "
        "a model with gossamer export"
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("no.safetensors", "a trace file"),
        ("no.npz", "an .npz file"),
        ("no.mtx", "a Matrix Market file"),
        ("no.smtx", "an .smtx file"),
    ],
)
def test_a_missing_file_is_named(tmp_path, name, kind):
    path = tmp_path / name
    with pytest.raises(InputError) as error:
        load_trace(path)
    assert str(error.value) == f"{path}: {kind} must be a readable file, and No such file or directory; check the path"


def test_a_folder_that_is_no_dump_names_what_is_missing(tmp_path):
    with pytest.raises(InputError) as error:
        load_trace(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: a dump of the EIE simulator has act.dat, arithm.dat, ptr, spm, and act.dat, arithm.dat, ptr, spm "
        "are missing; give the simulator's data folder"
    )


def test_a_density_for_recorded_activations_is_refused(bundle, tmp_path, trace):
    path = save_trace(trace, tmp_path / "x.safetensors")
    for source in ("net-a", path):
        with pytest.raises(InputError) as error:
            load_trace(source, act_density=0.4)
        assert str(error.value) == (
            f"{source}: act_density, samples, seed and input_size are for files without activations, and these are "
            "recorded; leave out act_density 0.4"
        )


def test_importing_workloads_costs_no_heavy_package():
    heavy = "numba", "torch", "scipy", "matplotlib", "sklearn", "simpy", "yaml"
    code = f"import sys; import gossamer.workloads; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
