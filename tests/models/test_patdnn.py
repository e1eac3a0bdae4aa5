"""PatDNN: any layer on its units and against numpy, its techniques on VGG's layers, and what users see."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import patdnn
from gossamer.models.parts.patdnn.plan import Geometry, Plan, blocks_of, kernels_of, tiles_of
from gossamer.simulator.memo import Memo
from gossamer.simulator.timeline import Interval, Timeline
from gossamer.workloads.errors import InputError
from gossamer.workloads.synth.vgg import vgg_layer
from gossamer.workloads.trace import Layer

from .patdnn_layers import ONE, PLAIN, both, by_hand, convolution, machine


def test_a_dense_machine_computes_what_is_pruned_as_well():
    layer = convolution(6, 5, 7, 7)
    dense, sparse = both(machine("patdnn-kryo485-dense"), layer), both(machine(), layer)
    assert dense.macs == 6 * 5 * 9 * 25
    assert sparse.macs == np.count_nonzero(layer.mask) * 25
    assert dense.counts["pattern_switches"] == 0
    assert dense.storage_bits == {"weight": 6 * 5 * 9 * 32}


def test_a_linear_layer_is_computed_in_full():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((10, 7)).astype(np.float32)
    weight[rng.random(weight.shape) < 0.8] = 0
    layer = Layer(
        name="fc", op="linear", weight=weight, bias=rng.standard_normal(10).astype(np.float32),
        inputs=rng.standard_normal((3, 7)).astype(np.float32),
    )  # fmt: skip
    result = both(machine(), layer)
    assert result.macs == 3 * 7 * 10
    np.testing.assert_allclose(result.output, layer.inputs @ weight.T + layer.bias, rtol=1e-5, atol=1e-5)


def test_a_1x1_convolution_has_one_pattern_and_needs_no_switch():
    result = both(machine(**PLAIN), convolution(8, 8, 5, 5, kernel=1, rate=2))
    assert result.tiling["patterns"] == 1
    assert result.counts["pattern_switches"] == result.counts["dispatches"] == 0
    assert result.macs < 8 * 8 * 25


def test_patterns_without_code_run_as_larger_ones():
    layer = by_hand([1, 4], [1, 4], [4, 5])
    result = both(machine(**ONE | {"pattern_codes": 1}), layer)
    assert result.tiling["patterns"] == 2
    assert result.macs == (2 + 2 + 9) * 4


def test_codes_and_their_codebook_are_the_weights():
    layer = convolution(4, 3, 6, 6, seed=3)
    codes = (layer.mask * np.random.default_rng(0).integers(1, 16, layer.shape)).astype(np.uint8)
    book = np.linspace(-1, 1, 16, dtype=np.float32)
    book[0] = 0
    coded = Layer(
        name="c", op="conv2d", codes=codes, codebook=book, bias_codes=np.arange(4, dtype=np.uint8), inputs=layer.inputs
    )
    both(machine(), coded)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(data=st.data())
def test_units_and_recurrences_agree_on_any_pruned_convolution(data):
    def number(least, greatest):
        return data.draw(st.integers(least, greatest))

    lane_filters = data.draw(st.sampled_from([1, 1, 2, 4]))
    lanes = number(1, 4)
    built = machine(
        cores=number(1, 4),
        vector_width=lanes * lane_filters,
        lane_filters=lane_filters,
        flat_lanes=data.draw(st.booleans()),
        schedule=data.draw(st.sampled_from(["static", "dynamic"])),
        registers=data.draw(st.sampled_from([4, 8, 32])),
        load_ports=number(1, 3),
        load_cycles=number(1, 2),
        fma_ports=number(1, 3),
        store_ports=number(1, 2),
        fma_latency=number(1, 4),
        load_latency=number(0, 5),
        window=number(1, 4),
        kernel_cycles=number(0, 2),
        dispatch_cycles=number(0, 3),
        switch_cycles=number(0, 6),
        item_cycles=number(0, 5),
        l1_bytes=data.draw(st.sampled_from([1, 200, 1000, 5000, 1 << 20])),
        l2_bytes=data.draw(st.sampled_from([1, 2000, 1 << 20])),
        l2_bytes_per_clk=number(1, 64),
        word_bytes=number(1, 4),
        sparse=data.draw(st.booleans()),
        pattern_codes=data.draw(st.sampled_from([1, 3, 56])),
        reorder=data.draw(st.booleans()),
        kernel_lre=data.draw(st.booleans()),
        filter_lre=data.draw(st.booleans()),
        tile_rows=number(1, 4),
        tile_vectors=number(1, 3),
        filter_block=1 if lane_filters > 1 else number(1, 4),
        loop_order=data.draw(st.sampled_from(["filters", "tiles"])),
        tune=data.draw(st.sampled_from([False, False, False, True])),
        energy="",
    )
    groups = data.draw(st.sampled_from([1, 1, 2]))
    kernel = data.draw(st.sampled_from([1, 2, 3]))
    dilation = (number(1, 2), number(1, 2))
    layer = convolution(
        number(1, 4) * groups,
        number(1, 4) * groups,
        number(5, 8),
        number(5, 8),
        kernel=kernel,
        samples=number(1, 2),
        rate=data.draw(st.sampled_from([1.0, 1.5, 3.6, 100.0])),
        bias=data.draw(st.booleans()),
        seed=number(0, 999),
        stride=(number(1, 3), number(1, 3)),
        padding=(number(0, 1), number(0, 1)),
        dilation=dilation,
        groups=groups,
    )
    result = both(built, layer)
    assert result.counts["macs"] == result.macs
    config = built.config
    tiles = tiles_of(Geometry.of(layer), Plan(config.tile_rows, config.tile_vectors, 1, ""), config)
    covered = sum(tile.rows * tile.count for tile in tiles)
    assert covered >= result.vectors // layer.samples
    if layer.mask.all() or not config.sparse:
        assert result.macs == layer.weight.size * result.vectors


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 20), st.booleans(), st.sampled_from([1, 2, 4]))
def test_units_and_recurrences_agree_on_any_linear_layer(vectors, depth, outputs, tune, lane_filters):
    rng = np.random.default_rng(vectors * 100 + depth)
    layer = Layer(
        name="fc", op="linear", weight=rng.standard_normal((outputs, depth)).astype(np.float32),
        inputs=rng.standard_normal((vectors, depth)).astype(np.float32),
    )  # fmt: skip
    both(machine(tune=tune, vector_width=4, lane_filters=lane_filters, filter_block=1), layer)


def test_a_layer_without_any_kernel_still_stores_its_outputs():
    layer = Layer(
        name="c", op="conv2d", weight=np.zeros((2, 3, 3, 3), np.float32), inputs=np.ones((1, 3, 5, 5), np.float32),
        bias=np.array([1, 2], np.float32),
    )  # fmt: skip
    for name in ("patdnn-kryo485", "patdnn-adreno640", "patdnn-kryo485-noopt"):
        result = both(machine(name), layer)
        assert result.macs == 0
        assert result.counts["stores"] > 0
        assert result.output.tolist() == [[1, 2]] * 9


@pytest.mark.parametrize("name", ["patdnn-kryo485", "patdnn-kryo485-gold", "patdnn-adreno640"])
def test_each_technique_makes_a_layer_of_vgg_faster_and_all_together_beat_dense(name):
    layer = vgg_layer("L7").layers[0]
    stages = [PLAIN, PLAIN | {"reorder": True}, {"tune": False}, {}]
    cycles = [patdnn.fast(machine(name, **changes), layer, Memo()).cycles for changes in stages]
    assert cycles == sorted(cycles, reverse=True)
    dense = patdnn.fast(machine(name, sparse=False), layer, Memo()).cycles
    assert dense > 2 * cycles[-1]


def test_lockstep_gains_more_from_reordering_when_filters_are_many():
    layer = vgg_layer("L4").layers[0]
    steps = [
        patdnn.fast(machine("patdnn-adreno640", **PLAIN | {"reorder": reorder}), layer, Memo()).counts["kernel_steps"]
        for reorder in (False, True)
    ]
    assert steps[0] > 1.7 * steps[1]


def test_a_timeline_shows_ports_and_front_end_of_every_core():
    timeline = Timeline()
    both(machine(**ONE), by_hand([0, 1, 4, 5]), timeline)
    assert timeline.intervals == [
        Interval("core0.core", "begin", 0, 10),
        Interval("core0.fill", "90 bytes", 0, 1),
        Interval("core0.front", "pattern 0", 10, 11),
        Interval("core0.load", "pattern 0", 11, 16),
        Interval("core0.fma", "pattern 0", 19, 23),
        Interval("core0.store", "1 vectors", 23, 24),
    ]


def test_the_cost_alone_is_the_same_cost():
    layer = convolution(5, 4, 7, 7)
    for engine in (lambda built: patdnn.fast(built, layer, Memo()), lambda built: patdnn.events(built, layer)):
        with_values, without = engine(machine()), engine(machine(functional=False))
        assert without.output is None
        assert msgspec.to_builtins(without) == msgspec.to_builtins(with_values)


def test_energy_is_that_of_the_counts():
    result = both(machine(), convolution(6, 6, 8, 8))
    counts = result.counts
    table = machine().energy
    wanted = sum(entry.pj * counts[entry.count] for entry in table.per_event) * 1e-12
    assert result.energy_j.total == pytest.approx(wanted)
    half = both(machine(word_bytes=2), convolution(6, 6, 8, 8))
    assert half.energy_j is None
    assert half.warnings[0].startswith("energy")


def test_filters_are_dealt_in_turn_or_in_parts():
    layer = convolution(7, 3, 5, 5)
    for changes, wanted in (
        ({"reorder": True}, [[0, 3], [1], [2]]),
        ({"reorder": False}, [[0], [1], [2, 3]]),
    ):
        config = machine(cores=3, **changes).config
        kernels = kernels_of(layer, config)
        blocks, of_core = blocks_of(kernels, 2, config)
        assert of_core == wanted
        assert sorted(np.concatenate(blocks)) == list(range(7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cores": 0}, "patdnn-kryo485: cores must be at least 1, not 0"),
        ({"window": 1 << 17}, "patdnn-kryo485: window must be at most 65536, not 131072"),
        ({"clock_hz": 0.0}, "patdnn-kryo485: clock_hz must be above 0 and finite, not 0.0"),
        ({"dram_efficiency": 1.5}, "patdnn-kryo485: dram_efficiency must be above 0 and at most 1, not 1.5"),
        ({"schedule": "guided"}, "patdnn-kryo485: schedule must be static or dynamic, not 'guided'"),
        ({"loop_order": "x"}, "patdnn-kryo485: loop_order must be filters or tiles, not 'x'"),
        ({"lane_filters": 3}, "patdnn-kryo485: lane_filters must divide vector_width = 4, not 3"),
        ({"lane_filters": 2}, "patdnn-kryo485: filter_block must be 1 where lane_filters is 2, not 2"),
    ],
)
def test_a_machine_that_cannot_be_is_refused(changes, message):
    with pytest.raises(InputError) as error:
        machine(**changes)
    assert str(error.value) == message


def test_a_kernel_too_large_for_a_pattern_is_refused():
    layer = Layer(
        name="c", op="conv2d", weight=np.ones((1, 1, 8, 8), np.float32), inputs=np.ones((1, 1, 9, 9), np.float32)
    )  # fmt: skip
    with pytest.raises(InputError) as error:
        patdnn.fast(machine(), layer, Memo())
    assert str(error.value) == "layer c: a kernel must have at most 62 places, not 8 x 8"
    assert both(machine(sparse=False), layer).macs == 64 * 4
