"""Other people's models, as PyTorch and ONNX write them, for `fuzz` (needs the extras train and onnx)."""

from __future__ import annotations

import importlib.util
import io
import json
import random
from functools import cache
from pathlib import Path
from unittest import mock

import fuzz_onnx
import fuzz_seeds as seeds
import numpy as np
from fuzz import Target
from fuzz_damage import NUMBERS, damaged, harmed, json_bytes
from fuzz_readers import _container, _look, _write

from gossamer.workloads.files.drawn import Draw

DRAW = Draw(act_density=0.5, input_size=(6, 6))


@cache
def _pickled() -> bytes:
    import torch

    file = io.BytesIO()
    torch.save({"fc.weight": torch.ones(4, 3), "fc.bias": torch.zeros(4), "c.weight": torch.ones(2, 3, 3, 3)}, file)
    return file.getvalue()


@cache
def _model() -> bytes:
    """Return a model of a convolution and a dense layer."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(4)
    weights = {"c": seeds.sparse(rng, 2, 3, 3, 3), "w": seeds.sparse(rng, 32, 5), "b": seeds.sparse(rng, 5)}
    nodes = [
        helper.make_node("Conv", ["x", "c"], ["h"], name="conv", kernel_shape=[3, 3], pads=[0, 0, 0, 0]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], name="fc"),
    ]
    graph = helper.make_graph(
        nodes, "seed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    data: bytes = model.SerializeToString()
    return data


def state_dict(rng: random.Random, folder: Path) -> None:
    from gossamer.workloads.importers.state_dict import trace_of_state_dict

    if rng.random() < 0.5:
        path = _write(folder, "s.safetensors", _container(rng, rng.choice(seeds.container_files())))
    else:
        path = _write(folder, "s.pt", damaged(rng, _pickled()))
    _look(trace_of_state_dict(path, draw=DRAW))


def shards(rng: random.Random, folder: Path) -> None:
    """Read a state dict of two shards, they or their index damaged, layer by layer."""
    from gossamer.workloads.importers import state_dict as importer

    whole = seeds.container_files()
    files = {name: rng.choice(whole) for name in ("a.safetensors", "b.safetensors")}
    placed = {name: file for file, data in files.items() for name in _names(data)}
    index = {"metadata": {"total_size": rng.choice(NUMBERS)}, "weight_map": placed}
    text = json_bytes(rng, harmed(rng, index) if rng.random() < 0.5 else index)
    for file, data in files.items():
        _write(folder, file, _container(rng, data) if rng.random() < 0.3 else data)
    path = _write(folder, "m.safetensors.index.json", damaged(rng, text) if rng.random() < 0.3 else text)
    with mock.patch.object(importer, "STREAMED_FROM", rng.choice((0, 2**26))):
        _look(importer.trace_of_state_dict(path, draw=DRAW))


def _names(data: bytes) -> list[str]:
    names = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return [name for name in names if name != "__metadata__"]


def onnx_model(rng: random.Random, folder: Path) -> None:
    from gossamer.workloads.importers.onnx import trace_of_onnx

    path = _write(folder, "m.onnx", damaged(rng, _model()))
    samples = {"x": np.ones((1, 3, 6, 6), np.float32)} if rng.random() < 0.5 else None
    _look(trace_of_onnx(path, samples, draw=DRAW))


def onnx_program(rng: random.Random, folder: Path) -> None:
    """Read a whole model with operators whose attributes and inputs name any size, or loop as often as they like."""
    from gossamer.workloads.importers.onnx import trace_of_onnx

    path = _write(folder, "m.onnx", _program(rng))
    samples = {"x": np.ones((1, 3, 6, 6), np.float32)} if rng.random() < 0.8 else None
    _look(trace_of_onnx(path, samples, draw=DRAW))


def _program(rng: random.Random) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    def whole(name: str, *numbers: int) -> None:
        kept = np.array([max(-(2**63), min(number, 2**63 - 1)) for number in numbers], np.int64)
        constants.append(numpy_helper.from_array(kept, name))

    def number() -> int:
        return int(rng.choice((0, 1, 2, 3, 64, 1000, 5000, 10**6, 10**9, -1, *NUMBERS[:19])))

    constants = [numpy_helper.from_array(seeds.sparse(np.random.default_rng(4), 2, 3, 3, 3), "c")]
    nodes, last = [], "x"
    for place in range(rng.randrange(1, 4)):
        kind, out, name = rng.choice(_HOSTILE), f"v{place}", f"n{place}"
        if kind in ("Expand", "Tile", "ConstantOfShape", "Reshape"):
            whole(name, *(number() for _ in range(4)))
            given = [name] if kind == "ConstantOfShape" else [last, name]
            nodes.append(helper.make_node(kind, given, [out], name=name))
        elif kind == "Pad":
            whole(name, *(number() for _ in range(8)))
            nodes.append(helper.make_node("Pad", [last, name], [out], name=name))
        elif kind == "Range":
            for part, value in (("a", 0), ("b", number()), ("d", rng.choice((0, 1, -1, 3)))):
                constants.append(
                    numpy_helper.from_array(np.array(max(-(2**62), min(value, 2**62)), np.int64), name + part)
                )
            nodes.append(helper.make_node("Range", [name + "a", name + "b", name + "d"], [out], name=name))
        elif kind == "Loop":
            constants.append(
                numpy_helper.from_array(
                    np.array(min(rng.choice((0, 1, 2, 5, 100, abs(number()))), 2**62), np.int64), name
                )
            )
            constants.append(numpy_helper.from_array(np.array(True), name + "c"))
            body = [helper.make_node("Identity", ["go"], ["on"]),
                    helper.make_node(rng.choice(("Identity", "Relu")), ["s"], ["t"])]  # fmt: skip
            if rng.random() < 0.5:
                body.append(helper.make_node("Concat", ["t", "t"], ["u"], axis=0))
            value = helper.make_tensor_value_info
            inner = helper.make_graph(
                body, "body", [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []),
                               value("s", TensorProto.FLOAT, None)],
                [value("on", TensorProto.BOOL, []), value(body[-1].output[0], TensorProto.FLOAT, None)],
            )  # fmt: skip
            given = [rng.choice((name, name, name, "")), name + "c", last]
            nodes.append(helper.make_node("Loop", given, [out], name=name, body=inner))
        else:
            pair = [min(max(number(), -(2**63)), 2**63 - 1) for _ in range(2)]
            chosen = {rng.choice(("strides", "dilations")): pair, "kernel_shape": [3, 3]}
            if kind != "Conv" and rng.random() < 0.5:
                chosen["kernel_shape"] = [min(max(number(), -(2**63)), 2**63 - 1) for _ in range(2)]
            if rng.random() < 0.5:
                chosen["pads"] = [min(max(number(), -(2**63)), 2**63 - 1) for _ in range(4)]
            if kind == "AveragePool" and "dilations" in chosen:
                del chosen["dilations"]
            nodes.append(helper.make_node(kind, [last, "c"] if kind == "Conv" else [last], [out], name=name, **chosen))
        last = out if kind != "Conv" else rng.choice((last, out))
    nodes.append(helper.make_node("Conv", [last, "c"], ["y"], name="conv", kernel_shape=[3, 3]))
    version = 17
    if rng.random() < 0.5:
        more, arrays = fuzz_onnx.beside(rng)
        version = 24
        if rng.random() < 0.7:  # nothing else but the convolution
            del nodes[:-1]
            nodes[-1].input[0] = "x"
        nodes[:0] = more
        constants += [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], constants,
    )  # fmt: skip
    imports = [helper.make_opsetid("", version), helper.make_opsetid(fuzz_onnx.ML, 3)]
    data: bytes = helper.make_model(graph, opset_imports=imports).SerializeToString()
    return data


_HOSTILE = (
    "Expand",
    "Tile",
    "ConstantOfShape",
    "Reshape",
    "Pad",
    "Range",
    "Loop",
    "Conv",
    "MaxPool",
    "AveragePool",
)


def prepare() -> None:
    """Make what is damaged, before any case is watched, and read it once."""
    from tempfile import TemporaryDirectory

    from gossamer.workloads.importers.onnx import trace_of_onnx
    from gossamer.workloads.importers.state_dict import trace_of_state_dict

    seeds.trace_files()
    seeds.container_files()
    with TemporaryDirectory() as folder:
        _look(trace_of_state_dict(_write(Path(folder), "s.pt", _pickled()), draw=DRAW))
        if importlib.util.find_spec("onnx") is not None:
            samples = {"x": np.ones((1, 3, 6, 6), np.float32)}
            _look(trace_of_onnx(_write(Path(folder), "m.onnx", _model()), samples, draw=DRAW))


TARGETS = (
    Target("state-dict", state_dict, 20, limit_s=10),
    Target("shards", shards, 20, limit_s=10),
    Target("onnx", onnx_model, 20, limit_s=20),
    Target("onnx-program", onnx_program, 10, limit_s=40),
)
