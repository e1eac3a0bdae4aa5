"""EIE's activation queues: how full they are, by both engines, and beside a count of every cycle."""

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine
from gossamer.models.parts.eie.timing import DEEP, FIRST_BROADCAST, Broadcasts, Timing
from gossamer.models.parts.matvec import Nonzeros
from gossamer.simulator import simulate
from gossamer.simulator.occupancy import SAMPLES, Sampler
from gossamer.simulator.result import Result
from gossamer.simulator.timeline import Timeline
from gossamer.workloads.synth import random_layer
from gossamer.workloads.trace import Layer, Trace


def timing(entries, vectors, bubbles, queue_depth):
    starts = np.cumsum([0, *map(len, vectors)])
    columns = np.concatenate([*map(np.asarray, vectors), []]).astype(np.int64)
    broadcasts = Broadcasts(Nonzeros(columns, np.ones(len(columns)), starts), np.asarray(bubbles, np.int64))
    return Timing.of(np.asarray(entries, np.uint16), broadcasts, queue_depth, levels=True)


def counted(entries, vectors, bubbles, queue_depth, cycles):
    """Count the activations in every queue in every cycle: those broadcast before it and not yet begun."""
    levels = np.zeros(queue_depth, int)
    bubbles = iter(bubbles)
    for columns, total in zip(vectors, cycles, strict=True):
        sent, starts = [], []
        for j in range(len(columns)):
            u = (sent[-1] if sent else FIRST_BROADCAST - 1) + 1 + next(bubbles)
            if j >= queue_depth - 1:
                u = max(u, 1 + max(starts[j - queue_depth + 1]))
            work = [max(1, n) for n in entries[columns[j - 1]]] if j else [0] * len(entries[0])
            before = starts[-1] if starts else [0] * len(work)
            sent.append(u)
            starts.append([max(u + 1, s + n) for s, n in zip(before, work, strict=True)])
        for cycle in range(total):
            for pe in range(len(entries[0])):
                levels[sum(u < cycle < s[pe] for u, s in zip(sent, starts, strict=True))] += 1
    return levels


@st.composite
def runs(draw):
    columns, pes = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    row = st.lists(st.integers(0, 6), min_size=pes, max_size=pes)
    entries = draw(st.lists(row, min_size=columns, max_size=columns))
    vectors = draw(st.lists(st.lists(st.integers(0, columns - 1), max_size=2 * DEEP), max_size=3))
    number = sum(map(len, vectors))
    return entries, vectors, draw(st.lists(st.integers(0, 3), min_size=number, max_size=number))


@given(runs(), st.sampled_from([2, 3, 5, 16, DEEP + 1, DEEP + 10, 1 << 20]))
@settings(max_examples=60)
def test_levels_are_those_of_a_count_of_every_cycle(run, queue_depth):
    entries, vectors, bubbles = run
    found = timing(entries, vectors, bubbles, queue_depth)
    assert len(found.levels) <= queue_depth
    most = min(queue_depth, 2 * DEEP + 1)
    expected = counted(entries, vectors, bubbles, most, found.cycles)
    assert (np.pad(found.levels, (0, most - len(found.levels))) == expected).all()


def test_both_ways_to_count_levels_agree_on_a_whole_layer():
    rng = np.random.default_rng(0)
    entries, columns = rng.poisson(3, (200, 32)), np.sort(rng.choice(200, 150, replace=False))
    bubbles = rng.integers(0, 2, 150)
    shallow = timing(entries, [columns[:DEEP]], bubbles[:DEEP], DEEP)
    deep = timing(entries, [columns[:DEEP], columns], [*bubbles[:DEEP], *bubbles], DEEP + 100)
    alone = timing(entries, [columns], bubbles, DEEP + 100)
    assert len(shallow.levels) <= DEEP < len(deep.levels)
    whole = deep.levels - alone.levels
    assert (whole[: len(shallow.levels)] == shallow.levels).all() and not whole[len(shallow.levels) :].any()


