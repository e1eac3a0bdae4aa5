"""Products of activations, seen where torch computes them, against what the network itself got."""

import numpy as np
import pytest
import torch
from torch import nn

from gossamer.__main__ import main
from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.simulator.check import check
from gossamer.workloads import load_trace, save_trace
from gossamer.workloads.errors import InputError
from gossamer.workloads.lowering import join, lower
from gossamer.workloads.networks import build_network
from gossamer.workloads.trace import Trace
from gossamer.workloads.training import Recipe, train
from gossamer.workloads.training.capture import capture, capture_all
from gossamer.workloads.training.export import trace_of

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def output(layer):
    """What the layer computes, (vectors, out)."""
    return join(layer, [product.vectors @ product.weight.T for product in lower(layer)])


def products(network, samples):
    return [layer for layer in capture(network, samples, products=True) if layer.op == "matmul"]


class Net(nn.Module):
    """A linear layer, then ``form``, which keeps in ``seen`` what its products come to."""

    def __init__(self, form):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.form, self.seen = form, []

    def forward(self, x):
        self.seen.clear()
        return self.form(self.first(x), self.seen)


def at(x, seen):
    q, k = x.unflatten(2, (2, 4)).transpose(1, 2), x.roll(1, 1).unflatten(2, (2, 4)).transpose(1, 2)
    seen.append(q @ k.mT)
    return seen[0]


def by_bmm(x, seen):
    seen.append(torch.bmm(x, x.roll(1, 2).mT))
    return seen[0]


def by_baddbmm(x, seen):
    product = torch.baddbmm(torch.ones(5, 5), x, x.mT)
    seen.append(product - 1)
    return product


def by_einsum(x, seen):
    seen.append(torch.einsum("bqd,bkd->bqk", x, x.roll(1, 1)))
    return seen[0]


def by_broadcasting(x, seen):
    seen.append(x[:, None] @ x[0].mT[None, None].expand(1, 2, 8, 5))
    return seen[0]


def of_matrices(x, seen):
    seen.append(x[0] @ x[1].mT)
    return seen[0]


def of_matrix_and_vector(x, seen):
    seen.append(x[0] @ x[1, 2])
    return seen[0]


def of_vectors(x, seen):
    seen.append((x[0, 0] @ x[1, 2])[None])
    return seen[0]


def through_a_buffer(x, seen):
    keys = torch.zeros(3, 5, 8)
    keys[:] = x  # what is written into a constant makes it an activation
    seen.append(x[0] @ keys[1].mT)
    return seen[0]


FORMS = [at, by_bmm, by_baddbmm, by_einsum, by_broadcasting, of_matrices, of_matrix_and_vector, of_vectors]


@pytest.mark.parametrize("form", [*FORMS, through_a_buffer], ids=lambda form: form.__name__)
def test_a_product_is_seen_however_it_is_written(form):
    network = Net(form)
    (layer,) = products(network, drawn(3, 5, 8))
    assert layer.name == "matmul1" and layer.pattern.kind == "dense"
    expected = network.seen[0].detach().numpy()
    assert output(layer).size == expected.size
    np.testing.assert_allclose(output(layer).reshape(expected.shape), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"attn_mask": torch.ones(5, 5).tril().bool()}])
