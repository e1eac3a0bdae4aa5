import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gossamer.workloads.data import load_data
from gossamer.workloads.errors import InputError
from gossamer.workloads.networks import mlp
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.pruning.structured import n_of_m
from gossamer.workloads.training import load_recipe, prune, train
from gossamer.workloads.training.flow import Flow
from gossamer.workloads.training.loop import Loop
from gossamer.workloads.training.methods import METHODS
from gossamer.workloads.training.methods.nm import geometric, stepwise

from .watched import Watched

FLOWS = ("ste", "sr-ste", "mdgf-linear", "mdgf-exponential", "sdgf-stepwise", "sdgf-geometric")


def recipe(method, **changes):
    """A short N:M run of the MLP on digits, its phases of one, two and one epochs."""
    few = {"network": "mlp-100-100", "epochs": 2, "n": 2, "m": 4, "pad": False}
    if method != "asp":
        few |= {"dense_epochs": 1, "finetune_epochs": 1}
    return load_recipe("lenet-digits-dense", method=method, **(few | changes))


@pytest.mark.parametrize(
    ("n", "m", "kept"),
    [(1, 8, [7, 4, 2, 1]), (2, 4, [3, 2]), (1, 4, [3, 2, 1]), (2, 8, [7, 4, 2]), (1, 32, [31, 16, 8, 4, 2, 1]),
     (3, 8, [7, 4, 3]), (1, 2, [1])],
)  # fmt: skip
def test_the_stepwise_decay_passes_the_published_patterns(n, m, kept):
    assert stepwise(n, m) == [(each, m) for each in kept]


def test_the_geometric_decay_passes_the_published_patterns():
    assert geometric(1, 8) == [(8, 64), (4, 32), (2, 16), (1, 8)]


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**32 - 1), st.booleans())
def test_the_mask_of_a_step_is_that_of_the_pruning(side, n, m, seed, ties):
    n, m = min(n, m), max(n, m)
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(3, side, 2, 1)).astype(np.float32)
    if ties:
        weight = np.round(weight)
    mask = Flow(n, m).mask(torch.from_numpy(weight)).numpy()
    assert np.array_equal(mask == 1, n_of_m(weight, np.ones(weight.shape, bool), n, m, pad=True))
    assert set(np.unique(mask)) <= {0, 1}


def test_what_flows_of_a_pruned_weight_fades_as_published():
    linear, exponential = Flow(1, 4, decay="linear", c=0.01), Flow(1, 4, decay="exponential", c=0.01)
    assert [linear.leak(j) for j in (0, 50, 100, 500)] == [1, 0.5, 0, 0]
    assert [exponential.leak(j) for j in (0, 100)] == pytest.approx([1, np.exp(-1)])
    assert Flow(1, 4).leak(0) == 0
    weight = torch.tensor([[1.0, 2.0, 4.0, -3.0]])
    mask = linear.mask(weight)
    assert linear.factor(mask, 50).tolist() == [[0.5, 0.5, 1.0, 0.5]]
    assert linear.factor(mask, 100).tolist() == [[0, 0, 1, 0]]


class One:
    """One batch an epoch, always the same."""

    def __init__(self, *batch):
        self.batch = batch

    def __len__(self):
        return 1

    def epoch(self, seed, particle, epoch):
        return iter([self.batch])


def one_step(flow, weight, inputs, labels):
    """Return the weight after one step of SGD without momentum, and the gradient by w * factor, written by hand."""
    network = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    plain = load_recipe("lenet-digits-dense", momentum=0.0, learning_rate=0.1, epochs=1)
    loop = Loop(plain, network, One(inputs, labels), One(inputs, labels), lambda: network)
    masks = {"0.weight": np.ones(tuple(weight.shape), bool)}
    after = loop.train({"0.weight": weight.numpy()}, masks, 0, 1, flow=flow)["0.weight"]
    scores = inputs @ (weight * flow.factor(flow.mask(weight), 0)).T
    error = torch.softmax(scores, dim=1) - nn.functional.one_hot(labels, weight.shape[0])  # d cross-entropy / d scores
    return after, error.T @ inputs / len(inputs)


def by_hand(**changes):
    torch.manual_seed(0)
    weight, inputs, labels = torch.randn(3, 8), torch.randn(5, 8), torch.tensor([0, 1, 2, 1, 0])
    flow = Flow(1, 4, **changes)
    after, gradient = one_step(flow, weight, inputs, labels)
    learned = torch.from_numpy(weight.numpy() - after) / 0.1
    return flow, weight, gradient, learned


def test_straight_through_the_gradient_of_the_product_is_that_of_the_weight():
    _, _, gradient, learned = by_hand()
    assert torch.allclose(learned, gradient, atol=1e-5)


