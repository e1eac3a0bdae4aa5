"""What an operator costs beyond what the shapes of its outputs say: as onnx's reference evaluator runs it.

Some of its operators go through their values one by one, some hold more on the way than they give, and strings lie in
arrays that are as wide as the longest. Times are of onnx 1.23, an operator at a time, rounded up.
Needs the extra `onnx`.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, prod
from typing import Any

import numpy as np

from ..errors import InputError
from ..files.container import one_line
from ..limits import ALWAYS, ELEMENTS_LIMIT
from ..rules import ATTRIBUTE_LIMIT

LOOPS_LIMIT_S = 20.0  # that the evaluator's own loops may take, of all operators together
TEXT_LIMIT, TEXT_EACH = 2**28, 2**4  # characters of an array, and as many for each that is there
OBJECT = 64  # numbers in the memory that an object of the evaluator takes
NUMBER_WIDTH = 32  # characters that an array of numbers as text has for each
SPLIT_WIDTH = 4  # characters that each of a string that is split up may come to
NOT_COMPUTED = {
    "RegexFullMatch": "a short pattern may take any time",
    "ImageDecoder": "a small picture may stand for one of any size",
    "TreeEnsemble": "trees may lead round in circles",
    "TreeEnsembleClassifier": "trees may lead round in circles",
    "TreeEnsembleRegressor": "trees may lead round in circles",
}
OUTPUT_US = {"GridSample": 100, "OneHotEncoder": 0.2, "TfIdfVectorizer": 0.2}  # microseconds for each output
INPUT_US = {"MaxUnpool": 0.2, "SoftmaxCrossEntropyLoss": 1, "NegativeLogLikelihoodLoss": 1, "LabelEncoder": 0.2,
            "OneHotEncoder": 0.2, "LinearClassifier": 0.2, "TensorScatter": 0.5}  # fmt: skip
PLACES_US = {
    "ScatterND": 1,
    "GatherND": 1,
    "ScatterElements": 0.5,
    "ReverseSequence": 1,
}  # for each of its second input
STEP_US = {"LSTM": 30, "GRU": 30, "RNN": 10}  # for each step of its sequences
SPLIT_US, RESIZED_US, FRAME_US, GATED_US, CAUSAL_US = 0.5, 20, 10, 50, 1
BOXES_US, SAMPLED_US, COLUMNS_US, DEFORMED_US, VECTORS_US, GRAMS_US, SORTED_US = 1, 1.5, 2.5, 100, 2, 1, 1


def place_of(node: Any) -> str:
    """Return what messages call ``node``."""
    return f"operator {one_line(node.op_type)} {one_line(node.name)}".rstrip()


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of ``value``, () of a sequence of arrays, or where there is none."""
    return np.shape(value) if isinstance(value, np.ndarray | np.generic) else ()


def attribute(node: Any, name: str, default: Any) -> Any:
    """Return the attribute ``name`` of ``node``, plain."""
    from onnx.helper import get_attribute_value

    value = next((get_attribute_value(each) for each in node.attribute if each.name == name), default)
    return list(value) if isinstance(default, list) else value


def check_described(graph: Any) -> None:
    """Raise InputError where what a node in ``graph`` says of itself would take too much before it even runs."""
    for node in graph.node:
        _check_node(node)
        for each in node.attribute:
            for inner in [each.g] if each.HasField("g") else each.graphs:
                check_described(inner)


