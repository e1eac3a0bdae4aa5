import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.__main__ import main
from gossamer.workloads import load_trace, save_trace
from gossamer.workloads.errors import InputError
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.synth import gemm_layer


def groups_of(weight, m):
    padded = np.pad(weight != 0, ((0, 0), (0, -weight.shape[1] % m)))
    return padded.reshape(len(weight), -1, m)


@given(
    rows=st.integers(1, 20),
    reduction=st.integers(1, 40),
    columns=st.integers(1, 4),
    n=st.integers(1, 6),
    extra=st.integers(0, 6),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_every_group_keeps_exactly_n_and_a_short_one_what_it_has(rows, reduction, columns, n, extra, seed):
    m = n + extra
    layer = gemm_layer(rows, reduction, columns, f"{n}:{m}", seed=seed).layers[0]
    kept = groups_of(layer.weight, m).sum(axis=2)
    whole, rest = divmod(reduction, m)
    assert (kept[:, :whole] == n).all()
    assert rest == 0 or (kept[:, whole] <= min(n, rest)).all()
    assert layer.pattern == Pattern("n:m", n=n, m=m, axis=1)
    assert layer.inputs.shape == (columns, reduction) and (layer.inputs > 0).all()


def test_places_in_a_group_are_uniform():
    layer = gemm_layer(2000, 64, 1, "2:8", seed=4).layers[0]
    share = groups_of(layer.weight, 8).mean(axis=(0, 1))
    assert np.abs(share - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 16000)


def test_rows_of_a_block_choose_four_together_and_each_keeps_two_of_them():
    weight = gemm_layer(70, 100, 1, "16:2:10", seed=2).layers[0].weight
    groups = groups_of(weight, 10)
    assert (groups.sum(axis=2) == 2).all()
    used = [groups[first : first + 16].any(axis=0).sum(axis=1) for first in range(0, 70, 16)]
    assert np.max(used) == 4
    assert (groups.any(axis=0).sum(axis=1) > 4).any()  # blocks choose apart


def test_density_of_random_weights_is_the_one_declared():
    layer = gemm_layer(500, 400, 2, "random:0.1", seed=7).layers[0]
    assert layer.nonzeros == pytest.approx(20000, abs=5 * np.sqrt(20000 * 0.9))
    assert layer.pattern == Pattern("unstructured")


def test_a_dense_product_has_no_zero_weight_and_says_so():
    layer = gemm_layer(300, 200, 2, "dense").layers[0]
    assert layer.nonzeros == 300 * 200 and layer.pattern == Pattern("dense")


def test_activations_have_exactly_their_density():
    layer = gemm_layer(4, 50, 3, "2:4", act_density=0.3).layers[0]
    assert np.count_nonzero(layer.inputs, axis=1).tolist() == [15, 15, 15]


def test_a_seed_gives_one_trace_and_another_seed_another():
    first, again, other = (gemm_layer(16, 16, 2, seed=seed).sha256 for seed in (1, 1, 2))
    assert first == again != other


def test_rows_drawn_in_blocks_keep_the_pattern_as_well():
    layer = gemm_layer(9, 1 << 20, 1, "3:2:5").layers[0]  # more than one block of rows
    groups = groups_of(layer.weight, 5)[:, :-1]
    assert (groups.sum(axis=2) == 2).all()
    assert max(groups[first : first + 3].any(axis=0).sum(axis=1).max() for first in range(0, 9, 3)) == 4


def test_the_trace_travels_through_its_file(tmp_path):
    trace = gemm_layer(20, 30, 4, "2:6", seed=3)
    save_trace(trace, tmp_path / "gemm.safetensors")
    loaded = load_trace(str(tmp_path / "gemm.safetensors"))
    assert loaded.sha256 == trace.sha256 and loaded.layers[0].pattern == trace.layers[0].pattern
    assert loaded.provenance["statistics"] == {
        "rows": 20, "reduction": 30, "columns": 4, "pattern": "2:6", "weights": "normal",
    }  # fmt: skip


def test_the_command_writes_a_file_and_says_what_is_in_it(tmp_path, capsys):
    path = tmp_path / "g.safetensors"
    options = ["--rows", "8", "--reduction", "16", "--columns", "3", "--pattern", "1:8", "--seed", "5"]
    assert main(["synth", "gemm", *options, "--out", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: g, (8, 16) x 3, 12.5% of weights kept\n"
    assert load_trace(str(path)).sha256 == gemm_layer(8, 16, 3, "1:8", seed=5, name="g").sha256


SAYS = (
    "pattern must be N:M with 1 <= N <= M <= 256, V:N:M with N <= 4 <= M, dense, or random:D with D from 0 to 1, not "
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 4, 4, "4:2"), SAYS + "'4:2'"),
        ((4, 4, 4, "0:2"), SAYS + "'0:2'"),
        ((4, 4, 4, "16:5:8"), SAYS + "'16:5:8'"),
        ((4, 4, 4, "0:2:8"), SAYS + "'0:2:8'"),
        ((4, 4, 4, "random:2"), SAYS + "'random:2'"),
        ((4, 4, 4, "random:nan"), SAYS + "'random:nan'"),
        ((4, 4, 4, "sparse"), SAYS + "'sparse'"),
        ((0, 4, 4, "2:4"), "rows must be a whole number of at least 1, not 0"),
        ((4, 4, 0, "2:4"), "columns must be a whole number of at least 1, not 0"),
        ((1 << 17, 1 << 17, 4, "2:4"), "a product must have at most 2147483648 weights, not 131072 x 131072"),
        ((4, 1 << 17, 1 << 17, "2:4"), "a product must have at most 2147483648 inputs, not 131072 x 131072"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(arguments, message):
    with pytest.raises(InputError) as error:
        gemm_layer(*arguments)
    assert str(error.value) == message
