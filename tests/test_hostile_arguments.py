"""Hostile input: numbers, settings and arguments, by name, that `benchmarks/fuzz.py` has broken something with."""

import json
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from gossamer.__main__ import main
from gossamer.models import list_machines, load_machine, vary
from gossamer.reports.comparison import compare_rows
from gossamer.reports.explore import explore
from gossamer.reports.html import report_html
from gossamer.reports.plots_data import levels_of
from gossamer.reports.reading import read_results
from gossamer.reports.search import Job
from gossamer.reports.side_by_side import pairs_table
from gossamer.reports.terminal import parse_set
from gossamer.simulator import simulate
from gossamer.simulator.check import check
from gossamer.simulator.cluster import Cluster
from gossamer.simulator.design_search import search
from gossamer.simulator.energy import read_energy_table
from gossamer.simulator.space import Space
from gossamer.simulator.sweep import Case
from gossamer.workloads import Layer, Trace
from gossamer.workloads.checks import number, positive
from gossamer.workloads.dynamic.spatial import edit_layers
from gossamer.workloads.dynamic.temporal import delta_layers, shift_layers
from gossamer.workloads.dynamic.tokens import Shares
from gossamer.workloads.importers.onnx import trace_of_onnx
from gossamer.workloads.points import Cloud
from gossamer.workloads.points.neighbours import ball_query
from gossamer.workloads.points.network import build
from gossamer.workloads.points.statistics import statistics
from gossamer.workloads.synth.gemm import gemm_layer
from gossamer.workloads.synth.vgg import vgg_weight
from gossamer.workloads.training import load_recipe

from .test_hostile_input import refused

LONG = "9" * 5000  # more digits than Python takes for a whole number


def linear(weight, inputs, name="fc"):
    weight, inputs = (np.asarray(array, np.float32) for array in (weight, inputs))
    return Layer(name=name, op="linear", weight=weight, inputs=inputs)


def trace_of(*layers, **provenance):
    return Trace(name="t", layers=layers, provenance=provenance)


def picture(samples, name="conv"):
    inputs = np.arange(samples * 16, dtype=np.float32).reshape(samples, 1, 4, 4)
    return Layer(name=name, op="conv2d", weight=np.ones((1, 1, 2, 2), np.float32), inputs=inputs)


def test_numbers_of_a_layer_stay_so_small_that_no_sum_of_products_overflows():
    assert linear([[2.0**48]], [[-(2.0**48)]]).shape == (1, 1)
    assert refused(lambda: linear([[0, 2.0**49]], [[1, 1]])) == (
        "layer fc: tensor weight must be at most 2^48 in size, and holds 562949953421312.0 at (0, 1); "
        "replace such values"
    )


@pytest.mark.parametrize("name", ["systolic-8x8", "v100-sputnik"])
def test_a_check_takes_the_rounding_of_the_least_numbers_for_what_it_is(name):
    rng = np.random.default_rng(1)
    tiny = linear(rng.normal(size=(6, 8)) * 1e-20, rng.normal(size=(3, 8)) * 1e-22)
    (found,) = check(load_machine(name), trace_of(tiny))
    assert found.max_abs_error > 0
    assert found.passed


def test_both_engines_of_a_dual_side_core_skip_zeros_beside_what_fp16_cannot_hold():
    weight, inputs = [[1e10, 0, 1e-20], [1, -1e10, 0]], [[1e-20, 0, 1e10], [-1e10, 1e10, 2], [1, 1, 0]]
    (found,) = check(load_machine("dstc-a100"), trace_of(linear(weight, inputs)))
    assert found.passed
    assert found.saturated > 0


@pytest.mark.parametrize("name", ["v100-sputnik", "a100-row-split", "a100-block-ell", "eie-64pe", "dstc-a100"])
def test_a_code_that_stands_for_zero_is_stored_in_both_engines(name):
    rng = np.random.default_rng(1)
    codes = (rng.integers(1, 4, (8, 64)) * (rng.random((8, 64)) < 0.5)).astype(np.uint8)
    codes[:, :32] = 1  # whole blocks of zeros that are stored
    layer = Layer(name="l", op="linear", codes=codes, codebook=np.array([0, 0, 1, -1], np.float32),
                  inputs=rng.normal(size=(2, 64)).astype(np.float32))  # fmt: skip
    (found,) = check(load_machine(name), trace_of(layer))
    assert found.differences == []
    assert found.numbers_agree


