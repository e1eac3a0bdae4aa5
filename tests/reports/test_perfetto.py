import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine
from gossamer.reports.perfetto import perfetto_json
from gossamer.simulator import simulate
from gossamer.simulator.timeline import Timeline
from gossamer.workloads.synth import random_layer


def by_phase(data):
    events = json.loads(data)["traceEvents"]
    return {phase: [event for event in events if event["ph"] == phase] for phase in "MXC"}


@pytest.fixture(scope="module")
def run():
    timeline = Timeline()
    machine = load_machine("eie-64pe", pe_count=12, queue_depth=4)
    trace = random_layer(60, 48, 0.2, 0.5, seed=2, samples=2)
    result = simulate(machine, trace, engine="event", timeline=timeline)
    data = perfetto_json(timeline, clock_hz=machine.config.clock_hz, name="random on eie")
    return timeline, result, data


def test_a_small_timeline_becomes_this_text():
    timeline = Timeline()
    timeline.interval("PE 10", "entries", 4, 6)
    timeline.interval("PE 9", "starved", 0, 3)
    timeline.interval("broadcaster", "broadcast", 2, 3)
    timeline.change("queue 9", 3, 1)
    assert perfetto_json(timeline, clock_hz=800e6, name="a run").decode() == (
        '{"displayTimeUnit":"ns","otherData":{"name":"a run","clock_hz":800000000.0,"time_stretch":1},"traceEvents":['
        '{"ph":"M","name":"process_name","pid":1,"tid":1,"args":{"name":"a run"}},\n'
        '{"ph":"M","name":"thread_name","pid":1,"tid":1,"args":{"name":"broadcaster"}},\n'
        '{"ph":"M","name":"thread_sort_index","pid":1,"tid":1,"args":{"sort_index":1}},\n'
        '{"ph":"M","name":"thread_name","pid":1,"tid":2,"args":{"name":"PE 9"}},\n'
        '{"ph":"M","name":"thread_sort_index","pid":1,"tid":2,"args":{"sort_index":2}},\n'
        '{"ph":"M","name":"thread_name","pid":1,"tid":3,"args":{"name":"PE 10"}},\n'
        '{"ph":"M","name":"thread_sort_index","pid":1,"tid":3,"args":{"sort_index":3}},\n'
        '{"ph":"X","name":"broadcast","pid":1,"tid":1,"ts":0.002,"dur":0.001,"args":{"start_cycle":2,"end_cycle":3}},\n'
        '{"ph":"X","name":"starved","pid":1,"tid":2,"ts":0.0,"dur":0.003,"args":{"start_cycle":0,"end_cycle":3}},\n'
        '{"ph":"X","name":"entries","pid":1,"tid":3,"ts":0.005,"dur":0.002,"args":{"start_cycle":4,"end_cycle":6}},\n'
        '{"ph":"C","name":"queue 9","pid":1,"ts":0.003,"args":{"value":1}}]}\n'
    )


def test_a_run_has_one_named_thread_a_unit_in_the_order_of_the_units(run):
    phases = by_phase(run[2])
    names = {e["tid"]: e["args"]["name"] for e in phases["M"] if e["name"] == "thread_name"}
    order = {e["tid"]: e["args"]["sort_index"] for e in phases["M"] if e["name"] == "thread_sort_index"}
    units = ["broadcaster", "layer", *(f"PE {i}" for i in range(12))]
    assert [names[tid] for tid in sorted(names, key=order.get)] == units
    assert {e["tid"] for e in phases["X"]} == set(names)
    assert {e["pid"] for events in phases.values() for e in events} == {1}


def test_every_interval_of_a_run_comes_back_with_its_cycles(run):
    timeline, _, data = run
    phases = by_phase(data)
    names = {e["tid"]: e["args"]["name"] for e in phases["M"] if e["name"] == "thread_name"}
    back = {(names[e["tid"]], e["name"], e["args"]["start_cycle"], e["args"]["end_cycle"]) for e in phases["X"]}
    assert back == {(i.track, i.name, i.start, i.end) for i in timeline.intervals}
    assert len(phases["X"]) == len(timeline.intervals)


def test_the_intervals_of_a_run_add_up_to_the_accounted_cycles(run):
    _, result, data = run
    names = {e["tid"]: e["args"]["name"] for e in by_phase(data)["M"] if e["name"] == "thread_name"}
    spent = {}
    for event in by_phase(data)["X"]:
        key = (names[event["tid"]], event["name"])
        spent[key] = spent.get(key, 0) + event["args"]["end_cycle"] - event["args"]["start_cycle"]
    layer = result.layers[0]
    for pe in range(12):
        causes = {cause: cycles[pe] for cause, cycles in layer.cycles_per_unit["pe"].items()}
        assert spent.get((f"PE {pe}", "entries"), 0) == causes["busy"] + causes["padding"]
        assert spent.get((f"PE {pe}", "starved"), 0) == causes["starved"]
    assert spent["broadcaster", "broadcast"] == layer.cycles_by_cause["broadcaster"]["broadcast"]


def test_times_of_a_run_are_those_of_its_clock(run):
    for event in by_phase(run[2])["X"]:
        assert event["ts"] == pytest.approx(event["args"]["start_cycle"] / 800, abs=0.001)


