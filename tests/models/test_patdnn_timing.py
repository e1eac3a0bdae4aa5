"""What pattern code costs on vector units, kernel by kernel and technique by technique, by hand."""

import numpy as np

from gossamer.models import patdnn
from gossamer.models.parts.patdnn.plan import Geometry, Plan, kernels_of
from gossamer.models.parts.patdnn.timing import Layout
from gossamer.workloads.trace import Layer

from .patdnn_layers import ONE, both, by_hand, convolution, machine


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
