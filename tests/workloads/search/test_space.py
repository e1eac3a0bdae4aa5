import re

import numpy as np
import pytest
import torch

from gossamer.models import load_machine
from gossamer.simulator.cost import cost_function
from gossamer.workloads.errors import InputError
from gossamer.workloads.search import Trained
from gossamer.workloads.search.patterns import NmSpace
from gossamer.workloads.search.sparsities import SparsitySpace
from gossamer.workloads.training import load_recipe, train


def snapped(space, share):
    return [space.snap(layer.index, share) for layer in space.layers]


def test_a_layer_is_described_as_its_trace_has_it(widths):
    conv = widths.layers[1]
    assert (conv.name, conv.parameter, conv.type) == ("conv2", "conv2.weight", "conv2d")
    assert (conv.in_channels, conv.out_channels, conv.kernel, conv.stride) == (16, 32, (3, 3), 2)
    assert (conv.weights, conv.macs, conv.traced) == (4608, 4608 * 16, ("conv2",))
    assert conv.choices == tuple(i / 32 for i in range(1, 33))


def test_every_layer_keeps_the_share_that_was_chosen_the_largest_of_it(mlp, densities):
    candidate = densities.apply(snapped(densities, 0.3))
    for layer, choice in zip(densities.layers, candidate.choices, strict=True):
        weight, mask = np.abs(mlp.weights[layer.parameter]), candidate.masks[layer.parameter]
        assert np.count_nonzero(mask) == round(choice * mask.size)
        assert weight[mask].min() >= weight[~mask].max()
        assert not candidate.state[layer.parameter][~mask].any()


def test_a_smaller_choice_keeps_a_part_of_what_a_larger_one_keeps(densities):
    first = densities.apply(snapped(densities, 0.4)).fine_tune(1)
    second = densities.apply(snapped(densities, 0.2), first)
    for name, mask in second.masks.items():
        assert not (mask & ~first.masks[name]).any()
        assert np.array_equal(second.state[name][mask], first.state[name][mask])


def test_what_a_layer_is_given_back_has_its_trained_weights(mlp, densities):
    first = densities.apply(snapped(densities, 0.2)).fine_tune(1)
    second = densities.apply(snapped(densities, 0.4), first)
    for name, mask in second.masks.items():
        new = mask & ~first.masks[name]
        assert new.any()
        assert np.array_equal(second.state[name][new], mlp.weights[name][new])
        assert np.array_equal(second.state[name][first.masks[name]], first.state[name][first.masks[name]])


def test_fine_tuning_trains_what_is_left_and_nothing_else(densities):
    candidate = densities.apply(snapped(densities, 0.05))
    tuned = candidate.fine_tune(3)
    assert tuned.loss() < candidate.loss()
    assert tuned.epochs == 3
    for name, mask in tuned.masks.items():
        assert not tuned.state[name][~mask].any()
        assert not np.array_equal(tuned.state[name], candidate.state[name])


def test_the_same_seed_gives_the_same_bits_and_another_one_others():
    recipe = load_recipe("lenet-digits-dense", network="mlp-100-100", epochs=1, samples=2)
    first, second, third = (Trained.of(recipe, seed=seed) for seed in (1, 1, 2))
    traces = [SparsitySpace(each).dense.fine_tune(1).trace().sha256 for each in (first, second, third)]
    assert traces[0] == traces[1] != traces[2]


def test_validation_samples_are_neither_trained_on_nor_tested(mlp):
    train_x, held, tests = mlp.loop.batches.inputs, mlp.loop.tests.inputs, mlp.tests.inputs
    assert (len(train_x), len(held), len(tests)) == (1150, 287, 360)
    seen = {row.numpy().tobytes() for row in (*train_x, *tests)}
    # The digits hold the odd image twice, on both sides of any split.
    assert sum(row.numpy().tobytes() in seen for row in held) < 5


def test_a_trace_carries_the_activations_of_the_samples_and_the_pattern(mlp, densities):
    trace = densities.apply(snapped(densities, 0.5)).trace(source="here")
    assert [layer.name for layer in trace.layers] == ["fc1", "fc2", "fc3"]
    assert np.array_equal(trace.layers[0].inputs, mlp.samples.numpy())
    assert {layer.pattern.kind for layer in trace.layers} == {"unstructured"}
    assert {layer.pattern.kind for layer in densities.dense.trace().layers} == {"dense"}
    assert trace.provenance == {"source": "here"}