def _check_node(node: Any) -> None:
    where = place_of(node)
    if node.op_type == "Split" and attribute(node, "num_outputs", len(node.output)) != len(node.output):
        raise InputError(
            f"{where}: num_outputs must be its {len(node.output)} outputs, not {attribute(node, 'num_outputs', 0)}"
        )
    if node.op_type == "TfIdfVectorizer":
        pool = max(len(attribute(node, "pool_int64s", [])), len(attribute(node, "pool_strings", [])))
        counts, places = attribute(node, "ngram_counts", []), attribute(node, "ngram_indexes", [])
        skip = attribute(node, "max_skip_count", 0)
        rules = (
            ("ngram_counts", counts, min(counts, default=0) >= 0 and max(counts, default=0) <= pool, f"0 to {pool}"),
            ("ngram_indexes", places, min(places, default=0) >= 0 and max(places, default=0) < ALWAYS, "below 2^26"),
            ("max_skip_count", skip, 0 <= skip <= ATTRIBUTE_LIMIT, f"0 to {ATTRIBUTE_LIMIT}"),
        )
        for name, value, kept, rule in rules:
            if not kept:
                raise InputError(f"{where}: {name} must be {rule}, not {value!s:.80}")


def check_strings(model: Any) -> int:
    """Return how many characters ``model`` has in strings; raise InputError where as arrays they would be too wide."""
    found = list(_strings(model.graph))
    there = sum(sum(map(len, strings)) for _, strings in found)
    for what, strings in found:
        _check_width(what, len(strings) * max(map(len, strings), default=0), text_limit(there))
    if sum(len(strings) * max(map(len, strings), default=0) for _, strings in found) > 4 * text_limit(there):
        raise InputError(
            "strings of the model, those of a tensor each as wide as its longest, must come to at most "
            f"{4 * text_limit(there)} characters, and come to more; shorten the longest"
        )
    return there


def text_limit(there: int) -> int:
    """Return how many characters an array may be wide in all, where ``there`` are so many."""
    return min(TEXT_LIMIT, ALWAYS + TEXT_EACH * there)


def _check_width(what: str, width: int, most: int) -> None:
    if width > most:
        raise InputError(
            f"{what}: strings, each as wide as the longest, must come to at most {most} characters, not {width}; "
            "shorten the longest"
        )


def _strings(graph: Any) -> Iterable[tuple[str, list[bytes]]]:
    """Return every list of strings in the graph and in the graphs in it, with what holds it."""
    tensors = [*graph.initializer, *(each.values for each in graph.sparse_initializer)]
    for node in graph.node:
        for each in node.attribute:
            if each.strings:
                yield f"{place_of(node)}, {one_line(each.name)}", list(each.strings)
            tensors += [each.t] if each.HasField("t") else []
            tensors += [*each.tensors, *(sparse.values for sparse in (each.sparse_tensor, *each.sparse_tensors))]
            for inner in [each.g] if each.HasField("g") else each.graphs:
                yield from _strings(inner)
    for tensor in tensors:
        if tensor.string_data:
            yield f"tensor {one_line(tensor.name)}".rstrip(), list(tensor.string_data)


def check_text(node: Any, inputs: tuple[Any, ...], numbers: int, most: int) -> None:
    """Raise InputError where arrays of strings that ``node`` takes or makes would be too wide.

    ``numbers``: of the largest of its outputs, as far as they are known.
    """
    given = [value for value in inputs if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "OSU"]
    own = [longest for each in node.attribute if (longest := max(map(len, each.strings), default=0))]
    own += [len(attribute(node, "default_string", b""))] if own else []
    if node.op_type in ("Cast", "CastLike") and (attribute(node, "to", 0) == 8 or given):
        own.append(NUMBER_WIDTH)
    if given or own:
        size = max([numbers, *(np.size(value) for value in inputs if isinstance(value, np.ndarray | np.generic))])
        each = SPLIT_WIDTH if node.op_type == "StringSplit" else 1
        _check_width(place_of(node), size * each * (sum(map(_longest, given)) + max(own, default=0)), most)