def test_sr_ste_adds_lambda_times_what_is_pruned():
    _, weight, gradient, learned = by_hand(sr_decay=0.2)
    expected = gradient.clone()
    for row in range(3):
        for column in range(8):
            group = weight[row, column // 4 * 4 : column // 4 * 4 + 4].abs()
            if weight[row, column].abs() < group.max():
                expected[row, column] += 0.2 * weight[row, column]
    assert torch.allclose(learned, expected, atol=1e-5)
    assert not torch.allclose(learned, gradient, atol=1e-2)


def test_the_true_derivative_of_a_decayed_weight_is_scaled_by_what_it_passes_on():
    changes = {"decay": "exponential", "c": 0.0}  # b = 1 at every step: nothing is scaled yet
    assert torch.allclose(by_hand(**changes, true_derivative=True)[3], by_hand(**changes)[3])
    flow, weight, gradient, _ = by_hand(decay="linear", c=0.25, true_derivative=True)
    mask = flow.mask(weight)
    factor = flow.factor(mask, 2)
    assert (
        flow.gradient(gradient, weight, mask, factor).tolist() == (gradient * torch.where(mask == 1, 1, 0.5)).tolist()
    )
    # As autograd has it, the mask being a constant.
    leaf = weight.clone().requires_grad_()
    ((leaf * factor) * gradient).sum().backward()
    assert torch.equal(leaf.grad, flow.gradient(gradient, weight, mask, factor))


@pytest.mark.parametrize("method", ["asp", *FLOWS])
def test_every_group_keeps_n_of_m_at_the_end_and_what_is_pruned_is_0(method):
    seen = []
    run = train(recipe(method), progress=lambda done, in_all: seen.append((done, in_all)))
    assert seen[-1][0] == seen[-1][1] == len(seen)
    for name, mask in run.masks.items():
        assert (mask.reshape(len(mask), -1, 4).sum(axis=2) == 2).all()
        assert not run.weights[name][~mask].any()
    assert run.history[-1].sparsity == 0.5
    assert run.history[0].sparsity == 0
    assert run.accuracy > 0.5
    assert {layer.pattern for layer in run.trace.layers} == {Pattern(kind="n:m", n=2, m=4, axis=1)}


def test_the_patterns_of_a_stepwise_run_follow_one_another_in_equal_phases():
    loop = Watched(recipe("sdgf-stepwise", n=1, m=4, epochs=3))
    found = [solution.masks for solution in METHODS["sdgf-stepwise"].solutions(loop)]
    called = [(call.how["stage"], call.first, call.last) for call in loop.calls]
    assert called == [("dense", 0, 23), ("flow-3-4", 23, 46), ("flow-2-4", 46, 69), ("flow-1-4", 69, 92),
                     ("finetuned", 92, 115)]  # fmt: skip
    kept = [{int(each) for mask in masks.values() for each in mask.reshape(-1, 4).sum(axis=1)} for masks in found]
    assert kept == [{4}, {3}, {2}, {1}]


def test_the_cost_of_training_is_counted_in_dense_trainings():
    # 23 steps dense, 23 at half the weights but for the dense gradient, 23 with half of everything.
    third = 1 / 3
    half = train(recipe("ste", epochs=1)).history[-1].training_flops
    assert half == pytest.approx(third * (1 + 2 / 3) + third * 0.5)
    # The mask of MdGf passes on all weights until the end: only the frozen phase is cheaper.
    assert train(recipe("mdgf-exponential", epochs=1)).history[-1].training_flops == pytest.approx(2.5 * third + 0)
    assert train(recipe("asp", epochs=1)).history[-1].training_flops == pytest.approx(1.5)


def test_a_run_without_a_dense_phase_has_no_dense_accuracy():
    run = train(recipe("sr-ste", dense_epochs=0, finetune_epochs=0))
    assert run.dense_accuracy is None
    assert len(run.history) == 1
    assert all((mask.reshape(-1, 4).sum(axis=1) == 2).all() for mask in run.masks.values())


def test_layers_whose_rows_no_groups_tile_are_refused_padded_or_excluded():
    with pytest.raises(InputError) as error:
        train(recipe("asp", m=8))
    assert str(error.value) == (
        "recipe lenet-digits-dense: fc2.weight: groups of 8 must tile axis 1 of the weight, whose shape is (100, 100); "
        "set pad to lengthen it by zeros, or name the layer in exclude"
    )
    assert list(train(recipe("asp", m=8, exclude=["fc[23]"])).masks) == ["fc1.weight"]
    masks = train(recipe("asp", m=8, pad=True)).masks
    assert (masks["fc2.weight"].sum(axis=1) == 12 * 2 + 1).all()


class Shuffled:
    """A loader of the user's: batches of 128 in an order that torch's generator draws."""

    def __init__(self, inputs, labels):
        self.inputs, self.labels = torch.from_numpy(inputs), torch.from_numpy(labels)

    def __iter__(self):
        order = torch.randperm(len(self.inputs))
        yield from zip(self.inputs[order].split(128), self.labels[order].split(128), strict=True)


def test_decaying_flow_beats_pruning_once_at_1_of_32_by_far():
    data = load_data("mnist1d")
    loaders = Shuffled(data.train_inputs, data.train_labels), [(data.test_inputs, data.test_labels)]
    shared = {"n": 1, "m": 32, "pad": True, "prune_output": False}
    accuracy = {}
    for method, phases in (
        ("asp", {"epochs": 15}),  # dense, and then pruned
        ("mdgf-exponential", {"dense_epochs": 5, "epochs": 20, "finetune_epochs": 5, "decay": 0.01}),
    ):
        found = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            network = mlp(40, 64, 64, 64, 10)
            run = prune(
                network, *loaders, load_recipe("lenet-digits-dense", method=method, seed=seed, **shared, **phases)
            )
            found.append(run.accuracy)
        accuracy[method] = np.mean(found)
    assert accuracy["mdgf-exponential"] > accuracy["asp"] + 0.05
