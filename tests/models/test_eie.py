"""EIE: the two engines against each other on random layers, and small cases by hand."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import eie, load_machine
from gossamer.simulator import simulate
from gossamer.simulator.timeline import Interval, Timeline
from gossamer.workloads.trace import Layer, Trace

BOOK = np.linspace(-1, 1, 16, dtype=np.float32)
BOOK[0] = 0


def one_layer(layer):
    return Trace(name="test", layers=(layer,))


def coded(codes, act, bias_codes=None):
    codes = np.asarray(codes, np.uint8)
    bias = None if bias_codes is None else np.asarray(bias_codes, np.uint8)
    act = np.asarray(act, np.float32)
    inputs = act[None] if act.ndim == 1 else act
    return Layer(name="fc", op="linear", inputs=inputs, codes=codes, bias_codes=bias, codebook=BOOK)


def both(layer, **config):
    machine = load_machine("eie-64pe", **config)
    trace = one_layer(layer)
    return [simulate(machine, trace, engine=engine).layers[0] for engine in ("fast", "event")]


def assert_equal(fast, event):
    assert msgspec.to_builtins(fast) == msgspec.to_builtins(event)
    assert np.array_equal(fast.output, event.output)


def assert_adds_up(layer, pe_count):
    causes = layer.cycles_per_unit["pe"]
    per_pe = np.array(list(causes.values()))
    assert (per_pe >= 0).all()
    assert (per_pe.sum(axis=0) == layer.cycles).all()
    assert all(v >= 0 for v in layer.cycles_by_cause["broadcaster"].values())
    assert sum(layer.cycles_by_cause["broadcaster"].values()) == layer.cycles
    assert layer.cycles_by_cause["pe"] == {cause: sum(values) for cause, values in causes.items()}
    assert per_pe.shape[1] == pe_count


DENSITIES = st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.7, 1.0])
CONFIGS = {
    "pe_count": st.sampled_from([1, 2, 3, 4, 7, 8, 16, 33]),
    "queue_depth": st.sampled_from([2, 3, 4, 8, 16]),
    "index_bits": st.integers(2, 8),
    "entries_per_row": st.sampled_from([1, 2, 3, 8, 16]),
}


@st.composite
def linear_layers(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, cols, batch = draw(st.integers(1, 90)), draw(st.integers(1, 60)), draw(st.integers(1, 3))
    kept = rng.random((rows, cols)) < draw(DENSITIES)
    act = (rng.random((batch, cols)) < draw(DENSITIES)) * rng.normal(size=(batch, cols))
    scale = 10.0 ** rng.integers(-30, 5, cols) if draw(st.integers(0, 3)) == 0 else 1.0
    bias = rng.random(rows) < draw(DENSITIES) if draw(st.booleans()) else None
    if draw(st.booleans()):
        codes = kept * rng.integers(1, 16, kept.shape)
        return coded(codes, act, None if bias is None else bias * rng.integers(1, 16, rows))
    return Layer(
        name="fc", op="linear", inputs=act.astype(np.float32),
        weight=(kept * rng.normal(size=kept.shape) * scale).astype(np.float32),
        bias=None if bias is None else (bias * rng.normal(size=rows)).astype(np.float32),
    )  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(linear_layers(), st.fixed_dictionaries(CONFIGS), st.sampled_from(["codebook", "exact"]))
def test_event_equals_fast_on_random_layers(layer, config, weights):
    fast, event = both(layer, weights=weights, **config)
    assert_equal(fast, event)
    assert_adds_up(fast, config["pe_count"])


@st.composite
def conv_layers(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    groups = draw(st.sampled_from([1, 2]))
    out, channels = groups * draw(st.integers(1, 4)), draw(st.integers(1, 3))
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    side = (draw(st.integers(5, 7)), draw(st.integers(5, 7)))
    attributes = {
        name: (draw(st.integers(least, 2)), draw(st.integers(least, 2)))
        for name, least in (("stride", 1), ("padding", 0), ("dilation", 1))
    }
    shape = (out, channels, *kernel)
    inputs = (1, channels * groups, *side)
    return Layer(
        name="conv", op="conv2d", attributes=attributes | {"groups": groups},
        weight=((rng.random(shape) < draw(DENSITIES)) * rng.normal(size=shape)).astype(np.float32),
        inputs=((rng.random(inputs) < draw(DENSITIES)) * rng.normal(size=inputs)).astype(np.float32),
        bias=rng.normal(size=out).astype(np.float32) if draw(st.booleans()) else None,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(conv_layers(), st.fixed_dictionaries(CONFIGS))
def test_event_equals_fast_on_random_convolutions(layer, config):
    fast, event = both(layer, **config)
    assert_equal(fast, event)
    assert_adds_up(fast, config["pe_count"])


@settings(max_examples=60, deadline=None)
@given(linear_layers(), st.fixed_dictionaries(CONFIGS), st.integers(1, 5))
def test_event_equals_fast_where_activations_run_in_batches(layer, config, act_registers):
    fast, event = both(layer, act_batches=True, act_registers=act_registers, **config)
    assert_equal(fast, event)
    assert_adds_up(fast, config["pe_count"])


@settings(max_examples=60, deadline=None)
@given(linear_layers(), st.fixed_dictionaries(CONFIGS), st.integers(3, 12))
def test_narrow_words_saturate_alike_in_both_engines(layer, config, word_bits):
    fast, event = both(layer, word_bits=word_bits, **config)
    assert_equal(fast, event)


def reference_cycles(entries, act, has_bias, pe_count, depth):
    """Solve the published recurrence as it is written, for one vector: entries (cols, PEs), bias column last."""
    order = [(c, c // pe_count, c % pe_count) for c in np.flatnonzero(act)]
    if has_bias:
        order.append((len(act), -(-len(act) // pe_count), 0))
    u, s, last = [], [], 0
    for j, (column, row, _) in enumerate(order):
        if j == 0:
            bubbles = row
        else:
            _, before, lane = order[j - 1]
            bubbles = 0 if row == before else row - before - (lane == pe_count - 1)
        send = (u[-1] if u else 1) + 1 + bubbles
        if j >= depth - 1:
            send = max(send, 1 + max(s[j - (depth - 1)]))
        u.append(send)
        n_before = entries[order[j - 1][0]] if j else None
        s.append([
            max(send + 1, s[-1][i] + max(1, n_before[i])) if j else send + 1 for i in range(pe_count)
        ])  # fmt: skip
        last = max([last] + [s[-1][i] + n - 1 for i, n in enumerate(entries[column]) if n])
    return 6 + last


@settings(max_examples=100, deadline=None)
@given(linear_layers(), st.fixed_dictionaries(CONFIGS))
def test_cycles_are_those_of_the_recurrence_as_published(layer, config):
    from gossamer.workloads.formats import csc

    stored = layer.kept
    bias = layer.bias if layer.codes is None else layer.bias_codes
    if bias is not None:
        stored = np.column_stack([stored, bias])
    entries = csc.count(stored, config["pe_count"], config["index_bits"]).entries
    expected = sum(
        reference_cycles(entries, act, bias is not None, config["pe_count"], config["queue_depth"])
        for act in layer.inputs
    )
    assert simulate(load_machine("eie-64pe", **config), one_layer(layer)).layers[0].cycles == expected


def test_a_hand_made_layer_gives_the_log_worked_out_by_hand():
    # 4 rows on 2 PEs, 4 columns; column 1 is empty for PE 0, activation 2 is zero.
    codes = [[1, 0, 1, 2], [0, 3, 1, 0], [2, 0, 1, 0], [0, 4, 1, 5]]
    timeline = Timeline()
    machine = load_machine("eie-64pe", pe_count=2, queue_depth=2)
    result = simulate(machine, one_layer(coded(codes, [1, -1, 0, 1])), engine="event", timeline=timeline).layers[0]
    assert timeline.tracks().pop("layer") == [Interval("layer", "fc", 0, result.cycles)]
    assert [(i.track, i.name, i.start, i.end) for i in timeline.intervals if i.track != "layer"] == [
        ("broadcaster", "broadcast", 2, 3),
        ("broadcaster", "stalled", 3, 4),  # queue 0 is full until its pop in cycle 3 is seen in cycle 4
        ("broadcaster", "broadcast", 4, 5),
        ("broadcaster", "stalled", 5, 6),  # lane 1 was the last: the next row cost no bubble; PE 0 pops in cycle 5
        ("broadcaster", "broadcast", 6, 7),
        ("PE 0", "starved", 0, 3),
        ("PE 0", "entries", 3, 5),
        ("PE 0", "empty", 5, 6),
        ("PE 0", "starved", 6, 7),
        ("PE 0", "entries", 7, 8),
        ("PE 1", "starved", 0, 3),
        ("PE 1", "empty", 3, 4),
        ("PE 1", "starved", 4, 5),
        ("PE 1", "entries", 5, 7),
        ("PE 1", "entries", 7, 8),
    ]
    assert result.cycles == 13  # the last entries start in cycle 7
    assert result.counts == {
        "macs": 6, "entries": 6, "padding": 0, "broadcasts": 3, "ptr_reads": 6, "spmat_reads": 2,
        "act_reads": 10, "act_writes": 6, "queue_pushes": 6,
    }  # fmt: skip


def test_an_activation_waits_for_the_cycle_after_a_pop_frees_its_slot():
    # One PE, one usable slot: pops in cycles 3, 8, 13 free the slot for the broadcasts in 4, 9.
    fast, event = both(coded(np.ones((5, 3)), np.ones(3)), pe_count=1, queue_depth=2)
    assert_equal(fast, event)
    assert fast.cycles == 6 + 17
    assert fast.cycles_by_cause["broadcaster"]["stalled"] == 1 + 4


def test_negative_activations_are_broadcast_and_zeros_are_not():
    fast, _ = both(coded(np.ones((4, 4)), [-1, 0, -2, 0]), pe_count=2)
    assert fast.counts["broadcasts"] == 2


@pytest.mark.parametrize("bias", [None, [0, 0, 0]])
def test_a_layer_without_any_work_takes_the_pipeline_alone(bias):
    for act in ([0, 0, 0, 0], [1, 0, 1, 1]):
        fast, event = both(coded(np.zeros((3, 4)), act, bias), pe_count=2)
        assert_equal(fast, event)
        assert_adds_up(fast, 2)
        assert fast.cycles == 6
        assert not fast.output.any()


@settings(max_examples=60, deadline=None)
@given(linear_layers(), st.sampled_from([1, 2, 5, 16]))
def test_a_deeper_queue_never_costs_cycles(layer, pe_count):
    cycles = [
        simulate(load_machine("eie-64pe", pe_count=pe_count, queue_depth=depth), one_layer(layer)).total.cycles
        for depth in (2, 3, 4, 8, 64)
    ]
    assert cycles == sorted(cycles, reverse=True)


@settings(max_examples=60, deadline=None)
@given(linear_layers(), st.integers(0, 2**32))
def test_one_more_weight_never_saves_cycles(layer, seed):
    rng = np.random.default_rng(seed)
    machine = load_machine("eie-64pe", pe_count=4, weights="exact")
    weight = layer.weight.copy()
    before = simulate(machine, one_layer(Layer(name="a", op="linear", inputs=layer.inputs, weight=weight.copy())))
    weight[rng.integers(len(weight)), rng.integers(weight.shape[1])] = 1.5
    after = simulate(machine, one_layer(Layer(name="a", op="linear", inputs=layer.inputs, weight=weight)))
    assert after.total.cycles >= before.total.cycles


@settings(max_examples=40, deadline=None)
@given(linear_layers())
def test_useful_work_does_not_depend_on_the_number_of_pes(layer):
    results = [simulate(load_machine("eie-64pe", pe_count=n), one_layer(layer)).layers[0] for n in (1, 3, 64)]
    assert len({result.macs for result in results}) == 1
    assert all(np.array_equal(result.output, results[0].output) for result in results)


@settings(max_examples=40, deadline=None)
@given(linear_layers())
def test_with_exact_weights_the_output_is_the_float64_product_to_within_the_words(layer):
    machine = load_machine("eie-64pe", weights="exact", word_bits=24)
    result = simulate(machine, one_layer(layer)).layers[0]
    bias = 0 if not layer.has_bias else layer.bias if layer.codes is None else BOOK[layer.bias_codes]
    expected = layer.inputs.astype(np.float64) @ layer.weight.T.astype(np.float64) + bias
    magnitude = np.abs(layer.inputs).astype(np.float64) @ np.abs(layer.weight).T.astype(np.float64) + np.abs(bias)
    rounding = 1e-12 * max(1.0, magnitude.max())
    error = np.abs(result.output - expected)
    assert (error <= eie.error_bound(machine, layer) + rounding).all()
    assert result.arithmetic["max_abs_error"] == pytest.approx(error.max(), abs=rounding)


def test_the_quadtree_over_64_pes_has_21_nodes():
    assert eie.units(load_machine("eie-64pe").config) == {"pe": 64, "lnzd_node": 21}


def test_what_does_not_fit_is_a_warning_in_the_result():
    rng = np.random.default_rng(0)
    layer = coded(rng.integers(1, 16, (9, 40)), np.ones(40))
    machine = load_machine(
        "eie-64pe", pe_count=2, spmat_bytes=199, ptr_bytes=81, pointer_bits=7, act_registers=4, act_sram_bytes=39
    )
    result = simulate(machine, one_layer(layer))
    assert result.layers[0].warnings == [
        "Spmat SRAM: PE 0 stores 200 bytes of entries, and has 199",
        "pointers: 7 bits address 128 entries, and PE 0 stores 200",
        "accumulators: a vector of 9 takes 5 a PE, which has 4; "
        "set act_batches to run it in batches through the activation SRAM, cycles charged",
        "activation registers: a vector of 40 takes 20 a PE, which has 4; "
        "set act_batches to run it in batches through the activation SRAM, cycles charged",
        "Act SRAM: 20 activations a PE take 40 bytes, and it has 39",
    ]
    assert result.warnings[0].startswith("fc: Spmat SRAM")


def test_batches_charge_the_words_that_move_and_the_drains_between_them():
    layer = coded(np.ones((4, 8)), np.ones(8))
    plain, _ = both(layer, pe_count=2, act_registers=2)
    batched, event = both(layer, pe_count=2, act_registers=2, act_batches=True)
    assert_equal(batched, event)
    # 8 inputs are two batches of 4 activations = 2 words a PE; 4 outputs are one batch, stored once: 2 words a PE.
    assert batched.cycles_by_cause["pe"]["act_sram"] == 2 * (2 * 2 + 2)
    assert batched.macs == plain.macs == 32
    assert batched.cycles > plain.cycles
    assert np.array_equal(batched.output, plain.output)


def test_a_table_of_event_energies_is_not_stretched_to_other_widths():
    layer = coded(np.ones((4, 8)), np.ones(8))
    for change, misfit in (
        ({"entries_per_row": 4}, "energy table eie-45nm-event is for rows of 64 bits, not 32: no energy given"),
        ({"word_bits": 8}, "energy table eie-45nm-event is for words of 16 bits, not 8: no energy given"),
    ):
        fast, event = both(layer, energy="eie-45nm-event", **change)
        assert_equal(fast, event)
        assert fast.energy_j is None
        assert misfit in fast.warnings
    fast, _ = both(layer, energy="eie-45nm-event")
    assert fast.energy_j.by_part["SpmatRead"] == pytest.approx(fast.counts["spmat_reads"] * 32.3e-12)