def test_a_queue_that_could_hold_more_than_any_memory_is_drawn(tmp_path):
    path = tmp_path / "r.json"
    data = json.loads(simulate(load_machine("eie-64pe", pe_count=2), trace_of(linear(np.eye(3), [[1] * 3]))).to_json())
    for part in (data["total"], *data["layers"]):
        for queue in part["queues"].values():
            queue["capacity"] = 2**62
    path.write_text(json.dumps(data))
    results = read_results(path)
    assert {levels.firsts[-1] for levels in levels_of(results, ["t"])} == {2**62}
    assert "Queues" in report_html(results)


def test_a_share_or_threshold_that_is_no_number_is_refused():
    trace = trace_of(picture(2))
    assert refused(lambda: shift_layers(trace, None)) == "--shift must be above 0 and at most 1, not None"
    assert refused(lambda: Shares.of(1, ["1"], [1.0], 1.0)) == "--keep must be above 0 and at most 1, not '1'"
    assert refused(lambda: delta_layers(trace, b"1")) == "--threshold must be a number from 0, not b'1'"
    assert refused(lambda: delta_layers(trace, 10**400)).startswith("--threshold must be a number from 0, not 1000")
    assert refused(lambda: edit_layers(trace, threshold="1")) == "--threshold must be a number from 0, not '1'"
    assert refused(lambda: edit_layers(trace, block=2.5)) == "--block must be a whole number from 1 to 4096, not 2.5"
    assert refused(lambda: edit_layers(trace, original="x")) == "t: --original must be a sample from 0 to 1, not 'x'"


def test_a_threshold_beyond_float32_is_one_that_nothing_exceeds():
    trace = trace_of(picture(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not delta_layers(trace, 1e300).trace.layers[0].inputs[1].any()
        assert "no input of a convolution changes" in refused(lambda: edit_layers(trace, threshold=1e300))


def test_an_edited_sample_must_be_there_in_every_layer():
    trace = trace_of(picture(2, "a"), picture(1, "b"))
    assert refused(lambda: edit_layers(trace)) == "t: --edited must be a sample from 0 to 0, not 1"


def test_points_that_are_no_array_or_beyond_float32_are_refused():
    assert refused(lambda: Cloud([[0.0, 0.0, 0.0]], "c")) == "points must be a numpy array, not a list"
    assert refused(lambda: statistics(None, 0.1)) == "points must be real numbers of shape (n, 3), not object ()"
    assert refused(lambda: build("minkunet-small", np.full((3, 3), 1e300))) == (
        "points must be finite, and row 0 holds inf; drop it"
    )


def test_a_radius_beyond_float32_reaches_every_point():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ball_query(np.eye(3), np.eye(3), 1e300, 2)[1].tolist() == [2, 2, 2]


def test_the_connectivity_of_a_synthetic_layer_is_a_number():
    assert refused(lambda: vgg_weight("L1", connectivity=b"1")) == "connectivity must be a number above 0, not b'1'"
    assert refused(lambda: vgg_weight("L1", connectivity=0.5)) == "connectivity must be at least 1 and finite, not 0.5"


def test_a_number_of_numpys_is_held_against_any_bound():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert number(np.float32(0.5), "x", 0, 1e300) == 0.5
        assert positive(np.float32(0.5), "x") == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulate", "lenet-digits-imp", "--set", f"pe_count={LONG}"], "eie-64pe: pe_count must be a whole number"),
        (["simulate", "m.mtx", "--act-density", "1", "--input-size", f"{LONG}x1"], "--input-size must be HEIGHTxWIDTH"),
        (["transform", "spatial", "convnet-digits-imp", "--out", "o.safetensors", "--edit", f"0,0,1,{LONG}"],
         "--edit must be TOP,LEFT,HEIGHT,WIDTH"),
        (["synth", "gemm", "--rows", "2", "--reduction", "4", "--columns", "1", "--out", "o.safetensors", "--pattern",
          f"{LONG}:4"], "pattern must be N:M"),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)  # fmt: skip
def test_a_number_of_thousands_of_digits_is_refused_in_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"gossamer: error: {message}") and said.count("\n") == 1


def test_a_number_of_thousands_of_digits_in_an_energy_table_is_refused(tmp_path):
    path = tmp_path / "e.toml"
    path.write_text(f"node_nm = {LONG}\n")
    assert refused(lambda: read_energy_table(path)).startswith(
        f"{path}: an energy table must be TOML: Exceeds the limit"
    )
    assert parse_set(f"k={LONG}") == ("k", LONG)


