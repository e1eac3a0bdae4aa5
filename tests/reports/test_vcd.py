import io
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcd.reader import TokenKind, tokenize

from gossamer.__main__ import main
from gossamer.models import load_machine
from gossamer.reports.vcd import timescale, vcd_text
from gossamer.simulator import simulate
from gossamer.simulator.timeline import Timeline
from gossamer.workloads import InputError
from gossamer.workloads.synth import random_layer

ESCAPES = {"\\x20": " ", "\\\\": "\\"}  # GTKWave's, of those that a name can have


def unescape(text):
    return re.sub(r"\\x20|\\\\", lambda met: ESCAPES[met[0]], text)


def read(data):
    """Return {full name: [(tick, value)]}, the timescale, and the last tick, of a VCD; integers as numbers."""
    names, values, scope, now, scale = {}, {}, [], None, None
    for token in tokenize(io.BytesIO(data)):
        if token.kind is TokenKind.TIMESCALE:
            scale = f"{token.timescale.magnitude} {token.timescale.unit.value}"
        elif token.kind is TokenKind.SCOPE:
            scope.append(token.scope.ident)
        elif token.kind is TokenKind.UPSCOPE:
            scope.pop()
        elif token.kind is TokenKind.VAR:
            name = ".".join([*scope, token.var.reference])
            assert name not in names.values()
            names[token.var.id_code] = name
            values[name] = []
        elif token.kind is TokenKind.CHANGE_TIME:
            assert now is None or token.time_change > now
            now = token.time_change
        elif token.kind is TokenKind.CHANGE_STRING:
            values[names[token.string_change.id_code]].append((now, unescape(token.string_change.value)))
        elif token.kind is TokenKind.CHANGE_VECTOR:
            values[names[token.vector_change.id_code]].append((now, token.vector_change.value))
        else:
            assert token.kind in {
                TokenKind.COMMENT, TokenKind.VERSION, TokenKind.ENDDEFINITIONS, TokenKind.DUMPVARS, TokenKind.END
            }, token  # fmt: skip
    return values, scale, now


def shown(changes):
    """Return ``changes`` without those that change nothing."""
    return [change for place, change in enumerate(changes) if place == 0 or changes[place - 1][1] != change[1]]


def expected(timeline, ticks):
    """Return {track or signal: [(tick, value)]}, worked out cycle by cycle."""
    ends = [i.end for i in timeline.intervals] + [c.time for c in timeline.changes] + [timeline.start]
    found = {}
    for track in {i.track for i in timeline.intervals}:
        row = ["idle"] * (max(ends) + 1 - timeline.start)
        for i in timeline.intervals:
            if i.track == track:
                row[i.start - timeline.start : i.end - timeline.start] = [i.name] * (i.end - i.start)
        found[track] = shown([(cycle * ticks, name) for cycle, name in enumerate(row, timeline.start)])
    for name, changes in timeline.signals().items():
        row = {c.time * ticks: c.value for c in changes}
        found[name] = shown(sorted({timeline.start * ticks: "x"}.items() | row.items(), key=lambda c: c[0]))
        if timeline.start * ticks in row:
            found[name] = shown(sorted(row.items()))
    return found


def test_a_small_timeline_becomes_this_text():
    timeline = Timeline()
    timeline.interval("PE 10", "entries", 4, 6)
    timeline.interval("PE 9", "starved", 0, 3)
    timeline.interval("broadcaster", "row 1", 2, 3)
    timeline.change("queue 9", 3, 1)
    text = vcd_text(timeline, clock_hz=800e6, name="a run").decode()
    version = text.split("$version gossamer ")[1].split(" ")[0]
    assert text == (
        "$comment\n\ta run\n\tclock 800000000 Hz: a cycle is 125 x 10 ps\n$end\n"
        f"$timescale 10 ps $end\n$version gossamer {version} $end\n"
        "$scope module gossamer $end\n$var string 1 ! broadcaster $end\n"
        "$scope module PE $end\n"
        '$var string 1 " PE_9 $end\n$var string 1 # PE_10 $end\n$upscope $end\n'
        "$scope module queue $end\n$var integer 64 $ queue_9 $end\n$upscope $end\n$upscope $end\n"
        "$enddefinitions $end\n"
        '#0\n$dumpvars\nsidle !\nsstarved "\nsidle #\nbx $\n$end\n'
        '#250\nsrow\\x201 !\n#375\nsidle !\nsidle "\nb1 $\n#500\nsentries #\n#750\nsidle #\n'
    )


@given(data=st.data(), start=st.integers(0, 9), clock=st.sampled_from([1.0, 2e8, 8e8, 1e9, 1.41e9, 3e9]))
def test_what_is_read_back_is_the_timeline_change_by_change(data, start, clock):
    timeline = Timeline(start=start, end=data.draw(st.none() | st.integers(start + 1, 40)))
    for track in ("PE_0", "unit"):
        at = 0
        for gap, length in data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=8)):
            name = data.draw(st.sampled_from(["entries", "look up", "idle", "a\\b", "$end"]))
            timeline.interval(track, name, at + gap, at + gap + length)
            at += gap + length
    for time, value in data.draw(st.lists(st.tuples(st.integers(0, 40), st.integers(-9, 99)), max_size=10)):
        timeline.change("level", time, value)
    scale, ticks, _ = timescale(clock)
    values, found_scale, last = read(vcd_text(timeline, clock_hz=clock, name="drawn"))
    assert found_scale == scale
    wanted = expected(timeline, ticks)
    where = {"PE_0": "gossamer.PE.PE_0", "unit": "gossamer.unit", "level": "gossamer.level"}
    signed = lambda value: value - 2**64 if isinstance(value, int) and value >= 2**63 else value  # noqa: E731
    back = {name.split(".")[-1]: [(t, signed(v)) for t, v in row] for name, row in values.items()}
    assert set(values) == {where[name] for name in wanted}
    assert back == wanted
    ends = [start, *(i.end for i in timeline.intervals), *(change.time for change in timeline.changes)]
    assert last == max(ends) * ticks


