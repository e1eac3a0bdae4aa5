"""The non-dominated cases of a sweep, by the figures of its results."""

import dataclasses

import pytest

from gossamer.models import load_machine, vary
from gossamer.reports.explore import front_of
from gossamer.simulator.sweep import Case, grid_points, sweep
from gossamer.workloads.synth import random_layer


@pytest.fixture(scope="module")
def outcomes():
    machine = load_machine("eie-64pe")
    layer = random_layer(64, 80, 0.3, 0.5, name="layer")
    traces = [dataclasses.replace(layer, name=name, provenance={"accuracy": a}) for name, a in (("a", 0.9), ("b", 0.8))]
    points = grid_points({"pe_count": [4, 16], "queue_depth": [2, 8]})
    return sweep([Case(trace, vary(machine, **point), point) for trace in traces for point in points])


def test_what_another_beats_everywhere_is_left_out(outcomes):
    front = front_of(outcomes)
    # b is a with less accuracy and no gain; a deeper queue is faster, and costs no energy by this table.
    assert [(row["trace"], row["pe_count"], row["queue_depth"]) for row in front.rows] == [("a", 16, 8), ("a", 4, 8)]
    assert front.objectives == ["accuracy", "latency_per_sample_us", "energy_per_sample_uj", "area_mm2"]
    assert front.warnings == []
    assert front.cases == 8


def test_an_objective_that_a_case_lacks_does_not_count_and_is_named(outcomes):
    nameless = random_layer(64, 80, 0.3, 0.5, name="layer")
    front = front_of([*outcomes, *sweep([Case(nameless, load_machine("eie-64pe"))])])
    assert front.warnings == ["accuracy does not count: 1 of 9 cases have no figure for it"]
    assert "accuracy" not in front.objectives


def test_a_sweep_of_failures_has_no_front():
    failed = sweep([Case(random_layer(8, 8, 0.5, 0.5, name="layer"), load_machine("eie-64pe"), layers="none")])
    front = front_of(failed)
    assert front.rows == []
    front.table()
