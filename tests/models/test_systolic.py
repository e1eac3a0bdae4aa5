"""The weight-stationary array: formulas against clocked registers, traffic and capacities."""

import json
import tomllib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import systolic
from gossamer.models.loader import load_machine
from gossamer.simulator.memo import Memo
from gossamer.simulator.timeline import Change, Interval, Timeline
from gossamer.workloads.errors import InputError
from gossamer.workloads.trace import Layer

from .agreement import agree

CONFIGS = Path(__file__).resolve().parents[2] / "models" / "configs"


def machine(**changes):
    return load_machine("systolic-16x16", **changes)


def linear(vectors, depth, outputs, bias=True, seed=0):
    rng = np.random.default_rng(seed)
    return Layer(
        name="fc",
        op="linear",
        weight=rng.standard_normal((outputs, depth)).astype(np.float32),
        bias=rng.standard_normal(outputs).astype(np.float32) if bias else None,
        inputs=rng.standard_normal((vectors, depth)).astype(np.float32),
    )


def conv(samples=2, channels=4, size=5, outputs=6, kernel=3, seed=0, **attributes):
    rng = np.random.default_rng(seed)
    groups = attributes.get("groups", 1)
    return Layer(
        name="conv",
        op="conv2d",
        weight=rng.standard_normal((outputs, channels // groups, kernel, kernel)).astype(np.float32),
        bias=rng.standard_normal(outputs).astype(np.float32),
        inputs=rng.standard_normal((samples, channels, size, size)).astype(np.float32),
        attributes=attributes,
    )


def both(built, layer, timeline=None):
    """Return the result of `fast`, having checked that the units agree with it in everything."""
    return agree(systolic, built, layer, timeline, tolerance=1e-4)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_units_and_formulas_agree_on_any_product(data):
    def number(least, greatest):
        return data.draw(st.integers(least, greatest))

    built = machine(
        rows=number(1, 5),
        columns=number(1, 5),
        word_bytes=number(1, 4),
        ifmap_sram_bytes=number(1, 200),
        filter_sram_bytes=number(1, 200),
        ofmap_sram_bytes=number(1, 60),
        batch_size=number(0, 6),
        clock_hz=data.draw(st.sampled_from([1.0, 3.0, 800e6])),
        dram_bandwidth_bytes_per_s=data.draw(st.sampled_from([0.7, 5.0, 1e9])),
        dram_bounds_latency=data.draw(st.booleans()),
    )
    layer = linear(number(1, 6), number(1, 12), number(1, 12), data.draw(st.booleans()), seed=number(0, 99))
    result = both(built, layer)
    expected = layer.inputs.astype(float) @ layer.weight.T.astype(float) + (0 if layer.bias is None else layer.bias)
    np.testing.assert_allclose(result.output, expected, rtol=1e-4, atol=1e-4)
    assert sum(result.cycles_by_cause["array"].values()) == result.cycles
    assert result.macs == result.counts["macs"] == layer.weight.size * len(layer.inputs)
    assert 0 < result.utilization <= 1
    assert result.theoretical_cycles <= result.cycles


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    groups=st.sampled_from([1, 2]),
    stride=st.integers(1, 2),
    padding=st.integers(0, 1),
    batch_size=st.integers(1, 3),
    ifmap_sram_bytes=st.sampled_from([16, 4096]),
    bounded=st.booleans(),
)
def test_units_and_formulas_agree_on_convolutions(groups, stride, padding, batch_size, ifmap_sram_bytes, bounded):
    layer = conv(stride=(stride, 1), padding=(padding, 0), groups=groups)
    both(
        machine(
            rows=4,
            columns=3,
            batch_size=batch_size,
            ifmap_sram_bytes=ifmap_sram_bytes,
            dram_bounds_latency=bounded,
            dram_bandwidth_bytes_per_s=1e8,
        ),
        layer,
    )


def test_convolution_gives_the_output_of_a_sliding_window():
    layer = conv(samples=2, stride=(2, 1), padding=(1, 0), groups=2)
    padded = np.pad(layer.inputs.astype(float), ((0, 0), (0, 0), (1, 1), (0, 0)))
    expected = np.zeros((2, 3, 3, 6))
    for sample, row, column, out in np.ndindex(expected.shape):
        channels = slice(0, 2) if out < 3 else slice(2, 4)
        patch = padded[sample, channels, 2 * row : 2 * row + 3, column : column + 3]
        expected[sample, row, column, out] = (patch * layer.weight[out]).sum() + layer.bias[out]
    result = both(machine(rows=4, columns=4), layer)
    assert result.vectors == 18
    np.testing.assert_allclose(result.output, expected.reshape(18, 6), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "columns", "vectors", "depth", "outputs", "cycles"),
    [
        (1, 1, 1, 1, 1, 1),  # one weight, one multiplication: the edges at which each ends are one cycle apart
        (2, 3, 4, 2, 3, 8),  # one tile: 2*2 + 3 + 4 - 2 - 1
        (2, 3, 4, 3, 3, 17),  # two tiles along K: 2 * 9 - 1
        (2, 3, 4, 3, 7, 53),  # 2 x 3 tiles: 6 * 9 - 1
    ],
)
def test_cycles_follow_the_published_formula(rows, columns, vectors, depth, outputs, cycles):
    result = both(machine(rows=rows, columns=columns, batch_size=vectors), linear(vectors, depth, outputs))
    assert result.cycles == cycles
    assert result.latency_s == cycles / 800e6


