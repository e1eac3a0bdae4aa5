import re

import numpy as np
import pytest

from gossamer.workloads.errors import InputError
from gossamer.workloads.search.sensitivity import from_scan, scan


def nonzeros(trace):
    return float(sum(layer.nonzeros for layer in trace.layers))


@pytest.fixture(scope="module")
def scanned(densities):
    return scan(densities, nonzeros, ratios=(0.0, 0.5, 0.9, 0.99))


def test_one_layer_at_a_time_is_pruned_and_the_others_are_not(densities, scanned):
    assert list(scanned.cost) == ["fc1", "fc2", "fc3"]
    for layer in densities.layers:
        kept = scanned.kept[layer.name]
        assert kept[0] == 1.0
        assert np.allclose(1 - kept, scanned.ratios, atol=0.02)
        left = [scanned.base_cost - layer.weights + round(choice * layer.weights) for choice in kept]
        assert scanned.cost[layer.name].tolist() == left
        assert scanned.accuracy[layer.name][0] == scanned.base_accuracy


def test_a_layer_gets_the_most_pruning_whose_drop_is_borne(scanned):
    for max_drop in (0.0, 0.02, 0.1, 1.0):
        for name, choice in zip(scanned.kept, scanned.choose(max_drop), strict=True):
            borne = scanned.drop(name) <= max_drop + 1e-12
            assert choice == scanned.kept[name][borne].min()
    assert scanned.choose(1.0) == tuple(kept.min() for kept in scanned.kept.values())


def test_a_target_takes_the_smallest_threshold_that_meets_it(scanned):
    found = from_scan(scanned, nonzeros, target=0.5, epochs=1)
    assert found.cost <= found.target == 0.5 * scanned.base_cost
    assert all(step.cost > found.target for step in found.steps[:-1])
    assert found.candidate.epochs == 1
    assert not from_scan(scanned, nonzeros, target=0.001, epochs=0).reached


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda s: from_scan(s, nonzeros), "a scan chooses by max_drop or by target; give one of the two"),
        (lambda s: s.choose(-0.1), "max_drop must be a fraction of at least 0, not -0.1"),
        (
            lambda s: from_scan(s, nonzeros, target=2.0),
            "target must be a share of the dense network's cost, above 0 and below 1, not 2.0",
        ),
        (
            lambda s: scan(s.space, nonzeros, ratios=(1.0,)),
            "ratios must be shares of at least 0 and below 1, at least one, not [1.0]",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(scanned, act, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        act(scanned)
