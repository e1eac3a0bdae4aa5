"""From a run to a trace: the pruned weights, and the activations that real test samples give every layer."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn

from ..data import load_data
from ..errors import InputError
from ..networks import build_network
from ..rules import UNTRAINED
from ..trace import Trace
from .capture import Captured, capture_all
from .loop import deterministic
from .promise import pattern_of
from .trained import Trained


def trace_of(
    run: Trained,
    *,
    module: nn.Module | None = None,
    samples: np.ndarray | torch.Tensor | None = None,
    labels: np.ndarray | torch.Tensor | None = None,
    products: bool = False,
    fold_batch_norm: bool = False,
) -> Trace:
    """Return the trace of a run: its first test samples have gone through the network, layer by layer.

    Without ``module`` network and samples are those of the recipe. With one, a network of the user's own, ``samples``
    are what it is fed, and ``labels`` their classes where they have any. ``products``: keep products of activations
    too, as in an attention; not every machine runs them. ``fold_batch_norm`` puts batch norms into the layers before
    them; see `capture_all`.
    Raises InputError naming the network or layer, the rule and the value.
    """
    recipe = run.recipe
    about: dict[str, Any] = {}
    if module is None:
        data = load_data(
            recipe.data, test_fraction=recipe.test_fraction, seed=recipe.split_seed, folder=recipe.data_folder
        )
        module = build_network(recipe.network, data.shape, data.classes)
        samples, labels = data.test_inputs[: recipe.samples], data.test_labels[: recipe.samples]
        about["test_samples"] = len(data.test_labels)
    elif samples is None:
        raise InputError("a network of one's own needs samples to be fed with, and has none; give some")
    else:
        about |= {"network": type(module).__name__, "data": "the user's own"}
    batch = torch.as_tensor(samples)
    with deterministic(recipe.seed):
        captured = captured_of(run, module, batch, products=products, fold_batch_norm=fold_batch_norm)
    if labels is not None:
        about["labels"] = torch.as_tensor(labels).tolist()
    if isinstance(captured.outputs, torch.Tensor) and captured.outputs.ndim == 2:
        about["predictions"] = captured.outputs.argmax(dim=1).tolist()
    notes = {
        "not_simulated": captured.not_simulated,
        "uses": captured.uses,
        "padded": captured.padded,
        "folded": captured.folded,
    }
    about |= {name: note for name, note in notes.items() if note}
    return Trace(name=recipe.name, layers=tuple(captured.layers), provenance=_provenance(run, captured) | about)


def captured_of(
    run: Trained, module: nn.Module, samples: torch.Tensor, *, products: bool = False, fold_batch_norm: bool = False
) -> Captured:
    """Return what ``samples`` come to in ``module`` with the run's weights, statistics and masks; it is left as it was.

    Raises InputError where the weights are not those of ``module``.
    """
    before = {name: value.detach().clone() for name, value in module.state_dict().items()}
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in (run.weights | run.buffers).items()}
    wrong = [name for name, value in tensors.items() if name not in before or before[name].shape != value.shape]
    if wrong or dict(module.named_parameters()).keys() - tensors.keys():
        missing = [name for name, _ in module.named_parameters() if name not in tensors]
        raise InputError(
            f"run {run.recipe.name}: its parameters must be those of the network, and {', '.join(wrong + missing)} "
            "differ; give the network that was trained"
        )
    patterns = {name: pattern_of(run.recipe, mask) for name, mask in run.masks.items() if mask.ndim > 1}
    try:
        module.load_state_dict(tensors, strict=False)
        return capture_all(
            module,
            samples,
            masks=run.masks,
            patterns=patterns,
            products=products,
            fold_batch_norm=fold_batch_norm,
        )
    finally:
        module.load_state_dict(before)


def _provenance(run: Trained, captured: Captured) -> dict[str, Any]:
    """Return where the weights come from; ``sparsity`` counts all kernels, prunable or not, and no biases."""
    recipe = run.recipe
    trained = [layer for layer in captured.layers if layer.op not in UNTRAINED]
    size = {layer.name: layer.kept.size for layer in trained}
    pruned = {layer.name: 0 if layer.mask is None else int(np.count_nonzero(~layer.mask)) for layer in trained}
    return {
        "source": f"gossamer train {recipe.name}",
        "network": recipe.network,
        "data": recipe.data,
        "recipe": msgspec.to_builtins(recipe),
        "seed": recipe.seed,
        "accuracy": run.accuracy,
        "dense_accuracy": run.dense_accuracy,
        "sparsity": sum(pruned.values()) / sum(size.values()),
        "sparsity_by_layer": {name: pruned[name] / size[name] for name in size},
        "made_with": run.made_with,
    }
