"""Which operators of an ONNX graph are layers, and of the others why they are none.

- MatMul, Gemm and MatMulInteger with a constant matrix on either side: linear; of two activations: matmul.
- Conv of one or two dimensions, grouped or not: conv2d (of one dimension with a height of 1).
- LSTM, GRU and RNN: a linear layer for the matrix that meets the inputs, ``.ih_l0``, and one for that which meets the
  last states, ``.hh_l0``, of each direction; gates below one another in torch's order.

Source of the operators: the ONNX operator schemas, https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InputError
from ..files.container import one_line
from .onnx_bounds import check_padding
from .onnx_costs import attribute
from .onnx_found import Found, Layers, Product, Values

# Rows of torch's gates among those of ONNX: i f g o of iofc, r z n of zrh.
GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
MULTIPLY = (
    "ConvTranspose", "ConvInteger", "QLinearConv", "QLinearMatMul", "Einsum", "DeformConv", "Attention", "STFT", "DFT",
)  # fmt: skip
ELEMENTWISE, SUMS = ("Mul", "Div"), ("ReduceSum", "ReduceMean")
INSIDE = ("If", "Loop", "Scan", "SequenceMap")
FREE = ("", "ai.onnx")
NAMELESS = re.compile(
    r"const_fold_opt__\d+|onnx::.*|/.*|.*::.*_output_\d+|.*_output_\d+|val_\d+(_\w+)?|_?\w?\d+|.*Constant.*|\d*"
)
SAME_VALUE = (
    "Identity", "Cast", "Transpose", "DequantizeLinear", "QuantizeLinear", "Reshape", "Unsqueeze",
    "Squeeze", "Mul", "Sub",
)  # fmt: skip


def layers_of(model: Any, known: Values) -> Layers:
    """Return what the operators of ``model`` are; ``known``: the values that do not depend on its inputs, by name.

    Gives names to the states of recurrent operators, that the model itself may not ask for.
    """
    return _Reader(model, known).read()


class _Reader:
    def __init__(self, model: Any, known: Values) -> None:
        self.graph, self.known = model.graph, known
        self.maker = {name: node for node in self.graph.node for name in node.output if name}
        self.readers: dict[str, list[Any]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {each.name for each in self.graph.output}
        given = [each for each in self.graph.input if each.type.tensor_type.HasField("shape")]
        self.sides = {each.name: len(each.type.tensor_type.shape.dim) for each in given}
        self.owners: dict[str, tuple[str, int]] = {}
        self.layers = Layers([], {}, {})

    def read(self) -> Layers:
        """Return what all nodes are."""
        reading = {
            "MatMul": self.matmul, "MatMulInteger": self.matmul, "Gemm": self.gemm, "Conv": self.conv,
            "LSTM": self.recurrent, "GRU": self.recurrent, "RNN": self.recurrent,
        }  # fmt: skip
        for index, node in enumerate(self.graph.node):
            if all(name in self.known for name in node.output if name):
                continue
            act: Callable[[int, Any], str] | None = reading.get(node.op_type) if node.domain in FREE else None
            try:
                why = act(index, node) if act else self.none(node)
            except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
                where = f"operator {index}, {one_line(node.op_type)} {one_line(node.name)}"
                raise InputError(f"{where}: must be whole, and is not ({one_line(error)})") from None
            if why:
                name = self.unique(node.name or f"{node.op_type}_{index}", f"node {index}")
                self.layers.left[name] = why
            elif not act:
                self.layers.beside[node.op_type] = self.layers.beside.get(node.op_type, 0) + 1
        return self.layers

    def none(self, node: Any) -> str:
        """Return why a node is no layer, where it multiplies or holds weights; "" where it only works on values."""
        if node.domain not in FREE:
            return f"{node.domain}.{node.op_type}"
        if node.op_type in INSIDE:
            return f"{node.op_type}, with operators inside"
        if node.op_type in MULTIPLY:
            return str(node.op_type)
        for name in node.input:
            value = self.known.get(name)
            if value is not None and np.asarray(value).dtype.kind == "f" and np.size(value) > 1:
                what = "table" if node.op_type == "Gather" else "parameter"
                if what == "table" or (np.ndim(value) == 1 and node.op_type.endswith("Normalization")):
                    return f"{node.op_type} with a {what} {np.shape(value)}"
                if node.op_type in ELEMENTWISE and (_is_matrix(value) or self.is_summed(node)):
                    return f"{node.op_type} with a parameter {np.shape(value)}, an elementwise product"
        return ""

    def is_summed(self, node: Any) -> bool:
        """Tell whether what ``node`` gives is summed up next: with a product, a product of vectors."""
        return any(each.op_type in SUMS for name in node.output for each in self.readers.get(name, []))

    def matmul(self, index: int, node: Any) -> str:
        """Take a product of matrices; return why not."""
        left, right = node.input[:2]
        whole = node.op_type == "MatMulInteger"
        zeros = [*node.input[2:4], "", ""] if whole else ["", ""]  # names of zero points, of either side
        if left in self.known or right in self.known:
            slot = 1 if right in self.known else 0
            constant, fed = (right, left) if slot else (left, right)
            array, zero = np.asarray(self.known[constant]), None
            if array.ndim not in (1, 2):
                return f"{node.op_type} with a constant of {array.ndim} dimensions"
            vector = array.ndim == 1  # one output, on either side
            if zeros[slot]:
                if zeros[slot] not in self.known:
                    return "MatMulInteger whose zero point is computed"
                zero = np.asarray(self.known[zeros[slot]])
                zero = zero if slot or zero.size == 1 else zero.reshape(-1, 1)  # one a column, or one a row
                array = array.astype(np.float32) - zero.astype(np.float32)
            offset = zeros[1 - slot]
            weight = array[None] if vector else array.T if slot else array
            single = self.sides.get(fed) == 1
            bias = self.added(node, weight.shape[0], column=not slot and not vector and not single)

            def feed(given: np.ndarray, values: Values) -> tuple[np.ndarray, dict[str, Any]]:
                if offset and offset in values:
                    shift = np.asarray(values[offset]).astype(np.float32)
                    shift = shift.reshape(-1, 1) if slot and shift.size > 1 else shift
                    given = given.astype(np.float32) - shift
                if given.ndim == 1:  # one sample, whichever side the matrix is on
                    return given[None], {}
                return given if slot else np.swapaxes(given, -1, -2), {}

            self.take(
                index, node, constant, slot, weight, bias, fed, feed, zero=zero, part=f"{not slot} {zeros[slot]}",
                to_node=lambda mask: mask[0] if vector else mask.T if slot else mask,
            )  # fmt: skip
            return ""
        if whole:
            return "MatMulInteger of two activations"
        self.product(index, node, left, right)
        return ""

    def added(self, node: Any, size: int, column: bool = False) -> np.ndarray | None:
        """Return what is added to the output of ``node`` next, where it is one constant an output of the layer.

        ``column``: the outputs of a sample lie below one another.
        """
        name = node.output[0]
        readers = self.readers.get(name, [])
        if len(readers) != 1 or readers[0].op_type != "Add" or name in self.outputs:
            return None
        other = next((each for each in readers[0].input if each != name), "")
        value = np.asarray(self.known.get(other, 0))
        ends = (size, 1) if column else (size,)
        return value.reshape(-1) if value.size == size and value.shape[-len(ends) :] == ends else None

    def gemm(self, index: int, node: Any) -> str:
        """Take a product of two matrices with a bias; return why not."""
        left, right = node.input[:2]
        flip = bool(attribute(node, "transA", 0)), bool(attribute(node, "transB", 0))
        alpha, beta = (np.float32(attribute(node, name, 1.0)) for name in ("alpha", "beta"))
        if left not in self.known and right not in self.known:
            self.product(index, node, left, right, flip)
            return ""
        slot = 1 if right in self.known else 0
        constant, fed = (right, left) if slot else (left, right)
        array = np.asarray(self.known[constant])
        if array.ndim != 2:
            return f"Gemm with a constant of {array.ndim} dimensions"
        straight = flip[1] if slot else not flip[0]  # it lies as (out, in) already
        weight = array if straight else array.T
        added = node.input[2] if len(node.input) > 2 else ""
        bias = np.asarray(self.known[added]) if added in self.known else None
        if bias is not None:
            size = len(weight)
            fits = slot and ((bias.size == size and bias.shape[-1:] == (size,)) or bias.size == 1)
            bias = np.broadcast_to(bias.reshape(-1), (size,)) * beta if fits else None
        turn = flip[0] if slot else not flip[1]

        def feed(given: np.ndarray, _: Values) -> tuple[np.ndarray, dict[str, Any]]:
            return given.T if turn else given, {}

        self.take(
            index, node, constant, slot, weight * alpha, bias, fed, feed,
            to_node=lambda mask: mask if straight else mask.T, part=f"{straight} {alpha if alpha != 1 else ''}",
        )  # fmt: skip
        return ""

    def product(
        self, index: int, node: Any, left: str, right: str, transposed: tuple[bool, bool] = (False, False)
    ) -> None:
        """Take a product of activations."""
        name = self.unique(node.name or f"{node.op_type}_{index}", f"node {index}")
        self.layers.found.append(Product(layer=name, node=index, left=left, right=right, transposed=transposed))

    def conv(self, index: int, node: Any) -> str:
        """Take a convolution; return why not."""
        constant = node.input[1]
        if constant not in self.known:
            return "Conv whose kernel is computed"
        array = np.asarray(self.known[constant])
        sides = array.ndim - 2
        if sides not in (1, 2):
            return f"Conv of {sides} dimensions"
        stride = attribute(node, "strides", [1] * sides)
        dilation = attribute(node, "dilations", [1] * sides)
        pads, auto = attribute(node, "pads", [0] * 2 * sides), attribute(node, "auto_pad", b"NOTSET").decode()
        flat = sides == 1
        weight = array[:, :, None] if flat else array
        bias = node.input[2] if len(node.input) > 2 else ""
        if bias and bias not in self.known:
            return "Conv whose bias is computed"
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, array.shape[2:], strict=True)]

        def feed(given: np.ndarray, _: Values) -> tuple[np.ndarray, dict[str, Any]]:
            before, after = pads[:sides], pads[sides:]
            if auto in ("SAME_UPPER", "SAME_LOWER"):
                steps = zip(given.shape[2:], stride, reach, strict=True)
                all_ = [max((-(-side // step) - 1) * step + span - side, 0) for side, step, span in steps]
                small, large = [each // 2 for each in all_], [each - each // 2 for each in all_]
                before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
            elif auto == "VALID":
                before = after = [0] * sides
            # A trace pads both sides alike: what one has more is put into its inputs.
            both = [min(pair) for pair in zip(before, after, strict=True)]
            extra = [(b - least, a - least) for b, a, least in zip(before, after, both, strict=True)]
            check_padding(node, given.shape, extra)
            given = np.pad(given, [(0, 0), (0, 0), *extra])
            pairs = {"stride": stride, "padding": both, "dilation": dilation}
            if flat:
                given = given[:, :, None]
                pairs = {key: [int(key != "padding"), *each] for key, each in pairs.items()}
            attributes = {key: tuple(int(each) for each in pair) for key, pair in pairs.items()}
            return given, attributes | {"groups": int(attribute(node, "group", 1))}

        self.take(
            index, node, constant, 1, weight, np.asarray(self.known[bias]) if bias else None, node.input[0], feed,
            op="conv2d", to_node=lambda mask: mask[:, :, 0] if flat else mask, flat=flat, part="conv",
        )  # fmt: skip
        return ""

    def recurrent(self, index: int, node: Any) -> str:
        """Take the two matrices of each direction of an LSTM, GRU or RNN; return why not."""
        kind = node.op_type
        given = [*node.input, *[""] * (8 - len(node.input))]
        data, w, r, b, lengths, start = given[:6]
        if w not in self.known or r not in self.known or (b and b not in self.known):
            return f"{kind} whose weights are computed"
        if lengths:
            return f"{kind} with sequence lengths"
        if kind == "GRU" and not attribute(node, "linear_before_reset", 0):
            return "GRU with linear_before_reset 0, whose last matrix is fed with the reset state"
        if kind == "LSTM" and (given[7] or attribute(node, "input_forget", 0)):
            return "LSTM with peepholes or input_forget"
        way = attribute(node, "direction", b"forward").decode()
        batch_first = bool(attribute(node, "layout", 0))
        if not node.output[0]:
            node.output[0] = f"gossamer::states_{index}"
        states = node.output[0]
        w_all, r_all = np.asarray(self.known[w]), np.asarray(self.known[r])
        size, directions = r_all.shape[-1], 2 if way == "bidirectional" else 1
        rows = (directions, len(GATES[kind]) * size)
        biases_fit = not b or np.shape(self.known[b]) == (directions, 2 * rows[1])
        if w_all.ndim != 3 or w_all.shape[:2] != rows or r_all.shape != (*rows, size) or not biases_fit:
            return f"{kind} whose weights {w_all.shape} and {r_all.shape} do not fit"
        order = np.concatenate([np.arange(size) + gate * size for gate in GATES[kind]])
        back = np.argsort(order)
        owner = self.owner(node, index, w)
        for place in range(len(w_all)):
            backward = way == "reverse" or place == 1
            suffix = f"_l0{'_reverse' if backward else ''}"
            biases = None if not b else np.asarray(self.known[b])[place].reshape(2, -1)
            for slot, (half, array) in enumerate((("ih", w_all), ("hh", r_all))):

                def feed(
                    x: np.ndarray, known: Values, half: str = half, place: int = place, backward: bool = backward
                ) -> tuple[np.ndarray, dict[str, Any]]:
                    after = np.asarray(known[states]) if half == "hh" else x
                    if half == "hh":  # (steps, directions, batch, size), or with the batch first
                        after = after[:, :, place] if batch_first else after[:, place].swapaxes(0, 1)
                        after = after[:, ::-1] if backward else after
                        first = np.asarray(known[start]) if start else np.zeros((1, *after[:, 0].shape), np.float32)
                        first = first[:, place] if start and batch_first else first[place if start else 0]
                        return np.concatenate([first[:, None], after[:, :-1]], axis=1), {}
                    x = x if batch_first else x.swapaxes(0, 1)
                    return x[:, ::-1] if backward else x, {}

                def to_node(mask: np.ndarray, place: int = place, all_: np.ndarray = array) -> np.ndarray:
                    whole = np.ones(all_.shape, bool)
                    whole[place] = mask[back]
                    return whole

                self.take(
                    index, node, w if half == "ih" else r, slot + 1, array[place][order],
                    None if biases is None else biases[slot][order], data, feed,
                    to_node=to_node, name=f"{owner}.{half}{suffix}", part=f"{kind} {half} {place}",
                )  # fmt: skip
        return ""

    def take(
        self,
        index: int,
        node: Any,
        constant: str,
        slot: int,
        weight: np.ndarray,
        bias: np.ndarray | None,
        inputs: str,
        fed: Callable[[np.ndarray, Values], tuple[np.ndarray, dict[str, Any]]],
        *,
        op: str = "linear",
        name: str = "",
        part: str = "",
        **rest: Any,
    ) -> None:
        """Keep a layer, under the name of its weight or of its operator.

        ``part`` tells what of ``constant`` the weight is, and how it lies there: layers of one weight agree in both.
        """
        name = self.unique(name or self.owner(node, index, constant), f"{constant} {part}")
        self.layers.found.append(
            Found(
                layer=name,
                op=op,
                node=index,
                slot=slot,
                weight=weight.astype(np.float32) + np.float32(0),
                bias=None if bias is None else bias.astype(np.float32),
                inputs=inputs,
                fed=fed,
                **rest,
            )
        )

    def owner(self, node: Any, index: int, constant: str) -> str:
        """Return what to call the layer of ``node``: its weight's name, where that is one, else its own."""
        name = constant
        while name in self.maker and self.maker[name].op_type in SAME_VALUE:
            # Of a value and a scale, the larger is what has a name.
            name = max(filter(None, self.maker[name].input), key=lambda each: np.size(self.known.get(each, 0)))
        plain = name.removesuffix("_quantized")
        if plain.endswith(".weight") or not NAMELESS.fullmatch(plain):
            return plain.removesuffix(".weight")
        return node.name or f"{node.op_type}_{index}"

    def unique(self, name: str, constant: str) -> str:
        """Return ``name``, or with a number behind it where another constant has it."""
        found, number = name, 1
        while self.owners.setdefault(found, (constant, number))[0] != constant:
            number += 1
            found = f"{name} ({number})"
        return found


def _is_matrix(value: Any) -> bool:
    return len([side for side in np.shape(value) if side > 1]) > 1
