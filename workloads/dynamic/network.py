"""The trainer's vision transformer under token pruning, executed: every value is what the pruned network computes.

The names of modules and parameters are those of the network, so that masks, patterns and layers keep theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ..data import load_data
from ..errors import InputError
from ..networks import build_network
from ..networks.vit import Attention, Encoder, VisionTransformer
from ..trace import Layer, Trace
from ..training.export import trace_of
from .layers import changed, renamed, take
from .tokens import Pruned, Shares, note
from .top_k import k_of

if TYPE_CHECKING:
    from ..training.run import Run

BATCH = 64  # test samples that go through together; what tokens a sample keeps does not depend on it


class Cascade:
    """The tokens and heads of a batch that are left, and what they have counted for so far."""

    def __init__(self, shares: Shares, samples: int, tokens: int, heads: int) -> None:
        self.shares = shares
        self.left = torch.arange(tokens).expand(samples, tokens)
        self.heads_left = torch.arange(heads)
        self.importance = torch.zeros(samples, tokens, dtype=torch.float64)
        self.head_importance = torch.zeros(heads, dtype=torch.float64)
        self.tokens: list[np.ndarray] = []
        self.heads: list[np.ndarray] = []

    def prune(self, probabilities: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Count one attention's (samples, heads, ...); return which of the tokens it saw are kept, (samples, kept)."""
        block = len(self.tokens)
        seen = probabilities[:, self.heads_left].sum(dim=(1, 2), dtype=torch.float64)
        self.importance.scatter_add_(1, self.left, seen)
        self.head_importance += mixed.abs().sum(dim=(0, 2, 3), dtype=torch.float64)
        scores = self.importance.gather(1, self.left)
        kept = _top_k(scores, k_of(self.shares.tokens[block], scores.shape[1]))
        self.left = self.left.gather(1, kept)
        ranked = self.head_importance[self.heads_left]
        self.heads_left = self.heads_left[_top_k(ranked, k_of(self.shares.heads[block], len(ranked)))]
        self.tokens.append(self.left.numpy())
        self.heads.append(self.heads_left.numpy())
        return kept


class PrunedAttention(nn.Module):
    """The attention of a network, for the tokens that are left; heads that are gone put out zeros."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = attention.q, attention.k, attention.v, attention.out
        self.split, self.heads = attention._split, attention.heads

    def forward(self, x: torch.Tensor, cascade: Cascade) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output for the tokens that are kept, (samples, kept, width), and which of ``x`` they are."""
        q, k, v = (self.split(projection(x)) for projection in (self.q, self.k, self.v))
        probabilities = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)
        alive = torch.zeros(self.heads)
        alive[cascade.heads_left] = 1
        read = probabilities
        count = k_of(cascade.shares.values, read.shape[-1])
        if count < read.shape[-1]:
            chosen = _top_k(read, count)
            read = torch.zeros_like(read).scatter(-1, chosen, read.gather(-1, chosen))
        mixed = (read @ v) * alive[:, None, None]
        kept = cascade.prune(probabilities, mixed)
        joined = mixed.transpose(1, 2).flatten(start_dim=2)
        return self.out(_rows(joined, kept)), kept


class PrunedEncoder(nn.Module):
    """An encoder of a network; between its attention and its linear layers tokens are dropped."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.norm1, self.attention = encoder.norm1, PrunedAttention(encoder.attention)
        self.norm2, self.up, self.down = encoder.norm2, encoder.up, encoder.down

    def forward(self, x: torch.Tensor, cascade: Cascade) -> torch.Tensor:
        """Return (samples, kept, width) for (samples, tokens, width)."""
        attended, kept = self.attention(self.norm1(x), cascade)
        x = _rows(x, kept) + attended
        down: torch.Tensor = self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return x + down


class PrunedTransformer(nn.Module):
    """A vision transformer that drops tokens and heads as ``shares`` say; ``cascade`` is that of the last batch."""

    def __init__(self, network: VisionTransformer, shares: Shares) -> None:
        super().__init__()
        self.patch, self.shares = network.patch, shares
        self.embed, self.position = network.embed, network.position
        self.encoders = nn.ModuleList(PrunedEncoder(encoder) for encoder in _encoders(network))
        self.norm, self.fc = network.norm, network.fc
        self.cascade: Cascade | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes, (batch, classes): the mean is over the tokens that are left."""
        batch, channels, height, width = images.shape
        p = self.patch
        tiles = images.reshape(batch, channels, height // p, p, width // p, p)
        x = self.embed(tiles.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)) + self.position
        first = self.encoders[0]
        assert isinstance(first, PrunedEncoder)
        self.cascade = Cascade(self.shares, batch, x.shape[1], first.attention.heads)
        for encoder in self.encoders:
            x = encoder(x, self.cascade)
        scores: torch.Tensor = self.fc(self.norm(x).mean(dim=1))
        return scores


