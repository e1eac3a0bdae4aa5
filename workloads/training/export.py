"""From a run to a trace: the pruned weights, and the activations that real test samples give every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from torch import nn

from ..errors import InputError
from ..patterns import Pattern
from ..trace import Layer, Trace
from .loop import Loop, apply_masks, deterministic

if TYPE_CHECKING:
    from .run import Run


def trace_of(run: Run) -> Trace:
    """Return the trace of a run: its first test samples have gone through the network, layer by layer.

    Every linear layer is one of the trace, in the order in which the network uses them.
    """
    loop = Loop.of(run.recipe)
    weights = apply_masks(run.weights, run.masks)
    loop.load(weights)
    samples = slice(0, run.recipe.samples)
    inputs, predictions = _activations(loop.network, loop.data.test_inputs[samples], run.recipe.seed)
    layers = [
        Layer(
            name=name,
            op="linear",
            weight=weights[f"{name}.weight"],
            bias=weights.get(f"{name}.bias"),
            mask=run.masks.get(f"{name}.weight"),
            inputs=values,
            pattern=_pattern(run, f"{name}.weight"),
        )
        for name, values in inputs.items()
    ]
    provenance = _provenance(run) | {
        "test_samples": len(loop.data.test_labels),
        "labels": loop.data.test_labels[samples].tolist(),
        "predictions": predictions.tolist(),
    }
    return Trace(name=run.recipe.name, layers=tuple(layers), provenance=provenance)


def _activations(network: nn.Module, samples: np.ndarray, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return what each linear layer was fed, by its name, and the classes the network decided on."""
    seen: dict[str, np.ndarray] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            if name in seen:
                raise InputError(f"layer {name}: the network must use each layer once, and uses this one again")
            seen[name] = given[0].numpy() + np.float32(0)  # a copy, and without negative zeros

        return module.register_forward_pre_hook(hook)

    handles = []
    with deterministic(seed), torch.no_grad():
        try:
            for name, module in network.named_modules():
                if isinstance(module, nn.Linear):
                    handles.append(watch(name))
            network.eval()
            outputs = network(torch.from_numpy(samples))
        finally:
            for handle in handles:
                handle.remove()
    return seen, outputs.argmax(dim=1).numpy()


def _pattern(run: Run, name: str) -> Pattern:
    if run.recipe.method == "dense" or name not in run.masks:
        return Pattern(kind="dense")
    if run.recipe.strategy == "balanced":
        return Pattern(kind="balanced", pe_count=run.recipe.pe_count, scope=run.recipe.scope)
    return Pattern(kind="unstructured")


def _provenance(run: Run) -> dict[str, Any]:
    """Return where the weights come from; ``sparsity`` counts all kernels, prunable or not, and no biases."""
    recipe = run.recipe
    size = {name: weight.size for name, weight in run.weights.items() if weight.ndim > 1}
    pruned = {name: int(np.count_nonzero(~run.masks[name])) if name in run.masks else 0 for name in size}
    return {
        "source": f"gossamer train {recipe.name}",
        "network": recipe.network,
        "data": recipe.data,
        "recipe": msgspec.to_builtins(recipe),
        "seed": recipe.seed,
        "accuracy": run.accuracy,
        "dense_accuracy": run.dense_accuracy,
        "sparsity": sum(pruned.values()) / sum(size.values()),
        "sparsity_by_layer": {name.removesuffix(".weight"): pruned[name] / size[name] for name in size},
        "made_with": run.made_with,
    }
