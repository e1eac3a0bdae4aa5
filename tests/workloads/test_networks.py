import numpy as np
import pytest
import torch
from torch import nn

from gossamer.workloads.data import load_data
from gossamer.workloads.errors import InputError
from gossamer.workloads.networks import NETWORKS, build_network

# Counted by hand from the published layers; the papers give 15,210 and 5,210 to the unit, and ResNet-20 as 0.27 M.
PARAMETERS = {
    ("lenet-300-100", (784,)): 266_610,
    ("lenet-300-100", (64,)): 50_610,
    ("mlp-100-100", (40,)): 15_210,
    ("mlp-100-100", (64,)): 17_610,
    ("convnet-1d", (40,)): 5_210,
    ("resnet-20", (3, 32, 32)): 269_722,
    ("resnet-20", (1, 8, 8)): 269_434,  # one channel in: 288 weights fewer
}


def size(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("name", "shape"), PARAMETERS, ids=str)
def test_networks_have_the_published_number_of_parameters(name, shape):
    assert size(build_network(name, shape)) == PARAMETERS[name, shape]


def test_resnet_20_has_19_convolutions_a_linear_layer_and_shortcuts_without_parameters():
    network = build_network("resnet-20")
    convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    assert len(convolutions) == 19
    assert {part.kernel_size for part in convolutions} == {(3, 3)}
    assert [part.out_channels for part in convolutions] == [16] * 7 + [32] * 6 + [64] * 6
    assert [i for i, part in enumerate(convolutions) if part.stride == (2, 2)] == [7, 13]
    assert network.fc.weight.shape == (10, 64)
    # sum of in * out * 9, norms (2 a channel), and the linear layer
    kernels = 9 * (3 * 16 + 6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64)
    assert size(network) == kernels + 2 * (7 * 16 + 6 * 32 + 6 * 64) + 650