def test_counters_show_the_queues_between_empty_and_usable_depth(run):
    counters = by_phase(run[2])["C"]
    assert {e["name"] for e in counters} == {f"queue {i}" for i in range(12)}
    values = [e["args"]["value"] for e in counters]
    assert min(values) == 0 and max(values) == 3  # a ring of 4 slots keeps one empty
    for name in {e["name"] for e in counters}:
        assert np.all(np.diff([e["ts"] for e in counters if e["name"] == name]) >= 0)


def test_the_same_run_gives_the_same_bytes(run):
    timeline, _, data = run
    shuffled = Timeline(list(reversed(timeline.intervals)), list(timeline.changes))
    assert perfetto_json(shuffled, clock_hz=800e6, name="random on eie") == data


@given(
    clock=st.sampled_from([1e6, 2e8, 8e8, 1e9, 1.2e9, 3e9, 1.5e10]),
    lengths=st.lists(st.integers(1, 4), min_size=2, max_size=30),
    first=st.integers(0, 10**9),
)
@settings(max_examples=200, derandomize=True)
def test_neighbours_touch_and_none_is_lost_when_a_viewer_truncates_to_nanoseconds(clock, lengths, first):
    timeline = Timeline()
    at = first
    for length in lengths:
        timeline.interval("PE 0", "entries", at, at + length)
        at += length
    events = by_phase(perfetto_json(timeline, clock_hz=clock, name="x"))["X"]
    spans = [(int(e["ts"] * 1000), int(e["dur"] * 1000)) for e in events]
    assert all(length > 0 for _, length in spans)
    assert all(start + length == after for (start, length), (after, _) in pairwise(spans))


def test_time_is_stretched_where_a_cycle_is_shorter_than_the_viewers_nanosecond():
    timeline = Timeline()
    timeline.interval("PE 0", "entries", 12, 24)
    document = json.loads(perfetto_json(timeline, clock_hz=1.2e9, name="fast"))
    assert document["otherData"]["time_stretch"] == 10
    assert document["traceEvents"][0]["args"]["name"] == "fast (time x 10)"
    assert document["traceEvents"][-1]["ts"] == 0.1


def test_an_empty_timeline_is_still_a_trace():
    assert by_phase(perfetto_json(Timeline(), clock_hz=1e9, name="idle"))["X"] == []


def check_against_the_format(data):
    """Hold a Chrome trace against the rules of the Trace Event Format for the phases that are written."""
    document = json.loads(data)
    assert document["displayTimeUnit"] in ("ms", "ns")
    ends, counters, named = {}, {}, set()
    for event in document["traceEvents"]:
        assert type(event["name"]) is str and type(event["pid"]) is int and type(event["args"]) is dict
        if event["ph"] == "M":
            assert set(event) == {"ph", "name", "pid", "tid", "args"}
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
            named |= {event["tid"]} if event["name"] == "thread_name" else set()
        elif event["ph"] == "X":
            assert set(event) == {"ph", "name", "pid", "tid", "ts", "dur", "args"}
            assert event["tid"] in named and event["dur"] > 0
            assert event["ts"] >= ends.get(event["tid"], 0)  # slices of a thread must nest; ours follow one another
            ends[event["tid"]] = event["ts"] + event["dur"] - 1e-6
        else:
            assert event["ph"] == "C" and set(event) == {"ph", "name", "pid", "ts", "args"}
            assert type(event["args"]["value"]) is int
            assert event["ts"] > counters.get(event["name"], -1)
            counters[event["name"]] = event["ts"]
    return document["traceEvents"]


@pytest.mark.parametrize("machine", ["eie-64pe", "systolic-8x8", "a100-sparse", "dstc-a100", "sparseloop-stc"])
def test_what_every_engine_draws_keeps_the_rules_of_the_format(machine):
    timeline = Timeline()
    built = load_machine(machine)
    simulate(built, random_layer(60, 48, 0.2, 0.5, seed=2, samples=2), engine="event", timeline=timeline)
    events = check_against_the_format(perfetto_json(timeline, clock_hz=built.config.clock_hz, name=machine))
    assert sum(event["ph"] == "X" for event in events) == len(timeline.intervals)


def test_a_window_of_a_run_begins_with_the_values_its_signals_had(run):
    part = Timeline(start=20, end=40)
    machine = load_machine("eie-64pe", pe_count=12, queue_depth=4)
    simulate(machine, random_layer(60, 48, 0.2, 0.5, seed=2, samples=2), engine="event", timeline=part)
    events = check_against_the_format(perfetto_json(part, clock_hz=800e6, name="part"))
    times = [event["ts"] for event in events if event["ph"] != "M"]
    assert min(times) == 0.025 and max(times) < 0.05
    assert {e["name"] for e in events if e["ph"] == "C" and e["ts"] == 0.025} == {f"queue {i}" for i in range(12)}


def test_work_that_overlaps_on_one_unit_gets_a_second_thread():
    timeline = Timeline()
    timeline.interval("bus", "read", 0, 4)
    timeline.interval("bus", "write", 2, 6)
    events = check_against_the_format(perfetto_json(timeline, clock_hz=1e9, name="x"))
    assert [e["args"]["name"] for e in events if e["name"] == "thread_name"] == ["bus", "bus (2)"]
