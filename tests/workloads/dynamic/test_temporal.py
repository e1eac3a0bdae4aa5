from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.workloads import load_trace
from gossamer.workloads.dynamic.chain import feed
from gossamer.workloads.dynamic.layers import output_of
from gossamer.workloads.dynamic.temporal import delta_layers, differences, restored, shift_layers
from gossamer.workloads.errors import InputError
from gossamer.workloads.trace import Layer, Trace

from ..refusals import message


def frames_of(seed, count, *shape, change=0.3):
    """Return frames of 1/256ths, each like the one before but for a share of its values: differences are exact."""
    rng = np.random.default_rng(seed)
    frames = [rng.integers(0, 256, shape)]
    for _ in range(count - 1):
        new = rng.integers(0, 256, shape)
        frames.append(np.where(rng.random(shape) < change, new, frames[-1]))
    return (np.stack(frames) / 256).astype(np.float32)


def sequence(seed=0, count=4):
    rng = np.random.default_rng(seed)
    return Trace(
        name="film",
        provenance={"accuracy": 0.5},
        layers=[
            Layer(
                name="conv", op="conv2d", weight=rng.normal(size=(4, 16, 3, 3)).astype("f4"),
                inputs=frames_of(seed, count, 16, 6, 5), bias=rng.normal(size=4).astype("f4"),
                attributes={"padding": (1, 1), "stride": (2, 1)},
            ),
            Layer(
                name="coded", op="linear", codes=rng.integers(0, 4, (5, 12)).astype("u1"),
                codebook=np.array([0, 0.5, -1, 2], "f4"), bias_codes=np.array([1, 2, 3, 0, 1], "u1"),
                inputs=frames_of(seed + 1, count, 12),
            ),
            Layer(
                name="fc", op="linear", weight=rng.normal(size=(3, 8)).astype("f4"), inputs=frames_of(2, count, 3, 8)
            ),
        ],
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 6))
def test_at_threshold_0_the_outputs_come_back(seed, count):
    trace = sequence(seed, count)
    deltas = delta_layers(trace)
    for layer, other in zip(trace.layers, deltas.trace.layers, strict=True):
        assert np.array_equal(np.cumsum(other.inputs.astype(np.float64), axis=0), layer.inputs)  # exactly
        assert not other.has_bias
        np.testing.assert_allclose(restored(other, layer), output_of(layer), rtol=1e-12, atol=1e-12)
    assert all(each.error < 1e-12 for each in deltas.layers)
    assert deltas.trace.provenance["accuracy"] == 0.5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.01, 0.1, 0.4]))
def test_what_was_passed_on_is_never_further_off_than_the_threshold(seed, threshold):
    frames = frames_of(seed, 6, 20)
    deltas = differences(frames, threshold)
    passed_on = np.cumsum(deltas.astype(np.float64), axis=0)
    assert np.abs(passed_on - frames).max() <= threshold
    assert (np.abs(deltas[1:][deltas[1:] != 0]) > threshold).all()


def test_small_changes_wait_until_they_add_up():
    frames = np.array([[0.0], [0.25], [0.5], [0.75], [0.75]], np.float32)
    assert differences(frames, 0.3).ravel().tolist() == [0, 0, 0.5, 0, 0]
    assert differences(frames, 0.2).ravel().tolist() == [0, 0.25, 0.25, 0.25, 0]


def test_a_frame_that_does_not_change_costs_eie_nothing():
    still = Trace(
        name="still",
        layers=[
            Layer(name="fc", op="linear", weight=np.ones((8, 16), np.float32), inputs=np.ones((4, 16), np.float32))
        ],
    )
    machine = load_machine("eie-64pe", weights="exact")
    whole, deltas = (simulate(machine, each).layers[0] for each in (still, delta_layers(still).trace))
    assert (whole.macs, deltas.macs) == (4 * 128, 128)
    assert deltas.counts["broadcasts"] == 16
    assert np.array_equal(np.cumsum(deltas.output, axis=0), whole.output)


def test_a_higher_threshold_skips_more_and_errs_more():
    trace = sequence(7, 8)
    found = [delta_layers(trace, threshold) for threshold in (0.0, 0.2, 0.5)]
    for one, other in pairwise(found):
        assert all(a.nonzero_deltas >= b.nonzero_deltas for a, b in zip(one.layers, other.layers, strict=True))
        assert all(a.error <= b.error for a, b in zip(one.layers, other.layers, strict=True))
    assert "accuracy" not in found[1].trace.provenance


def test_only_the_layers_meant_are_changed():
    trace = sequence()
    deltas = delta_layers(trace, layers="f*")
    assert [each.name for each in deltas.layers] == ["fc"]
    assert np.array_equal(deltas.trace.layers[0].inputs, trace.layers[0].inputs)
    assert deltas.trace.provenance["dynamic"] == [
        {"transform": "deltas", "threshold": 0.0, "steps": False, "layers": ["fc"]}
    ]


