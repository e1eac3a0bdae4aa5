"""Small models of ONNX, and what their layers compute."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from gossamer.workloads.lowering import lower

RNG = np.random.default_rng(0)


def drawn(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def save(tmp_path, nodes, weights, inputs, outputs=("y",), name="net.onnx", opset=17, functions=()):
    """Write a model; ``inputs``: shape by name, of float32, or (type, shape)."""
    typed = {key: value if value and isinstance(value[0], str) else ("FLOAT", value) for key, value in inputs.items()}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(key, getattr(TensorProto, kind), shape) for key, (kind, shape) in typed.items()],
        [helper.make_tensor_value_info(key, TensorProto.FLOAT, None) for key in outputs],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    imports = [helper.make_opsetid(*each) for each in (("", opset), ("mine", 1), ("ai.onnx.ml", 3))]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9, functions=functions)
    path = tmp_path / name
    path.write_bytes(model.SerializeToString())
    return path


def product(layer):
    """What the layer computes in float64, one row a vector."""
    parts = []
    for part in lower(layer):
        bias = 0 if part.bias_values is None else part.bias_values
        parts.append(part.vectors.astype(np.float64) @ part.weight.T.astype(np.float64) + bias)
    return np.concatenate(parts, axis=0 if layer.op == "matmul" else 1)


def node(kind, inputs, outputs="y", name="", **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), name=name, **attributes)


W, B, X = drawn(6, 8), drawn(6), drawn(3, 8)
