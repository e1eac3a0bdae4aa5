"""LSTM layers: their rules, their file, what they compute, and linear layers of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.workloads import InputError, load_trace, save_trace
from gossamer.workloads.lowering import lower
from gossamer.workloads.lstm import matrices, run_lstm, sigmoid
from gossamer.workloads.lstm_unroll import roll_lstm, unroll_lstm
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.pruning import balanced
from gossamer.workloads.synth.ese import ese_lstm
from gossamer.workloads.trace import Layer, Trace


def lstm(features=3, cells=4, projected=0, samples=2, steps=3, seed=0, **changes):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    arrays = {
        "weight": normal(4 * cells, features + (projected or cells)),
        "bias": normal(4 * cells),
        "peephole": normal(3, cells),
        "inputs": normal(samples, steps, features),
    }
    if projected:
        arrays["projection"] = normal(projected, cells)
    return Layer(**({"name": "lstm", "op": "lstm"} | arrays | changes))


def refused(**changes):
    with pytest.raises(InputError) as caught:
        lstm(**changes)
    return str(caught.value)


# Rules


ZEROS = np.zeros
F32 = np.float32


@pytest.mark.parametrize(("changes", "message"), [
    ({"weight": ZEROS((15, 7), F32)},
     "layer lstm: the weight of lstm must have the rows of 4 gates, a multiple of 4, not 15"),
    ({"inputs": ZEROS((2, 3), F32)},
     "layer lstm: inputs must be (samples, steps, features), with fewer features than the weight has columns, "
     "7 with the hidden state, not (2, 3)"),
    ({"inputs": ZEROS((2, 3, 7), F32)},
     "layer lstm: inputs must be (samples, steps, features), with fewer features than the weight has columns, "
     "7 with the hidden state, not (2, 3, 7)"),
    ({"inputs": ZEROS((2, 3, 2), F32)},
     "layer lstm: without a projection the weight must have 2 + 4 columns, inputs and cells, not 7"),
    ({"inputs": ZEROS((0, 3, 3), F32)},
     "layer lstm: inputs must hold at least one sample and no empty side, not (0, 3, 3)"),
    ({"projection": ZEROS((3, 4), F32)}, "layer lstm: projection must be (4, 4), hidden state by cells, not (3, 4)"),
    ({"peephole": ZEROS((2, 4), F32)}, "layer lstm: peephole must be (3, 4), a row for each of i, f and o, not (2, 4)"),
    ({"bias": ZEROS(4, F32)}, "layer lstm: bias must be (16,), one an output, not (4,)"),
    ({"mask": ZEROS((16, 6), bool)}, "layer lstm: mask must have the weight's shape (16, 7), not (16, 6)"),
    ({"attributes": {"steps": 3}}, "layer lstm: lstm knows no attributes, not 'steps'; leave it out"),
    ({"peephole": np.full((3, 4), np.nan, F32)},
     "layer lstm: tensor peephole must be finite, and holds nan at (0, 0); replace such values"),
    ({"codes": ZEROS((16, 7), np.uint8), "weight": None, "codebook": ZEROS(16, F32), "bias": None},
     "layer lstm: lstm takes no codes; give its weight as it is"),
])  # fmt: skip
def test_a_broken_rule_is_one_line(changes, message):
    assert refused(**changes) == message


def test_only_an_lstm_takes_a_projection():
    with pytest.raises(InputError, match="only lstm takes projection, not linear; leave it out"):
        Layer(
            name="fc", op="linear", weight=ZEROS((2, 2), F32), inputs=ZEROS((1, 2), F32), projection=ZEROS((2, 2), F32)
        )


def test_each_matrix_keeps_the_pattern_on_its_own():
    pattern = Pattern("balanced", pe_count=2, scope="pe")
    weight = np.zeros((16, 7), np.float32)
    weight[0:4, 0:2] = 1  # gate i, input: 4 of 6 on either PE
    lstm(weight=weight, pattern=pattern)
    weight[1::2, 0:2] = 0
    weight[5:8:2, 0:2] = 1  # gate f makes up for it: as many on either PE in all
    assert np.count_nonzero(weight[::2]) == np.count_nonzero(weight[1::2])
    assert refused(weight=weight, pattern=pattern) == (
        "layer lstm: matrix x_i: balanced over 2 PEs, each pe must keep a share of 0.3333 to within one weight, "
        "and PE 0 keeps 4 of 6; prune it again"
    )


def test_a_projection_keeps_the_pattern_too():
    projection = np.zeros((6, 4), np.float32)
    projection[::2] = 1
    message = refused(
        projected=6, projection=projection, weight=np.zeros((16, 9), np.float32),
        pattern=Pattern("balanced", pe_count=2, scope="pe"),
    )  # fmt: skip
    assert message.startswith("layer lstm: projection: balanced over 2 PEs, each pe must keep a share of 0.5")


def test_the_projection_counts_for_the_sparsity():
    projection = np.zeros((2, 4), np.float32)
    layer = lstm(projected=2, projection=projection, weight=np.ones((16, 5), np.float32))
    assert layer.size == 88 and layer.nonzeros == 80
    assert layer.sparsity == pytest.approx(8 / 88)
    assert Trace(name="t", layers=(layer,)).sparsity == pytest.approx(8 / 88)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3), st.booleans(), st.booleans())
def test_a_trace_file_gives_back_what_was_saved(tmp_path_factory, seed, projected, bias, peephole):
    rng = np.random.default_rng(seed)
    layer = lstm(features=2, projected=projected, seed=seed)
    weight = layer.weight * (rng.random(layer.shape) < 0.3)
    changes = {} if bias else {"bias": None}
    layer = lstm(features=2, projected=projected, seed=seed, weight=weight, mask=weight != 0, **changes,
                 **({} if peephole else {"peephole": None}))  # fmt: skip
    trace = Trace(name="t", layers=(layer,))
    read = load_trace(save_trace(trace, tmp_path_factory.mktemp("lstm") / "t.safetensors"))
    assert read.sha256 == trace.sha256
    for name in ("weight", "bias", "peephole", "projection", "inputs", "mask"):
        assert np.array_equal(getattr(read.layers[0], name), getattr(layer, name))


# What it computes


def step_by_step(layer):
    """Follow the equations of Sak et al. one cell at a time."""
    samples, steps, features = layer.inputs.shape
    cells, parts = layer.shape[0] // 4, matrices(layer)
    peephole = np.zeros((3, cells)) if layer.peephole is None else layer.peephole
    bias = np.zeros((4, cells)) if layer.bias is None else layer.bias.reshape(4, cells)
    hidden = np.zeros((samples, steps, layer.shape[1] - features))
    for s in range(samples):
        y, c = np.zeros(hidden.shape[2]), np.zeros(cells)
        for t in range(steps):
            x = layer.inputs[s, t].astype(np.float64)
            sums = {g: parts[f"x_{g}"].astype(np.float64) @ x + parts[f"r_{g}"].astype(np.float64) @ y for g in "ifgo"}
            i = sigmoid(sums["i"] + peephole[0] * c + bias[0])
            f = sigmoid(sums["f"] + peephole[1] * c + bias[1])
            c = f * c + i * np.tanh(sums["g"] + bias[2])
            o = sigmoid(sums["o"] + peephole[2] * c + bias[3])
            m = o * np.tanh(c)
            y = m if layer.projection is None else layer.projection.astype(np.float64) @ m
            hidden[s, t] = y
    return hidden


@pytest.mark.parametrize("changes", [{}, {"projected": 3}, {"bias": None}, {"peephole": None}, {"steps": 1}])
def test_all_steps_are_those_of_the_equations(changes):
    layer = lstm(**changes)
    assert np.allclose(run_lstm(layer).hidden, step_by_step(layer), rtol=0, atol=1e-12)


def test_without_peepholes_it_is_torch_s_lstm():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.LSTM(5, 8, batch_first=True)
    inputs = torch.randn(2, 4, 5)
    with torch.no_grad():
        expected, _ = module(inputs)
    layer = Layer(
        name="lstm", op="lstm", inputs=inputs.numpy(),
        weight=torch.cat([module.weight_ih_l0, module.weight_hh_l0], dim=1).detach().numpy(),
        bias=(module.bias_ih_l0 + module.bias_hh_l0).detach().numpy(),
    )  # fmt: skip
    assert np.abs(run_lstm(layer).hidden - expected.numpy()).max() < 1e-6


def test_no_gate_overflows():
    layer = lstm(inputs=np.full((1, 2, 3), 2.0**48, np.float32))
    run = run_lstm(layer)
    assert np.isfinite(run.hidden).all() and np.isfinite(run.gates).all()


# Unrolled


def test_the_linear_layers_give_the_gates_and_the_projection():
    layer = lstm(projected=3, peephole=None)
    run = run_lstm(layer)
    unrolled = unroll_lstm(Trace(name="t", layers=(layer,)))
    assert [(part.name, part.op, part.shape, part.inputs.shape) for part in unrolled.layers] == [
        ("lstm.ih", "linear", (16, 3), (2, 3, 3)),
        ("lstm.hh", "linear", (16, 3), (2, 3, 3)),
        ("lstm.hr", "linear", (3, 4), (2, 3, 4)),
    ]
    outputs = []
    for part in unrolled.layers:
        (product,) = lower(part)
        exact = product.vectors.astype(np.float64) @ product.weight.T.astype(np.float64)
        outputs.append(exact + (0 if product.bias is None else product.bias))
    assert np.allclose(outputs[0] + outputs[1], run.gates.reshape(6, 16), atol=1e-5)
    assert np.allclose(outputs[2], run.hidden.reshape(6, 3), atol=1e-5)


def test_machines_that_run_linear_run_an_unrolled_lstm():
    trace = unroll_lstm(Trace(name="t", layers=(lstm(projected=3, bias=None),)))
    macs = simulate(load_machine("eie-64pe"), trace).total.macs
    assert macs == 6 * 16 * 3 + 4 * 16 * 3 + 6 * 3 * 4  # the first hidden state is 0


def test_other_layers_stay_and_a_trace_without_lstm_is_refused():
    fc = Layer(name="fc", op="linear", weight=np.ones((2, 4), np.float32), inputs=np.ones((1, 4), np.float32))
    assert [part.name for part in unroll_lstm(Trace(name="t", layers=(lstm(), fc))).layers] == [
        "lstm.ih", "lstm.hh", "fc",
    ]  # fmt: skip
    with pytest.raises(InputError) as caught:
        unroll_lstm(Trace(name="t", layers=(fc,)))
    assert str(caught.value) == "t: at least one layer of op lstm is needed to unroll, not 0; nothing to do"


def test_a_pattern_that_the_longer_matrices_break_is_dropped():
    rng = np.random.default_rng(3)
    weight = np.zeros((16, 7), np.float32)
    for gate in range(4):
        for part in (slice(0, 3), slice(3, 7)):
            own = rng.normal(size=(4, part.stop - part.start)).astype(np.float32)
            weight[4 * gate : 4 * gate + 4, part] = own * balanced(own, np.ones(own.shape, bool), 0.5, 2)
    pattern = Pattern("balanced", pe_count=2, scope="pe")
    parts = unroll_lstm(Trace(name="t", layers=(lstm(weight=weight, pattern=pattern),))).layers
    for part in parts:
        assert part.pattern in (pattern, Pattern())
    assert Pattern("dense") == unroll_lstm(Trace(name="t", layers=(lstm(pattern=Pattern("dense")),))).layers[0].pattern


# ESE's


@pytest.mark.parametrize("pruning", ["balanced", "global"])
@pytest.mark.parametrize("row_sigma", [0.0, 0.4])
def test_ese_s_lstm_has_its_size_and_exactly_its_entries(pruning, row_sigma):
    trace = ese_lstm(row_sigma=row_sigma, pruning=pruning, samples=1)
    (layer,) = trace.layers
    assert layer.shape == (4096, 665) and layer.projection.shape == (512, 1024)
    assert simulate(load_machine("ese", channels=1), trace).total.counts["entries"] == 364608
    assert 0.103 < layer.nonzeros / layer.size < 0.107
    assert np.count_nonzero(layer.projection) / layer.projection.size == pytest.approx(0.1, rel=0.01)
    assert layer.pattern.kind == ("balanced" if pruning == "balanced" else "unstructured")


def test_the_same_seed_draws_the_same_lstm():
    assert ese_lstm(seed=1, samples=1).sha256 == ese_lstm(seed=1, samples=1).sha256 != ese_lstm(samples=1).sha256


@pytest.mark.parametrize(("changes", "message"), [
    ({"row_sigma": -1}, "row_sigma must be a number from 0 to 2, not -1"),
    ({"row_sigma": "a"}, "row_sigma must be a number from 0 to 2, not 'a'"),
    ({"pruning": "naive"}, "pruning must be balanced or global, not 'naive'"),
    ({"samples": 0}, "samples must be a whole number of at least 1, not 0"),
    ({"steps": True}, "steps must be a whole number of at least 1, not True"),
    ({"samples": 2**40}, "samples x steps must come to at most 1754480, not 1099511627776 x 1"),
])  # fmt: skip
def test_values_out_of_range_are_refused(changes, message):
    with pytest.raises(InputError) as caught:
        ese_lstm(**changes)
    assert str(caught.value) == message


def test_a_machine_that_knows_no_lstm_says_what_would_do():
    with pytest.raises(InputError) as caught:
        simulate(load_machine("eie-64pe"), Trace(name="t", layers=(lstm(),)))
    assert str(caught.value) == (
        "layer lstm: eie-64pe runs linear, conv2d, not lstm; make linear layers of it with gossamer transform unroll"
    )


# Whole again


def captured(**options):
    torch = pytest.importorskip("torch")
    from gossamer.workloads.training.capture import capture

    torch.manual_seed(0)
    module = torch.nn.Sequential()
    module.add_module("lstm", torch.nn.LSTM(5, 8, batch_first=True, **options))
    return Trace(name="t", layers=tuple(capture(module, torch.randn(3, 4, 5))))


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"bias": False}])
def test_what_a_capture_parted_is_an_lstm_again(options):
    trace = captured(**options)
    rolled = roll_lstm(trace)
    names = {"": ["lstm.l0"], "num_layers": ["lstm.l0", "lstm.l1"], "bidirectional": ["lstm.l0", "lstm.l0_reverse"],
             "bias": ["lstm.l0"]}  # fmt: skip
    assert [layer.name for layer in rolled.layers] == names["".join(options)]
    assert {layer.op for layer in rolled.layers} == {"lstm"}
    for layer, before in zip(rolled.layers, trace.layers[1::2], strict=True):
        assert np.abs(run_lstm(layer).before - before.inputs).max() < 1e-6


@pytest.mark.parametrize("projected", [0, 3])
def test_what_was_unrolled_is_an_lstm_again(projected):
    layer = lstm(projected=projected, peephole=None, pattern=Pattern("dense"))
    fc = Layer(name="fc", op="linear", weight=np.ones((2, 4), np.float32), inputs=np.ones((1, 4), np.float32))
    first, last = roll_lstm(unroll_lstm(Trace(name="t", layers=(layer, fc)))).layers
    assert (first.name, first.op, last.name) == ("lstm", "lstm", "fc")
    for name in ("weight", "bias", "inputs", "projection"):
        assert np.array_equal(getattr(first, name), getattr(layer, name))
    assert first.pattern == layer.pattern


def test_what_meets_other_states_is_no_lstm_of_this_kind():
    with pytest.raises(InputError) as caught:
        roll_lstm(unroll_lstm(Trace(name="t", layers=(lstm(),))))
    assert str(caught.value).startswith(
        "layer lstm.ih: with lstm.hh it must give the hidden states that lstm.hh was fed to within 0.001, and is "
    )
    assert str(caught.value).endswith(" off: these are of no LSTM that starts from 0 and has no peepholes")


def test_layers_of_a_gru_are_refused():
    torch = pytest.importorskip("torch")
    from gossamer.workloads.training.capture import capture

    module = torch.nn.Sequential()
    module.add_module("gru", torch.nn.GRU(5, 8, batch_first=True))
    with pytest.raises(InputError) as caught:
        roll_lstm(Trace(name="t", layers=tuple(capture(module, torch.randn(3, 4, 5)))))
    assert str(caught.value) == (
        "layer gru.ih_l0: with gru.hh_l0 it must have the shapes of an LSTM of 4 gates over steps, not weights (24, 5) "
        "and (24, 8), inputs (3, 4, 5) and (3, 4, 8)"
    )


def test_a_trace_without_an_lstm_s_layers_is_refused():
    fc = Layer(name="fc", op="linear", weight=np.ones((2, 4), np.float32), inputs=np.ones((1, 4), np.float32))
    with pytest.raises(InputError) as caught:
        roll_lstm(Trace(name="t", layers=(fc,)))
    assert str(caught.value) == (
        "t: an LSTM's linear layers, NAME.ih and NAME.hh, are needed to roll, and there are none"
    )
