import json
import re

import pytest

from gossamer.__main__ import main
from gossamer.models import load_machine
from gossamer.models.loader import list_machines
from gossamer.reports.comparison import compare_rows
from gossamer.reports.side_by_side import compare_all, gains, page, refusal_notes, short_names
from gossamer.workloads import load_trace
from gossamer.workloads.errors import InputError
from gossamer.workloads.synth import random_layer
from gossamer.workloads.trace import Trace

NAMES = ["lenet-digits-dense", "lenet-digits-imp", "lenet-digits-srste-2-4"]


@pytest.fixture(scope="module")
def traces():
    return [load_trace(name) for name in NAMES]


@pytest.fixture(scope="module")
def results(traces):
    return compare_all([load_machine(name) for name in ("eie-64pe", "a100-sparse", "systolic-8x8")], traces)[0]


def test_a_gain_is_the_latency_of_the_dense_network_on_the_same_machine_over_that_of_the_pruned_one(results):
    (found,) = gains(results)
    assert (found.dense, found.traces) == (NAMES[0], NAMES)
    latency = {(r.trace.name, r.machine.name): r.total.latency_s for r in results}
    energy = {(r.trace.name, r.machine.name): r.total.energy_j.total for r in results}
    for trace, machine in latency:
        assert found.speed[trace, machine] == latency[NAMES[0], machine] / latency[trace, machine]
        assert found.energy[trace, machine] == energy[NAMES[0], machine] / energy[trace, machine]
    rows = compare_rows(results)
    assert [row["speedup_over_dense"] for row in rows] == [found.speed[row["trace"], row["machine"]] for row in rows]


def test_without_a_dense_trace_of_the_network_there_is_no_gain(results):
    pruned = [result for result in results if result.trace.name != NAMES[0]]
    assert gains(pruned) == [] and all(row["speedup_over_dense"] is None for row in compare_rows(pruned))


def test_a_network_that_lost_channels_is_not_its_own_baseline():
    provenance = {"network": "net"}
    layers = {name: random_layer(rows, 32, 1.0, 0.5, name=name).layers for name, rows in (("whole", 64), ("half", 32))}
    both = [Trace(name=name, layers=layers[name], provenance=provenance) for name in ("half", "whole")]
    found, refused = compare_all([load_machine("systolic-8x8")], both)
    assert not refused and gains(found)[0].dense == "whole" and gains(found)[0].speed["half", "systolic-8x8"] > 1


def test_a_pair_that_is_refused_is_named_with_its_reason_unless_it_was_asked_for(traces):
    machines = [load_machine("eie-64pe"), load_machine("systolic-8x8")]
    both = [traces[0], random_layer(8, 8, 1.0, 1.0, name="other")]
    found, refused = compare_all(machines, both, layers="fc1", strict=False)
    assert [(r.trace.name, r.machine.name) for r in found] == [(NAMES[0], machine.name) for machine in machines]
    assert [(r.trace, r.machine) for r in refused] == [("other", machine.name) for machine in machines]
    with pytest.raises(InputError, match=re.escape(refused[0].reason)):
        compare_all(machines, both, layers="fc1")
    assert [note.plain for note in refusal_notes(refused)] == [
        f"Not on {m.name}: other: layer pattern 'fc1' must fit at least one of its layers: other" for m in machines
    ]
    assert "- Not on eie-64pe: other: layer pattern" in page(found, refused, "")


def test_where_nothing_can_be_simulated_the_last_reason_is_the_error(traces):
    with pytest.raises(InputError, match="layer pattern 'nothing' must fit"):
        compare_all([load_machine("eie-64pe"), load_machine("systolic-8x8")], traces, layers="nothing", strict=False)


def test_the_page_has_each_pruning_and_machine_once_a_table_and_marks_the_best(results):
    text = page(results, [], "gossamer compare all")
    assert "gossamer compare all" in text
    speed = text[text.index("### Speed-up") : text.index("### Energy")]
    rows = [line.strip("| ").split(" | ") for line in speed.splitlines() if line.startswith("| ")]
    assert rows[0] == ["machine", "imp", "srste-2-4"]
    assert [row[0] for row in rows[2:]] == ["eie-64pe", "a100-sparse", "systolic-8x8"]
    (found,) = gains(results)
    for machine, *cells in rows[2:]:
        for trace, cell in zip(NAMES[1:], cells, strict=True):
            assert float(cell.strip("*")) == pytest.approx(found.speed[trace, machine], abs=0.006)
        shown = [float(cell.strip("*")) for cell in cells]
        marked = [cell for cell in cells if "*" in cell]
        assert [float(cell.strip("*")) for cell in marked] == [v for v in shown if v == max(shown) and v > 1]


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["lenet-digits-imp", "lenet-digits-swamp"], ["imp", "swamp"]),
        (["a-b", "a-b-c"], ["b", "b-c"]),
        (["only-one"], ["only-one"]),
        (["x", "y"], ["x", "y"]),
        ([], []),
    ],
)
def test_names_lose_the_words_that_all_of_them_begin_with(names, short):
    assert short_names(names) == short


def test_the_command_line_takes_patterns_of_traces_and_all_machines(tmp_path, capsys):
    path, written = tmp_path / "all.json", tmp_path / "page.md"
    assert main(["compare", "lenet-digits-*", "--on", "all", "--json", str(path), "--page", str(written)]) == 0
    out = capsys.readouterr().out
    results = json.loads(path.read_text())
    machines = {result["machine"]["name"] for result in results}
    assert {"eie-64pe", "a100-sparse", "systolic-16x16"} <= machines <= set(list_machines())
    assert "speed-up over lenet-digits-dense on the" in out
    assert all(f"\n| {machine} |" in written.read_text() for machine in machines)


def test_a_pattern_that_nothing_fits_is_an_error(capsys):
    assert main(["compare", "lenet-digits-dense", "--on", "tpu-*"]) == 2
    error = "tpu-*: a pattern must fit a bundled machine, and none does; see gossamer list machines"
    assert capsys.readouterr().err == f"gossamer: error: {error}\n"


def test_a_machine_asked_for_by_name_must_run_every_trace(capsys, tmp_path):
    assert main(["compare", "lenet-digits-*", "--on", "eie-64pe", "--layer", "nothing"]) == 2
    assert capsys.readouterr().err.startswith("gossamer: error: ")
