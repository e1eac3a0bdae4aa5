import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.workloads import load_trace, save_trace
from gossamer.workloads.dynamic.layers import output_of
from gossamer.workloads.dynamic.tokens import find_attentions, local_values, prune_tokens
from gossamer.workloads.dynamic.top_k import top_k
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.trace import Layer, Trace

from ..refusals import message

WIDTH, HEADS = 8, 2


def softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def linear(name, weight, inputs, bias=None, **more):
    bias = None if bias is None else bias.astype(np.float32)
    return Layer(
        name=name, op="linear", weight=weight.astype(np.float32), inputs=inputs.astype(np.float32), bias=bias, **more
    )


def by_head(values):
    """Return (samples, tokens, width) as (samples x heads, tokens, width / heads)."""
    samples, tokens, _ = values.shape
    return values.reshape(samples, tokens, HEADS, -1).transpose(0, 2, 1, 3).reshape(samples * HEADS, tokens, -1)


def joined(values, samples):
    return values.reshape(samples, HEADS, values.shape[1], -1).transpose(0, 2, 1, 3).reshape(samples, -1, WIDTH)


def transformer(seed=0, samples=2, tokens=6, blocks=3):
    """Return a trace of attentions and linear layers without norms, and the network as a function of its tokens."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, tokens, WIDTH))
    layers = [linear("embed", rng.normal(size=(WIDTH, 3)), rng.normal(size=(samples, tokens, 3)))]
    for i in range(blocks):
        weights = {name: rng.normal(size=(WIDTH, WIDTH)) / 2 for name in ("q", "k", "v", "out")}
        bias = rng.normal(size=WIDTH)
        q, k, v = (by_head(x @ weights[name].T + bias) for name in ("q", "k", "v"))
        probabilities = softmax(q @ k.transpose(0, 2, 1) / 2)
        mixed = joined(probabilities @ v, samples)
        up = rng.normal(size=(12, WIDTH))
        more = {"attributes": {"samples": samples}, "op": "matmul"}
        layers += [linear(f"{i}.{name}", weights[name], x, bias) for name in ("q", "k", "v")]
        layers.append(Layer(name=f"{i}.qk", inputs=q.astype("f4"), weight=k.astype("f4"), **more))
        layers.append(
            Layer(name=f"{i}.pv", inputs=probabilities.astype("f4"), weight=v.transpose(0, 2, 1).astype("f4"), **more)
        )
        layers.append(linear(f"{i}.out", weights["out"], mixed))
        x = np.tanh(x + mixed @ weights["out"].T)
        layers.append(linear(f"{i}.up", up, x))
    layers.append(linear("fc", rng.normal(size=(4, WIDTH)), x.mean(axis=1)))
    return Trace(name="vit", layers=layers, provenance={"accuracy": 0.9})


def named(trace, name):
    return next(layer for layer in trace.layers if layer.name == name)


def test_the_attentions_are_found_by_what_flows_through_them():
    found = find_attentions(transformer())
    assert [(a.scores, a.mix, a.out, a.projections) for a in found] == [
        (f"{i}.qk", f"{i}.pv", f"{i}.out", (f"{i}.q", f"{i}.k", f"{i}.v")) for i in range(3)
    ]
    assert {(a.heads, a.tokens) for a in found} == {(2, 6)}


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), samples=st.integers(1, 3), tokens=st.integers(1, 7))
def test_keeping_everything_changes_nothing(seed, samples, tokens):
    trace = transformer(seed, samples, tokens)
    pruned = prune_tokens(trace, [1.0])
    for layer, other in zip(trace.layers, pruned.trace.layers, strict=True):
        assert layer.name == other.name
        np.testing.assert_allclose(other.inputs, layer.inputs, rtol=1e-4, atol=1e-5)
        assert np.array_equal(other.weight, layer.weight)
    assert pruned.trace.provenance["accuracy"] == 0.9


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), tokens=st.integers(2, 8), keep=st.sampled_from([0.3, 0.5, 0.8]))
def test_tokens_that_are_gone_never_come_back_and_the_rest_keep_their_order(seed, tokens, keep):
    pruned = prune_tokens(transformer(seed, tokens=tokens), [keep])
    before = np.tile(np.arange(tokens), (2, 1))
    for kept in pruned.tokens:
        assert kept.shape[1] == max(1, int(keep * before.shape[1] + 1e-9))
        for row, earlier in zip(kept, before, strict=True):
            assert set(row) <= set(earlier) and (np.diff(row) > 0).all()
        before = kept


def test_the_tokens_kept_are_those_that_most_attention_went_to_so_far():
    trace = transformer(3)
    pruned = prune_tokens(trace, [1.0, 0.5, 1.0])
    seen = sum(named(trace, f"{i}.pv").inputs.reshape(2, HEADS, 6, 6).sum(axis=(1, 2)) for i in (0, 1))
    assert np.array_equal(pruned.tokens[1], top_k(seen, 3))
    assert np.array_equal(pruned.tokens[0], np.tile(np.arange(6), (2, 1)))
    assert np.array_equal(pruned.tokens[2], pruned.tokens[1])


def test_every_later_layer_sees_the_same_tokens():
    trace = transformer(4)
    pruned = prune_tokens(trace, [0.5, 0.7, 1.0])
    rows = {"0.q": 6, "0.pv": 6, "0.out": 3, "0.up": 3, "1.q": 3, "1.qk": 3, "1.pv": 3, "1.out": 2, "2.q": 2, "2.up": 2}
    assert {name: named(pruned.trace, name).inputs.shape[1] for name in rows} == rows
    kept = pruned.tokens[0]
    expected = np.take_along_axis(named(trace, "1.q").inputs, kept[:, :, None], axis=1)
    assert np.array_equal(named(pruned.trace, "1.q").inputs, expected)
    assert np.array_equal(named(pruned.trace, "fc").inputs, named(trace, "fc").inputs)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), keep=st.sampled_from([0.4, 0.7]), heads=st.sampled_from([0.5, 1.0]))
def test_inside_an_attention_all_values_follow_from_those_before(seed, keep, heads):
    pruned = prune_tokens(transformer(seed), [keep], heads=[heads])
    for i in range(3):
        q, k, v, qk, pv, out = (named(pruned.trace, f"{i}.{name}") for name in ("q", "k", "v", "qk", "pv", "out"))
        count = len(qk.inputs) // 2
        for projection, operand in ((q, qk.inputs), (k, qk.weight), (v, pv.weight.transpose(0, 2, 1))):
            made = output_of(projection).reshape(2, -1, count, operand.shape[2]).transpose(0, 2, 1, 3)
            np.testing.assert_allclose(made.reshape(operand.shape), operand, rtol=1e-4, atol=1e-4)
        scores = output_of(qk).reshape(len(qk.inputs), -1, qk.shape[1])
        np.testing.assert_allclose(pv.inputs, softmax(scores / 2), rtol=1e-3, atol=1e-5)
        mixed = (
            output_of(pv).reshape(2, count, -1, pv.shape[1]).transpose(0, 2, 1, 3).reshape(2, pv.inputs.shape[1], -1)
        )
        before = np.tile(np.arange(6), (2, 1)) if i == 0 else pruned.tokens[i - 1]
        places = np.array([np.searchsorted(row, kept) for row, kept in zip(before, pruned.tokens[i], strict=True)])
        np.testing.assert_allclose(
            out.inputs, np.take_along_axis(mixed, places[:, :, None], axis=1), rtol=1e-4, atol=1e-5
        )


def test_the_heads_kept_are_those_that_put_out_most():
    trace = transformer(5)
    pruned = prune_tokens(trace, [1.0], heads=[0.5, 1.0, 1.0])
    put_out = np.abs(output_of(named(trace, "0.pv"))).reshape(2, HEADS, -1).sum(axis=(0, 2))
    assert pruned.heads[0].tolist() == [int(put_out.argmax())]
    head = int(put_out.argmax())
    assert named(pruned.trace, "0.q").shape == (8, 8) and named(pruned.trace, "1.q").shape == (4, 8)
    assert np.array_equal(named(pruned.trace, "1.q").weight, named(trace, "1.q").weight[4 * head : 4 * head + 4])
    assert named(pruned.trace, "1.out").shape == (8, 4)
    assert np.array_equal(named(pruned.trace, "1.out").weight, named(trace, "1.out").weight[:, 4 * head : 4 * head + 4])


def test_local_values_are_the_largest_of_each_row_and_the_others_zero():
    rows = np.array([[0.1, 0.4, 0.3, 0.2], [0.25, 0.25, 0.25, 0.25]], np.float32)
    assert local_values(rows, 0.5).tolist() == np.array([[0, 0.4, 0.3, 0], [0.25, 0.25, 0, 0]], np.float32).tolist()
    pruned = prune_tokens(transformer(), [1.0], values=0.5)
    assert (np.count_nonzero(named(pruned.trace, "0.pv").inputs, axis=-1) == 3).all()


def test_masks_codes_and_patterns_survive_the_loss_of_heads():
    trace = transformer(6)
    codes = np.tile(np.array([[1, 0, 2, 0]], np.uint8), (8, 2))
    book = np.array([0, 0.5, -1], np.float32)
    layers = list(trace.layers)
    place = layers.index(named(trace, "1.up"))
    out = layers.index(named(trace, "1.out"))
    halved = layers[out].weight * np.tile([1, 0], 4).astype(np.float32)
    layers[out] = linear(
        "1.out", halved, layers[out].inputs, mask=halved != 0, pattern=Pattern(kind="n:m", n=1, m=2, axis=1)
    )
    layers[place] = Layer(name="1.up", op="linear", codes=codes, codebook=book, inputs=layers[place].inputs)
    pruned = prune_tokens(Trace(name="vit", layers=layers), [0.5], heads=[0.5]).trace
    assert named(pruned, "1.out").pattern == Pattern(kind="n:m", n=1, m=2, axis=1)
    assert np.array_equal(named(pruned, "1.out").mask, named(pruned, "1.out").weight != 0)
    assert np.array_equal(named(pruned, "1.up").codes, codes)
    assert named(pruned, "1.up").inputs.shape == (2, 1, 8)


def test_fewer_tokens_are_fewer_cycles_on_machines_that_skip_nothing():
    trace = transformer(tokens=32)
    whole, half = (
        simulate(load_machine("systolic-8x8"), each).total for each in (trace, prune_tokens(trace, [0.5]).trace)
    )
    assert half.cycles < whole.cycles and half.macs < whole.macs / 2


def test_the_provenance_says_what_was_done_and_no_stale_accuracy(tmp_path):
    pruned = prune_tokens(transformer(), [0.5], heads=[0.5], values=0.5).trace
    assert pruned.name == "vit-tokens" and "accuracy" not in pruned.provenance
    (done,) = pruned.provenance["dynamic"]
    assert done == {
        "transform": "tokens", "keep": [0.5] * 3, "heads": [0.5] * 3, "values": 0.5, "tokens_kept": [3, 1, 1],
        "heads_kept": [1, 1, 1], "token_values": "recorded",
    }  # fmt: skip
    save_trace(pruned, tmp_path / "pruned.safetensors")
    assert load_trace(tmp_path / "pruned.safetensors").sha256 == pruned.sha256


def test_traces_without_attention_are_refused():
    trace = Trace(name="plain", layers=[linear("fc", np.ones((2, 3)), np.ones((1, 3)))])
    assert message(lambda: prune_tokens(trace, [0.5])) == (
        "plain: token pruning needs attentions, two products of activations each, and the trace has 0 products; export "
        "the network with --products"
    )


def test_shares_out_of_range_are_refused():
    trace = transformer()
    assert message(lambda: prune_tokens(trace, [0.5, 0.5])) == (
        "--keep must be one share, or one for each of the 3 attentions, not 2"
    )
    assert message(lambda: prune_tokens(trace, [0.0])) == "--keep must be above 0 and at most 1, not 0"
    assert message(lambda: prune_tokens(trace, [1.0], heads=[1.5])) == "--heads must be above 0 and at most 1, not 1.5"
    assert message(lambda: prune_tokens(trace, [1.0], values=-1)) == "--values must be above 0 and at most 1, not -1"


def replaced(trace, name, **changes):
    layers = [
        layer if layer.name != name else Layer(
            **({"name": name, "op": layer.op, "inputs": layer.inputs, "weight": layer.weight,
                "attributes": layer.attributes} | changes)
        )
        for layer in trace.layers
    ]  # fmt: skip
    return Trace(name="vit", layers=layers)


def test_products_that_are_no_attention_are_refused():
    trace = transformer()
    doubled = named(trace, "1.pv").inputs * 2
    assert "the inputs of 1.pv must be probabilities, rows that add up to 1, and one adds up to 2" in message(
        lambda: find_attentions(replaced(trace, "1.pv", inputs=doubled))
    )
    other = named(trace, "1.out").inputs + 1
    assert message(lambda: find_attentions(replaced(trace, "1.out", inputs=other))).startswith(
        "vit: a linear layer after 1.pv must take what its heads put out, joined, and none does"
    )
    turned = named(trace, "0.q").weight[::-1].copy()
    assert message(lambda: prune_tokens(replaced(trace, "0.q", weight=turned), [1.0], heads=[0.5])) == (
        "vit: to prune heads, linear layers must put out Q, K and V of 0.qk, and not all are found; leave out --heads"
    )
