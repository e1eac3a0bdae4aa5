import io

import pytest
from rich.console import Console

from gossamer.models import load_machine, vary
from gossamer.reports.cells import figures, times
from gossamer.reports.published import Check
from gossamer.reports.tables import (
    checks_table,
    compare_table,
    engines_table,
    result_table,
    summary,
    sweep_table,
)  # fmt: skip
from gossamer.simulator import simulate
from gossamer.simulator.check import LayerCheck, check
from gossamer.simulator.sweep import Case, Outcome, sweep
from gossamer.workloads.synth import random_layer
from gossamer.workloads.trace import Trace

EIE, SYSTOLIC = load_machine("eie-64pe"), load_machine("systolic-16x16")


def printed(renderable, width=80):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(renderable)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.fixture(scope="module")
def trace():
    layers = [
        random_layer(300, 784, 0.1, 0.4, name="fc1").layers[0],
        random_layer(10, 300, 0.3, 0.5, name="fc2").layers[0],
    ]
    return Trace(name="a-[network]", layers=layers, provenance={"accuracy": 0.9751})


def test_numbers_have_separators_and_four_figures():
    assert [figures(v) for v in (0, 0.0, 7, 12345678, 12345.6, 999.94, 9.9075, 0.00012345, 1.5e-7)] == [
        "0", "0", "7", "12,345,678", "12,346", "999.9", "9.908", "0.0001234", "1.50e-07",
    ]  # fmt: skip
    assert [times(v) for v in (0.03712, 0.5, 58.2, 1234.5)] == ["0.037", "0.50", "58.20", "1,234"]


@pytest.mark.parametrize("machine", [EIE, SYSTOLIC], ids=["eie", "systolic"])
def test_a_result_fits_80_columns_and_shows_every_layer_and_the_total(machine, trace):
    result = simulate(machine, trace)
    lines = printed(result_table(result))
    assert lines[0] == f"a-[network] on {machine.name}"
    for name, cycles in (*((layer.name, layer.cycles) for layer in result.layers), ("total", result.total.cycles)):
        (line,) = [line for line in lines if line.startswith(name)]
        assert f" {cycles:,} " in line
    assert max(map(len, lines)) <= 80


def test_the_summary_tells_where_cycles_and_energy_went(trace):
    one = Trace(name="one", layers=trace.layers[:1])
    result = simulate(EIE, one)
    layer = result.layers[0]
    first, pe, broadcaster, energy, outputs = summary(result)
    ratio = layer.cycles / layer.theoretical_cycles
    assert first == f"{layer.cycles:,} cycles = {layer.cycles / 800:#.4g} us on 64 PEs, {ratio:.2f} x perfect balance."
    causes = layer.cycles_by_cause["pe"]
    lost = (causes["starved"] + causes["drained"]) / 64 / layer.cycles
    assert pe.startswith("PE cycles: ") and f"{100 * lost:.1f} % lost to imbalance (starved + drained)." in pe
    assert broadcaster.startswith("broadcaster cycles: ")
    assert energy.endswith(
        "uJ = 586.6 mW, 54% of it in SpmatRead; 40.84 mm2; energy table eie-45nm-calibrated (calibrated)."
    )
    assert outputs.startswith("Outputs in the machine's arithmetic: rms error ")


def test_a_summary_without_an_energy_table_says_so(trace):
    assert "No energy table, no energy." in summary(simulate(load_machine("eie-64pe", energy=""), trace))


def test_a_sweep_shows_its_settings_and_says_which_case_failed_and_why(trace):
    points = [{"pe_count": 16, "queue_depth": 2}, {"pe_count": 64, "queue_depth": 8}]
    found = sweep([Case(trace, vary(EIE, **point), point) for point in points])
    cycles = found[0].result.total.cycles
    lines = printed(sweep_table([found[0], Outcome(found[1].case, None, "ValueError: no luck")]))
    assert any(line.split()[:3] == ["16", "2", f"{cycles:,}"] for line in lines)
    assert any(line.split() == ["64", "8", "failed"] for line in lines)
    assert "a-[network] on eie-64pe, pe_count=64, queue_depth=8: ValueError: no luck" in lines
    assert max(map(len, lines)) <= 80


def test_a_comparison_stands_side_by_side_and_warns_of_different_energy_tables(trace):
    lines = printed(compare_table([simulate(EIE, trace), simulate(SYSTOLIC, trace)]))
    assert any(line.split() == ["accuracy,", "%", "97.5", "97.5"] for line in lines)
    speedups = next(line.split() for line in lines if line.startswith("speed-up"))
    assert speedups[1] == "1.00" and float(speedups[2]) < 0.2
    assert "Energies come from different tables and do not compare: eie-45nm-calibrated," in lines
    same = "\n".join(printed(compare_table([simulate(EIE, trace)] * 2)))
    assert "do not compare" not in same and "Energy table: eie-45nm-calibrated." in same


def test_a_comparison_of_many_is_cut_into_tables_whose_figures_stay_whole():
    trace = random_layer(64, 64, 0.2, 0.5, seed=0, samples=1000)
    lines = printed(compare_table([simulate(SYSTOLIC, trace)] * 11))
    heads = [line.split() for line in lines if line.split() and line.split()[0] == "samples"]
    assert heads == [["samples", *["1,000"] * 8], ["samples", *["1,000"] * 3]]


def test_checks_show_source_error_and_verdict():
    checks = [
        Check(name="time", source="Table IV", published=9.9, simulated=9.9075, unit="us", error=0.0007576,
              tolerance="0.6 %", verdict="hit", group="A"),
        Check(name="knee", source="figure 8", published=None, simulated=0.2, unit="share", error=None,
              tolerance="at least 0.1", verdict="hit", group="A", note="the paper says so"),
        Check(name="cycles", source="Table IV", published=7926, simulated=None, unit="cycles", error=None,
              tolerance="exact", verdict="skipped", group="B"),
    ]  # fmt: skip
    lines = printed(checks_table(checks), 100)
    assert any(line.split() == ["time,", "us", "9.9", "9.908", "+0.1", "%", "0.6", "%", "hit", "[1]"] for line in lines)
    assert any(line.split() == ["knee", "at", "least", "0.1", "0.2000", "hit", "[2]"] for line in lines)
    assert any(line.split() == ["cycles,", "cycles", "7,926", "exact", "skipped", "[1]"] for line in lines)
    assert lines[-3:] == ["[1] Table IV", "[2] figure 8", "3 checks: 2 hit, 1 skipped."]
    assert "knee: the paper says so." in lines


def test_engines_that_agree_and_engines_that_differ_are_told_apart(trace):
    good = check(EIE, trace)
    assert printed(engines_table(good))[-1] == "All 2 layers agree."
    bad = LayerCheck("fc9", 12, ["cycles: 12, 13"], 0.1, 1.0, 1.0, True)
    lines = printed(engines_table([*good, bad]))
    assert lines[-2:] == ["fc9: cycles: 12, 13", "1 of 3 layers failed."]