def _longest(array: Any) -> int:
    if array.dtype.kind != "O":
        return int(array.dtype.itemsize // (4 if array.dtype.kind == "U" else 1))
    return max((len(each) for each in array.flat if isinstance(each, str | bytes)), default=0)


def held(node: Any, inputs: tuple[Any, ...], outputs: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return the shapes of what ``node`` holds on the way to its ``outputs``, and of those that only it knows."""
    shapes = [shape_of(value) for value in inputs]
    kind, first = node.op_type, shapes[0] if shapes else ()
    if kind in ("Conv", "ConvInteger", "QLinearConv") and outputs:  # its windows, beside one another
        weight = shapes[3] if kind == "QLinearConv" and len(shapes) > 3 else shapes[1] if len(shapes) > 1 else ()
        return [(outputs[0][0], *weight[1:], *outputs[0][2:])] if outputs[0] else []
    if kind in ("Attention", "FlexAttention") and len(shapes) > 1 and len(shapes[1]) >= 3 and len(first) >= 3:
        heads = first[1] if len(first) == 4 else max(attribute(node, "q_num_heads", 1), 1)
        past = shapes[4][2] if len(shapes) > 4 and len(shapes[4]) == 4 else 0
        return [(4, first[0], heads, first[-2], shapes[1][-2] + past)]  # scores, and what becomes of them
    if kind == "Resize" and outputs and len(outputs[0]) == len(first):  # one side after the other
        return [(2, *map(max, first, outputs[0]))]
    if kind == "NonZero":
        return [(2, max(len(first), 1), prod(first))]
    if kind == "TopK":
        return [(2 * max(len(first), 1), *first)]
    if kind in ("ConcatFromSequence", "SequenceConstruct", "SequenceInsert"):
        parts = [part for value in inputs if isinstance(value, list) for part in value]
        return [(sum(np.size(part) for part in parts),)] if kind == "ConcatFromSequence" else []
    if kind == "LRN":
        return [(4, *first)]
    if kind == "LabelEncoder":  # numbers as objects, there and back
        return [(8, *first)]
    if kind == "SplitToSequence":
        return [(OBJECT, max([*first, *(shapes[1] if len(shapes) > 1 else ())], default=0))]
    if kind == "NonMaxSuppression" and len(shapes) > 1:
        return [(OBJECT, *shapes[1][-1:])]
    if kind == "RoiAlign" and len(shapes) > 1:
        return [(OBJECT, int(min(_grids(node, inputs, shapes).max(initial=0), ELEMENTS_LIMIT)))]
    if kind == "OneHotEncoder":
        return [(*first, max(len(attribute(node, "cats_int64s", [])), len(attribute(node, "cats_strings", []))))]
    if kind == "MaxUnpool" and len(first) > 2:
        kernel = attribute(node, "kernel_shape", [])
        steps = attribute(node, "strides", [1] * len(kernel))
        return [(*first[:2], *(side * step + k for side, step, k in zip(first[2:], steps, kernel, strict=False)))]
    if kind == "STFT" and len(inputs) > 2:
        return [(4, prod(outputs[0][:2]), *shapes[2], 2)] if outputs and outputs[0] else []
    return []


def seconds(node: Any, inputs: tuple[Any, ...], outputs: list[tuple[int, ...]]) -> float:
    """Return about how long the evaluator's own loops for ``node`` take, 0 where they are numpy's."""
    shapes = [shape_of(value) for value in inputs]
    shapes += [()] * (3 - len(shapes))
    kind, made = node.op_type, max(map(prod, outputs), default=0)
    numbers = prod(shapes[0])
    micros = OUTPUT_US.get(kind, 0) * made + INPUT_US.get(kind, 0) * numbers + PLACES_US.get(kind, 0) * prod(shapes[1])
    if kind in STEP_US:
        micros += STEP_US[kind] * max(shapes[0][:2], default=0)
    elif kind == "SplitToSequence":
        micros += SPLIT_US * max([*shapes[0], *shapes[1]], default=0)
    elif kind == "Resize":
        rows = max(numbers, made) if attribute(node, "axes", []) else 1
        micros += RESIZED_US * max(sum(outputs[0]) if outputs else 0, rows)
    elif kind == "STFT":
        micros += FRAME_US * (outputs[0][1] if outputs and len(outputs[0]) > 1 else numbers)
    elif kind == "LinearAttention":
        micros += GATED_US * (shapes[0][1] if len(shapes[0]) > 1 else 1)
    elif kind == "CausalConvWithState":
        micros += CAUSAL_US * max(shapes[0], default=0)
    elif kind == "NonMaxSuppression":
        micros += BOXES_US * _compared(inputs)
    elif kind == "RoiAlign":
        channels = shapes[0][1] if len(shapes[0]) > 1 else 1
        micros += SAMPLED_US * float(_grids(node, inputs, shapes).sum()) * (1 + channels)
    elif kind == "Col2Im":
        micros += COLUMNS_US * _columns(node, inputs, shapes)
    elif kind == "DeformConv":
        micros += DEFORMED_US * made * prod(shapes[1][1:])
    elif kind in ("SVMClassifier", "SVMRegressor"):
        longest = max((len(each.floats) for each in node.attribute), default=0)
        micros += VECTORS_US * (shapes[0][0] if shapes[0] else 1) * longest
    elif kind == "TfIdfVectorizer":
        micros += GRAMS_US * numbers * (attribute(node, "max_skip_count", 0) + 1)
        micros *= max(attribute(node, "max_gram_length", 1), 1) if numbers else 1
    elif kind == "Unique":
        micros += SORTED_US * numbers
    return micros / 1e6


def _compared(inputs: tuple[Any, ...]) -> float:
    """Return how many pairs of boxes are compared at most: those above the threshold with those that are kept."""
    scores = np.asarray(inputs[1])
    given: list[Any] = [*inputs[2:5], None, None, None]
    kept = int(np.asarray(given[0]).reshape(-1)[0]) if np.size(given[0]) and given[0] is not None else 0
    above = -np.inf if given[2] is None or not np.size(given[2]) else float(np.asarray(given[2]).reshape(-1)[0])
    candidates = (scores > above).sum(axis=-1).astype(np.float64)
    return float(scores.size + (candidates * np.minimum(candidates, max(kept, 0))).sum())


def _grids(node: Any, inputs: tuple[Any, ...], shapes: list[tuple[int, ...]]) -> np.ndarray:
    """Return how many points are sampled of each region: of a grid as large as is said, or as the region."""
    high, wide = (max(attribute(node, name, 1), 1) for name in ("output_height", "output_width"))
    ratio = attribute(node, "sampling_ratio", 0)
    regions = np.asarray(inputs[1], np.float64).reshape(-1, shapes[1][-1] if shapes[1] else 1)
    if ratio > 0 or regions.shape[1] < 4:
        return np.full(len(regions), float(max(ratio, 1)) ** 2 * high * wide)
    sides = np.abs(regions[:, 2:4] - regions[:, :2]) * abs(attribute(node, "spatial_scale", 1.0))
    sides = np.nan_to_num(sides, nan=np.inf)
    return np.asarray(np.ceil(sides[:, 0] / wide + 1) * np.ceil(sides[:, 1] / high + 1) * high * wide)


def _columns(node: Any, inputs: tuple[Any, ...], shapes: list[tuple[int, ...]]) -> float:
    """Return how many places are added up: of every window of the picture, as often as it has cells."""
    size, kernel = ([int(side) for side in np.asarray(each).reshape(-1)] for each in inputs[1:3])
    pads = attribute(node, "pads", [0] * 2 * len(size))
    steps, spread = attribute(node, "strides", [1] * len(size)), attribute(node, "dilations", [1] * len(size))
    cells = max(prod(kernel), 1)
    windows = 1.0
    for i, side in enumerate(size[: len(pads) // 2]):
        reach = spread[i] * (kernel[i] - 1) + 1
        windows *= max(ceil((side + pads[i] + pads[len(size) + i] - reach) / max(steps[i], 1)) + 1, 1)
    pictures = shapes[0][0] * max(shapes[0][1] // cells, 1) if len(shapes[0]) > 1 else 1
    return pictures * cells * windows
