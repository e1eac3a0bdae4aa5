"""What a model may ask for while it runs: a small ONNX file can hold endless loops and name any size.

Needs the extra `onnx`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import numpy as np

from ..errors import InputError
from ..files.container import one_line
from ..limits import room
from ..rules import ATTRIBUTE_LIMIT
from . import onnx_costs as costs
from .onnx_costs import LOOPS_LIMIT_S, NOT_COMPUTED, place_of, shape_of

VALUES_LIMIT = 2**30  # numbers of one array
TOGETHER = 4  # arrays of the largest size, in all
STEPS_LIMIT = 2**16  # operators that run, those in loops once a round
WORK_LIMIT, WORK_EACH = 2**34, 2**20  # multiply-adds in all, and as many more for each number of weights and samples
POOLED_SHARE = 16  # a pooling visits its windows one by one
KNOWN_LIMIT = 1024  # numbers of an input that may say what shape an output has
LENGTHS = ("kernel_shape", "pads", "strides", "dilations", "output_padding", "output_shape")
SIZED = (  # by what they are given
    "AffineGrid", "BlackmanWindow", "CenterCropPad", "Col2Im", "ConstantOfShape", "DFT", "Expand", "EyeLike",
    "HammingWindow", "HannWindow", "MelWeightMatrix", "OneHot", "Pad", "RandomNormal", "RandomUniform", "Range",
    "Resize", "STFT", "Tile", "Trilu", "Upsample",
)  # fmt: skip
POSITIVE = ("kernel_shape", "strides", "dilations")
INSIDE = ("If", "Loop", "Scan", "SequenceMap")  # what runs within them is held to the same bounds


class OperatorError(Exception):
    """Which operator could not be run, and why."""


class Bounds:
    """What is left of all that a model may do, whose weights and samples are so many ``numbers``.

    ``characters``: of the strings among them.
    """

    def __init__(self, numbers: int, characters: int = 0) -> None:
        self.array, self.text = min(VALUES_LIMIT, room(numbers)), costs.text_limit(characters)
        self.seconds = LOOPS_LIMIT_S
        self.together, self.steps = TOGETHER * self.array, STEPS_LIMIT
        self.work = WORK_LIMIT + WORK_EACH * numbers

    def evaluator(self, model: Any, new_ops: list[Any]) -> Any:
        """Return a reference evaluator of ``model`` that raises InputError before it does more, in inner graphs too."""
        from onnx.reference import ReferenceEvaluator

        bounds = self

        class Bounded(ReferenceEvaluator):  # type: ignore[misc,unused-ignore]
            def __init__(self, proto: Any, **options: Any) -> None:
                graph = getattr(proto, "graph", proto)
                for node in graph.node:
                    if node.op_type in NOT_COMPUTED:
                        raise OperatorError(f"{place_of(node)}: is not computed, as {NOT_COMPUTED[node.op_type]}")
                super().__init__(proto, **options)
                for node in self.rt_nodes_:
                    node.run = bounds.watched(node, self.opsets)

            def run(self, *given: Any, **options: Any) -> Any:
                found = super().run(*given, **options)
                if not options.get("intermediate"):  # of a graph within another, which may keep what every round gives
                    bounds.count(found)
                return found

        return Bounded(model, new_ops=new_ops)

    def watched(self, node: Any, opsets: dict[str, int]) -> Callable[..., Any]:
        """Return what runs ``node`` once its inputs are found not to ask for too much."""
        run = node.run

        def bounded(*inputs: Any, **options: Any) -> Any:
            self.check(node.onnx_node, inputs, opsets)
            try:
                return run(*inputs, **options)
            except (InputError, MemoryError, OperatorError):  # of an operator within this one
                raise
            except Exception as error:
                raise OperatorError(f"{place_of(node.onnx_node)}: {one_line(error)}") from error

        return bounded

    def count(self, arrays: Iterable[Any]) -> None:
        """Take a round of an inner graph that gives ``arrays`` from what is left; raise InputError where it is none."""
        self.steps -= 1
        self.together -= sum(np.size(array) for array in arrays if isinstance(array, np.ndarray))
        if self.steps < 0:
            raise InputError(f"at most {STEPS_LIMIT} operators may run, rounds of loops counted, and more do")
        if self.together < 0:
            raise InputError(f"all arrays together must come to at most {TOGETHER} x {self.array} numbers")

    def check(self, node: Any, inputs: tuple[Any, ...], opsets: dict[str, int]) -> None:
        """Raise InputError where ``node`` with ``inputs`` would do too much; take what it does from what is left."""
        where = place_of(node)
        self.steps -= 1
        if self.steps < 0:
            raise InputError(f"{where}: at most {STEPS_LIMIT} operators may run, rounds of loops counted, and more do")
        for attribute in node.attribute:
            if attribute.name in LENGTHS and max(map(abs, attribute.ints), default=0) > ATTRIBUTE_LIMIT:
                raise InputError(
                    f"{where}: {attribute.name} must be at most {ATTRIBUTE_LIMIT}, not {list(attribute.ints)[:8]}"
                )
        for attribute in node.attribute:
            if attribute.name in POSITIVE and min(attribute.ints, default=1) < 1:
                raise InputError(f"{where}: {attribute.name} must be at least 1, not {list(attribute.ints)[:8]}")
        if node.op_type in INSIDE:
            return
        pads = next((list(a.ints) for a in node.attribute if a.name == "pads"), [])
        shape = shape_of(inputs[0]) if inputs else ()
        if pads and len(pads) == 2 * (len(shape) - 2):
            check_padding(node, shape, list(zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True)))
        shapes = _shapes(node, inputs, opsets)
        sizes = [prod(max(side, 1) for side in shape) for shape in shapes]
        for shape in shapes:
            if min(shape, default=0) < 0:
                raise InputError(f"{where}: an output must have sides of 0 or more, and would be {shape}")
        for shape in [*shapes, *costs.held(node, inputs, shapes)]:
            if prod(max(side, 1) for side in shape) > self.array:
                raise InputError(f"{where}: an array must come to at most {self.array} numbers, and would be {shape}")
        costs.check_text(node, inputs, max(sizes, default=0), self.text)
        self.together -= sum(sizes)
        if self.together < 0:
            raise InputError(f"{where}: all arrays together must come to at most {TOGETHER} x {self.array} numbers")
        kernel = prod(next((a.ints for a in node.attribute if a.name == "kernel_shape"), [0]))
        if "Pool" in node.op_type and kernel * max(sizes, default=1) > self.array // POOLED_SHARE:
            raise InputError(
                f"{where}: windows must hold at most {self.array // POOLED_SHARE} numbers in all, not {kernel} for "
                f"each of {max(sizes, default=1)} outputs"
            )
        self.work -= _work(node, inputs, max(sizes, default=0))
        if self.work < 0:
            raise InputError(f"{where}: the model must take fewer multiply-adds than its weights and samples explain")
        takes = costs.seconds(node, inputs, shapes)
        self.seconds -= takes
        if self.seconds < 0:
            raise OperatorError(
                f"{where}: takes about {takes:.0f} s in its own loops, of {LOOPS_LIMIT_S:g} s for all operators"
            )


def _shapes(node: Any, inputs: tuple[Any, ...], opsets: dict[str, int]) -> list[tuple[int, ...]]:
    """Return the shapes of the outputs of ``node``, of as many as can be told before it runs."""
    import onnx

    types, data = {}, {}
    for name, value in zip(node.input, inputs, strict=False):
        if not name or not isinstance(value, np.ndarray | np.generic):
            continue
        try:
            text = value.dtype.kind in "OSU"
            kind = onnx.TensorProto.STRING if text else onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            types[name] = onnx.helper.make_tensor_type_proto(kind, value.shape)
            if value.size <= KNOWN_LIMIT and value.dtype.kind in "iuf":
                data[name] = onnx.numpy_helper.from_array(np.asarray(value), name)
        except Exception:  # a kind of values that ONNX has no tensors of
            continue
    try:
        version = opsets.get(node.domain, opsets.get("ai.onnx" if not node.domain else "", 1))
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        imports = [onnx.helper.make_opsetid(domain, number) for domain, number in opsets.items()]
        found = onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=imports)
    except Exception as error:  # it does not fit, or nobody knows the operator: running it tells
        if node.op_type in SIZED:
            where = place_of(node)
            raise InputError(f"{where}: what it is given must fit together, and does not ({one_line(error)})") from None
        try:  # nothing that goes number by number gives more
            return [np.broadcast_shapes(*map(shape_of, inputs))]
        except ValueError:
            return []
    shapes = []
    for each in found.values():
        sides = each.tensor_type.shape.dim
        if each.tensor_type.HasField("shape") and all(side.HasField("dim_value") for side in sides):
            shapes.append(tuple(side.dim_value for side in sides))
    if not shapes and node.op_type in SIZED:
        raise InputError(f"{place_of(node)}: what it is given must tell how large its output is, and does not")
    return shapes


def _work(node: Any, inputs: tuple[Any, ...], outputs: int) -> int:
    """Return the multiply-adds of ``node``, 0 for an operator that only goes through its values."""
    shapes = [shape_of(value) for value in inputs]
    if node.op_type in ("MatMul", "MatMulInteger", "Gemm", "QLinearMatMul"):
        return outputs * max((side for shape in shapes[:2] for side in shape), default=1)
    if node.op_type.startswith(("Conv", "DeformConv", "QLinearConv")):
        weight = shapes[3 if node.op_type == "QLinearConv" else 1] if len(shapes) > 1 else ()
        return outputs * int(prod(weight[1:]))
    if node.op_type == "Det":
        return int(prod(shapes[0])) * max(shapes[0], default=1) if shapes else 0
    if node.op_type == "Einsum":
        return _einsum(next((a.s.decode() for a in node.attribute if a.name == "equation"), ""), shapes)
    return outputs


def _einsum(equation: str, shapes: list[tuple[int, ...]]) -> int:
    """Return how often the innermost multiplication of an einsum runs: once for all its letters."""
    sides: dict[str, int] = {}
    for term, shape in zip(equation.partition("->")[0].split(","), shapes, strict=False):
        letters = [letter for letter in term if letter.isalpha()]
        sides |= {letter: max(sides.get(letter, 1), side) for letter, side in zip(letters, shape, strict=False)}
    free = max((prod(shape[: max(len(shape), 1)]) for shape in shapes if "..." in equation), default=1)
    return prod(sides.values()) * free


def check_padding(node: Any, shape: tuple[int, ...], extra: list[tuple[int, int]]) -> None:
    """Raise InputError where inputs of ``shape`` would be too large with ``extra`` before and after each last side."""
    sides = [side + before + after for side, (before, after) in zip(shape[2:], extra, strict=True)]
    most = min(VALUES_LIMIT, room(prod(shape)))
    if prod(max(side, 1) for side in (*shape[:2], *sides)) > most:
        raise InputError(
            f"operator {one_line(node.op_type)} {one_line(node.name)}: inputs and padding must come to at most {most} "
            f"numbers, and would be {(*shape[:2], *sides)}"
        )


def check_functions(model: Any) -> None:
    """Raise InputError where functions of ``model`` call themselves, or come to too many operators in place."""
    bodies = {(each.domain, each.name, each.overload): each.node for each in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}
    stack: list[tuple[tuple[str, str, str], bool]] = [(key, False) for key in bodies]
    within: set[tuple[str, str, str]] = set()
    while stack:
        key, done = stack.pop()
        if key in sizes:
            continue
        called = [(node.domain, node.op_type, node.overload) for node in bodies[key]]
        if done:
            within.discard(key)
            sizes[key] = sum(sizes.get(each, 1) for each in called)
        elif key in within:
            raise InputError(f"functions must not call themselves, and {one_line(key[1])!r} does")
        else:
            within.add(key)
            stack.append((key, True))
            stack += [(each, False) for each in called if each in bodies and each not in sizes]
    in_all = sum(sizes.get((node.domain, node.op_type, node.overload), 1) for node in model.graph.node)
    if in_all > STEPS_LIMIT:
        raise InputError(f"the model must come to at most {STEPS_LIMIT} operators, functions in place, not {in_all}")
