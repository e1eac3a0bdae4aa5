import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine
from gossamer.reports.comparison import compare_rows
from gossamer.simulator import simulate
from gossamer.workloads import load_trace
from gossamer.workloads.dynamic.layers import output_of
from gossamer.workloads.dynamic.spatial import edit_layers, reached, scattered
from gossamer.workloads.dynamic.temporal import shift_layers
from gossamer.workloads.errors import InputError
from gossamer.workloads.gemm import lower_gemm
from gossamer.workloads.trace import Layer, Trace

from ..refusals import message


def conv(name, weight, inputs, **attributes):
    return Layer(name=name, op="conv2d", weight=weight.astype("f4"), inputs=inputs.astype("f4"), attributes=attributes)


def pictures(layer):
    outputs = output_of(layer)
    size = reached(layer, np.zeros(layer.inputs.shape[2:], bool)).shape
    return outputs.reshape(len(layer.inputs), *size, -1).transpose(0, 3, 1, 2)


def network(seed, rows, columns, edit, *, kernel=3, stride=1, padding=1, dilation=1, groups=1):
    """Return a trace of two convolutions with ReLU, of a picture and the same with cells ``edit`` changed."""
    rng = np.random.default_rng(seed)
    original = rng.normal(size=(4, rows, columns))
    changed = original.copy()
    for row, column in edit:
        changed[:, row % rows, column % columns] += 1
    attributes = {"stride": (stride, 1), "padding": (padding, padding), "dilation": (dilation, 1), "groups": groups}
    first = conv(
        "conv1", rng.normal(size=(6, 4 // groups, kernel, kernel)), np.stack([original, changed]), **attributes
    )
    second = conv("conv2", rng.normal(size=(3, 6, 1, 1)), np.maximum(pictures(first), 0))
    fc = Layer(
        name="fc",
        op="linear",
        weight=rng.normal(size=(2, 3)).astype("f4"),
        inputs=pictures(second).mean((2, 3)).astype("f4"),
    )
    return Trace(name="picture", layers=[first, second, fc], provenance={"accuracy": 0.5})


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), rows=st.integers(5, 12), columns=st.integers(5, 12),
    edit=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=3),
    kernel=st.sampled_from([1, 2, 3]), stride=st.integers(1, 3), padding=st.integers(0, 2),
    dilation=st.integers(1, 2), groups=st.sampled_from([1, 2]), block=st.integers(1, 5),
)  # fmt: skip
def test_what_is_put_together_is_what_the_whole_picture_gives(
    seed, rows, columns, edit, kernel, stride, padding, dilation, groups, block
):
    trace = network(
        seed, rows, columns, edit, kernel=kernel, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    try:
        found = edit_layers(trace, block=block)
    except InputError as error:  # a stride may step over the edit
        assert "must change something" in str(error)
        return
    made = {layer.name: layer for layer in found.trace.layers}
    whole = {layer.name: layer for layer in found.whole.layers}
    for layer, about in zip(trace.layers[:2], found.layers, strict=True):
        original, wanted = pictures(layer)
        if layer.name not in made:
            assert np.array_equal(original, wanted) and not about.outputs.any()
            continue
        again = scattered(made[layer.name], about, original)
        np.testing.assert_allclose(again, wanted, rtol=1e-12, atol=1e-12)
        assert about.error < 1e-12
        assert about.macs == lower_gemm(made[layer.name]).macs
        assert about.macs_whole == lower_gemm(whole[layer.name]).macs


def test_a_change_reaches_the_outputs_whose_kernel_touches_it():
    layer = conv("conv", np.ones((1, 1, 3, 3)), np.zeros((1, 1, 6, 6)), padding=(1, 1), stride=(2, 2))
    mask = np.zeros((6, 6), bool)
    mask[1, 4] = True
    # Output row r sees input rows 2r - 1 to 2r + 1: row 1 is seen by 0 and 1, column 4 by 2 alone.
    assert np.argwhere(reached(layer, mask)).tolist() == [[0, 2], [1, 2]]


def test_blocks_of_one_output_are_the_outputs_reached():
    trace = network(0, 9, 9, [(4, 4)])
    (first, second) = edit_layers(trace, block=1).layers
    assert len(first.blocks) == first.outputs.sum() == 9
    assert first.macs == 9 * 6 * 4 * 9 and first.macs_whole == 81 * 6 * 4 * 9
    assert second.outputs.sum() == 9  # 1 x 1 spreads nothing


def test_an_edit_in_a_corner_is_one_block_and_fewer_cycles():
    trace = network(1, 32, 32, [(0, 0), (1, 1)])
    found = edit_layers(trace, block=4)
    assert [each.blocks.tolist() for each in found.layers] == [[[0, 0]], [[0, 0]]]
    assert found.macs_share == pytest.approx(1 / 64)
    for name in ("systolic-16x16", "eie-64pe", "a100-sparse"):
        machine = load_machine(name)
        part, whole = (simulate(machine, each, layers="conv*").total for each in (found.trace, found.whole))
        assert part.cycles < whole.cycles, name


def test_the_machine_computes_the_blocks_that_are_put_back():
    trace = network(2, 10, 10, [(5, 5)])
    found = edit_layers(trace, block=3)
    layer = found.trace.layers[0]
    output = simulate(load_machine("systolic-8x8"), found.trace).layers[0].output
    np.testing.assert_allclose(output, output_of(layer), rtol=1e-4, atol=1e-4)


def test_below_the_threshold_nothing_has_changed_and_the_error_is_told():
    trace = network(3, 12, 12, [(5, 5)])
    inputs = trace.layers[0].inputs.copy()
    inputs[1, :, 0, 0] = inputs[0, :, 0, 0] + 0.01
    faint = Trace(name="picture", layers=[conv("conv1", trace.layers[0].weight, inputs, padding=(1, 1))])
    exact, rough = edit_layers(faint, block=2), edit_layers(faint, block=2, threshold=0.1)
    assert rough.macs_share < exact.macs_share
    assert exact.layers[0].error < 1e-12 < rough.layers[0].error < 0.05


def test_linear_layers_are_computed_for_the_rows_that_changed():
    weight = np.ones((2, 3), np.float32)
    tokens = np.zeros((2, 4, 3), np.float32)
    tokens[1, 2] = 1
    same = np.ones((2, 3), np.float32)
    trace = network(0, 6, 6, [(3, 3)])
    layers = [
        *trace.layers[:1],
        Layer(name="tokens", op="linear", weight=weight, inputs=tokens),
        Layer(name="same", op="linear", weight=weight, inputs=same),
        Layer(name="qk", op="matmul", weight=np.ones((4, 2, 3), "f4"), inputs=np.ones((4, 5, 3), "f4"),
              attributes={"samples": 2}),
    ]  # fmt: skip
    found = edit_layers(Trace(name="picture", layers=layers))
    made = {layer.name: layer.inputs.shape for layer in found.trace.layers[1:]}
    assert made == {"tokens": (1, 3), "qk": (2, 5, 3)}
    assert [layer.inputs.shape for layer in found.whole.layers[1:]] == [(1, 4, 3), (1, 3), (2, 5, 3)]


def test_a_given_edit_spreads_through_every_convolution():
    trace = load_trace("resnet20-digits-imp")
    mask = np.zeros((8, 8), bool)
    mask[0, 0] = True
    found = edit_layers(trace, edit=mask, block=1)
    assert [len(each.blocks) for each in found.layers[:4]] == [4, 9, 16, 25]
    assert all(each.error is None for each in found.layers)
    assert found.trace.layers[-1].name == "fc"


def test_a_given_edit_contains_what_really_changes():
    trace = network(5, 12, 12, [(3, 7)], stride=2)
    mask = np.zeros((12, 12), bool)
    mask[3, 7] = True
    found, spread = edit_layers(trace).layers, edit_layers(trace, edit=mask, original=1).layers
    assert not any((one.outputs & ~other.outputs).any() for one, other in zip(found, spread, strict=True))


def test_with_a_dilation_the_edit_stays_its_size_in_every_layer():
    trace = load_trace("resnet20-digits-imp")
    mask = np.zeros((8, 8), bool)
    mask[:2, :2] = True
    found = edit_layers(trace, edit=mask, dilation=1, block=1)
    by_size = {each.inputs.shape: int(each.inputs.sum()) for each in found.layers}
    assert by_size == {(8, 8): 9, (4, 4): 4, (2, 2): 4}


def test_a_dilation_widens_by_cells_to_each_side_and_no_further_than_the_picture():
    trace = network(0, 9, 7, [(3, 3)])
    mask = np.zeros((9, 7), bool)
    mask[4, 2] = True
    for cells in (0, 1, 3, 4096):
        seen = edit_layers(trace, edit=mask, dilation=cells).layers[0].inputs
        rows, columns = np.indices((9, 7))
        assert np.array_equal(seen, (abs(rows - 4) <= cells) & (abs(columns - 2) <= cells))


def test_wrong_input_is_refused():
    trace = network(0, 6, 6, [(3, 3)])
    mask = np.ones((6, 6), bool)
    still = network(0, 6, 6, [])
    assert message(lambda: edit_layers(still)) == (
        "picture: the edit must change something, and no input of a convolution changes"
    )
    assert message(lambda: edit_layers(trace, edited=2)) == "picture: --edited must be a sample from 0 to 1, not 2"
    assert message(lambda: edit_layers(trace, block=0)) == "--block must be a whole number from 1 to 4096, not 0"
    assert (
        message(lambda: edit_layers(trace, dilation=1)) == "--dilation must come with --edit, not 1 alone; leave it out"
    )
    assert message(lambda: edit_layers(trace, edit=mask, threshold=1.0)) == (
        "--threshold compares two samples, not 1 with --edit; leave one out"
    )
    assert message(lambda: edit_layers(trace, edit=mask[:5])) == (
        "picture: the edit must be (6, 6), the input of conv1, not (5, 6)"
    )
    assert message(lambda: edit_layers(trace, threshold=-1.0)) == "--threshold must be a number from 0, not -1"
    plain = Trace(name="plain", layers=[trace.layers[2]])
    assert message(lambda: edit_layers(plain)) == "plain: an edit needs convolutions, and the trace has none"


def test_a_size_that_an_edit_does_not_reach_by_strides_is_refused():
    first = network(0, 6, 6, [(3, 3)]).layers[0]
    other = conv("odd", np.ones((1, 1, 1, 1)), np.ones((2, 1, 5, 5)))
    assert message(lambda: edit_layers(Trace(name="picture", layers=[first, other]), edit=np.ones((6, 6), bool))) == (
        "picture: the input of odd, (5, 5), must be one that an edit of (6, 6) reaches by whole strides; give two "
        "samples in place of the edit"
    )


def test_all_blocks_of_a_picture_are_one_sample_so_that_figures_per_sample_compare():
    trace = network(4, 12, 12, [(0, 0), (6, 6)])
    edit = edit_layers(trace, block=2)
    assert [len(layer.inputs) > 1 for layer in edit.trace.layers] == [True, True, False]
    assert {layer.samples for layer in (*edit.trace.layers, *edit.whole.layers)} == {1}
    machine = load_machine("systolic-8x8")
    results = [simulate(machine, each) for each in (trace, edit.whole, edit.trace)]
    assert [result.samples for result in results] == [2, 1, 1]
    _, whole, some = compare_rows(results)
    assert some["cycles_per_sample"] == some["cycles"] < whole["cycles"]
    assert some["speedup"] > 1


def test_rows_that_changed_are_one_sample():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 5, 3)).astype("f4")
    rows[1, :2] = rows[0, :2]
    fc = Layer(name="fc", op="linear", weight=np.ones((2, 3), "f4"), inputs=rows)
    first = network(5, 8, 8, [(0, 0)]).layers[0]
    part = edit_layers(Trace(name="t", layers=[first, fc])).trace.layers[1]
    assert (part.inputs.shape, part.samples) == ((3, 3), 1)


def test_an_edit_of_blocks_is_refused():
    edit = edit_layers(network(4, 12, 12, [(0, 0), (6, 6)]), block=2).trace
    blocks = len(edit.layers[0].inputs)
    with pytest.raises(InputError) as error:
        edit_layers(edit, edit=np.ones((4, 4), bool))
    assert str(error.value) == (
        f"picture-edit: an edit needs whole pictures, and layer conv1 has {blocks} parts of 1; "
        "start from the trace before"
    )
    with pytest.raises(InputError) as error:
        shift_layers(edit)
    assert str(error.value) == (
        "picture-edit: samples must be frames, two at least, and layer conv1 has 1; export a sequence"
    )