def test_what_a_search_may_keep_is_written_in_digits():
    job = Job(method="amc", source="x", machine=load_machine("eie-64pe"), target=("latency", 0.5), kind="nm")
    for text in (LONG, "\u0662", "", "1,", "-1"):
        assert refused(replace(job, ns=text).checked).startswith("--n must be whole numbers from 1 to --m, which is 4")


def test_a_space_needs_values_trials_a_seed_and_a_pattern_of_text():
    machine, trace = load_machine("eie-64pe", pe_count=2), trace_of(linear(np.eye(3), [[1] * 3]))
    assert refused(lambda: Space([trace], [machine], {"pe_count": []}, vary)) == (
        "pe_count: at least one value is needed, and there is none; leave the key out"
    )
    small = Space([trace], [machine], {"pe_count": [1, 2, 4]}, vary)
    for trials in (0, 1.5, "2"):
        assert refused(partial(explore, small, trials=trials)) == (
            f"--trials must be a whole number of at least 1, not {trials!r}"
        )
    pytest.importorskip("optuna", reason="a search needs the extra explore")
    assert refused(lambda: search(small, lambda outcome: [1.0], 2, seed=2**32)) == (
        "--search-seed must be a whole number from 0 to 4294967295, not 4294967296"
    )
    assert refused(lambda: Case(trace, machine, layers="\ud800")) == (
        "a layer pattern must have printable characters, not '\\ud800'; as names have"
    )


@pytest.mark.parametrize("accuracy", ["high", {"top1": 0.5}, [1], 7.0, None])
def test_an_accuracy_that_is_none_is_not_told(accuracy):
    trace = trace_of(linear(np.eye(3), [[1] * 3]), accuracy=accuracy)
    results = [simulate(load_machine(name), trace) for name in ("eie-64pe", "systolic-8x8")]
    assert [row["accuracy"] for row in compare_rows(results)] == [None, None]
    assert pairs_table(results)


def test_a_cluster_at_a_tls_address_needs_certificates():
    pytest.importorskip("distributed", reason="a cluster needs the extra cluster")
    cluster = Cluster("tls://127.0.0.1:1")
    assert refused(lambda: cluster.client).startswith(
        "tls://127.0.0.1:1: Dask must be configured for tls, and is not: TLS expects a `ssl_context` argument"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 2**31}, "batch_size must be at most 2147483647, not 2147483648"),
        (
            {"schedule": "multistep", "milestones": [1, 2**40]},
            f"milestones must be at most 2147483647, not [1, {2**40}]",
        ),
        ({"threads": 2**20}, "threads must be a whole number of at least 1 and of at most 1024, not 1048576"),
        ({"method": "asp", "sparsity": 0.0, "n": 2, "m": 5000}, "m must be at most 4096, not 5000"),
        ({"learning_rate": 1e300}, "learning_rate must be at most 1000000, not 1e+300"),
        ({"weight_decay": float("inf")}, "weight_decay must be at most 1000000, not inf"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_a_recipe_asks_for_no_more_than_there_is_room_for(change, message):
    assert refused(lambda: load_recipe("lenet-digits-imp", **change)) == f"recipe lenet-digits-imp: {message}"


def test_a_learning_rate_that_grows_ends_somewhere():
    from gossamer.workloads.training.loop import rate_factor

    recipe = load_recipe("lenet-digits-imp", schedule="multistep", milestones=[1] * 99, gamma=1e6)
    assert 1e25 < rate_factor(recipe, 2.0) < 1e27
    assert rate_factor(load_recipe("lenet-digits-imp", schedule="multistep", milestones=[1], gamma=0.5), 2.0) == 0.5


def test_text_in_a_configuration_can_be_printed():
    assert "sparseloop-stc" in list_machines()
    assert refused(lambda: load_machine("sparseloop-stc", dense_energy="\ud800")) == (
        "sparseloop-stc: dense_energy must be text that can be printed, not '\\ud800'"
    )


def test_a_gemm_pattern_is_written_in_digits():
    assert gemm_layer(2, 4, 1, "2:4").layers[0].pattern.m == 4
    assert refused(lambda: gemm_layer(2, 4, 1, "\u0662:4")).startswith("pattern must be N:M with 1 <= N <= M <= 256")


def test_an_input_of_a_type_that_onnx_does_not_have_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx", reason="a model of ONNX needs the extra onnx")
    from onnx import TensorProto, helper, numpy_helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy"]
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight])
    graph.input[0].type.tensor_type.elem_type = 65
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph), path)
    assert refused(lambda: trace_of_onnx(path, np.ones((1, 3), np.float32))) == (
        f"{path}: input x (1, 3) must be of a type of ONNX's, not 65"
    )