def test_cycles_of_a_real_layer_size():
    result = systolic.fast(machine(), linear(1, 784, 300), Memo())
    assert result.cycles == 49 * 19 * (2 * 16 + 16 + 1 - 2) - 1 == 43_756


def test_timeline_of_two_tiles_is_load_compute_drain_twice():
    timeline = Timeline()
    both(machine(rows=2, columns=2, batch_size=3), linear(3, 4, 2), timeline)
    assert timeline.intervals == [
        Interval("array", "load", 0, 1),  # time begins with the edge that takes in the first row
        Interval("array", "compute", 1, 4),
        Interval("array", "fill_drain", 4, 6),
        Interval("array", "load", 6, 8),
        Interval("array", "compute", 8, 11),
        Interval("array", "fill_drain", 11, 13),
    ]
    # The wavefront: a cell, then three, then all four, and the same way out.
    wave = [(0, 1), (1, 3), (2, 4), (3, 3), (4, 1), (5, 0)]
    assert [change for change in timeline.changes if change.time < 8] == [
        Change("active_cells", 2 + step if step < 5 else 6, level) for step, level in wave
    ]


def test_counts_of_a_layer_by_hand():
    # 3 x 5 weights on 2 x 2: 3 tiles along K, 2 along N; 2 vectors in one pass; everything fits.
    result = both(machine(rows=2, columns=2, batch_size=2), linear(2, 5, 3))
    assert result.counts == {
        "macs": 30,
        "register_reads": 90,
        "ifmap_sram_reads": 2 * 5 * 2,
        "ifmap_sram_writes": 10,
        "filter_sram_reads": 15 + 3,
        "filter_sram_writes": 15 + 3,
        "ofmap_sram_reads": 2 * 3 * 2 + 6,  # sums resumed twice, then sent to DRAM
        "ofmap_sram_writes": 2 * 3 * 3,
        "dram_reads": 10 + 18,
        "dram_writes": 6,
    }
    assert result.traffic_bytes == {"sram": 2 * (20 + 10 + 36 + 18 + 18), "dram": 2 * 34}
    assert result.storage_bits == {"weight": 15 * 16, "bias": 3 * 16}
    assert result.cycles_by_cause == {"array": {"load": 11, "compute": 12, "fill_drain": 12, "memory": 0}}
    assert result.cycles_per_unit == {"array": {"load": [11], "compute": [12], "fill_drain": [12], "memory": [0]}}
    assert result.utilization == 30 / (4 * 35)
    assert result.warnings == []


def test_operands_that_exceed_their_srams_are_moved_again():
    small = machine(rows=2, columns=2, batch_size=2, ifmap_sram_bytes=19, filter_sram_bytes=15, ofmap_sram_bytes=7)
    result = both(small, linear(2, 5, 3))
    assert result.counts["dram_reads"] == 2 * 10 + 18 + 2 * 6  # inputs a column tile, weights, sums
    assert result.counts["dram_writes"] == 3 * 6
    assert result.warnings == [
        "two weight tiles take 16 bytes of 15 in the filter SRAM: they cannot be double-buffered",
        "inputs take 20 bytes of 19 in the ifmap SRAM: fetched from DRAM 2 times",
        "partial sums take 8 bytes of 7 in the ofmap SRAM: sent to DRAM 3 times",
    ]
    exact = machine(rows=2, columns=2, batch_size=2, ifmap_sram_bytes=20, filter_sram_bytes=16, ofmap_sram_bytes=8)
    assert both(exact, linear(2, 5, 3)).warnings == []


