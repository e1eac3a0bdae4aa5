import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.simulator.timeline import Change, Interval, Timeline
from gossamer.workloads import InputError, load_trace
from gossamer.workloads.synth import random_layer

events = st.lists(
    st.one_of(
        st.tuples(st.just("interval"), st.sampled_from("ab"), st.integers(0, 40), st.integers(0, 5)),
        st.tuples(st.just("change"), st.sampled_from("qr"), st.integers(0, 40), st.integers(0, 9)),
        st.tuples(st.just("advance"), st.just(""), st.integers(0, 5), st.just(0)),
    ),
    max_size=60,
)


def record(told, **window):
    timeline = Timeline(**window)
    for kind, track, at, value in told:
        if kind == "interval":
            timeline.interval(track, "work", at, at + value)
        elif kind == "change":
            timeline.change(track, at, value)
        else:
            timeline.advance(at)
    return timeline


def active(timeline, first, last):
    """How many intervals of each track lie over each cycle."""
    return [
        {track: sum(i.start <= cycle < i.end for i in timeline.intervals if i.track == track) for track in "ab"}
        for cycle in range(first, last)
    ]


def levels(timeline, first, last):
    """The value of each signal in each cycle, where it has one."""
    return [
        {name: [c.value for c in changes if c.time <= cycle][-1] for name, changes in timeline.signals().items()
         if changes[0].time <= cycle}
        for cycle in range(first, last)
    ]  # fmt: skip


@given(told=events, start=st.integers(0, 30), length=st.integers(1, 30))
def test_a_window_shows_of_its_cycles_what_the_whole_timeline_shows(told, start, length):
    whole, part = record(told), record(told, start=start, end=start + length)
    assert active(part, start, start + length) == active(whole, start, start + length)
    assert levels(part, start, start + length) == levels(whole, start, start + length)
    assert all(start <= i.start < i.end <= start + length for i in part.intervals)
    assert all(start <= change.time < start + length for change in part.changes)


@given(told=events, limit=st.integers(1, 30))
def test_a_timeline_over_its_limit_keeps_all_that_happened_before_it_ends(told, limit):
    try:
        bounded = record(told, limit=limit)
    except InputError as error:
        assert str(error) == (
            f"the limit of a timeline must be above what starts in one cycle, not {limit} events; raise it"
        )
        return
    assert len(bounded.intervals) + len(bounded.changes) <= limit
    windowed = record(told, end=bounded.end)
    assert (bounded.intervals, bounded.changes) == (windowed.intervals, windowed.changes)
    assert bounded.ends_early == (bounded.end is not None)


@given(told=events)
def test_no_two_intervals_of_a_track_overlap_and_none_is_lost(told):
    timeline = record(told)
    tracks = timeline.tracks()
    for name, intervals in tracks.items():
        assert all(a.end <= b.start for a, b in pairwise(intervals))
        assert {name.split(" ")[0]} == {i.track for i in intervals}
    key = lambda i: (i.track, i.start, i.end)  # noqa: E731
    assert sorted((i for lane in tracks.values() for i in lane), key=key) == sorted(timeline.intervals, key=key)


def test_overlapping_intervals_stand_on_two_tracks():
    timeline = Timeline()
    timeline.interval("bus", "read", 0, 4)
    timeline.interval("bus", "write", 2, 6)
    timeline.interval("bus", "read", 4, 5)
    assert timeline.tracks() == {
        "bus": [Interval("bus", "read", 0, 4), Interval("bus", "read", 4, 5)],
        "bus (2)": [Interval("bus", "write", 2, 6)],
    }


def test_a_signal_enters_the_window_with_the_value_it_had():
    timeline = Timeline(start=10)
    timeline.change("queue", 3, 1)
    timeline.change("queue", 8, 4)
    timeline.change("queue", 12, 2)
    timeline.change("queue", 12, 3)
    assert timeline.signals() == {"queue": [Change("queue", 10, 4), Change("queue", 12, 3)]}


def test_what_is_left_out_is_said():
    timeline = Timeline(limit=3)
    for cycle in range(5):
        timeline.interval("unit", "work", cycle, cycle + 1)
    assert timeline.end == 2 and timeline.warnings() == [
        "timeline: at most 3 events are kept, so it ends before cycle 2; choose cycles with --window, or layers with "
        "--layer"
    ]
    late = Timeline(start=50)
    late.advance(40)
    assert late.warnings() == ["timeline: its window starts at cycle 50, and the run has 40; nothing is in it"]
    assert Timeline().warnings() == []


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ({"start": -1}, "a window must start at a cycle from 0 to 2^63 and end after its start, not -1:"),
        ({"start": 2**63}, f"a window must start at a cycle from 0 to 2^63 and end after its start, not {2**63}:"),
        ({"start": 5, "end": 4}, "a window must start at a cycle from 0 to 2^63 and end after its start, not 5:4"),
        ({"limit": 0}, "the limit of a timeline must be at least 1 event, not 0"),
    ],
)
def test_a_window_that_cannot_be_is_refused(window, message):
    with pytest.raises(InputError) as caught:
        Timeline(**window)
    assert str(caught.value) == message