def test_balanced_layers_keep_the_same_share_on_every_element(mlp):
    space = SparsitySpace(mlp, pe_count=4)
    trace = space.apply(snapped(space, 0.1)).trace()
    for layer in trace.layers:
        assert (layer.pattern.kind, layer.pattern.pe_count) == ("balanced", 4)
        kept = [np.count_nonzero(layer.weight[pe::4]) for pe in range(4)]
        share = layer.nonzeros / layer.weight.size
        assert all(abs(k - share * layer.weight[pe::4].size) <= 1 for pe, k in enumerate(kept))


def test_n_of_m_choices_become_patterns_of_their_layers(mlp):
    space = NmSpace(mlp, m=4, ns=(1, 2))
    assert [layer.choices for layer in space.layers] == [(0.25, 0.5, 1.0)] * 3
    trace = space.apply([0.25, 1.0, 0.5]).trace()
    assert [(layer.pattern.kind, layer.pattern.n) for layer in trace.layers] == [
        ("n:m", 1),
        ("dense", None),
        ("n:m", 2),
    ]
    groups = (trace.layers[0].weight.reshape(100, 16, 4) != 0).sum(axis=2)
    assert (groups == 1).all()


def test_the_matrices_of_an_lstm_are_layers_of_their_own():
    recipe = load_recipe("lenet-digits-dense", network="lstm-64", data="digits-rows", epochs=1, samples=2)
    space = SparsitySpace(Trained.of(recipe))
    assert [layer.name for layer in space.layers] == ["lstm.ih_l0", "lstm.hh_l0", "fc"]
    cost = cost_function(load_machine("ese"), "cycles")
    assert cost(space.apply(snapped(space, 0.2)).trace()) < cost(space.dense.trace())


def test_a_module_of_ones_own_can_be_searched_and_stays_as_it_was():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
    before = [value.clone() for value in module.parameters()]
    loader = [(torch.randn(16, 6), torch.randint(0, 3, (16,))) for _ in range(3)]
    trained = Trained.of_module(module, loader, loader[:1], loader[:1], load_recipe("lenet-digits-dense", samples=2))
    space = SparsitySpace(trained)
    tuned = space.apply(snapped(space, 0.5)).fine_tune(1)
    assert [layer.name for layer in space.layers] == ["0", "2"]
    assert tuned.weights_kept == 36 + 18
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_a_finished_run_is_gone_on_with_and_its_accuracy_is_known_to_flatter():
    run = train(load_recipe("lenet-digits-oneshot", network="mlp-100-100", epochs=1, finetune_epochs=1, samples=2))
    trained = Trained.of_run(run)
    assert trained.seen
    assert SparsitySpace(trained).dense.test_accuracy() == run.accuracy


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda space: space.apply([1.0]), "choices must be one for each of the 3 layers, not 1"),
        (
            lambda space: space.apply([0.123, 1.0, 1.0]),
            "layer fc1: the choice must be one of its 160, from 0.005 to 1, not 0.123; use snap",
        ),
        (
            lambda space: space.apply([1.0] * 3, SparsitySpace(space.trained).dense),
            "start must be a candidate of this space, and is one of another",
        ),
        (lambda space: SparsitySpace(space.trained, steps=1), "steps must be at least 2, not 1"),
        (lambda space: SparsitySpace(space.trained, least=0), "least must be a share above 0 and below 1, not 0"),
        (
            lambda space: SparsitySpace(space.trained, pe_count=0),
            "balanced layers need pe_count of at least 1 and scope pe or pe-column, not 0 and 'pe'",
        ),
        (
            lambda space: NmSpace(space.trained, m=4, ns=(5,)),
            "n of n:m must be between 1 and m, and m at least 2, not [5] of 4",
        ),
        (
            lambda space: Trained.of(space.trained.recipe, validation=1.0),
            "validation must leave both parts of the 1437 training samples at least one, not 1.0",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(densities, act, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        act(densities)
