"""An ONNX model as a trace: its matrices and kernels under their names, fed with what the user's samples make of it.

Needs the extra `onnx`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files.container import one_line
from ..files.drawn import Draw
from ..files.numbers import to_float32
from ..patterns import Pattern
from ..pruning import Masks
from ..trace import Layer, Trace
from .masks import pattern_of
from .one_shot import parse_one_shot, pruned_name
from .onnx_found import Found, Layers, Product
from .onnx_graph import Values, constants, feeds_of, read_model, take_branches, values
from .onnx_layers import layers_of
from .samples import ONE

SUFFIX = ".onnx"


def trace_of_onnx(
    path: str | Path,
    samples: Mapping[str, np.ndarray] | np.ndarray | None,
    *,
    draw: Draw | None = None,
    prune: str | None = None,
    exclude: Iterable[str] = (),
    products: bool = False,
) -> Trace:
    """Return the trace of the model in ``path`` with what ``samples`` give each of its layers.

    ``samples``: by the names of the model's inputs, or one array for the only one. Without, every layer's inputs are
    drawn as ``draw`` says. ``prune``: a rule as in `parse_one_shot`, applied before the samples go through, not to
    layers that ``exclude`` names. ``products``: keep products of two activations too. A condition counts as the branch
    that the samples take. The provenance lists, as ``not_simulated``, each operator that has weights or multiplies and
    is no layer, and, as ``operators_beside``, how many of each kind only work on values.
    Raises InputError naming file, rule and value.
    """
    path = Path(path)
    model = read_model(path)
    try:
        by_name = {ONE: samples} if isinstance(samples, np.ndarray) else samples
        with np.errstate(all="ignore"):  # what is not finite is refused by name
            return _trace(model, by_name, path, draw or Draw(), prune, list(exclude), products)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except UnicodeError as error:
        raise InputError(f"{path}: names in the model must be UTF-8, and one is not ({one_line(error)})") from None
    except MemoryError:
        raise InputError(f"{path}: the model must fit in memory, and does not; use a machine with more") from None


def _trace(
    model: Any,
    samples: Mapping[str, np.ndarray] | None,
    path: Path,
    draw: Draw,
    prune: str | None,
    exclude: list[str],
    products: bool,
) -> Trace:
    feeds = None if samples is None else feeds_of(model, samples, ONE)
    if feeds is not None:
        model = take_branches(model, feeds)
    known = constants(model)
    layers = layers_of(model, known)
    weights = {each.layer: _masked_shape(each) for each in layers.found if isinstance(each, Found)}
    if not weights:
        reasons = "; ".join(f"{name}, {why}" for name, why in list(layers.left.items())[:3])
        raise InputError(
            "the model must have a MatMul, Gemm, Conv, LSTM, GRU or RNN with constant weights, and has none"
            + (f": {reasons}" if reasons else "")
        )
    notes: dict[str, Any] = {"not_simulated": layers.left, "operators_beside": layers.beside}
    masks: Masks = {}
    patterns: dict[str, Pattern] = {}
    if exclude and prune is None:
        raise InputError("exclude is for prune, and there is none; leave it out")
    if prune is not None:
        masks, patterns, left = parse_one_shot(prune).masks(weights, {}, exclude)
        if not masks:
            why = "; ".join(f"{name}, {reason}" for name, reason in list(left.items())[:3])
            raise InputError(f"prune {prune} must find a layer to prune, and finds none: {why}")
        notes |= {"not_pruned": left, "pruned": {"rule": prune, "activations": "those after pruning"}}
        _put_on(model, layers, masks, known)
    run = None if feeds is None else known | values(model, feeds)
    shapes = [np.shape(value) for value in (feeds or {}).values()]
    batch = max(shapes[0][0], 1) if shapes and shapes[0] else 1
    made, more = _made(layers, run, batch, masks, patterns, draw, products)
    for key, note in more.items():
        notes[key] = notes.get(key, {}) | note
    provenance: dict[str, Any] = {"source": f"ONNX model {path.name}"}
    if run is None:
        provenance["drawn_inputs"] = {"layers": [layer.name for layer in made]} | draw.provenance()
    return Trace(
        name=path.stem if prune is None else pruned_name(path.stem, prune),
        layers=made,
        provenance=provenance | {key: note for key, note in notes.items() if note},
    )


def _masked_shape(each: Found) -> np.ndarray:
    """Return the weight as pruning knows it: (out, in, kernel) where the convolution has one dimension."""
    return each.weight[:, :, 0] if each.flat else each.weight


def _put_on(model: Any, layers: Layers, masks: Masks, known: Values) -> None:
    """Put the masks onto the constants that the nodes read."""
    from onnx import numpy_helper

    for each in layers.found:
        if not isinstance(each, Found) or each.layer not in masks:
            continue
        node = model.graph.node[each.node]
        mask = masks[each.layer][:, :, None] if each.flat else masks[each.layer]
        array = np.asarray(known[node.input[each.slot]])
        pruned = np.where(each.to_node(mask), array, 0 if each.zero is None else each.zero).astype(array.dtype)
        name = f"gossamer::pruned_{each.node}_{each.slot}"
        for tensor in [tensor for tensor in model.graph.initializer if tensor.name == name]:
            model.graph.initializer.remove(tensor)  # of the other direction
        model.graph.initializer.append(numpy_helper.from_array(pruned, name))
        node.input[each.slot] = name
        known[name] = pruned


def _made(
    layers: Layers,
    run: Values | None,
    batch: int,
    masks: Masks,
    patterns: Mapping[str, Pattern],
    draw: Draw,
    products: bool,
) -> tuple[tuple[Layer, ...], dict[str, Any]]:
    """Return the layers, uses of one weight with one bias and inputs of one size joined, and notes on them."""
    groups: dict[tuple[Any, ...], list[Layer]] = {}
    left: dict[str, str] = {}
    for index, each in enumerate(layers.found):
        if isinstance(each, Product) and (run is None or not products):
            left[each.layer] = "a product of activations" + (", which are drawn" if products else "")
            continue
        try:
            if isinstance(each, Found):
                layer = _layer(index, each, run, masks.get(each.layer), patterns.get(each.layer), draw)
            else:
                layer = _product(each, run or {}, batch)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"layer {one_line(each.layer)}: must be whole, and is not ({one_line(error)})") from None
        bias = None if layer.bias is None else layer.bias.tobytes()
        key = (layer.name, layer.op, layer.inputs.shape[1:], tuple(layer.attributes.items()), bias)
        groups.setdefault(key, []).append(layer)
    known = {name for name, *_ in groups}
    made: list[Layer] = []
    uses: dict[str, int] = {}
    names: set[str] = set()
    for (name, *_), group in groups.items():
        first, own, number = group[0], name, 1
        while own in names or (number > 1 and own in known):
            number += 1
            own = f"{name} ({number})"
        names.add(own)
        if len(group) > 1:
            uses[own] = len(group)
        inputs = first.inputs if len(group) == 1 or run is None else np.concatenate([each.inputs for each in group])
        kept = {key: getattr(first, key) for key in ("op", "weight", "bias", "mask", "pattern", "attributes")}
        made.append(Layer(name=own, inputs=inputs, **kept))
    return tuple(made), {"not_simulated": left, "uses": uses}


def _layer(
    index: int, each: Found, run: Values | None, mask: np.ndarray | None, pattern: Pattern | None, draw: Draw
) -> Layer:
    where = f"layer {one_line(each.layer)}"
    if mask is not None and each.flat:
        mask = mask[:, :, None]
    weight = to_float32(each.weight, f"{where}: tensor weight")
    weight = weight if mask is None else np.where(mask, weight, np.float32(0))
    given = _drawn(index, each, draw, where) if run is None else np.asarray(run[each.inputs])
    if run is None and each.op == "linear":
        inputs, attributes = given, dict[str, Any]()
    else:
        inputs, attributes = each.fed(given, run or {})
    return Layer(
        name=one_line(each.layer),
        op=each.op,
        weight=weight,
        bias=each.bias,
        mask=mask,
        inputs=to_float32(inputs, f"{where}: tensor inputs") + np.float32(0),
        pattern=pattern or pattern_of(weight),
        attributes=attributes,
    )


def _drawn(index: int, each: Found, draw: Draw, where: str) -> np.ndarray:
    if draw.act_density is None:
        raise InputError(
            f"{where}: inputs are needed; give samples that go through the model, or act_density to draw some"
        )
    if each.op == "linear":
        return draw.activations(index, each.weight.shape[1:])
    if draw.input_size is None:
        raise InputError(f"{where}: drawing the inputs of a convolution needs input_size (height, width); give it")
    _, attributes = each.fed(np.zeros((1, 1, *((1,) if each.flat else (1, 1))), np.float32), {})
    channels = each.weight.shape[1] * attributes["groups"]
    drawn = draw.activations(index, (channels, *draw.input_size))
    return drawn.reshape(len(drawn), channels, -1) if each.flat else drawn


def _product(each: Product, run: Values, batch: int) -> Layer:
    left, right = np.asarray(run[each.left]), np.asarray(run[each.right])
    left = left.T if each.transposed[0] else left
    right = right.T if each.transposed[1] else right
    left = left[None] if left.ndim == 1 else left
    right = right[:, None] if right.ndim == 1 else right
    sides = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, sides + left.shape[-2:]).reshape(-1, *left.shape[-2:])
    right = np.broadcast_to(right, sides + right.shape[-2:]).reshape(-1, *right.shape[-2:])
    return Layer(
        name=one_line(each.layer),
        op="matmul",
        weight=to_float32(np.swapaxes(right, 1, 2), f"layer {each.layer}") + np.float32(0),
        inputs=to_float32(left, f"layer {each.layer}") + np.float32(0),
        pattern=Pattern("dense"),
        attributes={"samples": batch if len(left) % batch == 0 else 1},
    )
