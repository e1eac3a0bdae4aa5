"""Commands on point clouds: a file and a network in place of a trace, and what is said where they do not fit."""

import json

import numpy as np
import pytest

from gossamer.__main__ import main
from gossamer.workloads import load_trace
from gossamer.workloads.points.network import POINT_NETWORKS, build_from_file

NAMES = ", ".join(POINT_NETWORKS)


@pytest.fixture(autouse=True)
def in_a_folder_with_a_cloud(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    points = np.random.default_rng(0).random((1200, 3), np.float32)
    points[:, 2] *= np.float32(0.05)
    np.save("cloud.npy", points)


def run(capsys, *arguments):
    status = main(list(map(str, arguments)))
    return (status, *capsys.readouterr())


def refused(capsys, *arguments):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    return err.removeprefix("gossamer: error: ").rstrip("\n")


def test_simulate_takes_a_cloud_and_a_network(capsys):
    status, out, err = run(
        capsys, "simulate", "cloud.npy", "--network", "minkunet-small", "--on", "pointacc", "--json", "-"
    )
    assert (status, err) == (0, "")
    result = json.loads(out)
    trace = build_from_file("cloud.npy", "minkunet-small")
    assert result["trace"]["sha256"] == trace.sha256
    assert [layer["name"] for layer in result["layers"]] == [layer.name for layer in trace.layers]
    assert result["trace"]["provenance"]["voxel_size"] == 0.05


def test_export_writes_the_trace_that_simulate_makes(capsys):
    options = ["--network", "minkunet-small", "--voxel-size", "0.1", "--sparsity", "0.5", "--seed", "3",
               "--channel-sparsity", "0.25", "--samples", "600"]  # fmt: skip
    status, out, _ = run(capsys, "export", "cloud.npy", *options, "--out", "t.safetensors")
    assert (status, out) == (0, "t.safetensors: minkunet-small-cloud, 27 layers, 50.0% sparse\n")
    trace = load_trace("t.safetensors")
    about = {name: trace.provenance[name] for name in ("points", "voxel_size", "seed", "channel_sparsity")}
    assert about == {"points": 600, "voxel_size": 0.1, "seed": 3, "channel_sparsity": 0.25}
    assert all(layer.inputs is None for layer in trace.layers[1:])
    of_file = run(capsys, "simulate", "t.safetensors", "--on", "pointacc")[1]
    assert run(capsys, "simulate", "cloud.npy", *options, "--on", "pointacc")[1] == of_file


def test_export_writes_values_where_it_is_asked_to(capsys):
    run(capsys, "export", "cloud.npy", "--network", "minkunet-small", "--features", "--out", "t.safetensors")
    assert all(layer.inputs is not None for layer in load_trace("t.safetensors").layers)


@pytest.mark.parametrize(
    ("network", "layers", "options"),
    [
        ("minkunet-small", "*", ["--voxel-size", "0.25"]),
        ("pointnet2-ssg", "sa2.[fg]*", ["--samples", "600"]),
    ],
)
def test_check_finds_engines_and_numbers_agreed_on_a_cloud(capsys, network, layers, options):
    status, out, err = run(
        capsys, "check", "cloud.npy", "--network", network, "--layer", layers, "--on", "pointacc", *options
    )
    assert (status, err) == (0, ""), out


def test_a_check_of_a_trace_without_values_is_refused(capsys):
    run(capsys, "export", "cloud.npy", "--network", "minkunet-small", "--out", "t.safetensors")
    assert refused(capsys, "check", "t.safetensors", "--on", "pointacc", "--layer", "stem*") == (
        "layer stem.conv1: a check compares values, and the layer has only its geometry; export it with --features"
    )


def test_taking_out_channels_saves_cycles_and_single_weights_do_not(capsys):
    cycles = {}
    for name, options in {
        "dense": [],
        "weights": ["--sparsity", 0.75],
        "channels": ["--channel-sparsity", 0.5],
    }.items():
        _, out, _ = run(capsys, "simulate", "cloud.npy", "--network", "minkunet42", "--on", "pointacc", "--json", "-",
                        *options)  # fmt: skip
        cycles[name] = json.loads(out)["total"]["cycles"]
    assert cycles["weights"] == cycles["dense"]
    assert cycles["channels"] < 0.5 * cycles["dense"]


def test_single_weights_save_cycles_on_a_machine_that_skips_them(capsys):
    cycles = []
    for sparsity in (0, 0.9):
        _, out, _ = run(capsys, "simulate", "cloud.npy", "--network", "pointnet", "--sparsity", sparsity, "--on",
                        "eie-64pe", "--layer", "fc.*", "--json", "-")  # fmt: skip
        cycles.append(json.loads(out)["total"]["cycles"])
    assert cycles[1] < 0.25 * cycles[0]


def test_compare_and_sweep_take_clouds(capsys):
    status, out, _ = run(capsys, "compare", "cloud.npy", "--network", "dgcnn", "--on", "pointacc", "--on",
                         "pointacc-edge", "--layer", "edge1*")  # fmt: skip
    assert status == 0
    assert "dgcnn-cloud" in out
    status, out, _ = run(capsys, "sweep", "cloud.npy", "--network", "minkunet-small", "--on", "pointacc", "--grid",
                         "merger_width=16,64", "--layer", "stem*")  # fmt: skip
    assert status == 0
    assert "minkunet-small-cloud on pointacc" in out


@pytest.mark.parametrize("measured", [{}, {"remission": np.ones(1200, np.float32)}])
def test_an_archive_of_points_is_not_taken_for_weights(capsys, measured):
    np.savez("cloud.npz", points=np.load("cloud.npy"), **measured)
    assert refused(capsys, "simulate", "cloud.npz", "--on", "pointacc") == (
        f"cloud.npz: a point cloud must go through a network to be a trace; give --network, one of {NAMES}"
    )


def test_the_summary_names_the_units(capsys):
    _, out, _ = run(capsys, "simulate", "cloud.npy", "--network", "minkunet-small", "--on", "pointacc")
    assert " us on 1 matrix unit, " in out
    for unit in ("mapping", "matrix", "memory"):
        assert f"\n{unit} unit cycles: " in out
    _, out, _ = run(capsys, "simulate", "cloud.npy", "--network", "minkunet-small", "--on", "torchsparse-2080ti")
    assert " us on 1 GPU, " in out


def test_list_names_the_networks_for_clouds(capsys):
    _, out, _ = run(capsys, "list", "networks")
    for name, network in POINT_NETWORKS.items():
        assert f"{name} " in out
        assert network.description in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cloud.npy"],
         f"cloud.npy: a point cloud must go through a network to be a trace; give --network, one of {NAMES}"),
        (["cloud.npy", "--network", "unet"], f"unknown network for point clouds 'unet'; known: {NAMES}"),
        (["lenet-digits-imp", "--network", "dgcnn"],
         "lenet-digits-imp: a network is for point clouds (.bin, .ply, .npy, .npz, .off), and this is none; "
         "leave it out"),
        (["lenet-digits-imp", "--voxel-size", "0.1"],
         "--voxel-size must come with --network, and there is none; leave it out"),
        (["lenet-digits-imp", "--weights", "w.npz"],
         "--weights must come with --network, and there is none; leave it out"),
        (["cloud.npy", "--network", "dgcnn", "--act-density", "0.5"],
         "--act-density is for files without activations, not with --network; leave it out"),
        (["cloud.npy", "--network", "dgcnn", "--samples", "5000"],
         "cloud.npy: samples must be a whole number from 1 to the 1200 points of the cloud, not 5000"),
        (["cloud.npy", "--network", "minkunet42", "--channel-sparsity", "1"],
         "cloud.npy: channel_sparsity must be a fraction, at least 0 and below 1, not 1.0"),
        (["cloud.npy", "--network", "minkunet42", "--weights", "absent.npz"],
         "cloud.npy: absent.npz: an .npz file must be a readable file, and No such file or directory; check the path"),
        (["absent.ply", "--network", "dgcnn"],
         "absent.ply: a .ply file must be a readable file, and No such file or directory; check the path"),
        (["", "--network", "dgcnn"], "a trace needs a name, not ''; gossamer list traces names the bundled ones"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_in_one_line(capsys, arguments, message):
    assert refused(capsys, "simulate", *arguments, "--on", "pointacc") == message