def test_convolution_moves_its_input_not_its_patches():
    result = both(machine(rows=4, columns=4, batch_size=2), conv(samples=2, groups=2))
    weights = 6 * 2 * 9 + 6
    assert result.counts["dram_reads"] == 2 * 4 * 5 * 5 + weights
    assert result.counts["ifmap_sram_reads"] == 2 * (2 * 9) * 18  # each group: one column tile, 18 patches of 18


def test_dram_bounds_the_latency_only_where_it_is_slower_and_asked_for():
    layer = linear(2, 5, 3)
    shape = {"rows": 2, "columns": 2, "batch_size": 2, "clock_hz": 1.0}
    # 34 words of 2 bytes; the array takes 35 cycles.
    slow = both(machine(**shape, dram_bandwidth_bytes_per_s=1.5, dram_bounds_latency=True), layer)
    assert slow.cycles == 46 and slow.cycles_by_cause["array"]["memory"] == 11  # ceil(68 / 1.5)
    for bandwidth, memory in ((1.9375, 1), (1.953125, 0), (68.0, 0)):  # 35.1, 34.8 and 1 cycles
        result = both(machine(**shape, dram_bandwidth_bytes_per_s=bandwidth, dram_bounds_latency=True), layer)
        assert result.cycles == 35 + memory and result.cycles_by_cause["array"]["memory"] == memory
    unbounded = both(machine(**shape, dram_bandwidth_bytes_per_s=1.5), layer)
    assert unbounded.cycles == 35 and unbounded.counts == slow.counts


def test_dram_transfers_follow_one_another_in_the_timeline():
    timeline = Timeline()
    both(
        machine(
            rows=2, columns=2, clock_hz=1.0, word_bytes=1, dram_bandwidth_bytes_per_s=0.5, dram_bounds_latency=True
        ),
        linear(1, 2, 2),
        timeline,
    )
    assert [interval for interval in timeline.intervals if interval.track == "dram"] == [
        Interval("dram", "read ifmap", 0, 4),
        Interval("dram", "read filter", 4, 8),  # two biases
        Interval("dram", "read filter", 8, 16),
        Interval("dram", "write ofmap", 16, 20),
    ]
    assert timeline.intervals[-1] == Interval("array", "memory", 4, 20) and timeline.offset == 20


def test_a_batch_is_cut_into_passes_and_each_is_timed_by_itself():
    layer = linear(5, 6, 4)
    single = both(machine(rows=4, columns=4), linear(1, 6, 4)).cycles
    assert both(machine(rows=4, columns=4, batch_size=1), layer).cycles == 5 * single
    paired = both(machine(rows=4, columns=4, batch_size=2), layer)
    assert paired.cycles == 2 * (2 * (2 * 4 + 4 + 2 - 2) - 1) + single
    assert paired.counts["filter_sram_reads"] == 3 * (24 + 4)
    for whole in (0, 5, 99):
        assert both(machine(rows=4, columns=4, batch_size=whole), layer).cycles == 2 * (2 * 4 + 4 + 5 - 2) - 1