def test_a_block_whose_convolutions_are_zero_passes_on_every_second_pixel_and_no_new_channels():
    block = build_network("resnet-20").eval().stage2[0]
    for convolution in (block.conv1, block.conv2):
        nn.init.zeros_(convolution.weight)
    x = torch.rand(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = block(x)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert not out[:, 16:].any()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_a_score_a_class_and_is_drawn_by_the_seed(name):
    shapes = {"convnet-digits": [(1, 8, 8), (3, 28, 20)], "convnet-1d": [(40,), (30, 4)],
              "resnet-20": [(3, 32, 32), (1, 8, 8)], "vit-digits": [(1, 8, 8), (3, 32, 32), (1, 28, 28)],
              "lstm-64": [(8, 8), (40,), (1, 8, 8)],
              "sparse-convnet": [(64, 3), (1, 3)]}.get(name, [(64,), (1, 8, 8)])  # fmt: skip
    for shape in shapes:
        made = []
        for seed in (0, 0, 1):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                made.append(build_network(name, shape, 7))
        one, two, other = (torch.cat([p.detach().ravel() for p in network.parameters()]) for network in made)
        assert torch.equal(one, two)
        assert not torch.equal(one, other)
        assert {p.dtype for p in made[0].parameters()} == {torch.float32}
        with torch.no_grad():
            scores = made[0].eval()(torch.zeros(3, *shape))
        assert scores.shape == (3, 7)
        assert bool(torch.isfinite(scores).all())
    with torch.random.fork_rng(devices=[]):  # without a shape: the network's usual one
        torch.manual_seed(0)
        assert size(build_network(name)) == size(build_network(name, shapes[0]))


def test_images_are_flattened_for_a_fully_connected_network_and_its_names_stay():
    flat, image = build_network("lenet-300-100", (64,)), build_network("lenet-300-100", (1, 8, 8))
    assert list(flat.state_dict()) == list(image.state_dict())
    image.load_state_dict(flat.state_dict())
    samples = torch.from_numpy(load_data("digits").test_inputs[:3])
    with torch.no_grad():
        assert torch.equal(flat(samples), image(samples.reshape(3, 1, 8, 8)))


def test_the_transformer_cuts_its_image_into_patches_by_row_and_knows_where_they_were():
    network = build_network("vit-digits").eval()
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    seen = []
    network.embed.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        there = network(image)
        moved = network(image.roll(2, dims=3))
    assert seen[0].shape == (1, 16, 4)
    assert seen[0][0, 1].tolist() == [2, 3, 10, 11]
    assert seen[0][0, 4].tolist() == [16, 17, 24, 25]
    assert not torch.allclose(there, moved)
    nn.init.zeros_(network.position)
    with torch.no_grad():  # without positions the tokens are a set
        assert torch.allclose(network(image), network(image.roll(2, dims=3)), atol=1e-5)


def test_all_projections_of_the_transformer_but_the_first_can_keep_2_of_4():
    network = build_network("vit-digits")
    layers = {name: part for name, part in network.named_modules() if isinstance(part, nn.Linear)}
    assert len(layers) == 1 + 3 * 6 + 1
    assert all(part.in_features % 4 == 0 for part in layers.values())


def test_the_lstm_reads_images_by_row():
    network = build_network("lstm-64", (1, 8, 8)).eval()
    samples = load_data("digits-rows").test_inputs[:3]
    with torch.no_grad():
        rows, image = network(torch.from_numpy(samples)), network(torch.from_numpy(samples[:, None]))
    assert torch.equal(rows, image)


@pytest.mark.parametrize(
    ("name", "shape", "rule"),
    [
        ("resnet-20", (64,), "network resnet-20 needs images (channels, height, width), not samples of (64,)"),
        ("convnet-1d", (1, 8, 8),
         "network convnet-1d needs sequences (steps,) or (steps, features), not samples of (1, 8, 8)"),
        ("vit-digits", (1, 7, 8), "network vit-digits needs sides that its patches of 2 x 2 tile, not (1, 7, 8)"),
        ("lstm-64", (1, 2, 3, 4),
         "network lstm-64 needs samples (steps,), (steps, features) or (channels, h, w), not (1, 2, 3, 4)"),
        ("sparse-convnet", (64, 4), "network sparse-convnet needs clouds (points, 3), not samples of (64, 4)"),
        ("convnet-1d", (2, 8), "network convnet-1d needs sequences of 3 steps at least, not samples of (2, 8)"),
        ("resnet-20", (3, 0, 32), "network resnet-20 needs samples without an empty side, not (3, 0, 32)"),
        ("lenet-300-100", (), "network lenet-300-100 needs samples without an empty side, not ()"),
        ("lenet", None, f"unknown network 'lenet'; known: {', '.join(NETWORKS)}"),
    ],
)  # fmt: skip
def test_a_network_says_what_samples_it_needs(name, shape, rule):
    with pytest.raises(InputError) as error:
        build_network(name, shape)
    assert str(error.value) == rule


def test_a_network_tells_one_class_at_least():
    assert build_network("mlp-100-100", (40,), 1)(torch.zeros(2, 40)).shape == (2, 1)
    with pytest.raises(InputError, match=r"^classes must be a whole number of at least 1, not 0$"):
        build_network("mlp-100-100", (40,), 0)


def fit(name, data, epochs, rate):
    """The accuracy of a short training by Adam, by the plain loop of torch."""
    samples = load_data(data)
    inputs, labels = torch.from_numpy(samples.train_inputs), torch.from_numpy(samples.train_labels)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build_network(name, samples.shape, samples.classes)
            optimizer = torch.optim.Adam(network.parameters(), lr=rate)
            for _ in range(epochs):
                for batch in torch.randperm(len(inputs)).split(64):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
                    optimizer.step()
        with torch.no_grad():
            found = network.eval()(torch.from_numpy(samples.test_inputs)).argmax(dim=1).numpy()
    finally:
        torch.set_num_threads(threads)
    return np.mean(found == samples.test_labels)


@pytest.mark.parametrize(
    ("name", "data", "epochs", "rate", "least"),
    [
        ("convnet-digits", "digits-images", 4, 3e-3, 0.9),
        ("vit-digits", "digits-images", 6, 3e-3, 0.7),
        ("lstm-64", "digits-rows", 12, 1e-2, 0.85),
        ("convnet-1d", "mnist1d", 10, 5e-3, 0.55),
    ],
)
def test_networks_learn_in_seconds(name, data, epochs, rate, least):
    assert fit(name, data, epochs, rate) > least
