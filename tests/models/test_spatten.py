"""SpAtten's pipeline: top-k by values, queues between units, and both engines on random attentions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine, spatten
from gossamer.models.parts.spatten.top_k import pivot_of, select_rows, travel
from gossamer.models.spatten import CAUSES, UNITS
from gossamer.simulator import simulate
from gossamer.simulator.check import check
from gossamer.simulator.memo import Memo
from gossamer.simulator.timeline import Timeline
from gossamer.workloads.dynamic.top_k import k_of, top_k
from gossamer.workloads.errors import InputError
from gossamer.workloads.trace import Layer, Trace

from .bounds import assert_bounded, assert_tells, exact, far_numbers


def attention(probabilities, values=None, samples=1):
    """Return the second product of an attention: (heads, queries, keys), and V (heads, size, keys)."""
    probabilities = np.asarray(probabilities, np.float32)
    heads, _, keys = probabilities.shape
    values = np.ones((heads, 4, keys)) if values is None else values
    return Trace(
        name="attention",
        layers=[
            Layer(
                name="matmul2", op="matmul", inputs=probabilities, weight=np.asarray(values, np.float32),
                attributes={"samples": samples},
            )
        ],
    )  # fmt: skip


def drawn(seed, heads, queries, keys, size, levels=0, samples=1):
    """Return an attention with drawn probabilities; with ``levels``, of few different values, so that many tie."""
    rng = np.random.default_rng(seed)
    heads *= samples
    scores = rng.integers(0, levels, (heads, queries, keys)) if levels else rng.normal(size=(heads, queries, keys))
    powers = np.exp(scores.astype(np.float64))
    return attention(powers / powers.sum(-1, keepdims=True), rng.normal(size=(heads, size, keys)), samples)


workloads = st.builds(
    drawn,
    seed=st.integers(0, 2**32),
    heads=st.integers(1, 3),
    queries=st.integers(1, 4),
    keys=st.integers(1, 40),
    size=st.sampled_from([1, 4, 16]),
    levels=st.sampled_from([0, 1, 2, 4]),
    samples=st.integers(1, 2),
)
configs = st.fixed_dictionaries({
    "multipliers": st.sampled_from([1, 8, 16, 100]),
    "softmax_lanes": st.integers(1, 9),
    "comparators": st.integers(1, 20),
    "pass_latency": st.integers(0, 4),
    "pipeline_latency": st.integers(0, 5),
    "queue_depth": st.integers(1, 3),
    "value_keep": st.sampled_from([0.01, 0.3, 0.5, 0.9, 1.0]),
    "token_keep": st.sampled_from([0.01, 0.5, 1.0]),
    "dram_bandwidth_bytes_per_s": st.sampled_from([1e9, 512e9]),
    "dram_bounds_latency": st.booleans(),
    "seed": st.integers(0, 2**40),
})  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(trace=workloads, config=configs)
def test_both_engines_agree_and_the_numbers_are_those_of_a_stable_sort(trace, config):
    (found,) = check(load_machine("spatten", **config), trace)
    assert found.differences == []
    assert found.numbers_agree


@settings(max_examples=60, deadline=None)
@given(trace=workloads, config=configs)
def test_every_unit_accounts_for_every_cycle(trace, config):
    layer = simulate(load_machine("spatten", **config), trace).layers[0]
    assert tuple(layer.cycles_by_cause) == UNITS
    for causes in layer.cycles_by_cause.values():
        assert tuple(causes) == CAUSES and min(causes.values()) >= 0
        assert sum(causes.values()) == layer.cycles


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32), keys=st.integers(2, 60), levels=st.integers(1, 60), comparators=st.integers(1, 17),
    latency=st.integers(0, 4), data=st.data(),
)  # fmt: skip
def test_the_engine_keeps_what_a_stable_sort_keeps(seed, keys, levels, comparators, latency, data):
    k = data.draw(st.integers(1, keys - 1))
    rows = np.random.default_rng(seed).integers(0, levels, (3, keys)).astype(np.float32)
    chosen, _, figures = select_rows(rows, np.full(3, k), comparators, latency, seed)
    assert [list(np.flatnonzero(row)) for row in chosen] == top_k(rows, k).tolist()
    assert figures["comparisons"] == figures["fifo_reads"] >= 3 * keys
    assert figures["fifo_writes"] < figures["comparisons"]


def test_a_row_by_hand():
    # Fill 5 values by twos: 3 cycles. The pivots follow from the seed: the first is tried until the k-th is found.
    row = np.array([[0.5, 0.1, 0.4, 0.2, 0.3]], np.float32)
    candidates, rank, cycles, step = list(row[0]), 2, 3, 0
    while True:
        pivot = candidates[pivot_of(9, 0, step, len(candidates))]
        cycles += -(-len(candidates) // 2) + 3
        step += 1
        larger = [value for value in candidates if value > pivot]
        if len(larger) == rank - 1:
            break
        if rank <= len(larger):
            candidates = larger
        else:
            rank -= len(larger) + 1
            candidates = [value for value in candidates if value < pivot]
    chosen, taken, figures = select_rows(row, np.array([2]), 2, 3, 9)
    assert chosen.tolist() == [[True, False, True, False, False]]
    assert (taken.tolist(), figures["passes"]) == ([cycles], step)


def test_equal_values_end_in_one_pass_and_the_first_are_kept():
    chosen, cycles, figures = select_rows(np.ones((1, 32), np.float32), np.array([5]), 16, 3, 0)
    assert np.flatnonzero(chosen).tolist() == [0, 1, 2, 3, 4]
    assert cycles.tolist() == [2 + 2 + 3]  # fill, one pass over two rows, and its latency
    assert figures == {"comparisons": 32, "passes": 1, "fifo_reads": 32, "fifo_writes": 0}


def authors_latency(rng, size, target, parallelism):
    """Return what the recurrence of the authors' TopKLatencyModel gives: rows + 3 a pass, pivots drawn."""
    candidates, cycles = rng.permutation(size), 0
    while True:
        cycles += -(-len(candidates) // parallelism) + 3
        pivot = candidates[rng.integers(len(candidates))]
        smaller, larger = candidates[candidates < pivot], candidates[candidates > pivot]
        if len(smaller) == target:
            return cycles
        if len(smaller) > target:
            candidates = smaller
        else:
            target -= len(smaller) + 1
            candidates = larger


@pytest.mark.parametrize(("size", "k"), [(64, 32), (256, 32), (1024, 64)])
def test_selection_takes_as_long_as_in_the_authors_model(size, k):
    rng = np.random.default_rng(1)
    theirs = np.mean([authors_latency(rng, size, k - 1, 16) for _ in range(4000)])
    _, cycles, _ = select_rows(rng.random((4000, size), dtype=np.float32), np.full(4000, k), 16, 3, 1)
    assert cycles.mean() - -(-size // 16) == pytest.approx(theirs, rel=0.02)


def test_pivots_fall_on_every_candidate_alike():
    drawn = np.bincount([pivot_of(3, row, 0, 7) for row in range(7000)], minlength=7)
    assert drawn.min() > 850 and drawn.max() < 1150


def test_a_unit_waits_for_a_place_before_the_next_one():
    # Two units of 1 and 5 cycles, one place between: the third job leaves the first when the second takes its second.
    end, blocked = travel(np.array([[1, 1, 1], [5, 5, 5]]), 1)
    assert end == 1 + 5 + 5 + 5
    assert blocked == [6 - 3, 0]  # the third is done at 3 and leaves at 6


def test_without_local_pruning_the_slowest_unit_sets_the_pace():
    machine = load_machine("spatten", dram_bounds_latency=False)
    layer = simulate(machine, drawn(0, 12, 128, 128, 64)).layers[0]
    # 8 keys a cycle in every unit: 16 cycles a query; the first passes three of them, then the pipeline empties.
    assert layer.cycles == 12 * 128 * 16 + 2 * 16 + 103
    assert layer.macs == 2 * 12 * 128 * 128 * 64
    assert layer.counts["comparisons"] == 0


def test_dram_bounds_a_single_query_of_many_keys():
    layer = simulate(load_machine("spatten"), drawn(0, 12, 1, 1024, 64)).layers[0]
    words = 12 * 64 * (1024 + 1024 + 1 + 1)  # K, V, the query and the output
    assert layer.counts["dram_reads"] + layer.counts["dram_writes"] == words
    assert layer.cycles == -(-words * 12 // 8 // 512)
    assert layer.cycles_by_cause["prob_value"]["memory"] > 0


def test_values_that_no_query_reads_stay_in_dram():
    probabilities = np.zeros((1, 3, 8))
    probabilities[0, :, 0], probabilities[0, :, 1] = 0.75, 0.25
    kept = simulate(load_machine("spatten", value_keep=0.25), attention(probabilities)).layers[0]
    whole = simulate(load_machine("spatten"), attention(probabilities)).layers[0]
    assert whole.counts["dram_reads"] - kept.counts["dram_reads"] == 6 * 4
    assert np.array_equal(kept.output, whole.output)


def test_fewer_values_are_less_work_for_the_second_array():
    trace = drawn(0, 2, 8, 64, 16)
    whole, half = (simulate(load_machine("spatten", value_keep=keep), trace).layers[0] for keep in (1.0, 0.5))
    assert half.macs == whole.macs * 3 // 4
    assert half.counts["value_sram_reads"] == whole.counts["value_sram_reads"] // 2


def test_tokens_are_ranked_once_a_sample_behind_its_last_query():
    trace = drawn(4, 3, 5, 20, 4, samples=2)
    machine = load_machine("spatten", token_keep=0.5, dram_bounds_latency=False)
    ranking, none = (simulate(each, trace).layers[0] for each in (machine, load_machine("spatten")))
    rows = trace.layers[0].inputs.reshape(2, 15, 20).sum(axis=1, dtype=np.float64).astype(np.float32)
    # The pivots are those of rows 15 and 31 of what passes through the engine: other rows stand before them.
    filler = np.zeros((16, 20), np.float32)
    rows = np.concatenate([filler[:15], rows[:1], filler[:15], rows[1:]])
    counts = np.where(np.arange(32) % 16 == 15, 10, 20)
    _, cycles, figures = select_rows(rows, counts, 16, 3, 1)
    assert ranking.cycles_by_cause["quick_select"]["busy"] == cycles.sum()
    assert ranking.cycles_by_cause["filter"]["busy"] == 2 * 2
    assert {name: ranking.counts[name] for name in figures} == figures
    assert (ranking.macs, ranking.counts["dram_reads"]) == (none.macs, none.counts["dram_reads"])
    assert np.array_equal(ranking.output, none.output)


def test_a_layer_that_is_no_attention_is_refused():
    with pytest.raises(InputError) as error:
        simulate(load_machine("spatten"), attention([[[2.0, 1.0]]]))
    assert str(error.value) == (
        "layer matmul2: spatten takes an attention by its second product, probabilities times values, and the inputs "
        "hold a row that adds up to 3; choose such layers with --layer, as in *matmul2"
    )
    with pytest.raises(InputError, match=r"and the inputs hold -0\.5; choose such layers"):
        simulate(load_machine("spatten"), attention([[[-0.5, 1.0]]]))


def test_more_keys_than_the_srams_hold_are_a_warning():
    warnings = simulate(load_machine("spatten"), drawn(0, 1, 1, 1025, 64)).warnings
    assert warnings == [
        f"matmul2: {name}s of two heads take 196800 bytes of 196608 in the {name} SRAM: they cannot be double-buffered"
        for name in ("key", "value")
    ]
    assert simulate(load_machine("spatten"), drawn(0, 1, 1, 1024, 64)).warnings == []


def test_the_timeline_shows_each_query_in_each_unit():
    timeline = Timeline()
    simulate(load_machine("spatten", value_keep=0.5), drawn(0, 1, 2, 16, 4), engine="event", timeline=timeline)
    shown = {(each.track, each.name) for each in timeline.intervals}
    assert shown >= {(unit, f"query {job}") for unit in UNITS for job in (0, 1)}
    assert max(each.end for each in timeline.intervals) == timeline.offset


def test_the_timeline_of_a_layer_is_as_long_as_its_cycles():
    timeline = Timeline()
    machine = load_machine("spatten", dram_bandwidth_bytes_per_s=1e9)
    result = simulate(machine, drawn(0, 1, 2, 64, 4), engine="event", timeline=timeline)
    (waiting,) = [each for each in timeline.intervals if each.track == "dram"]
    assert timeline.offset == waiting.end == result.total.cycles
    assert waiting.end - waiting.start == result.layers[0].cycles_by_cause["softmax"]["memory"] > 0


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("value_keep", 0.0, "value_keep must be above 0 and at most 1, not 0.0"),
        ("comparators", 0, "comparators must be at least 1, not 0"),
        ("queue_depth", 1 << 20, "queue_depth must be at most 65536, not 1048576"),
        ("clock_hz", 0.0, "clock_hz must be above 0 and finite, not 0.0"),
    ],
)
def test_a_config_out_of_range_is_refused(field, value, rule):
    with pytest.raises(InputError) as error:
        load_machine("spatten", **{field: value})
    assert str(error.value) == f"spatten: {rule}"


def test_a_share_keeps_whole_numbers_and_at_least_one():
    assert [k_of(share, 10) for share in (0.01, 0.29, 0.3, 1.0)] == [1, 2, 3, 10]
    assert k_of(0.29, 100) == 29


@st.composite
def far_attentions(draw):
    """Return an attention of values of any size, its probabilities even, few of them of any weight, or tied."""
    heads, queries, keys, size = (draw(st.integers(1, most)) for most in (3, 3, 30, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sharpness = draw(st.sampled_from([0.0, 1.0, 20.0, 60.0]))
    scores = rng.normal(size=(heads, queries, keys)) * sharpness
    if draw(st.booleans()):
        scores = np.rint(scores)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return attention(powers / powers.sum(-1, keepdims=True), draw(far_numbers(heads, size, keys, least=-1))).layers[0]


@settings(max_examples=120, deadline=None)
@given(layer=far_attentions(), keep=st.sampled_from([0.01, 0.3, 0.9, 1.0, 1.0]), seed=st.integers(0, 9))
def test_outputs_are_within_the_bound_whatever_the_numbers(layer, keep, seed):
    assert_bounded(spatten, load_machine("spatten", value_keep=keep, seed=seed), layer)


@pytest.mark.parametrize("keep", [1.0, 0.9, 0.5])
def test_the_bound_of_ordinary_numbers_is_near_their_errors(keep):
    layer, machine = drawn(3, 2, 8, 40, 16).layers[0], load_machine("spatten", value_keep=keep)
    found = np.abs(spatten.fast(machine, layer, Memo()).output - exact(layer)[0]).max()
    assert found < spatten.error_bound(machine, layer).max() < (300 if keep == 1 else 10) * found


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), row=st.integers(0, 3), keep=st.sampled_from([1.0, 0.8]))
def test_a_value_that_is_off_by_more_than_the_bound_is_told(seed, row, keep):
    layer = drawn(seed, 1, 3, 12, 4).layers[0]
    most_likely = int(layer.inputs[0].max(axis=0).argmax())  # it is read, whatever is left out
    assert_tells(spatten, load_machine("spatten", value_keep=keep), layer, row, most_likely)
