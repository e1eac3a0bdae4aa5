"""The search: how much of the front it finds, and that nothing but the seed decides what it simulates."""

import dataclasses
import importlib.util

import pytest

from gossamer.models import load_machine, vary
from gossamer.reports.explore import explore, figures_of, front_of
from gossamer.simulator.design_search import search
from gossamer.simulator.space import Space
from gossamer.simulator.store import Store
from gossamer.simulator.sweep import sweep
from gossamer.workloads import InputError, load_trace
from gossamer.workloads.synth import random_layer

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="optuna is not installed; the extra explore brings it"
)


def small(trace=None, machines=("eie-64pe",), **values):
    layer = random_layer(24, 24, 0.3, 0.5, name="layer")
    trace = trace or dataclasses.replace(layer, provenance={"accuracy": 0.9})
    values = values or {"pe_count": range(1, 33), "queue_depth": range(2, 18)}
    return Space([trace], [load_machine(name) for name in machines], values, vary, frozenset(values))


def keys(found):
    return [outcome.case.key for outcome in found.outcomes]


@pytest.fixture(scope="module")
def enumerated(tmp_path_factory):
    """Return a space of 2,048 cases, a store that has them all, and the figures of the exact front."""
    traces = [load_trace("lenet-digits-imp"), load_trace("lenet-digits-imp-balanced")]
    values = {"pe_count": range(1, 65), "queue_depth": range(2, 10), "clock_hz": [4e8, 8e8]}
    space = Space(traces, [load_machine("eie-64pe")], values, vary, frozenset({"pe_count", "queue_depth"}))
    path = tmp_path_factory.mktemp("search") / "all.sqlite"
    with Store(path) as store:
        front = explore(space, store=store)
    return space, path, figures(front)


def figures(front):
    return {tuple(row[column] for column in front.objectives) for row in front.rows}


@pytest.mark.parametrize(("sampler", "least"), [("tpe", 0.8), ("nsga2", 0.6)])
def test_a_fifth_of_the_cases_finds_most_of_the_exact_front(enumerated, sampler, least):
    space, path, exact = enumerated
    with Store(path) as store:
        front = explore(space, trials=400, sampler=sampler, store=store)
    assert front.cases == 400
    assert front.space == space.size == 2048
    assert front.objectives == ["accuracy", "latency_per_sample_us", "energy_per_sample_uj", "area_mm2"]
    assert len(figures(front) & exact) >= least * len(exact)


def test_as_many_trials_as_cases_are_all_of_them_and_the_front_is_exact(enumerated):
    space, path, exact = enumerated
    with Store(path) as store:
        front = explore(space, trials=2048, store=store)
    assert figures(front) == exact
    assert (front.cases, front.space) == (2048, None)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_the_seed_decides_what_is_simulated_and_workers_do_not(sampler):
    space = small()
    alone = search(space, figures_of, 60, sampler=sampler, seed=3)
    shared = search(space, figures_of, 60, sampler=sampler, seed=3, workers=2)
    other = search(space, figures_of, 60, sampler=sampler, seed=4)
    assert keys(alone) == keys(shared)
    assert keys(alone) != keys(other)
    assert len(set(keys(alone))) == len(keys(alone)) == 60


def test_a_search_that_was_interrupted_goes_on_from_its_store_and_simulates_nothing_twice(tmp_path):
    space = small()
    saved = []

    def stop(done, in_all, front):
        if done == 30:
            raise KeyboardInterrupt

    with Store(tmp_path / "s.sqlite") as store:
        keep = store.save
        store.save = lambda key, *rest: (saved.append(key), keep(key, *rest))
        with pytest.raises(KeyboardInterrupt):
            search(space, figures_of, 60, store=store, progress=stop)
        assert len(saved) == 30
        found = search(space, figures_of, 60, store=store)
    assert sorted(saved) == sorted(keys(found))
    assert keys(found) == keys(search(space, figures_of, 60))


def test_a_space_that_is_nearly_exhausted_is_searched_to_the_last_but_one():
    space = small(pe_count=range(1, 8), queue_depth=range(2, 6))
    found = search(space, figures_of, 27)
    assert len(set(keys(found))) == 27
    assert space.size == 28


def test_combinations_that_a_machine_refuses_are_left_out_and_told(tmp_path):
    front = explore(small(queue_depth=range(40), pe_count=[1, 2, 4]), trials=100)
    assert front.cases == 100
    assert all(row["queue_depth"] >= 2 for row in front.rows)
    assert len(front.warnings) == 1
    assert front.warnings[0].endswith(
        " combinations were left out, for their machine refuses them: eie-64pe: queue_depth must be at least 2, not 0"
    ) or front.warnings[0].endswith("queue_depth must be at least 2, not 1")


def test_where_every_combination_is_refused_the_first_refusal_is_the_error():
    with pytest.raises(InputError) as caught:
        search(small(queue_depth=[0, 1], pe_count=range(1, 50)), figures_of, 20)
    assert str(caught.value).startswith(
        "no combination of all that were tried is one that its machine accepts: eie-64pe: queue_depth must be at least "
    )


def test_a_machine_without_an_area_takes_the_area_out_of_the_search():
    front = explore(small(machines=["eie-64pe", "systolic-16x16"]), trials=50)
    assert front.objectives == ["accuracy", "latency_per_sample_us", "energy_per_sample_uj"]
    assert any(line.startswith("area_mm2 does not count: ") for line in front.warnings)


def test_a_trace_without_an_accuracy_is_judged_by_the_rest():
    front = explore(small(random_layer(24, 24, 0.3, 0.5, name="layer")), trials=40)
    assert front.objectives == ["latency_per_sample_us", "energy_per_sample_uj", "area_mm2"]
    assert front.warnings == ["accuracy does not count: 40 of 40 cases have no figure for it"]


def test_a_case_without_a_figure_that_counts_is_set_aside():
    space = small(energy=["eie-45nm-calibrated", ""], pe_count=[1, 2, 4])  # no table, no area
    outcomes = sweep([space.case(point) for point in space.points()])
    front = front_of(outcomes, ["latency_per_sample_us", "area_mm2"])
    lacking = sum(figures_of(outcome)[3] is None for outcome in outcomes)
    assert lacking == 3
    assert "3 of 6 cases are set aside: no figure for area_mm2" in front.warnings
    assert {row["energy"] for row in front.rows} == {"eie-45nm-calibrated"}


def test_cases_that_fail_are_told_and_the_search_goes_on():
    space = dataclasses.replace(small(), layers="none")
    front = explore(space, trials=25)
    assert (front.rows, front.cases, len(front.failed)) == ([], 0, 25)
    assert front.failed[0].endswith(
        "InputError: layer: layer pattern 'none' must fit at least one of its layers: layer"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 10, "sampler": "cma"}, "--sampler must be tpe or nsga2, not 'cma'"),
        ({"trials": 1}, "--trials must be at least 2, one for each trace and machine, not 1"),
    ],
)
def test_what_cannot_be_searched_is_told_in_one_line(options, message):
    with pytest.raises(InputError) as caught:
        explore(small(machines=["eie-64pe", "systolic-16x16"]), **options)
    assert str(caught.value) == message
