"""Token pruning as in SpAtten: tokens and heads that attention finds unimportant are gone from there on.

Attention probabilities are summed over heads and queries, block after block, to the importance of each token; after
each block the most important ones are kept, and all layers that follow see only these (cascade token pruning). Heads
are ranked by the magnitudes that they put out (cascade head pruning). In each row of probabilities, the smallest may
be left out together with their values (local value pruning). Source: Wang, Zhang, Han, "SpAtten", HPCA 2021
(arXiv 2012.09852), as its abstract and reviews of it tell.

A trace carries no norms and no positions, so that blocks after the first prune cannot be executed again from it: what
a kept token was worth in the whole network stands for what it is worth now, while everything inside an attention, the
softmax over the kept tokens included, is formed anew. `network.pruned_run` executes a network of the trainer instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..trace import Layer, Trace
from .layers import changed, output_of, renamed, share, take
from .top_k import k_of, top_k

SUM_ERROR = 1e-3  # how far from 1 the sum of a row of probabilities may lie
VALUE_ERROR = 1e-3  # how far, of the largest, a recorded value may lie from what its layer puts out


@dataclass(frozen=True)
class Attention:
    """An attention of a trace, by the names of its layers: Q K^T, probabilities times V, and what takes their result.

    ``projections``: the linear layers that put out Q, K and V, where they are found.
    """

    scores: str
    mix: str
    out: str
    projections: tuple[str, ...]
    heads: int
    tokens: int


@dataclass(frozen=True, eq=False)
class Pruned:
    """A trace after token pruning: ``tokens`` and ``heads`` kept after each attention, indices into the first ones.

    ``tokens[i]`` is (samples, kept), ``heads[i]`` (kept,); all ascending.
    """

    trace: Trace
    tokens: tuple[np.ndarray, ...]
    heads: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Shares:
    """What is kept: ``tokens`` and ``heads`` after each attention, of those before it; ``values`` of each row."""

    tokens: tuple[float, ...]
    heads: tuple[float, ...]
    values: float

    @classmethod
    def of(cls, blocks: int, tokens: Sequence[float], heads: Sequence[float], values: float) -> Shares:
        """Return the shares for ``blocks`` attentions: one number serves them all. Raises InputError."""
        return cls(_each("--keep", tokens, blocks), _each("--heads", heads, blocks), share("--values", values))


def prune_tokens(
    trace: Trace, keep: Sequence[float], *, heads: Sequence[float] = (1.0,), values: float = 1.0
) -> Pruned:
    """Return ``trace`` without the tokens and heads that its own attention finds unimportant, and which are left.

    ``keep`` and ``heads``: shares kept after each attention, of those before it, one for all or one each. ``values``:
    share of the probabilities of a row whose values are read. Heads are chosen for all samples together, as one weight
    serves them all. Raises InputError, naming the trace, where it carries no attention, or one of another kind.
    """
    attentions = find_attentions(trace)
    shares = Shares.of(len(attentions), keep, heads, values)
    if min(shares.heads) < 1:
        _need_projections(trace, attentions)
    cascade = _Cascade(trace, attentions, shares)
    layers = [cascade.layer(layer) for layer in trace.layers]
    same = min(*shares.tokens, *shares.heads, shares.values) == 1
    about = note(shares, cascade.tokens, cascade.heads, "recorded")
    return Pruned(
        renamed(trace, "tokens", layers, about, same_values=same), tuple(cascade.tokens), tuple(cascade.heads)
    )


def note(shares: Shares, tokens: Sequence[np.ndarray], heads: Sequence[np.ndarray], source: str) -> dict[str, object]:
    """Return what provenance says of a pruning; ``source``: where the values of kept tokens come from."""
    return {
        "transform": "tokens",
        "keep": list(shares.tokens),
        "heads": list(shares.heads),
        "values": shares.values,
        "tokens_kept": [kept.shape[1] for kept in tokens],
        "heads_kept": [len(kept) for kept in heads],
        "token_values": source,
    }


def find_attentions(trace: Trace) -> list[Attention]:
    """Return the attentions of ``trace`` in order. Raises InputError where there is none, or one of another kind."""
    found: list[Attention] = []
    layers = list(trace.layers)
    start = 0
    places = [i for i, layer in enumerate(layers) if layer.op == "matmul"]
    for first, second in zip(places[::2], places[1::2], strict=False):
        scores, mix = layers[first], layers[second]
        _check_pair(trace, scores, mix)
        out = _taker(layers[second + 1 :], mix)
        if out is None:
            raise InputError(
                f"{trace.name}: a linear layer after {mix.name} must take what its heads put out, joined, and none "
                "does; export the network with --products"
            )
        end = layers.index(out)
        projections = _projections(layers[start:first], scores, mix)
        found.append(
            Attention(
                scores=scores.name,
                mix=mix.name,
                out=out.name,
                projections=projections,
                heads=len(mix.inputs) // mix.samples,
                tokens=mix.inputs.shape[1],
            )
        )
        start = end
    if not found or len(places) % 2:
        raise InputError(
            f"{trace.name}: token pruning needs attentions, two products of activations each, and the trace has "
            f"{len(places)} products; export the network with --products"
        )
    if len({attention.tokens for attention in found}) > 1:
        met = ", ".join(str(attention.tokens) for attention in found)
        raise InputError(f"{trace.name}: all attentions must be over the same tokens, not {met} of them")
    return found


class _Cascade:
    """Go through the layers of a trace once, from the first to the last, with the tokens and heads that are left."""

    def __init__(self, trace: Trace, attentions: list[Attention], shares: Shares) -> None:
        first = attentions[0]
        self.samples = next(layer.samples for layer in trace.layers if layer.name == first.mix)
        self.shares, self.count = shares, first.tokens
        self.scores = {attention.scores: attention for attention in attentions}
        self.mixes = {attention.mix: attention for attention in attentions}
        self.outs = {attention.out: attention for attention in attentions}
        self.projections = {name: each for each in attentions for name in each.projections}
        self.left = np.tile(np.arange(first.tokens), (self.samples, 1))  # (samples, tokens left)
        self.heads_left = np.arange(first.heads)
        self.importance = np.zeros((self.samples, first.tokens))
        self.head_importance = np.zeros(first.heads)
        self.mixed: np.ndarray = np.zeros(0, np.float32)
        self.tokens: list[np.ndarray] = []
        self.heads: list[np.ndarray] = []

    def layer(self, layer: Layer) -> Layer:
        """Return ``layer`` for the tokens and heads that are left when its turn comes."""
        if layer.name in self.scores:
            q, k = (self._tokens_of(self._by_head(array)) for array in (layer.inputs, layer.weight))
            return changed(layer, inputs=_joined(q), weight=_joined(k))
        if layer.name in self.mixes:
            return self._mix(layer)
        if layer.name in self.outs:
            attention = self.outs[layer.name]
            size = layer.shape[1] // attention.heads
            columns = (self.heads_before[:, None] * size + np.arange(size)).ravel()
            layer = layer if len(self.heads_before) == attention.heads else take(layer, inputs=columns)
            return changed(layer, inputs=self.mixed)
        if layer.name in self.projections:
            attention = self.projections[layer.name]
            if len(self.heads_left) < attention.heads:
                size = layer.shape[0] // attention.heads
                layer = take(layer, outputs=(self.heads_left[:, None] * size + np.arange(size)).ravel())
        if layer.op == "linear" and layer.inputs.shape[:-1] == (self.samples, self.count):
            rows = np.take_along_axis(layer.inputs, self.left[:, :, None], axis=1)
            return layer if rows.shape == layer.inputs.shape else changed(layer, inputs=rows)
        return layer

    def _mix(self, layer: Layer) -> Layer:
        """Return probabilities times V over the tokens that are left, and prune by the probabilities."""
        place = len(self.tokens)
        rows = self._tokens_of(self._by_head(layer.inputs))  # (samples, heads, queries, all keys)
        probabilities = np.take_along_axis(rows, self.left[:, None, None, :], axis=3)
        if probabilities.shape[-1] < self.count:
            total = probabilities.sum(axis=-1, keepdims=True)
            probabilities = np.divide(probabilities, total, out=np.zeros_like(probabilities), where=total > 0)
        value = self._tokens_of(self._by_head(layer.weight.transpose(0, 2, 1)))
        np.add.at(
            self.importance, (np.arange(self.samples)[:, None], self.left), probabilities.sum((1, 2), dtype=np.float64)
        )
        read = local_values(probabilities, self.shares.values)
        mixed = read @ value  # (samples, heads, queries, size)
        self.head_importance[self.heads_left] += np.abs(mixed).sum((0, 2, 3), dtype=np.float64)
        count = k_of(self.shares.tokens[place], self.left.shape[1])
        chosen = top_k(np.take_along_axis(self.importance, self.left, axis=1), count)
        self.left = np.take_along_axis(self.left, chosen, axis=1)
        self.tokens.append(self.left)
        mixed = np.take_along_axis(mixed, chosen[:, None, :, None], axis=2)
        self.mixed = np.ascontiguousarray(mixed.transpose(0, 2, 1, 3)).reshape(self.samples, count, -1)
        self.heads_before = self.heads_left
        ranked = top_k(self.head_importance[self.heads_left], k_of(self.shares.heads[place], len(self.heads_left)))
        self.heads_left = self.heads_left[ranked]
        self.heads.append(self.heads_left)
        return changed(layer, inputs=_joined(read), weight=_joined(value.transpose(0, 1, 3, 2)))

    def _by_head(self, array: np.ndarray) -> np.ndarray:
        """Return (products, rows, ...) as (samples, heads left, rows, ...)."""
        split: np.ndarray = array.reshape(self.samples, -1, *array.shape[1:])[:, self.heads_left]
        return split

    def _tokens_of(self, array: np.ndarray) -> np.ndarray:
        """Return (samples, heads, tokens, ...) with the rows of the tokens that are left."""
        return np.take_along_axis(array, self.left[:, None, :, None], axis=2)


def local_values(probabilities: np.ndarray, values: float) -> np.ndarray:
    """Return ``probabilities`` with 0 for all but the largest of each row, a share of ``values`` of them."""
    count = k_of(values, probabilities.shape[-1])
    if count == probabilities.shape[-1]:
        return probabilities
    read = np.zeros_like(probabilities)
    chosen = top_k(probabilities, count)
    np.put_along_axis(read, chosen, np.take_along_axis(probabilities, chosen, axis=-1), axis=-1)
    return read


def _joined(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1, *array.shape[2:])


def _check_pair(trace: Trace, scores: Layer, mix: Layer) -> None:
    """Raise InputError unless ``scores`` and ``mix`` are Q K^T and P V of attention of tokens to one another."""
    count, rows, keys = mix.inputs.shape
    if (count, rows, keys) != (*scores.inputs.shape[:2], scores.shape[1]) or mix.samples != scores.samples:
        raise InputError(
            f"{trace.name}: {scores.name} and {mix.name} must be Q K^T and the product of its softmax with V, and "
            f"{scores.inputs.shape} x {scores.shape} is not followed by {mix.inputs.shape}"
        )
    if rows != keys:
        raise InputError(f"{trace.name}: {mix.name} must be attention among the same tokens, not {rows} to {keys}")
    sums = mix.inputs.sum(axis=-1)
    if mix.inputs.min() < 0 or np.abs(sums - 1).max() > SUM_ERROR:
        worst = float(sums.flat[int(np.abs(sums - 1).argmax())])
        raise InputError(
            f"{trace.name}: the inputs of {mix.name} must be probabilities, rows that add up to 1, and one adds up to "
            f"{worst:g}"
        )


def _taker(after: list[Layer], mix: Layer) -> Layer | None:
    """Return the first linear layer of ``after`` that was fed with what the heads of ``mix`` put out."""
    mixed = output_of(mix).reshape(mix.samples, -1, mix.inputs.shape[1], mix.shape[1])
    joined = mixed.transpose(0, 2, 1, 3).reshape(mix.samples, mix.inputs.shape[1], -1)
    return next((layer for layer in after if layer.op == "linear" and _alike(layer.inputs, joined)), None)


def _projections(before: list[Layer], scores: Layer, mix: Layer) -> tuple[str, ...]:
    """Return the names of the linear layers of ``before`` that put out Q, K and V, or none where one is not found."""
    wanted = [
        (scores.inputs, (1.0, scores.shape[2] ** -0.5)),
        (scores.weight, (1.0, scores.shape[2] ** -0.5)),
        (mix.weight.transpose(0, 2, 1), (1.0,)),
    ]
    linear = [layer for layer in before if layer.op == "linear" and layer.inputs.ndim == 3]
    names = []
    for recorded, scales in wanted:
        heads = len(recorded) // scores.samples
        split = recorded.reshape(scores.samples, heads, *recorded.shape[1:]).transpose(0, 2, 1, 3)
        joined = split.reshape(*split.shape[:2], -1)
        for layer in linear:
            if joined.shape != (*layer.inputs.shape[:-1], layer.shape[0]):
                continue
            put_out = output_of(layer).reshape(joined.shape)
            if any(_alike(joined, put_out * scale) for scale in scales):
                names.append(layer.name)
                break
    return tuple(names) if len(names) == len(wanted) else ()


def _need_projections(trace: Trace, attentions: list[Attention]) -> None:
    for attention in attentions:
        if not attention.projections:
            raise InputError(
                f"{trace.name}: to prune heads, linear layers must put out Q, K and V of {attention.scores}, and not "
                "all are found; leave out --heads"
            )


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(
        np.abs(one - other).max(initial=0.0) <= VALUE_ERROR * max(np.abs(other).max(initial=0.0), 1e-30)
    )


def _each(what: str, given: Sequence[float], blocks: int) -> tuple[float, ...]:
    if len(given) not in (1, blocks):
        raise InputError(f"{what} must be one share, or one for each of the {blocks} attentions, not {len(given)}")
    shares = tuple(float(share(what, value)) for value in given)
    return shares * blocks if len(shares) == 1 else shares
