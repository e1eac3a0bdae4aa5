"""The command explore: grids, ranges, searches, several machines, point clouds."""

import importlib.util
import json

import numpy as np
import pytest

from gossamer.__main__ import main

needs_optuna = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="optuna is not installed; the extra explore brings it"
)


def run(capsys, *arguments):
    status = main(["explore", *map(str, arguments)])
    return (status, *capsys.readouterr())


def rows(capsys, *arguments):
    status, out, err = run(capsys, *arguments, "--json", "-")
    assert status == 0, err
    return json.loads(out)


def test_a_range_is_the_grid_of_its_values(capsys):
    by_range = rows(capsys, "lenet-digits-imp", "--range", "pe_count=4:64:log2", "--range", "queue_depth=4:8:4")
    by_grid = rows(capsys, "lenet-digits-imp", "--grid", "pe_count=4,8,16,32,64", "--grid", "queue_depth=4,8")
    assert by_range == by_grid
    assert {row["queue_depth"] for row in by_range} <= {4, 8}


def test_what_a_machine_refuses_is_an_error_of_a_grid_and_left_out_of_a_range(capsys):
    status, _, err = run(capsys, "lenet-digits-imp", "--grid", "queue_depth=1,2")
    assert (status, err) == (2, "gossamer: error: eie-64pe: queue_depth must be at least 2, not 1\n")
    status, _, err = run(capsys, "lenet-digits-imp", "--range", "queue_depth=0:2")
    assert (status, err) == (
        0,
        "gossamer: warning: 2 combinations were left out, for their machine refuses them: eie-64pe: queue_depth must "
        "be at least 2, not 0\n",
    )
    status, _, err = run(capsys, "lenet-digits-imp", "--range", "queue_depth=0:1")
    assert (status, err) == (2, "gossamer: error: eie-64pe: queue_depth must be at least 2, not 0\n")


def test_machines_are_compared_each_with_the_fields_that_it_has(capsys):
    status, out, err = run(capsys, "lenet-digits-imp", "--on", "eie-64pe", "--on", "systolic-16x16", "--grid",
                           "pe_count=16,64", "--grid", "rows=8,16", "--json", "-")  # fmt: skip
    assert status == 0
    assert err.splitlines()[:2] == [
        "gossamer: warning: pe_count is no field of systolic-16x16; taken as it is, whatever pe_count is",
        "gossamer: warning: rows is no field of eie-64pe; taken as it is, whatever rows is",
    ]
    assert all(("pe_count" in row) == (row["machine"] == "eie-64pe") for row in json.loads(out))


def test_without_a_field_to_vary_traces_and_machines_are_compared(capsys):
    found = rows(capsys, "lenet-digits-imp", "--on", "eie-64pe", "--on", "eie-256pe")
    assert {row["machine"] for row in found} <= {"eie-64pe", "eie-256pe"}
    assert found


def test_point_clouds_are_explored_as_they_are_swept(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("cloud.npy", np.random.default_rng(0).random((600, 3), np.float32))
    found = rows(capsys, "cloud.npy", "--network", "minkunet-small", "--voxel-size", "0.2", "--on", "pointacc",
                 "--layer", "stem*", "--grid", "merger_width=16,64")  # fmt: skip
    assert {row["trace"] for row in found} == {"minkunet-small-cloud"}


@needs_optuna
def test_a_search_resumes_from_its_store_and_says_out_of_how_many_it_chose(capsys, tmp_path):
    store = tmp_path / "s.sqlite"
    options = ["lenet-digits-imp", "--range", "pe_count=1:64", "--range", "queue_depth=2:17", "--layer", "fc3",
               "--trials", 30, "--search-seed", 2, "--store", store]  # fmt: skip
    status, first, err = run(capsys, *options)
    assert (status, err) == (0, "")
    assert " of 30 cases that no other beats, out of 1,024" in first
    assert run(capsys, *options) == (status, first, err)
    assert len(rows(capsys, *options)) == len(rows(capsys, *options[:-2]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "pe_count=1,2", "--range", "pe_count=1:2"],
         "pe_count: a key must have a grid or a range, and has both; leave one out"),
        (["--range", "pe_count=1:8192", "--range", "queue_depth=2:1000"],
         "at most 1,000,000 cases can all be simulated, not 8,183,808; give --trials, or fewer values"),
        (["--range", "pe_count=64"],
         "a range must be KEY=LOW:HIGH, KEY=LOW:HIGH:STEP or KEY=LOW:HIGH:log2, not 'pe_count=64'; as in "
         "pe_count=1:1024:log2"),
        (["--grid", "pe_count=1", "--cluster", "localhost"],
         "--cluster must be tcp://HOST:PORT, not 'localhost'; a scheduler prints its own when it starts"),
        (["--range", "pe_count=1:64", "--trials", "5", "--sampler", "best"],
         "--sampler must be tpe or nsga2, not 'best'"),
        (["--network", "dgcnn"],
         "lenet-digits-imp: a network is for point clouds (.bin, .ply, .npy, .npz, .off), and this is none; leave it "
         "out"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_in_one_line(capsys, arguments, message):
    assert run(capsys, "lenet-digits-imp", *arguments) == (2, "", f"gossamer: error: {message}\n")


def test_without_optuna_a_search_says_how_to_get_it(capsys, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    assert run(capsys, "lenet-digits-imp", "--range", "pe_count=1:64", "--trials", "5") == (
        2, "", "gossamer: error: this needs optuna, which is not installed; pip install gossamer[explore]\n",
    )  # fmt: skip