def test_a_window_on_a_run_changes_no_figure_and_holds_what_the_whole_timeline_holds_there():
    machine = load_machine("eie-64pe", pe_count=4, queue_depth=4)
    trace = random_layer(40, 32, 0.3, 0.6, seed=4, samples=2)
    whole, part = Timeline(), Timeline(start=20, end=60)
    results = [simulate(machine, trace, engine="event", timeline=timeline) for timeline in (whole, part, None)]
    assert results[0] == results[1]
    seen = [json.loads(result.to_json()) for result in results]
    for part_of in (*seen[1]["layers"], seen[1]["total"]):
        for queue in part_of["queues"].values():
            queue["over_time"] = None  # which is noted only where a timeline is
    assert seen[1] == seen[2]
    inside = [
        Interval(i.track, i.name, max(i.start, 20), min(i.end, 60))
        for i in whole.intervals
        if i.start < 60 and i.end > 20
    ]
    assert part.intervals == inside and 0 < len(inside) < len(whole.intervals)


# Every model's event engine draws on it.

GEMM_MACHINES = ("a100-sparse", "dstc-a100", "sparseloop-stc", "systolic-8x8", "eie-64pe")
TRACKS = {
    "a100-sparse": {"layer", "chip", "hbm", "sm0", "sm0 l2", "sm0 shared_memory", "sm0 tensor_core"},
    "dstc-a100": {"layer", "chip", "hbm", "core0", "core1", "core2", "core3"},
    "sparseloop-stc": {"layer", "tensor core"},
    "systolic-8x8": {"layer", "array"},
    "eie-64pe": {"layer", "broadcaster"} | {f"PE {index}" for index in range(64)},
}


@pytest.mark.parametrize("name", GEMM_MACHINES)
def test_an_engine_draws_every_unit_from_the_first_cycle_to_the_last(name):
    timeline = Timeline()
    result = simulate(load_machine(name), load_trace("lenet-digits-imp"), layers="fc2", engine="event",
                      timeline=timeline)  # fmt: skip
    assert set(timeline.tracks()) == TRACKS[name]
    assert timeline.tracks()["layer"] == [Interval("layer", "fc2", 0, result.total.cycles)]
    assert timeline.offset == result.total.cycles
    ends = max(i.end for i in timeline.intervals if i.track != "layer")
    assert 0.95 * result.total.cycles < ends <= result.total.cycles
    assert all(type(i.start) is type(i.end) is int and 0 <= i.start < i.end for i in timeline.intervals)
    assert all(type(change.value) is int and 0 <= change.time <= ends + 64 for change in timeline.changes)


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("pointacc", {"matrix", "dram", "FetchCoords", "MergeSort", "DetectIntersection"}),
        ("torchsparse-2080ti", {"stream", "l2", "dram", "sm0", "sm1"}),
    ],
)
def test_an_engine_for_point_clouds_draws_its_units_too(name, units):
    from gossamer.workloads.points import scenes
    from gossamer.workloads.points.network import build

    timeline = Timeline()
    trace = build("minkunet-small", scenes.room(0), samples=64)
    result = simulate(load_machine(name), trace, layers="stem*", engine="event", timeline=timeline)
    assert units <= set(timeline.tracks())
    assert [i.name for i in timeline.tracks()["layer"]] == [layer.name for layer in result.layers]
    assert max(i.end for i in timeline.intervals) == timeline.offset == result.total.cycles


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), max_size=40), st.integers(0, 12))
def test_a_signal_changes_only_where_its_value_does_and_has_at_every_cycle_the_last_value_given(given_changes, start):
    timeline = Timeline(start=start)
    last = {}
    for time, value in sorted(given_changes, key=lambda change: change[0]):
        timeline.change("queue", time, value)
        last[time] = value
    changes = timeline.signals().get("queue", [])
    assert all(a.value != b.value and a.time < b.time for a, b in pairwise(changes))
    for cycle in range(start, 21):
        known = [value for time, value in sorted(last.items()) if time <= cycle]
        shown = [change.value for change in changes if change.time <= cycle]
        assert (shown[-1:] or [None]) == (known[-1:] or [None])
