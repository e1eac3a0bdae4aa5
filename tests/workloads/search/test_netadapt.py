import re
from dataclasses import replace
from itertools import pairwise

import pytest

from gossamer.models import load_machine
from gossamer.simulator.cost import cost_function
from gossamer.workloads.errors import InputError
from gossamer.workloads.search import Candidate
from gossamer.workloads.search.netadapt import Settings, netadapt
from gossamer.workloads.search.table import Table
from gossamer.workloads.search.uniform import uniform

QUICK = Settings(steps=6, short_epochs=1, long_epochs=1)


def nonzeros(trace):
    """A cost that is no machine's: weights that are left."""
    return float(sum(layer.nonzeros for layer in trace.layers))


@pytest.fixture(scope="module")
def found(densities):
    return netadapt(densities, nonzeros, 0.2, settings=QUICK)


def test_every_step_meets_its_target_and_the_last_one_the_budget(found):
    assert found.dense_cost == 64 * 100 + 100 * 100 + 100 * 10
    costs = [found.dense_cost, *(step.cost for step in found.steps)]
    for before, step in pairwise(costs):
        assert step < before
    for step in found.steps:
        assert step.cost <= step.target
        assert all(trial.cost <= step.target for trial in step.tried)
    assert 0.98 * found.target <= found.cost <= found.target == 0.2 * found.dense_cost
    assert found.reached


def test_the_trial_of_the_highest_accuracy_is_kept(found):
    for step in found.steps:
        best = max(step.tried, key=lambda trial: (trial.accuracy, -trial.loss))
        assert (step.kept, step.cost, step.accuracy) == (best.layer, best.cost, best.accuracy)
        assert len({trial.layer for trial in step.tried}) == len(step.tried)


def test_a_step_changes_one_layer(found):
    for before, after in pairwise([(1.0, 1.0, 1.0), *(step.choices for step in found.steps)]):
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
        assert all(a >= b for a, b in zip(before, after, strict=True))


def test_the_same_search_finds_the_same_network(densities, found):
    again = netadapt(densities, nonzeros, 0.2, settings=QUICK)
    assert again.steps == found.steps
    assert again.trace().sha256 == found.trace().sha256


def test_the_found_trace_tells_recipe_accuracy_and_search(found):
    trace = found.trace()
    assert trace.provenance["accuracy"] == found.candidate.test_accuracy()
    assert trace.provenance["recipe"]["network"] == "mlp-100-100"
    assert trace.provenance["search"]["choices"]["fc3"] == found.candidate.choices[2]
    assert nonzeros(trace) == found.cost


@pytest.mark.parametrize("target", [0.5, 0.2])
def test_a_latency_is_met_within_two_percent(widths, target):
    cost = cost_function(load_machine("systolic-8x8"), "latency")
    found = netadapt(widths, cost, target, settings=QUICK)
    assert 0.98 * found.target <= found.cost <= found.target
    even = uniform(widths, cost, found.cost)
    assert even.cost >= 0.99 * found.cost
    assert len({round(choice, 1) for choice in even.candidate.choices}) == 1


def test_the_published_schedule_reduces_less_each_time():
    assert Settings(reduction=0.025, decay=0.96).schedule(0.5) == (0.025, 0.96)
    reduction, decay = Settings(steps=10).schedule(0.5)
    left = 1.0
    for step in range(10):
        left -= reduction * decay**step
    assert left == pytest.approx(0.5)


def test_a_target_below_all_choices_ends_with_the_smallest_network(densities):
    found = netadapt(densities, nonzeros, 0.001, settings=Settings(steps=2, short_epochs=0, long_epochs=0))
    assert not found.reached
    assert found.candidate.choices == tuple(layer.choices[0] for layer in densities.layers)


def test_the_table_tells_costs_that_depend_on_shapes_exactly_and_simulates_them_once(widths):
    table = Table(widths, cost_function(load_machine("systolic-8x8"), "cycles"))
    for choices in ([0.5, 0.25, 0.75], [0.25, 0.25, 0.125]):
        assert table.network(choices) == table.exact(widths.apply(choices).trace())
    simulated = table.simulated
    table.network([0.5, 0.25, 0.125])  # each layer has been met with these channels in and out
    assert table.simulated == simulated
    table.network([0.5, 0.5, 0.125])  # conv2 and conv3 have not
    assert table.simulated == simulated + 2


def test_the_even_network_is_the_largest_of_its_cost(densities):
    even = uniform(densities, nonzeros, 3000.0)
    assert 2970 <= even.cost <= 3030 or even.cost >= 3000
    assert even.method == "uniform"
    assert uniform(densities, nonzeros, 1e9).candidate.choices == (1.0, 1.0, 1.0)


def test_the_even_network_is_sought_between_one_that_fine_tuning_made_too_cheap_and_one_too_dear(
    densities, monkeypatch
):
    # Fine-tuning takes a sixth of the cost of small networks and leaves that of others; no share ends at 3300.
    monkeypatch.setattr(Candidate, "fine_tune", lambda self, epochs: replace(self, epochs=epochs))
    monkeypatch.setattr(Candidate, "trace", lambda self: self)

    def cost(made):
        return made.weights_kept * (5 / 6 if made.epochs and made.weights_kept < 3500 else 1)

    even = uniform(densities, cost, 3300.0, epochs=2)
    assert 3450 <= even.cost == even.candidate.weights_kept <= 3620


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda space: netadapt(space, nonzeros, 1.0),
            "target must be a share of the dense network's cost, above 0 and below 1, not 1.0",
        ),
        (
            lambda space: netadapt(space, lambda trace: 0.0, 0.5),
            "the cost of the dense network must be above 0, and is 0; choose another cost",
        ),
        (
            lambda space: netadapt(space, lambda trace: float("nan"), 0.5),
            "the cost of a network must be finite and at least 0, not nan; choose another cost",
        ),
        (lambda space: uniform(space, nonzeros, 0.0), "target must be a cost above 0, not 0.0"),
        (
            lambda space: Settings(reduction=0.025),
            "reduction and decay go together, and are 0.025 and None; give both",
        ),
        (lambda space: Settings(reduction=1.0, decay=0.9), "reduction must be a share above 0 and below 1, not 1.0"),
        (lambda space: Settings(reduction=0.1, decay=0.0), "decay must be above 0 and at most 1, not 0.0"),
        (lambda space: Settings(steps=0), "steps must be at least 1, not 0"),
        (lambda space: Settings(long_epochs=-1), "long_epochs must be at least 0, not -1"),
        (lambda space: Settings(near=1.0), "near must be a share of at least 0 and below 1, not 1.0"),
        (
            lambda space: cost_function(load_machine("eie-64pe"), "speed"),
            "a cost must be one of latency, cycles, energy, edp, not 'speed'",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(densities, act, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        act(densities)