@pytest.fixture(scope="module")
def run():
    timeline = Timeline()
    machine = load_machine("eie-64pe", pe_count=12, queue_depth=4)
    simulate(machine, random_layer(60, 48, 0.2, 0.5, seed=2, samples=2), engine="event", timeline=timeline)
    return timeline


def test_every_change_of_a_run_comes_back(run):
    values, scale, _ = read(vcd_text(run, clock_hz=800e6, name="random on eie"))
    assert scale == "10 ps"
    names = {f"PE {i}": f"gossamer.PE.PE_{i}" for i in range(12)}
    names |= {f"queue {i}": f"gossamer.queue.queue_{i}" for i in range(12)}
    names |= {"layer": "gossamer.layer", "broadcaster": "gossamer.broadcaster"}
    assert values == {names[name]: changes for name, changes in expected(run, 125).items()}


def test_the_same_run_gives_the_same_bytes_without_a_date(run):
    data = vcd_text(run, clock_hz=800e6, name="x")
    shuffled = Timeline(list(reversed(run.intervals)), list(run.changes))
    assert vcd_text(shuffled, clock_hz=800e6, name="x") == data
    assert b"$date" not in data


def test_a_unit_with_several_tracks_has_a_scope_of_its_own():
    timeline = Timeline()
    for track in ("sm0", "sm0 l2", "sm1 l2", "tensor core", "warp0 r1", "3d unit", "PE 0", "PE_0"):
        timeline.interval(track, "work", 0, 1)
    timeline.change("sm0", 0, 4)
    names = read(vcd_text(timeline, clock_hz=1e9, name="x"))[0]
    assert sorted(names) == [
        "gossamer.PE.PE_0", "gossamer.PE.PE_0_2", "gossamer._3d_unit", "gossamer.sm.sm0.l2", "gossamer.sm.sm0.sm0",
        "gossamer.sm.sm0.sm0_2", "gossamer.sm.sm1.l2", "gossamer.tensor_core", "gossamer.warp.warp0.r1",
    ]  # fmt: skip


def test_overlapping_work_stands_side_by_side():
    timeline = Timeline()
    timeline.interval("bus", "read", 0, 4)
    timeline.interval("bus", "write", 2, 6)
    values = read(vcd_text(timeline, clock_hz=1e9, name="x"))[0]
    assert values == {
        "gossamer.bus": [(0, "read"), (4, "idle")],
        "gossamer.bus_2": [(0, "idle"), (2, "write"), (6, "idle")],
    }


@pytest.mark.parametrize(
    ("clock", "scale"),
    [
        (1e9, ("1 ns", 1, True)),
        (800e6, ("10 ps", 125, True)),
        (1e6, ("1 us", 1, True)),
        (0.5, ("1 s", 2, True)),
        (1.41e9, ("1 fs", 709220, False)),
        (1e18, ("1 fs", 1, False)),
    ],
)
def test_a_cycle_is_a_whole_number_of_ticks(clock, scale):
    assert timescale(clock) == scale


def test_a_cycle_that_no_tick_divides_is_said_to_be_rounded():
    text = vcd_text(Timeline(), clock_hz=1.41e9, name="x\n$end y").decode()
    assert text.startswith(
        "$comment\n\tx _end y\n\tclock 1410000000 Hz: a cycle is 709220 x 1 fs, in place of 709219.858156 fs\n$end\n"
    )


def test_odd_names_of_layers_stay_readable():
    timeline = Timeline()
    timeline.interval("layer", "Faltung\x00ä\n1", 0, 2)
    values = read(vcd_text(timeline, clock_hz=1e9, name="x"))[0]
    assert values == {"gossamer.layer": [(0, "Faltung%x00%xe4%n1"), (2, "idle")]}


def test_missing_pyvcd_is_one_line_that_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "vcd", None)
    message = "this needs pyvcd, which is not installed; pip install gossamer[wave]"
    with pytest.raises(InputError) as caught:
        vcd_text(Timeline(), clock_hz=1e9, name="x")
    assert str(caught.value) == message
    assert main(["simulate", "lenet-digits-imp", "--engine", "event", "--timeline", "t.vcd"]) == 2
    assert capsys.readouterr().err == f"gossamer: error: {message}\n"
    assert not list(tmp_path.iterdir())


def test_a_window_of_a_run_is_written_by_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["simulate", "lenet-digits-imp", "--engine", "event", "--layer", "fc3", "--set", "pe_count=4"]
    assert main([*command, "--timeline", "t.vcd", "--window", "20:40"]) == 0
    values, _, last = read((tmp_path / "t.vcd").read_bytes())
    ticks = [tick for row in values.values() for tick, _ in row]
    assert min(ticks) == 20 * 125 and max(ticks) == last <= 40 * 125
    assert {f"gossamer.PE.PE_{i}" for i in range(4)} <= set(values)
    assert values["gossamer.layer"] == [(20 * 125, "fc3"), (40 * 125, "idle")]
    capsys.readouterr()
    assert main([*command, "--timeline", "t.vcd", "--window", "1000000:"]) == 0
    assert "gossamer: warning: timeline: its window starts at cycle 1,000,000, and the run has " in (
        capsys.readouterr().err
    )
