"""PatDNN: pattern code on vector units, against its units, against numpy, and technique by technique."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import patdnn
from gossamer.models.loader import load_machine
from gossamer.models.patdnn_plan import Geometry, Plan, blocks_of, kernels_of, tiles_of
from gossamer.models.patdnn_timing import Layout
from gossamer.simulator.memo import Memo
from gossamer.simulator.timeline import Interval, Timeline
from gossamer.workloads.errors import InputError
from gossamer.workloads.kernel_patterns import pattern_prune
from gossamer.workloads.kernel_synth import vgg_layer
from gossamer.workloads.trace import Layer

PLAIN = {"reorder": False, "kernel_lre": False, "filter_lre": False, "tune": False}
ONE = PLAIN | {
    "cores": 1, "load_ports": 1, "load_cycles": 1, "fma_ports": 1, "fma_latency": 1, "load_latency": 3, "window": 1,
    "kernel_cycles": 1, "dispatch_cycles": 2, "switch_cycles": 5, "item_cycles": 10, "tile_rows": 1, "tile_vectors": 1,
    "filter_block": 1, "dram_bytes_per_s": 1e15, "l2_bytes_per_clk": 1 << 16,
}  # fmt: skip


def machine(name="patdnn-kryo485", **changes):
    return load_machine(name, **changes)


def convolution(filters, channels, height, width, *, kernel=3, samples=1, rate=3.6, seed=0, bias=False, **attributes):
    """Return a convolution pruned by patterns (of 3 x 3) and by connectivity, one kernel of ``rate`` left."""
    rng = np.random.default_rng(seed)
    groups = attributes.get("groups", 1)
    weight = rng.standard_normal((filters, channels // groups, kernel, kernel)).astype(np.float32)
    mask = np.ones(weight.shape, bool)
    if rate > 1:
        share = 4 / 9 if kernel == 3 else 1
        kept = max(1, round(filters * channels // groups / rate)) / (filters * channels // groups)
        if kernel == 3:
            mask = pattern_prune({"w": weight}, {"w": mask}, 1 - share * kept)["w"]
        else:
            mask = np.broadcast_to(rng.random(weight.shape[:2])[..., None, None] < kept, weight.shape).copy()
    return Layer(
        name="conv",
        op="conv2d",
        weight=np.where(mask, weight, np.float32(0)),
        mask=mask,
        bias=rng.standard_normal(filters).astype(np.float32) if bias else None,
        inputs=rng.standard_normal((samples, channels, height, width)).astype(np.float32),
        attributes=attributes,
    )


def by_hand(*kernels, size=(1, 4)):
    """Return a convolution of one filter whose kernels keep the listed places of 3 x 3, on outputs of ``size``."""
    weight = np.zeros((1, len(kernels), 9), np.float32)
    for channel, places in enumerate(kernels):
        weight[0, channel, places] = 1
    inputs = np.ones((1, len(kernels), size[0] + 2, size[1] + 2), np.float32)
    return Layer(name="c", op="conv2d", weight=weight.reshape(1, -1, 3, 3), inputs=inputs)


def both(built, layer, timeline=None):
    """Return the result of `fast`, having checked that the units agree with it in everything, and both with numpy."""
    fast, event = patdnn.fast(built, layer, Memo()), patdnn.events(built, layer, timeline)
    assert msgspec.to_builtins(event) == msgspec.to_builtins(fast)
    np.testing.assert_allclose(event.output, fast.output, rtol=1e-4, atol=1e-4)
    assert sum(fast.cycles_by_cause["core"].values()) == fast.cycles * built.config.cores
    return fast


def test_a_kernel_takes_the_time_of_the_recurrence():
    # 10 of the tile; 1 of the front end; 4 input vectors and 1 of weights; 3 until they can be used; 4 multiply-adds
    # one after another; 1 store.
    result = both(machine(**ONE), by_hand([0, 1, 4, 5]))
    assert result.cycles == 10 + 1 + 5 + 3 + 4 + 1
    assert result.cycles_by_cause["core"] == {
        "compute": 4, "load": 9, "switch": 0, "overhead": 11, "fill": 0, "idle": 0, "dram": 0,
    }  # fmt: skip


def test_where_there_are_two_patterns_each_kernel_is_looked_up():
    result = both(machine(**ONE), by_hand([0, 1, 4, 5], [1, 2, 4, 5]))
    assert result.cycles == 10 + 2 * (1 + 2 + 5 + 5 + 3 + 4) + 1
    assert result.cycles_by_cause["core"] == {
        "compute": 8, "load": 18, "switch": 14, "overhead": 11, "fill": 0, "idle": 0, "dram": 0,
    }  # fmt: skip


def test_the_next_kernel_waits_for_the_window():
    places = [0, 1, 4, 5]
    kernel = 1 + 5 + 3 + 4
    assert both(machine(**ONE), by_hand(places, places)).cycles == 10 + 2 * kernel + 1
    # With a window of 2 the second's loads follow the first's: it can be multiplied 6 cycles later, not 13.
    assert both(machine(**ONE | {"window": 2}), by_hand(places, places)).cycles == 10 + kernel + 6 + 1


def test_a_kernel_of_another_pattern_costs_a_switch_more_than_one_of_the_same():
    a, b = [0, 1, 4, 5], [1, 2, 4, 5]
    alike = both(machine(**ONE), by_hand(a, a, b))
    other = both(machine(**ONE), by_hand(a, b, a))
    assert other.cycles - alike.cycles == 5
    assert (alike.counts["pattern_switches"], other.counts["pattern_switches"]) == (2, 3)


def test_reordering_brings_kernels_of_one_pattern_together():
    a, b = [0, 1, 4, 5], [1, 2, 4, 5]
    layer = by_hand(a, b, a, b, a)
    before, after = both(machine(**ONE), layer), both(machine(**ONE | {"reorder": True}), layer)
    assert (before.counts["pattern_switches"], after.counts["pattern_switches"]) == (5, 2)
    assert (before.counts["dispatches"], after.counts["dispatches"]) == (5, 0)
    assert before.cycles - after.cycles == 3 * 5 + 5 * 2


def test_rows_that_a_kernel_meets_twice_are_loaded_once():
    # Over 4 output rows, places of column 1 in rows 0 and 1 meet input rows 0 to 4; the one of column 2, rows 1 to 4.
    layer = by_hand([1, 4, 5], size=(4, 4))
    plain = both(machine(**ONE | {"tile_rows": 4}), layer)
    once = both(machine(**ONE | {"tile_rows": 4, "kernel_lre": True}), layer)
    assert (plain.counts["input_loads"], once.counts["input_loads"]) == (12, 9)
    assert plain.cycles - once.cycles == 3


def test_filters_of_a_block_share_the_loads_of_a_pattern_and_channel():
    weight = np.zeros((2, 2, 9), np.float32)
    weight[0, 0, [1, 4]] = weight[1, 0, [1, 4]] = weight[0, 1, [1, 4]] = weight[1, 1, [4, 5]] = 1
    layer = Layer(
        name="c", op="conv2d", weight=weight.reshape(2, 2, 3, 3), inputs=np.ones((1, 2, 3, 6), np.float32)
    )  # fmt: skip
    plain = both(machine(**ONE | {"reorder": True}), layer)
    shared = both(machine(**ONE | {"reorder": True, "filter_lre": True, "filter_block": 2}), layer)
    assert (plain.counts["input_loads"], shared.counts["input_loads"]) == (8, 6)
    assert (plain.counts["kernel_steps"], shared.counts["kernel_steps"]) == (4, 3)
    assert plain.counts["fmas"] == shared.counts["fmas"] == 8


def test_filters_in_lockstep_take_patterns_that_differ_one_after_another():
    a, b = [1, 4], [4, 5]
    weight = np.zeros((4, 1, 9), np.float32)
    for row, places in enumerate((a, b, a, b)):
        weight[row, 0, places] = 1
    layer = Layer(
        name="c", op="conv2d", weight=weight.reshape(4, 1, 3, 3), inputs=np.ones((1, 1, 3, 4), np.float32)
    )  # fmt: skip
    lanes = {"vector_width": 4, "lane_filters": 2, "flat_lanes": True}
    mixed = both(machine(**ONE | lanes), layer)
    sorted_ = both(machine(**ONE | lanes | {"reorder": True}), layer)
    assert (mixed.counts["kernel_steps"], sorted_.counts["kernel_steps"]) == (4, 2)
    assert (mixed.counts["fmas"], sorted_.counts["fmas"]) == (8, 4)


def test_lanes_that_meet_one_channel_share_its_transaction():
    layer = by_hand([1, 4])
    weight = np.repeat(layer.weight, 2, axis=0)
    layer = Layer(name="c", op="conv2d", weight=weight, inputs=layer.inputs)
    lanes = {"vector_width": 8, "lane_filters": 2, "flat_lanes": True, "reorder": True}
    assert both(machine(**ONE | lanes), layer).counts["input_loads"] == 4
    assert both(machine(**ONE | lanes | {"filter_lre": True}), layer).counts["input_loads"] == 2


def test_reordered_filters_are_dealt_so_that_no_core_gets_all_the_long_ones():
    weight = np.zeros((4, 8, 3, 3), np.float32)
    weight[:2, :, 1, 1], weight[2:, 0, 1, 1] = 1, 1
    layer = Layer(name="c", op="conv2d", weight=weight, inputs=np.ones((1, 8, 6, 6), np.float32))
    two = ONE | {"cores": 2}
    assert both(machine(**two), layer).load_balance < 0.75
    assert both(machine(**two | {"reorder": True}), layer).load_balance == 1.0


def test_more_cores_than_filters_leave_cores_idle():
    result = both(machine(cores=8, tune=False, dram_bytes_per_s=1e15), convolution(3, 4, 5, 5))
    idle = result.cycles_per_unit["core"]["idle"]
    assert idle.count(result.cycles) == 8 - result.shape[0] // 2 - result.shape[0] % 2


def test_too_few_registers_spill_and_are_told():
    result = both(machine(tune=False, registers=4), convolution(4, 4, 6, 6))
    assert result.counts["spills"] > 0
    assert result.warnings == ["registers: tiles of 2 x 2 vectors of 2 filters need more than 4; choose smaller tiles"]


def test_tuning_finds_the_fastest_of_all_plans():
    layer = convolution(16, 16, 12, 12)
    config = machine().config
    layout = Layout(kernels_of(layer, config), Geometry.of(layer), config)
    best = layout.cycles(patdnn.tuned(layout))
    for order in ("filters", "tiles"):
        for rows in (1, 2, 4, 8):
            for vectors in (1, 2):
                for block in (1, 2, 4):
                    if block * (rows * vectors + 1) + 2 <= config.registers:
                        assert best <= layout.cycles(Plan(rows, vectors, block, order))
    assert best < layout.cycles(Plan.of(config))


def test_a_layer_whose_zeros_have_no_pattern_gets_dense_code_when_tuned():
    layer = convolution(8, 8, 12, 12, rate=1)
    weight = np.where(np.random.default_rng(1).random(layer.shape) < 0.9, layer.weight, 0).astype(np.float32)
    scattered = Layer(name="c", op="conv2d", weight=weight, inputs=layer.inputs)
    slow = {"switch_cycles": 64}
    tuned, dense = both(machine(**slow), scattered), both(machine("patdnn-kryo485-dense", **slow), scattered)
    assert tuned.cycles == dense.cycles
    assert (tuned.tiling["dense_code"], tuned.tiling["patterns"]) == (1, 1)
    assert both(machine(tune=False, **slow), scattered).tiling["dense_code"] == 0
    assert both(machine(), convolution(8, 8, 12, 12)).tiling["dense_code"] == 0


def test_what_stays_in_l1_is_not_brought_again():
    layer = convolution(8, 8, 16, 16)
    roomy = both(machine(tune=False, cores=1, l2_bytes_per_clk=1, l1_bytes=1 << 20), layer)
    tight = both(machine(tune=False, cores=1, l2_bytes_per_clk=1, l1_bytes=512), layer)
    assert roomy.counts["l1_fill_bytes"] < tight.counts["l1_fill_bytes"]
    assert tight.cycles_by_cause["core"]["fill"] > roomy.cycles_by_cause["core"]["fill"]
    inputs_outside = both(machine(tune=False, cores=1, l1_bytes=8192, loop_order="tiles"), layer)
    weights_outside = both(machine(tune=False, cores=1, l1_bytes=8192), layer)
    assert inputs_outside.counts["l1_fill_bytes"] < weights_outside.counts["l1_fill_bytes"]


def test_dram_bounds_a_layer_that_moves_much_and_computes_little():
    result = both(machine(dram_bytes_per_s=1e8), convolution(4, 4, 8, 8))
    moved = result.counts["dram_read_bytes"] + result.counts["dram_write_bytes"]
    assert result.cycles == -(-moved * 18 * 10 // 7)
    assert result.cycles_by_cause["core"]["dram"] > 0
    assert result.counts["dram_write_bytes"] == 4 * 6 * 6 * 4


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