def test_both_products_of_scaled_dot_product_attention_are_seen(options):
    def attend(x, seen):
        heads = x.unflatten(2, (2, 4)).transpose(1, 2)
        seen.append(nn.functional.scaled_dot_product_attention(heads, heads.roll(1, 2), heads, **options))
        return seen[0]

    network = Net(attend)
    scores, context = products(network, drawn(3, 5, 8))
    assert [layer.name for layer in (scores, context)] == ["matmul1", "matmul2"]
    assert [layer.attributes["samples"] for layer in (scores, context)] == [3, 3]
    expected = network.seen[0].detach().numpy()
    np.testing.assert_allclose(output(context).reshape(expected.shape), expected, rtol=1e-5, atol=1e-5)
    shares = torch.from_numpy(output(scores).reshape(6, 5, 5).copy())
    if options:
        shares = shares.masked_fill(~torch.ones(5, 5).tril().bool(), -torch.inf)
    np.testing.assert_allclose(shares.softmax(2).numpy(), context.inputs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_products_of_multihead_attention_lie_between_its_projections_and_its_last_matrix(batch_first, need_weights):
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(8, 2, batch_first=batch_first)

        def forward(self, x):
            return self.inner(x, x, x, need_weights=need_weights, average_attn_weights=False)

    samples = drawn(4, 5, 8) if batch_first else drawn(5, 4, 8)
    found = capture_all(Attend(), samples, products=True)
    names = [layer.name.removeprefix("inner.") for layer in found.layers]
    assert names == ["q_proj", "k_proj", "v_proj", "matmul1", "matmul2", "out_proj"]
    assert found.not_simulated == {} and all(layer.samples == 4 for layer in found.layers)
    context, last = found.layers[4:]
    mixed = output(context).reshape(4, 2, 5, 4).transpose(0, 2, 1, 3).reshape(4, 5, 8)
    np.testing.assert_allclose(last.inputs, mixed, rtol=1e-5, atol=1e-5)
    if need_weights:
        np.testing.assert_allclose(context.inputs.reshape(4, 2, 5, 5), found.outputs[1].numpy(), rtol=1e-5)


class Weighted(nn.Module):
    """Weights in every form but an activation's."""

    def __init__(self):
        super().__init__()
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.recurrent = nn.LSTM(8, 8, batch_first=True)
        self.own = nn.Parameter(drawn(8, 8))
        self.experts = nn.Parameter(drawn(3, 8, 8))
        self.register_buffer("fixed", drawn(8, 8))

    def forward(self, x):
        x = self.recurrent(self.normed(x))[0]
        x = nn.functional.linear(x, self.own) @ self.fixed @ (self.own / self.own.norm())
        return torch.bmm(x, self.experts)


def test_a_weight_is_no_activation_even_if_it_is_computed():
    assert products(Weighted(), drawn(3, 5, 8)) == []


def test_queries_that_are_learned_meet_activations():
    class Latent(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.latent = nn.Parameter(drawn(2, 8))

        def forward(self, x):
            queries = self.first(self.latent)[None].expand(len(x), 2, 8)
            return queries @ self.first(x).mT

    (layer,) = products(Latent(), drawn(3, 5, 8))
    assert (layer.shape, layer.inputs.shape, layer.samples) == ((3, 5, 8), (3, 2, 8), 3)


def test_a_module_that_is_used_twice_is_one_layer_of_twice_the_products():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net(by_bmm)

        def forward(self, x):
            return self.net(x).sum() + self.net(2 * x).sum()

    found = capture_all(Twice(), drawn(3, 5, 8), products=True)
    layer = found.layers[1]
    assert (layer.name, layer.shape, layer.samples) == ("net.matmul1", (6, 5, 8), 6)
    assert found.uses == {"net.first": 2, "net.matmul1": 2}


def test_products_are_left_out_unless_they_are_asked_for():
    network, samples = build_network("vit-digits"), drawn(2, 1, 8, 8)
    plain, full = capture_all(network, samples), capture_all(network, samples, products=True)
    assert {layer.op for layer in plain.layers} == {"linear"}
    kept = [layer for layer in full.layers if layer.op != "matmul"]
    assert [layer.name for layer in kept] == [layer.name for layer in plain.layers]
    assert len(full.layers) == len(plain.layers) + 6
    torch.testing.assert_close(full.outputs, plain.outputs)
    assert full.not_simulated == plain.not_simulated
    assert not network._forward_hooks and not network._forward_pre_hooks


def test_machines_run_captured_products_and_eie_says_that_it_does_not(tmp_path):
    layers = capture(build_network("vit-digits"), drawn(2, 1, 8, 8), products=True)[:7]
    trace = load_trace(save_trace(Trace(name="vit", layers=tuple(layers)), tmp_path / "vit.safetensors"))
    for name in ("a100-sparse", "dstc-a100", "systolic-8x8", "sparseloop-stc"):
        checks = check(load_machine(name), trace)
        assert len(checks) == 7 and all(found.passed for found in checks), name
    with pytest.raises(InputError) as error:
        simulate(load_machine("eie-64pe"), trace)
    assert str(error.value) == (
        "layer encoders.0.attention.matmul1: eie-64pe runs linear, conv2d, not matmul; choose other layers with "
        "--layer, or another machine"
    )
    assert len(simulate(load_machine("eie-64pe"), trace, layers="*.q").layers) == 1


def test_eie_runs_the_bundled_vision_transformer():
    trace = load_trace("vit-digits-srste-2-4")
    assert len(simulate(load_machine("eie-64pe"), trace).layers) == len(trace.layers)


def test_a_run_exports_its_products_and_counts_the_sparsity_of_weights_alone():
    run = train(
        Recipe(
            name="vit", network="vit-digits", data="digits-images", method="asp", n=2, m=4, samples=2,
            epochs=1, finetune_epochs=1,
        )
    )  # fmt: skip
    plain, full = run.trace, trace_of(run, products=True)
    assert sum(layer.op == "matmul" for layer in full.layers) == 6
    for name in ("sparsity", "sparsity_by_layer", "predictions"):
        assert full.provenance[name] == plain.provenance[name]
    assert full.sparsity == plain.sparsity


def test_the_command_line_exports_products_of_a_run_alone(tmp_path, capsys):
    run = train(
        Recipe(
            name="vit", network="vit-digits", data="digits-images", method="asp", n=2, m=4, samples=1,
            epochs=1, finetune_epochs=1,
        ),
        out=tmp_path,
    )  # fmt: skip
    checkpoint, out = str(run.files["checkpoint"]), str(tmp_path / "out.safetensors")
    capsys.readouterr()
    assert main(["export", checkpoint, "--products", "--out", out]) == 0
    assert ", 26 layers, " in capsys.readouterr().out
    assert sum(layer.op == "matmul" for layer in load_trace(out).layers) == 6
    np.savez(tmp_path / "bare.npz", fc=np.ones((2, 2), np.float32))
    bare = str(tmp_path / "bare.npz")
    assert main(["export", bare, "--products", "--act-density", "1", "--out", out]) == 2
    assert capsys.readouterr().err == (
        f"gossamer: error: {bare}: --products needs the checkpoint of a training run, not weights; leave it out\n"
    )
