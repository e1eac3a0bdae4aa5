import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gossamer.workloads.data import load_data
from gossamer.workloads.networks import build_network, mlp
from gossamer.workloads.training import load_checkpoint, load_recipe, prune, train
from gossamer.workloads.training.batches import ArrayBatches, LoaderBatches

from ..refusals import message


def recipe(method="imp", **changes):
    few = {"epochs": 1, "sparsity": 0.5, "rewind_step": 3, "samples": 4}
    return load_recipe("lenet-digits-dense", **({"method": method, "name": "mine"} | few | changes))


def loaders(batch_size=64, **how):
    data = load_data("digits")
    train_set = TensorDataset(torch.from_numpy(data.train_inputs), torch.from_numpy(data.train_labels))
    test_set = TensorDataset(torch.from_numpy(data.test_inputs), torch.from_numpy(data.test_labels))
    return DataLoader(train_set, batch_size, shuffle=True, **how), DataLoader(test_set, 100)


def network(seed=0):
    torch.manual_seed(seed)
    return mlp(64, 50, 10)


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in one)


class Arrays:
    """A loader that gives the batches which a recipe's own data come in."""

    def __init__(self, batches):
        self.batches, self.passes = batches, 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        self.passes += 1
        return self.batches.epoch(0, 0, 0)


def test_a_module_and_its_loaders_give_what_the_recipe_of_the_same_gives():
    mine = recipe("dense", sparsity=0.0, rewind_step=0, network="lenet-300-100", schedule="cosine")
    data = load_data("digits")
    torch.manual_seed(mine.seed)
    module = build_network("lenet-300-100", data.shape, data.classes)
    tensors = [torch.from_numpy(each) for each in (data.train_inputs, data.train_labels)]
    run = prune(module, Arrays(ArrayBatches(*tensors, 64)), [(data.test_inputs, data.test_labels)], mine)
    own = train(mine)
    assert run.history == own.history
    assert same(run.weights, own.weights)
    assert [layer.inputs.tolist() for layer in run.trace.layers] == [
        layer.inputs.tolist() for layer in own.trace.layers
    ]


def test_the_module_stays_as_it_was_and_can_be_given_the_result():
    module = network()
    before = copy.deepcopy(module.state_dict())
    run = prune(module, *loaders(), recipe())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.training
    run.load_into(module)
    for name, mask in run.masks.items():
        assert not module.state_dict()[name].numpy()[~mask].any()
    _, test = loaders()
    with torch.no_grad():
        hits = sum(int((module(inputs).argmax(1) == labels).sum()) for inputs, labels in test)
    assert hits / 360 == run.accuracy


def test_a_loader_that_shuffles_gives_the_same_bits_each_time_and_particles_differ():
    torch.manual_seed(1)
    one = prune(network(), *loaders(), recipe("swamp", particles=2))
    torch.manual_seed(2)
    other = prune(network(), *loaders(), recipe("swamp", particles=2))
    assert one.history == other.history
    assert same(one.weights, other.weights)
    assert len(one.particles) == len(one.averages) == 2
    assert not same(one.particles[0], one.particles[1])


def test_a_generator_of_the_loader_is_seeded_and_put_back():
    generator = torch.Generator()
    state = generator.get_state()
    one = prune(network(), *loaders(generator=generator), recipe())
    assert torch.equal(generator.get_state(), state)
    generator.manual_seed(77)
    assert one.history == prune(network(), *loaders(generator=generator), recipe()).history
    batches = LoaderBatches.of(loaders(generator=generator)[0], "cpu", "train_loader")
    orders = [
        torch.cat([labels for _, labels in batches.epoch(0, *which)]).tolist() for which in ((0, 0), (0, 1), (1, 0))
    ]
    assert orders[0] != orders[1] != orders[2] != orders[0]


