"""The trainer's vision transformer under token pruning, executed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from gossamer.workloads.dynamic.network import PrunedTransformer, pruned_run  # noqa: E402
from gossamer.workloads.dynamic.tokens import Shares, prune_tokens  # noqa: E402
from gossamer.workloads.errors import InputError  # noqa: E402
from gossamer.workloads.networks.vit import VisionTransformer  # noqa: E402
from gossamer.workloads.training import load_recipe, train  # noqa: E402


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return VisionTransformer((1, 8, 8), 10, patch=2, width=16, layers=3, heads=4).eval()


@pytest.fixture(scope="module")
def run():
    torch.set_num_threads(1)
    return train(load_recipe("vit-digits-srste-2-4", epochs=1, finetune_epochs=0))


def images(count=3):
    return torch.tensor(np.random.default_rng(0).random((count, 1, 8, 8), dtype=np.float32))


def pruned(network, keep, heads=(1.0,), values=1.0):
    return PrunedTransformer(network, Shares.of(3, keep, heads, values)).eval()


def test_keeping_everything_gives_the_scores_of_the_network(network):
    with torch.no_grad():
        assert torch.allclose(pruned(network, [1.0])(images()), network(images()), atol=1e-6)


def masked_scores(network, image, tokens):
    """Return the scores of one image where, after encoder i, only ``tokens[i]`` are attended to and averaged."""
    p = network.patch
    tiles = image.reshape(1, 1, 8 // p, p, 8 // p, p).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    x = network.embed(tiles) + network.position
    seen = torch.zeros(x.shape[1])
    for encoder, kept in zip(network.encoders, tokens, strict=True):
        attention, normed = encoder.attention, encoder.norm1(x)
        q, k, v = (attention._split(projection(normed)) for projection in (attention.q, attention.k, attention.v))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + seen
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + attention.out(mixed)
        x = x + encoder.down(torch.nn.functional.gelu(encoder.up(encoder.norm2(x))))
        seen = torch.full((x.shape[1],), float("-inf"))
        seen[list(kept)] = 0
    return network.fc(network.norm(x[:, list(tokens[-1])]).mean(dim=1))


def test_dropped_tokens_are_as_if_masked_in_the_whole_network(network):
    module = pruned(network, [0.75, 0.5, 0.75])
    with torch.no_grad():
        scores = module(images())
        tokens = module.cascade.tokens
        assert [kept.shape for kept in tokens] == [(3, 12), (3, 6), (3, 4)]
        for i, image in enumerate(images()):
            wanted = masked_scores(network, image[None], [kept[i] for kept in tokens])
            assert torch.allclose(scores[i], wanted[0], atol=1e-5)


def test_what_a_sample_keeps_does_not_depend_on_its_batch(network):
    module = pruned(network, [0.5])
    with torch.no_grad():
        module(images())
        together = module.cascade.tokens[-1]
        for i, image in enumerate(images()):
            module(image[None])
            assert np.array_equal(module.cascade.tokens[-1][0], together[i])


def test_the_first_attention_decides_alike_whether_executed_or_from_the_trace(run):
    whole = run.traced(products=True)
    executed, recorded = pruned_run(run, [0.5], heads=[0.5]), prune_tokens(whole, [0.5], heads=[0.5])
    assert np.array_equal(executed.tokens[0], recorded.tokens[0])
    assert np.array_equal(executed.heads[0], recorded.heads[0])
    for one, other in zip(executed.trace.layers, recorded.trace.layers, strict=True):
        assert (one.name, one.shape, one.inputs.shape) == (other.name, other.shape, other.inputs.shape)


def test_a_run_that_keeps_everything_gives_its_own_trace_and_accuracy(run):
    kept = pruned_run(run, [1.0]).trace
    for layer, other in zip(run.traced(products=True).layers, kept.layers, strict=True):
        np.testing.assert_allclose(other.inputs, layer.inputs, atol=1e-5)
    assert kept.provenance["accuracy"] == pytest.approx(run.accuracy, abs=0.003)
    assert kept.provenance["unpruned_accuracy"] == run.accuracy


def test_the_accuracy_of_the_pruned_network_is_measured(run):
    pruned = pruned_run(run, [0.25]).trace
    (done,) = pruned.provenance["dynamic"]
    assert done["token_values"] == "executed" and done["tokens_kept"] == [4, 1, 1]
    assert pruned.provenance["accuracy"] == done["accuracy"] < run.accuracy


def test_other_networks_are_refused():
    run = train(load_recipe("lenet-digits-oneshot", epochs=1, finetune_epochs=0))
    with pytest.raises(
        InputError, match=r"^run lenet-digits-oneshot: token pruning executes vision transformers, not "
    ):
        pruned_run(run, [0.5])
