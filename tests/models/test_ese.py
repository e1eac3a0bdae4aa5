"""ESE: the two engines against each other on random LSTMs and linear layers, and small cases by hand."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine
from gossamer.models.parts.ese.timing import Spmv, Times
from gossamer.simulator import simulate
from gossamer.simulator.check import check
from gossamer.simulator.timeline import Interval, Timeline
from gossamer.workloads import InputError
from gossamer.workloads.trace import Layer, Trace

SHARES = st.sampled_from([0.0, 0.05, 0.3, 1.0])
CONFIGS = {
    "channels": st.sampled_from([1, 2, 32]),
    "pe_count": st.sampled_from([1, 2, 3, 7, 16]),
    "queue_depth": st.sampled_from([1, 2, 8]),
    "weight_bits": st.sampled_from([2, 6, 12]),
    "index_bits": st.integers(2, 5),
    "accumulator_bits": st.sampled_from([6, 16, 32, 44]),
    "word_bits": st.sampled_from([4, 9, 16]),
    "table_points": st.sampled_from([2, 100, 2048]),
    "outputs_per_cycle": st.sampled_from([1, 3, 64]),
    "elementwise_latency": st.sampled_from([0, 5]),
    "dram_bytes_per_s": st.sampled_from([1e8, 3.7e9, 1e13]),
    "schedule": st.sampled_from(["overlapped", "serial"]),
    "order": st.sampled_from(["inputs-first", "gate-by-gate"]),
    "skip_zeros": st.booleans(),
}


def one_layer(layer):
    return Trace(name="test", layers=(layer,))


def both(layer, timeline=None, **config):
    machine = load_machine("ese", **config)
    fast = simulate(machine, one_layer(layer)).layers[0]
    return fast, simulate(machine, one_layer(layer), engine="event", timeline=timeline).layers[0]


def assert_equal(fast, event):
    assert msgspec.to_builtins(fast) == msgspec.to_builtins(event)
    assert np.array_equal(fast.output, event.output)


def assert_adds_up(layer, channels, pe_count):
    causes = layer.cycles_per_unit["pe"]
    per_pe = np.array(list(causes.values()))
    assert (per_pe >= 0).all() and (per_pe.sum(axis=0) == layer.cycles).all()
    assert layer.cycles_by_cause["pe"] == {cause: sum(values) for cause, values in causes.items()}
    for unit, count in (("pe", pe_count), ("channel", channels), ("memory", 1), ("element_wise", 1)):
        assert all(value >= 0 for value in layer.cycles_by_cause[unit].values())
        assert sum(layer.cycles_by_cause[unit].values()) == count * layer.cycles
    counts = layer.counts
    assert sum(causes["busy"]) + sum(causes["padding"]) == counts["entries"]
    assert sum(causes["padding"]) == counts["padding"]


def random_lstm(rng, samples, steps, features, cells, projected, density, act_density, scale=1.0):
    size = projected or cells
    kept = rng.random((4 * cells, features + size)) < density
    weight = scale * kept * rng.normal(size=kept.shape)
    more = {"projection": (rng.random((size, cells)) < density) * rng.normal(size=(size, cells))} if projected else {}
    if rng.random() < 0.5:
        more["bias"] = rng.normal(size=4 * cells)
    if rng.random() < 0.5:
        more["peephole"] = rng.normal(size=(3, cells))
    inputs = (rng.random((samples, steps, features)) < act_density) * rng.normal(size=(samples, steps, features))
    arrays = {name: array.astype(np.float32) for name, array in ({"weight": weight, "inputs": inputs} | more).items()}
    return Layer(name="lstm", op="lstm", **arrays)


@st.composite
def lstms(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return random_lstm(
        rng, draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 12)), draw(st.integers(1, 20)),
        draw(st.integers(0, 7)), draw(SHARES), draw(SHARES), draw(st.sampled_from([1.0, 1e-20, 1e4])),
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(lstms(), st.fixed_dictionaries(CONFIGS))
def test_event_equals_fast_on_random_lstms(layer, config):
    fast, event = both(layer, **config)
    assert_equal(fast, event)
    assert_adds_up(fast, config["channels"], config["pe_count"])


@st.composite
def linears(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, cols, vectors = draw(st.integers(1, 60)), draw(st.integers(1, 40)), draw(st.integers(1, 5))
    weight = (rng.random((rows, cols)) < draw(SHARES)) * rng.normal(size=(rows, cols))
    inputs = (rng.random((vectors, cols)) < draw(SHARES)) * rng.normal(size=(vectors, cols))
    bias = rng.normal(size=rows).astype(np.float32) if draw(st.booleans()) else None
    return Layer(name="fc", op="linear", weight=weight.astype(np.float32), inputs=inputs.astype(np.float32), bias=bias)


@settings(max_examples=60, deadline=None)
@given(linears(), st.fixed_dictionaries(CONFIGS))
def test_event_equals_fast_on_random_linear_layers(layer, config):
    fast, event = both(layer, **config)
    assert_equal(fast, event)
    assert_adds_up(fast, config["channels"], config["pe_count"])


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(lstms(), linears()), st.sampled_from([4, 9, 12]), st.sampled_from([4, 9, 16]), st.sampled_from([2, 64])
)
def test_outputs_stay_within_the_bound_that_the_formats_set(layer, weight_bits, word_bits, table_points):
    config = {"weight_bits": weight_bits, "word_bits": word_bits, "table_points": table_points, "pe_count": 4}
    (found,) = check(load_machine("ese", **config), one_layer(layer))
    assert found.differences == [] and found.numbers_agree


def test_with_the_bits_of_the_paper_an_lstm_is_near_to_float64():
    layer = random_lstm(np.random.default_rng(1), 4, 6, 20, 40, 16, 0.3, 1.0, scale=0.4)
    (found,) = check(load_machine("ese"), one_layer(layer))
    assert found.passed and found.saturated == 0
    assert found.max_abs_error < 0.01 * found.max_abs_reference


# Timing by hand.


def spmv(entries, depth=8, columns=None):
    entries = np.array(entries, np.int64)
    return Spmv.of(entries, entries, np.arange(len(entries)) if columns is None else columns, depth)


def test_one_entry_passes_broadcast_and_six_stages():
    assert spmv([[1]]).cycles == 1 + 6  # broadcast in cycle 0, started in 1, written at 7


def test_an_empty_column_costs_a_pe_a_cycle():
    assert spmv([[0]]).cycles == spmv([[1]]).cycles
    assert spmv([[0], [1]]).cycles == 8
    assert spmv([[0], [1]]).empty.tolist() == [1]


def test_pes_of_a_channel_wait_for_the_one_whose_queue_is_full():
    deep, shallow = spmv([[4, 1], [1, 4]] * 8, depth=8), spmv([[4, 1], [1, 4]] * 8, depth=1)
    assert deep.cycles < shallow.cycles
    assert (deep.busy == 40).all() and (shallow.busy == 40).all()


def test_no_element_takes_no_cycle():
    assert spmv([[3]], columns=np.zeros(0, np.int64)).cycles == 0


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 30))
def test_cycles_never_rise_with_the_queue_nor_fall_with_entries_nor_depend_on_the_order_of_pes(seed, pes, columns):
    rng = np.random.default_rng(seed)
    entries = rng.poisson(1.5, (columns, pes))
    by_depth = [spmv(entries, depth).cycles for depth in (1, 2, 4, 8, 64)]
    assert by_depth == sorted(by_depth, reverse=True)
    assert by_depth[-1] >= np.maximum(entries, 1).sum(axis=0).max() + 6
    more = entries.copy()
    more[rng.integers(columns), rng.integers(pes)] += 3
    assert spmv(more).cycles >= spmv(entries).cycles
    assert spmv(entries[:, rng.permutation(pes)]).cycles == spmv(entries).cycles


def times(cycles, fetch, passes, waits=None, serial=False):
    arrays = [np.array(each, np.int64) for each in (cycles, fetch, passes, waits or [0] * len(cycles))]
    return Times.of(*arrays, serial)


def test_weights_of_the_next_matrix_come_while_this_one_is_multiplied():
    found = times([10, 10, 10], [4, 4, 4], [1, 1, 1])
    assert found.start.tolist() == [4, 14, 24] and found.fetch_start.tolist() == [0, 4, 14]
    assert found.total == 35 and found.memory_wait == 4 and found.element_wise_wait == 1


def test_a_slow_memory_stalls_every_matrix():
    found = times([10, 10, 10], [25, 25, 25], [1, 1, 1])
    assert found.start.tolist() == [25, 50, 75] and found.memory_wait == 25 + 15 + 15


def test_a_half_of_the_buffer_is_free_once_its_matrix_is_multiplied():
    assert times([100, 100, 1], [1, 1, 1], [0, 0, 0]).fetch_start.tolist() == [0, 1, 101]


def test_results_wait_in_two_buffers_for_the_element_wise_unit():
    found = times([10] * 4, [0] * 4, [30] * 4)
    assert found.start.tolist() == [0, 10, 40, 70] and found.passed.tolist() == [40, 70, 100, 130]


def test_in_a_serial_schedule_the_next_matrix_waits_for_the_element_wise_unit():
    assert times([10] * 3, [0] * 3, [5] * 3, serial=True).start.tolist() == [0, 15, 30]
    assert times([10] * 3, [0] * 3, [5] * 3).start.tolist() == [0, 10, 20]


def test_a_matrix_waits_for_the_results_that_it_meets():
    assert times([10] * 3, [0] * 3, [5] * 3, waits=[0, 1, 0]).start.tolist() == [0, 15, 25]


def small():
    """Two cells, one PE each; every matrix holds one entry a row."""
    eye = np.eye(2, dtype=np.float32)
    weight = np.concatenate([np.concatenate([eye, eye], axis=1)] * 4)
    return Layer(name="lstm", op="lstm", weight=weight, inputs=np.ones((3, 1, 2), np.float32))


def test_the_timeline_shows_memory_channel_and_element_wise_unit():
    timeline = Timeline()
    fast, event = both(
        small(), timeline, channels=4, pe_count=2, outputs_per_cycle=1, elementwise_latency=3, dram_bytes_per_s=200e6
    )
    assert_equal(fast, event)
    # 2 entries of 16 bits and 2 x 3 pointers of 16 bits are 16 bytes at a byte a cycle; two elements, cycles 0 and 1
    tracks = timeline.tracks()
    assert tracks["memory"][:2] == [Interval("memory", "fetch x_i", 0, 16), Interval("memory", "fetch x_f", 16, 32)]
    assert [i for i in tracks["channel"] if i.name.startswith("multiply")][:2] == [
        Interval("channel", "multiply x_i", 16, 24), Interval("channel", "multiply x_f", 32, 40),
    ]  # fmt: skip
    assert tracks["element-wise unit"][0] == Interval("element-wise unit", "pass x_i", 24, 29)
    assert tracks["PE 0"][:3] == [
        Interval("PE 0", "starved", 16, 17), Interval("PE 0", "entries x_i", 17, 18), Interval("PE 0", "empty", 18, 19),
    ]  # fmt: skip
    assert timeline.offset == event.cycles


def test_a_vacant_channel_costs_as_much_as_a_busy_one():
    fast, _ = both(small(), channels=4, pe_count=2)
    one, _ = both(small(), channels=3, pe_count=2)
    assert fast.cycles == one.cycles
    assert fast.cycles_by_cause["channel"] == {"voice": 3 * fast.cycles, "vacant": fast.cycles}


def test_samples_beyond_the_channels_run_in_further_groups_with_weights_fetched_again():
    whole, _ = both(small(), channels=3, pe_count=2)
    parts, _ = both(small(), channels=2, pe_count=2)
    assert parts.counts["dram_read_bytes"] == 2 * whole.counts["dram_read_bytes"]
    assert parts.counts["macs"] == whole.counts["macs"] == 3 * 4 * 4
    assert parts.counts["entries"] == 2 * whole.counts["entries"]
    assert np.array_equal(parts.output, whole.output)


def test_counts_of_the_element_wise_unit_are_those_of_the_equations():
    layer = random_lstm(np.random.default_rng(5), 2, 3, 4, 6, 0, 1.0, 1.0)
    layer = Layer(name="lstm", op="lstm", weight=layer.weight, inputs=layer.inputs,
                  bias=np.ones(24, np.float32), peephole=np.ones((3, 6), np.float32))  # fmt: skip
    fast, _ = both(layer)
    cells = 2 * 3 * 6
    assert fast.counts["table_lookups"] == 5 * cells
    assert fast.counts["elementwise_multiplies"] == (3 + 3) * cells
    assert fast.counts["elementwise_adds"] == (4 + 4 + 3 + 1) * cells
    assert fast.counts["assembled"] == 8 * cells


def test_board_power_is_told_of_the_published_size_alone():
    layer = small()
    known, other = both(layer)[0], both(layer, pe_count=16)[0]
    assert known.energy_j.total / known.latency_s == pytest.approx(41)
    assert other.energy_j is None
    assert other.warnings == [
        "energy table ese-xcku060-board is for board_32x32, not 32 channels x 16 PEs: no energy given"
    ]


def test_energy_by_event_is_told_of_any_size_and_favours_weights_that_serve_more_channels():
    table = {"energy": "ese-45nm-event", "pe_count": 2}
    many, few = both(small(), channels=3, **table)[0].energy_j, both(small(), channels=1, **table)[0].energy_j
    assert few.by_part["Dram"] == pytest.approx(3 * many.by_part["Dram"])
    assert few.by_part["Multiplier"] == pytest.approx(many.by_part["Multiplier"])
    assert many.mode == "event"


def test_a_table_for_other_words_gives_no_energy():
    found, _ = both(small(), word_bits=12)
    assert found.energy_j is None
    assert found.warnings == ["energy table ese-xcku060-board is for words of 16 bits, not 12: no energy given"]


def test_a_matrix_too_large_for_half_the_buffer_is_a_warning():
    found, _ = both(small(), buffer_bytes=10, energy="")
    assert found.warnings == [
        "weight buffer: two matrices as large as x_i take 392 bytes, and it has 10; the next matrix could not be "
        "fetched while one is multiplied"
    ]


def test_other_ops_are_refused_with_a_word():
    conv = Layer(
        name="c", op="conv2d", weight=np.ones((1, 1, 1, 1), np.float32), inputs=np.ones((1, 1, 2, 2), np.float32)
    )
    with pytest.raises(InputError) as caught:
        simulate(load_machine("ese"), one_layer(conv))
    assert str(caught.value) == (
        "layer c: ese runs linear, lstm, not conv2d; choose other layers with --layer, or another machine"
    )


@pytest.mark.parametrize(("field", "value", "message"), [
    ("queue_depth", 0, "ese: queue_depth must be at least 1, not 0"),
    ("schedule", "paper", "ese: schedule must be overlapped or serial, not 'paper'"),
    ("order", "x", "ese: order must be inputs-first or gate-by-gate, not 'x'"),
    ("dram_bytes_per_s", 0.0, "ese: dram_bytes_per_s must be above 0 and finite, not 0.0"),
])  # fmt: skip
def test_a_config_out_of_range_is_refused(field, value, message):
    with pytest.raises(InputError) as caught:
        load_machine("ese", **{field: value})
    assert str(caught.value) == message


@pytest.mark.parametrize("engine", ["fast", "event"])
def test_a_stream_of_weights_that_leaves_64_bits_is_refused(engine):
    layer = Layer(name="fc", op="linear", weight=np.ones((32, 4), np.float32), inputs=np.ones((1, 4), np.float32))
    with pytest.raises(InputError) as caught:
        simulate(load_machine("ese", dram_bytes_per_s=1e-9), one_layer(layer), engine=engine)
    assert str(caught.value) == (
        "layer fc: a layer must come to fewer than 4.5e+15 cycles to be counted in 64 bits, and could come to 1.1e+20 "
        "with dram_bytes_per_s = 1e-09, clock_hz = 2e+08; choose nearer ones"
    )


@pytest.mark.parametrize("field", ["sigmoid_range", "tanh_range"])
def test_a_table_has_a_range_that_float64_can_cut_up(field):
    for value in (1e-20, 2e6):
        with pytest.raises(InputError, match=rf"{field} must be from 2\^-20 to 2\^20, not {value}"):
            load_machine("ese", **{field: value})