def test_the_steps_of_each_sample_may_be_the_frames():
    steps = np.stack([frames_of(seed, 5, 7) for seed in (1, 2, 3)])
    bias, weight = np.arange(4, dtype=np.float32), np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
    layer = Layer(name="lstm.hh", op="linear", weight=weight, bias=bias, inputs=steps)
    deltas = delta_layers(Trace(name="lstm", layers=[layer]), steps=True).trace.layers[0]
    assert np.array_equal(np.cumsum(deltas.inputs.astype(np.float64), axis=1), steps)
    assert np.array_equal(deltas.inputs[:, 0], steps[:, 0])
    np.testing.assert_allclose(restored(deltas, layer, steps=True), output_of(layer), rtol=1e-12, atol=1e-12)
    with pytest.raises(InputError) as error:
        delta_layers(sequence(), steps=True)
    assert str(error.value) == (
        "film: with --steps, inputs must be (samples, steps, features), two steps at least, and layer coded has "
        "(4, 12); choose others with --layer"
    )


@pytest.mark.parametrize("two_sided", [False, True])
def test_an_eighth_of_the_channels_comes_from_the_frame_before(two_sided):
    trace = sequence()
    conv = trace.layers[0].inputs
    shifted = shift_layers(trace, two_sided=two_sided)
    found = shifted.trace.layers[0].inputs
    assert np.array_equal(found[1:, :2], conv[:-1, :2]) and not found[0, :2].any()
    if two_sided:
        assert np.array_equal(found[:-1, 2:4], conv[1:, 2:4]) and not found[-1, 2:4].any()
    rest = slice(4 if two_sided else 2, None)
    assert np.array_equal(found[:, rest], conv[:, rest])
    (layer,) = shifted.layers
    channels = 4 if two_sided else 2
    assert (layer.channels, layer.moved_words) == (channels, 2 * channels * 3 * 30)


def test_a_shift_adds_no_multiplication():
    trace = sequence()
    machine = load_machine("systolic-8x8")
    whole, shifted = (simulate(machine, each, layers="conv").total for each in (trace, shift_layers(trace).trace))
    assert (whole.macs, whole.cycles) == (shifted.macs, shifted.cycles)


def test_wrong_input_is_refused():
    trace = sequence()
    one = Trace(
        name="one", layers=[Layer(name="fc", op="linear", weight=np.ones((2, 3), "f4"), inputs=np.ones((1, 3), "f4"))]
    )
    assert message(lambda: delta_layers(trace, -1.0)) == "--threshold must be a number from 0, not -1"
    assert message(lambda: delta_layers(trace, float("nan"))) == "--threshold must be a number from 0, not nan"
    assert message(lambda: delta_layers(one)) == (
        "one: samples must be frames, two at least, and layer fc has 1; export a sequence"
    )
    assert message(lambda: shift_layers(one)) == "one: --layer '*' must fit a layer of conv2d, and fits none"
    assert message(lambda: shift_layers(trace, 0.6, two_sided=True)) == (
        "--shift must be at most 0.5 with --two-sided, not 0.6"
    )
    assert message(lambda: shift_layers(trace, 0.0)) == "--shift must be above 0 and at most 1, not 0"


# A chain is fed with other inputs.


def test_a_chain_fed_with_its_own_inputs_is_itself():
    trace = load_trace("lenet-digits-imp")
    fed = feed(trace, trace.layers[0].inputs)
    for layer, other in zip(trace.layers, fed.layers, strict=True):
        np.testing.assert_allclose(other.inputs, layer.inputs, atol=1e-5)


def chain(seed=0, images=None):
    """Return a trace of conv, ReLU, conv, mean, linear, GELU, linear, fed with ``images``."""
    from scipy.special import erf

    rng = np.random.default_rng(seed)
    own = rng.normal(size=(2, 3, 8, 8))
    x = own if images is None else images
    layers = []
    for i, (out, channels) in enumerate(((5, 3), (4, 5))):
        weight = rng.normal(size=(out, channels, 3, 3)).astype("f4")
        layers.append(
            Layer(name=f"conv{i}", op="conv2d", weight=weight, inputs=x.astype("f4"),
                  attributes={"padding": (1, 1), "stride": (1 + i, 1)})
        )  # fmt: skip
        rows = (8 + 2 - 3) // (1 + i) + 1
        x = np.maximum(output_of(layers[-1]).reshape(len(x), rows, 8, out).transpose(0, 3, 1, 2), 0)
    x = x.mean(axis=(2, 3))
    for i, (out, inputs) in enumerate(((6, 4), (2, 6))):
        layers.append(
            Layer(name=f"fc{i}", op="linear", weight=rng.normal(size=(out, inputs)).astype("f4"), inputs=x.astype("f4"))
        )
        x = output_of(layers[-1])
        x = x * 0.5 * (1 + erf(x / np.sqrt(2)))
    return Trace(name="chain", layers=layers)


def test_what_lies_between_the_layers_of_a_chain_is_found():
    images = np.random.default_rng(9).normal(size=(3, 3, 8, 8))
    fed, wanted = feed(chain(), images), chain(images=images)
    for layer, other in zip(wanted.layers, fed.layers, strict=True):
        np.testing.assert_allclose(other.inputs, layer.inputs, rtol=1e-3, atol=1e-3)


def test_what_is_no_chain_is_refused():
    assert message(lambda: feed(load_trace("resnet20-digits-imp"), np.zeros((1, 1, 8, 8), "f4"))) == (
        "resnet20-digits-imp: to be fed with other inputs, stage1.0.conv1 must take what conv puts out, through ReLU, "
        "GELU or nothing, flat or its mean, and it takes something else; export the network with these inputs instead"
    )
    assert message(lambda: feed(chain(), np.zeros((1, 2), "f4"))) == (
        "chain: inputs must be (batch, 3, 8, 8), as those of conv0 are, not (1, 2)"
    )