def pruned_run(run: Run, keep: Sequence[float], *, heads: Sequence[float] = (1.0,), values: float = 1.0) -> Pruned:
    """Return the trace of ``run``, its network executed under token pruning, with the accuracy that this gives.

    The arguments are those of `prune_tokens`; the accuracy is over the test samples, as many at a time as the trace
    has where heads are pruned. Raises InputError for a network of another kind.
    """
    recipe = run.recipe
    data = load_data(recipe.data, test_fraction=recipe.test_fraction, seed=recipe.split_seed, folder=recipe.data_folder)
    network = build_network(recipe.network, data.shape, data.classes)
    if not isinstance(network, VisionTransformer):
        raise InputError(f"run {recipe.name}: token pruning executes vision transformers, not {recipe.network}")
    shares = Shares.of(len(_encoders(network)), keep, heads, values)
    module = PrunedTransformer(network, shares)
    trace = trace_of(
        run,
        module=module,
        samples=data.test_inputs[: recipe.samples],
        labels=data.test_labels[: recipe.samples],
        products=True,
    )
    cascade = module.cascade
    assert cascade is not None
    layers = _without_heads(trace, cascade.heads, _encoders(network)[0].attention.heads)
    accuracy = _accuracy(run, module, data.test_inputs, data.test_labels, len(data.test_inputs[: recipe.samples]))
    about = note(shares, cascade.tokens, cascade.heads, "executed") | {"accuracy": accuracy}
    measured = {"network": recipe.network, "data": recipe.data, "accuracy": accuracy, "unpruned_accuracy": run.accuracy}
    named = renamed(trace, "tokens", layers, about, same_values=True)
    named = Trace(name=named.name, layers=named.layers, provenance=dict(named.provenance) | measured)
    return Pruned(named, tuple(cascade.tokens), tuple(cascade.heads))


def _accuracy(run: Run, module: PrunedTransformer, inputs: np.ndarray, labels: np.ndarray, together: int) -> float:
    """Return the share of test samples that ``module`` with the run's masked weights classifies rightly."""
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in (run.weights | run.buffers).items()}
    tensors |= {name: tensors[name] * torch.from_numpy(mask) for name, mask in run.masks.items()}
    module.load_state_dict(tensors, strict=False)
    module.eval()
    size = BATCH if min(module.shares.heads) == 1 else together
    right = 0
    with torch.no_grad():
        for start in range(0, len(labels), size):
            scores = module(torch.as_tensor(inputs[start : start + size]))
            right += int((scores.argmax(dim=1).numpy() == np.asarray(labels[start : start + size])).sum())
    return right / len(labels)


def _without_heads(trace: Trace, heads: list[np.ndarray], count: int) -> list[Layer]:
    """Return the layers of ``trace`` without what belongs to heads that were gone before each attention."""
    before = [np.arange(count), *heads[:-1]]
    layers = []
    for layer in trace.layers:
        parts = layer.name.split(".")
        if parts[0] != "encoders" or parts[2] != "attention" or len(before[int(parts[1])]) == count:
            layers.append(layer)
            continue
        left = before[int(parts[1])]
        if layer.op == "matmul":
            weight, inputs = (
                array.reshape(layer.samples, count, *array.shape[1:])[:, left].reshape(-1, *array.shape[1:])
                for array in (layer.weight, layer.inputs)
            )
            layers.append(changed(layer, weight=weight, inputs=inputs))
            continue
        out = parts[3] == "out"
        size = layer.shape[1 if out else 0] // count
        features = (left[:, None] * size + np.arange(size)).ravel()
        layers.append(take(layer, inputs=features) if out else take(layer, outputs=features))
    return layers


def _encoders(network: VisionTransformer) -> list[Encoder]:
    return [encoder for encoder in network.encoders if isinstance(encoder, Encoder)]


def _rows(x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    return x.gather(1, kept[:, :, None].expand(-1, -1, x.shape[2]))


def _top_k(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Return what `top_k.top_k` does, of tensors."""
    order = torch.argsort(scores, dim=-1, descending=True, stable=True)[..., :k]
    return order.sort(dim=-1).values