def test_passes_follow_one_another_in_the_timeline():
    timeline = Timeline()
    result = both(machine(rows=2, columns=2, batch_size=1), linear(2, 2, 2), timeline)
    starts = [interval.start for interval in timeline.intervals if interval.name == "compute"]
    assert starts == [1, 1 + result.cycles // 2] and timeline.offset == result.cycles


def test_nothing_is_skipped_for_being_zero():
    dense = linear(2, 8, 8)
    empty = Layer(name="fc", op="linear", weight=np.zeros_like(dense.weight), inputs=np.zeros_like(dense.inputs))
    plain = Layer(name="fc", op="linear", weight=dense.weight, inputs=dense.inputs)
    built = machine(rows=4, columns=4)
    assert msgspec.to_builtins(both(built, empty)) == msgspec.to_builtins(both(built, plain))


def test_sequences_count_as_vectors():
    weight = np.ones((3, 4), np.float32)
    built = machine(rows=2, columns=2, batch_size=1)
    sequence = Layer(name="fc", op="linear", weight=weight, inputs=np.ones((2, 5, 4), np.float32))
    result = both(built, sequence)
    assert (result.samples, result.vectors) == (2, 10)
    assert result.cycles == 2 * (4 * (2 * 2 + 2 + 5 - 2) - 1)


def test_codes_stand_for_the_weights_of_their_codebook():
    codes = np.array([[0, 1, 2], [2, 0, 1]], np.uint8)
    book = np.array([0, 0.5, -2], np.float32)
    inputs = np.array([[1, 2, 4]], np.float32)
    coded = Layer(
        name="fc", op="linear", codes=codes, codebook=book, bias_codes=np.array([1, 0], np.uint8), inputs=inputs
    )
    assert both(machine(rows=2, columns=2), coded).output.tolist() == [[1 - 8 + 0.5, -2 + 2]]


def test_energy_adds_up_and_is_left_out_for_words_of_another_width():
    result = both(machine(rows=2, columns=2, batch_size=2), linear(2, 5, 3))
    picojoules = {part: joules * 1e12 for part, joules in result.energy_j.by_part.items()}
    assert picojoules == pytest.approx(
        {"Multiplier": 30 * 0.62, "Adder": 30 * 0.1, "Registers": 90 * 0.166, "IfmapSram": 30 * 2.5,
         "FilterSram": 36 * 2.5, "OfmapSram": 36 * 2.5, "Dram": 34 * 320}
    )  # fmt: skip
    bytewise = both(machine(rows=2, columns=2, word_bytes=1), linear(2, 5, 3))
    assert bytewise.energy_j is None
    assert bytewise.warnings == ["energy table systolic-45nm-event is for words of 16 bits, not 8: no energy given"]


def test_an_accelergy_table_replaces_the_energies(tmp_path):
    path = tmp_path / "array.yaml"
    entries = machine().energy.per_event
    tables = [
        {"name": f"top.{entry.component}[0..15]", "actions": [{"name": entry.action, "energy": 2}]} for entry in entries
    ]
    path.write_text(json.dumps({"ERT": {"version": 0.3, "tables": tables}}), "utf-8")
    result = both(machine(rows=2, columns=2, batch_size=2, energy=str(path)), linear(2, 5, 3))
    assert result.energy_j.table == "array.yaml"
    assert result.energy_j.total == pytest.approx(2e-12 * (sum(result.counts.values()) + result.macs))


def test_no_table_gives_the_area():
    assert systolic.area_mm2(machine()) is None


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"rows": 0}, "rows must be at least 1, not 0"),
        ({"columns": -3}, "columns must be at least 1, not -3"),
        ({"rows": 65537}, "rows must be at most 65536, not 65537"),
        ({"word_bytes": 0}, "word_bytes must be at least 1, not 0"),
        ({"ofmap_sram_bytes": 0}, "ofmap_sram_bytes must be at least 1, not 0"),
        ({"batch_size": -1}, "batch_size must be at least 0, not -1"),
        ({"clock_hz": 0.0}, "clock_hz must be above 0 and finite, not 0.0"),
        ({"clock_hz": float("nan")}, "clock_hz must be above 0 and finite, not nan"),
        ({"dram_bandwidth_bytes_per_s": -1}, "dram_bandwidth_bytes_per_s must be above 0 and finite, not -1.0"),
        ({"rows": 3.5}, "rows must be a whole number, not 3.5"),
        ({"rows": True}, "rows must be a whole number, not True"),
        ({"dram_bounds_latency": 1}, "dram_bounds_latency must be true or false, not 1"),
    ],
)
def test_a_bad_configuration_is_refused_with_rule_and_value(change, rule):
    with pytest.raises(InputError) as error:
        machine(**change)
    assert str(error.value) == f"systolic-16x16: {rule}"


@pytest.mark.parametrize("side", [8, 16, 32])
def test_every_preset_has_a_source_for_each_number(side):
    preset = tomllib.loads((CONFIGS / f"systolic-{side}x{side}.toml").read_text("utf-8"))
    numbers = {key for key, value in preset.items() if isinstance(value, (int, float))}
    assert numbers == set(preset["sources"]) and all(preset["sources"].values())
    config = load_machine(f"systolic-{side}x{side}").config
    assert (config.rows, config.columns) == (side, side)
    assert msgspec.structs.replace(config, rows=16, columns=16) == machine().config