class Tokens(nn.Module):
    """Attention over the rows of an image, convolution, norm and dropout."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(8, 16, 3, padding=1)
        self.norm = nn.BatchNorm1d(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(16, 10)

    def forward(self, inputs):
        x = torch.relu(self.norm(self.conv(inputs.unflatten(1, (8, 8)).transpose(1, 2)))).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.drop(x).mean(dim=1))


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "imp"},
        {"method": "swamp", "particles": 2, "swa_epochs": 1},
        {"method": "mdgf-exponential", "sparsity": 0.0, "n": 2, "m": 4, "finetune_epochs": 1, "rewind_step": 0},
        {"method": "imp", "control": "reinitialised"},
    ],
)
def test_convolution_attention_and_norms_of_a_users_module_are_pruned(changes):
    torch.manual_seed(0)
    run = prune(Tokens(), *loaders(256), recipe(**changes))
    assert list(run.masks) == ["conv.weight", "attention.in_proj_weight", "attention.out_proj.weight", "head.weight"]
    assert run.history[-1].sparsity == pytest.approx(0.5, abs=1e-3)
    assert list(run.buffers) == ["norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]
    assert run.buffers["norm.running_var"].dtype == np.float32
    assert run.buffers["norm.num_batches_tracked"].shape == ()
    for name, mask in run.masks.items():
        assert not run.weights[name][~mask].any()
    again = prune(copy.deepcopy(Tokens()).requires_grad_(), *loaders(256), recipe(**changes))
    assert not same(run.weights, again.weights)  # other first weights


def test_statistics_are_rewound_with_the_weights():
    torch.manual_seed(0)
    module = Tokens()
    two = prune(module, *loaders(256), recipe(epochs=1, rewind_step=0, sparsity=0.2, rate=0.2))
    # A batch norm that went on counting would have seen two levels.
    assert int(two.buffers["norm.num_batches_tracked"]) == 6


def test_a_run_of_a_module_resumes_and_its_checkpoint_reads(tmp_path):
    whole = prune(network(), *loaders(), recipe(), out=tmp_path / "whole")

    def progress(done, in_all):
        if done == in_all * 3 // 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(network(), *loaders(), recipe(), out=tmp_path / "broken", progress=progress)
    prune(network(), *loaders(), recipe(), out=tmp_path / "broken")
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.*"))
    assert len(files) == 3 + 1 + 5
    for path in files:
        assert (tmp_path / "broken" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()
    prune(network(1), *loaders(), recipe(), out=tmp_path / "whole")
    assert len([path for path in (tmp_path / "whole").iterdir() if path.is_dir()]) == 2
    run = load_checkpoint(tmp_path / "broken" / "mine.checkpoint.safetensors")
    assert same(run.weights, whole.weights)
    assert same(run.masks, whole.masks)
    assert run.history == whole.history
    assert message(lambda: run.trace) == (
        "run mine: its network was a module given to prune(), and is not here; give trace_of the module and samples"
    )


def test_what_cannot_be_pruned_is_refused():
    train_loader, test_loader = loaders()
    assert message(prune, network(), iter([]), test_loader, recipe()) == (
        "train_loader must be an iterable of (inputs, labels) that can be gone through again and again"
    )
    assert message(prune, network(), train_loader, [torch.zeros(3)], recipe()) == (
        "a loader must give pairs (inputs, labels) of arrays, not Tensor"
    )
    assert message(prune, network().double(), train_loader, test_loader, recipe()) == (
        "parameter fc1.weight must be float32, not torch.float64; convert the module"
    )
    assert message(prune, network(), train_loader, test_loader, recipe(rewind_step=23)) == (
        "recipe mine: rewind_step must be below the run's 23 steps (1 epochs of 23), not 23"
    )
    if not torch.cuda.is_available():
        assert message(prune, network(), train_loader, test_loader, recipe(device="cuda")) == (
            "recipe mine: device cuda must be there to be used, and is not; set device to cpu"
        )
    assert message(train, recipe(network="")) == (
        "recipe mine: network and data must be named here, not '' and 'digits'; "
        "name them, or give prune() a module and loaders"
    )

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.fc = nn.Linear(64, 10)

        def forward(self, inputs):
            return self.fc(inputs) * self.scale

    assert message(prune, Own(), train_loader, test_loader, recipe(control="reinitialised")) == (
        "parameter scale: a control that is initialised again needs layers with reset_parameters(), and the layer of "
        "this one has none; give it one"
    )
