"""Pruning into blocks, as many in every block row: what Block-ELLPACK stores without padding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.workloads import InputError, load_trace
from gossamer.workloads.formats import block_ell
from gossamer.workloads.importers.one_shot import parse_one_shot, prune_trace
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.pruning import kept_count
from gossamer.workloads.pruning.structured import equal_tiles, tiles
from gossamer.workloads.training import load_recipe, train
from gossamer.workloads.training.recipe import override


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    shape=st.sampled_from([(1, 1), (8, 8), (9, 14), (16, 40), (6, 3, 3, 3)]),
    side=st.integers(1, 9),
    schedule=st.sampled_from([(0.5,), (0.2, 0.5, 0.9), (0.0, 1.0)]),
    seed=st.integers(0, 99),
)
def test_every_row_of_tiles_keeps_the_same_number_of_whole_tiles_and_masks_nest(shape, side, schedule, seed):
    rng = np.random.default_rng(seed)
    mask = np.ones(shape, bool)
    for sparsity in schedule:
        weight = rng.uniform(0.1, 1, shape)
        before, mask = mask, equal_tiles(weight, mask, sparsity, (side, side))
        assert (mask <= before).all()
        matrix = mask.reshape(shape[0], -1)
        Pattern("block", block=(side, side)).check(mask, "mask")
        encoded = block_ell.encode(matrix, side)
        assert encoded.width == kept_count(-(-matrix.shape[1] // side), sparsity)
        assert encoded.padding_blocks == 0


def test_the_strongest_of_each_row_stay_though_others_are_stronger():
    weight = np.array([[9, 8, 7, 6], [1, 2, 3, 4]], np.float32)
    full = np.ones(weight.shape, bool)
    assert equal_tiles(weight, full, 0.5, (1, 1)).astype(int).tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
    assert tiles(weight, full, 0.5, (1, 1)).astype(int).tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
    assert equal_tiles(weight, full, 0.5, (2, 2)).astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]


def test_a_row_that_has_less_left_is_named():
    mask = np.array([[True, True], [True, False]])
    with pytest.raises(InputError) as error:
        equal_tiles(np.ones((2, 2)), mask, 0.0, (1, 1))
    assert str(error.value) == (
        "each row of tiles must have 2 of 2 left to keep, and row 1 has 1; "
        "start from a full mask, or from one of equal tiles"
    )


def test_a_tile_needs_two_sides():
    with pytest.raises(InputError, match=r"^a tile needs two whole sides of at least 1, not \(0, 2\)$"):
        equal_tiles(np.ones((2, 2)), np.ones((2, 2), bool), 0.5, (0, 2))


def padding(layer, side):
    return block_ell.encode((layer.weight != 0).reshape(len(layer.weight), -1), side).padding_blocks


def test_a_recipe_of_equal_blocks_leaves_no_padding_and_one_of_blocks_does():
    short = {"epochs": 1, "finetune_epochs": 1, "samples": 1, "batch_size": 256}
    equal = train(override(load_recipe("lenet-digits-equal-blocks"), **short)).trace
    assert [layer.pattern for layer in equal.layers] == [Pattern("block", block=(4, 4))] * 3
    assert [padding(layer, 4) for layer in equal.layers] == [0, 0, 0]
    assert equal.sparsity == pytest.approx(0.75, abs=0.01)
    ranked = train(override(load_recipe("lenet-digits-block"), **short)).trace
    assert sum(padding(layer, 4) for layer in ranked.layers) > 0


def test_levels_of_equal_blocks_nest():
    recipe = override(load_recipe("lenet-digits-equal-blocks"), method="iterative", rate=0.4, epochs=1,
                      finetune_epochs=1, samples=1, batch_size=256)  # fmt: skip
    run = train(recipe)
    assert [padding(layer, 4) for layer in run.trace.layers] == [0, 0, 0]
    assert [level.sparsity for level in run.history] == sorted(level.sparsity for level in run.history)


def test_a_trace_pruned_into_equal_blocks_has_no_padding_and_one_into_blocks_has():
    trace = load_trace("lenet-digits-dense")
    equal, ranked = (
        prune_trace(trace, parse_one_shot(rule), rule) for rule in ("equal-blocks:0.7:8x8", "block:0.7:8x8")
    )
    assert [padding(layer, 8) for layer in equal.layers] == [0, 0, 0]
    assert padding(ranked.layers[0], 8) > 0
    assert equal.layers[0].pattern == Pattern("block", block=(8, 8))


def test_only_strategies_of_blocks_take_a_block():
    recipe = load_recipe("lenet-digits-equal-blocks")
    for changes, rule in (
        ({"block": None}, "strategy equal-blocks needs block, and has None"),
        ({"vector": 4}, "strategy equal-blocks takes no vector, and has 4"),
        ({"strategy": "balanced", "pe_count": 4, "scope": "pe"}, "strategy balanced takes no block, and has (4, 4)"),
    ):
        with pytest.raises(InputError) as error:
            override(recipe, **changes)
        assert str(error.value) == f"recipe lenet-digits-equal-blocks: {rule}"


@pytest.mark.parametrize("prune", [tiles, equal_tiles])
def test_a_tile_larger_than_the_matrix_covers_what_the_matrix_does(prune):
    weight = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    full = np.ones(weight.shape, bool)
    for tile, same in (((10**9, 10**9), (3, 4)), ((10**9, 1), (3, 1)), ((1, 10**9), (1, 4))):
        assert np.array_equal(prune(weight, full, 0.5, tile), prune(weight, full, 0.5, same))
