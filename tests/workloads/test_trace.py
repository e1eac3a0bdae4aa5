import dataclasses
import pickle

import numpy as np
import pytest

from gossamer.workloads.errors import InputError
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.rules import DEFAULTS
from gossamer.workloads.trace import Trace

from .some_layers import CODES, INPUTS, WEIGHT, coded, conv, linear


def test_codes_become_a_weight_when_asked_for():
    layer = coded()
    assert "weight" not in layer.__dict__
    np.testing.assert_array_equal(layer.weight, [[-1.5, 0, 2], [0, 0, -1.5]])
    assert layer.array("weight") is None
    assert not layer.weight.flags.writeable
    assert (layer.nonzeros, layer.shape, layer.has_bias) == (3, (2, 3), False)
    assert layer.sparsity == 0.5


def test_a_layer_does_not_change_with_the_array_it_was_made_from():
    weight = WEIGHT.copy()
    layer = linear(weight=weight)
    weight[0, 0] = 9
    assert layer.weight[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        layer.weight[0, 0] = 9
    assert linear(weight=layer.weight).weight is layer.weight


def test_a_convolution_has_every_attribute_as_a_pair_of_numbers():
    assert conv().attributes == DEFAULTS["conv2d"]
    assert conv(attributes={"stride": [2, 1]}).attributes["stride"] == (2, 1)


def test_layers_survive_the_trip_to_another_process():
    for layer in (linear(), coded(bias_codes=CODES[:, 0]), conv()):
        trace = Trace(name="t", layers=(layer,))
        assert pickle.loads(pickle.dumps(trace)).sha256 == trace.sha256


WRONG_TRACES = [
    ({"name": ""}, "trace name must be a nonempty string of printable characters, not ''"),
    ({"layers": ()}, "trace net: at least one layer is needed, not 0"),
    (
        {"layers": (linear(), linear())},
        "trace net: layer names must differ, and 'fc1' occurs twice; rename one",
    ),
    ({"provenance": [1]}, "trace net: provenance must be a dict, not list"),
    (
        {"provenance": {"recipe": {"rates": [1.0, float("nan")]}}},
        "trace net: provenance.recipe.rates[1] must be plain JSON data (finite numbers, text, lists, dicts by name), "
        "not nan",
    ),
    (
        {"provenance": {"when": np.float32(1)}},
        "trace net: provenance.when must be plain JSON data (finite numbers, text, lists, dicts by name), "
        "not np.float32(1.0)",
    ),
    (
        {"provenance": {"seed": 2**64}},
        "trace net: provenance.seed must be plain JSON data (finite numbers, text, lists, dicts by name), "
        "not 18446744073709551616",
    ),
]


@pytest.mark.parametrize(("changes", "message"), WRONG_TRACES)
def test_a_trace_that_breaks_a_rule_is_refused(changes, message):
    with pytest.raises(InputError) as error:
        Trace(**{"name": "net", "layers": (linear(),)} | changes)
    assert str(error.value) == message


def test_the_hash_tells_all_that_differs_and_nothing_that_does_not():
    def trace(layer, **changes):
        return Trace(**{"name": "net", "layers": (layer,), "provenance": {"a": 1, "b": (2, 3)}} | changes)

    same = [
        trace(linear()),
        trace(linear(), provenance={"b": [2, 3], "a": 1}),
        trace(linear(weight=np.asfortranarray(WEIGHT))),
        trace(linear(weight=np.where(WEIGHT == 0, np.float32(-0.0), WEIGHT))),
    ]
    assert len({t.sha256 for t in same}) == 1
    others = [
        same[0],
        trace(linear(name="fc2")),
        trace(linear(), name="other"),
        trace(linear(), provenance={}),
        trace(linear(weight=WEIGHT * 2)),
        trace(linear(inputs=INPUTS * 2)),
        trace(linear(inputs=INPUTS.reshape(1, 1, 3))),
        trace(linear(bias=np.zeros(2, np.float32))),
        trace(linear(mask=WEIGHT != 0)),
        trace(linear(pattern=Pattern("dense"))),
        trace(coded()),
        trace(conv()),
        trace(conv(attributes={"stride": (2, 1)})),
    ]
    assert len({t.sha256 for t in others}) == len(others)


def test_a_trace_and_its_layers_are_frozen():
    trace = Trace(name="net", layers=[linear()])
    with pytest.raises(dataclasses.FrozenInstanceError):
        trace.name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        trace.layers[0].name = "other"
    assert trace.sparsity == 0.5
