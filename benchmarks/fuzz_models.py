"""Other people's models, as PyTorch and ONNX write them, for `fuzz` (needs the extras train and onnx)."""

from __future__ import annotations

import importlib.util
import io
import random
from functools import cache
from pathlib import Path

import fuzz_seeds as seeds
import numpy as np
from fuzz import Target
from fuzz_damage import damaged
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


def onnx_model(rng: random.Random, folder: Path) -> None:
    from gossamer.workloads.importers.onnx import trace_of_onnx

    path = _write(folder, "m.onnx", damaged(rng, _model()))
    samples = {"x": np.ones((1, 3, 6, 6), np.float32)} if rng.random() < 0.5 else None
    _look(trace_of_onnx(path, samples, draw=DRAW))


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
    Target("onnx", onnx_model, 20, limit_s=20),
)