@st.composite
def layers(draw):
    rows, columns = draw(st.integers(1, 24)), draw(st.sampled_from([1, 3, 20, 90]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    density = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    weight = np.where(rng.random((rows, columns)) < density, rng.standard_normal((rows, columns)), 0)
    inputs = np.where(rng.random((2, columns)) < draw(st.sampled_from([0.0, 0.3, 1.0])), 1.5, 0)
    return Layer(name="fc", op="linear", weight=weight.astype(np.float32), inputs=inputs.astype(np.float32))


@given(layers(), st.sampled_from([1, 2, 5, 16]), st.sampled_from([2, 3, 8, 64]), st.booleans())
@settings(max_examples=40)
def test_both_engines_see_the_same_queues_whose_cycles_add_up(layer, pe_count, queue_depth, batches):
    machine = load_machine("eie-64pe", pe_count=pe_count, queue_depth=queue_depth, act_batches=batches, act_registers=3)
    trace = Trace(name="test", layers=(layer,))
    fast, event = (simulate(machine, trace, engine=engine).layers[0] for engine in ("fast", "event"))
    assert fast.queues == event.queues
    queue = fast.queues["activation"]
    assert queue.capacity == queue_depth - 1 >= len(queue.cycles_at_level) - 1
    assert sum(queue.cycles_at_level) == pe_count * fast.cycles and min(queue.cycles_at_level) >= 0
    assert queue.cycles_at_level[-1] > 0 or fast.cycles == 0


def test_a_hand_made_queue_fills_while_its_pe_works():
    # Column 0 keeps the only PE busy in cycles 3 to 7; 1, 2 and 3 are broadcast meanwhile, into a queue of two.
    found = timing([[5], [1], [1], [1]], [[0, 1, 2, 3]], [0] * 4, 3)
    assert found.cycles.tolist() == [16]
    # Cycle 2: 0 is broadcast. 3: it starts, 1 is broadcast. 4: one waits. 5 to 7: two wait, and 3 does not fit.
    # 8: 1 starts, one waits. 9: 2 starts and 3 is broadcast. 10: 3 starts.
    assert found.levels.tolist() == [16 - 5, 2, 3]


def test_totals_add_the_levels_of_layers_of_any_length():
    trace = Trace(name="two", layers=[
        random_layer(40, n, 0.5, 0.5, name=f"fc{n}", seed=n).layers[0] for n in (4, 60)
    ])  # fmt: skip
    result = simulate(load_machine("eie-64pe", pe_count=8), trace)
    short, long = (layer.queues["activation"].cycles_at_level for layer in result.layers)
    assert len(short) < len(long)
    assert result.total.queues["activation"].cycles_at_level == [
        a + b for a, b in zip([*short, *[0] * (len(long) - len(short))], long, strict=True)
    ]
    assert sum(result.total.queues["activation"].cycles_at_level) == 8 * result.total.cycles


def test_a_timeline_brings_the_queues_over_time_which_hold_what_the_levels_hold():
    trace = random_layer(64, 100, 0.3, 0.5, samples=3)
    machine = load_machine("eie-64pe", pe_count=4, act_batches=True, act_registers=8)
    plain = simulate(machine, trace, engine="event")
    result = simulate(machine, trace, engine="event", timeline=Timeline(start=10, end=20))
    queue, cycles = result.layers[0].queues["activation"], result.layers[0].cycles
    assert plain.layers[0].queues["activation"].over_time is None
    assert queue.cycles_at_level == plain.layers[0].queues["activation"].cycles_at_level
    seen = queue.over_time
    assert SAMPLES // 2 < len(seen.mean) <= SAMPLES and len(seen.mean) == -(-cycles // seen.step)
    widths = [seen.step] * (len(seen.mean) - 1) + [cycles - seen.step * (len(seen.mean) - 1)]
    held = sum(4 * mean * width for mean, width in zip(seen.mean, widths, strict=True))
    assert abs(held - sum(level * n for level, n in enumerate(queue.cycles_at_level))) < 1e-6 * held
    assert max(seen.most) == len(queue.cycles_at_level) - 1
    assert all(a <= m <= b for a, m, b in zip(seen.least, seen.mean, seen.most, strict=True))
    assert msgspec.json.decode(result.to_json(), type=Result).layers[0].queues == result.layers[0].queues


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 90)), min_size=1, max_size=30))
def test_samples_say_of_each_stretch_what_was_in_it(spans):
    sampler, levels = Sampler(), []
    for level, length in spans:
        sampler.add(level, len(levels), len(levels) + length)
        levels += [level] * length
    seen = sampler.samples()
    assert len(seen.mean) <= SAMPLES and (seen.step == 1 or len(seen.mean) > SAMPLES // 2)
    for place, (mean, least, most) in enumerate(zip(seen.mean, seen.least, seen.most, strict=True)):
        part = levels[place * seen.step : (place + 1) * seen.step]
        assert (mean, least, most) == (sum(part) / len(part), min(part), max(part))
