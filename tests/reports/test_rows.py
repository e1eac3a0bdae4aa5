import csv
import io

import pytest

from gossamer.models import load_machine, vary
from gossamer.reports.rows import describe
from gossamer.reports.tables import COLUMNS, compare_rows, csv_text, layer_rows, sweep_rows
from gossamer.simulator import simulate
from gossamer.simulator.sweep import Case, Outcome, sweep
from gossamer.workloads.synth import random_layer
from gossamer.workloads.trace import Trace

EIE, SYSTOLIC = load_machine("eie-64pe"), load_machine("systolic-16x16")


@pytest.fixture(scope="module")
def trace():
    layers = [
        random_layer(100, 120, 0.1, 0.4, samples=3, name="fc1").layers[0],
        random_layer(10, 100, 0.3, 0.5, samples=3, name="fc2", bias=True).layers[0],
    ]
    return Trace(name="two", layers=layers, provenance={"accuracy": 0.975})


@pytest.fixture(scope="module")
def outcomes(trace):
    other = random_layer(50, 60, 0.2, 0.5, name="other")
    points = [{"pe_count": n, "queue_depth": q} for n in (4, 1, 16) for q in (2, 8)]
    found = sweep([Case(t, vary(EIE, **point), point) for t in (trace, other) for point in points])
    return [Outcome(found[0].case, None, "ValueError: broken"), *found[1:]]


@pytest.mark.parametrize(
    "machine",
    [EIE, SYSTOLIC, load_machine("eie-64pe", energy="eie-45nm-event", act_batches=True)],
    ids=["eie", "systolic", "eie-event"],
)
def test_every_column_of_a_result_is_described(machine, trace):
    for row in layer_rows(simulate(machine, trace)):
        for column in row:
            unit, definition = describe(column)
            assert definition and definition != "a setting of the machine, or a count of its model", column
            if isinstance(row[column], int | float):
                assert unit or column == "max_abs_error", column


def test_every_column_of_sweeps_and_comparisons_is_described(outcomes, trace):
    rows = sweep_rows(outcomes) + compare_rows([simulate(EIE, trace), simulate(SYSTOLIC, trace)])
    settings = {"pe_count", "queue_depth"}
    assert {column for row in rows for column in row} - settings <= set(COLUMNS)


def test_a_layers_row_holds_the_results_figures(trace):
    result = simulate(EIE, trace)
    for row, layer in zip(layer_rows(result), result.layers, strict=True):
        assert (row["layer"], row["cycles"], row["macs"]) == (layer.name, layer.cycles, layer.macs)
        assert row["latency_us"] == pytest.approx(layer.cycles / 800)
        assert row["shape"] == "x".join(map(str, layer.shape))
        assert sum(row[f"pe_{cause}"] for cause in layer.cycles_by_cause["pe"]) == 64 * layer.cycles
        assert sum(row[f"{part}_uj"] for part in layer.energy_j.by_part) == pytest.approx(row["energy_uj"])
        assert row["padding_ratio"] == layer.counts["padding"] / layer.counts["entries"]
        assert row["storage_bits"] == sum(layer.storage_bits.values())


def test_the_speedup_of_a_sweep_is_over_the_first_finished_case_of_its_trace(outcomes):
    rows = sweep_rows(outcomes)
    assert rows[0] == {
        "trace": "two", "machine": "eie-64pe", "pe_count": 4, "queue_depth": 2, "error": "ValueError: broken",
    }  # fmt: skip
    assert [row["error"] for row in rows[1:]] == [""] * 11
    assert rows[1]["speedup"] == rows[6]["speedup"] == 1
    assert rows[5]["speedup"] == rows[1]["cycles"] / rows[5]["cycles"]
    assert rows[11]["speedup"] == rows[6]["cycles"] / rows[11]["cycles"]


def test_a_faster_clock_is_a_speedup(trace):
    points = [{"clock_hz": 400e6}, {"clock_hz": 800e6}]
    rows = sweep_rows(sweep([Case(trace, vary(EIE, **point), point) for point in points]))
    assert rows[0]["cycles"] == rows[1]["cycles"] and rows[1]["speedup"] == pytest.approx(2)


def test_a_comparison_is_per_sample_and_over_the_first_row(trace):
    single = Trace(
        name="one",
        layers=[random_layer(100, 120, 0.1, 0.4, name="fc1").layers[0], *random_layer(10, 100, 0.3, 0.5).layers],
    )
    results = [simulate(EIE, trace), simulate(EIE, single), simulate(SYSTOLIC, trace)]
    first, second, dense = compare_rows(results)
    assert first["speedup"] == 1
    assert first["cycles_per_sample"] == results[0].total.cycles / 3
    assert second["speedup"] == pytest.approx(first["cycles_per_sample"] / second["cycles_per_sample"])
    assert first["energy_delay_pjs"] == pytest.approx(first["energy_per_sample_uj"] * first["latency_per_sample_us"])
    assert (first["accuracy"], second["accuracy"]) == (0.975, None)
    assert dense["load_balance"] is None and dense["padding_ratio"] is None and dense["output_error"] is None
    assert compare_rows(results, results[2])[0]["speedup"] == pytest.approx(1 / dense["speedup"])


def test_csv_has_all_columns_of_all_rows_and_reads_back():
    text = csv_text([{"trace": "a,b", "cycles": 3}, {"trace": "c", "energy_uj": None, "error": "two\nlines"}])
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"trace": "a,b", "cycles": "3", "energy_uj": "", "error": ""},
        {"trace": "c", "cycles": "", "energy_uj": "", "error": "two\nlines"},
    ]


def test_csv_keeps_every_digit(trace):
    rows = layer_rows(simulate(EIE, trace))
    back = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert [float(row["utilization"]) for row in back] == [row["utilization"] for row in rows]
