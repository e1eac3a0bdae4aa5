"""Weights in torch's semi-structured form: from a file, and in a module."""

import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.sparse import SparseSemiStructuredTensor, SparseSemiStructuredTensorCUTLASS
from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.workloads import load_trace
from gossamer.workloads.errors import InputError
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.trace import Trace
from gossamer.workloads.training.capture import capture

DTYPES = [torch.float16, torch.bfloat16, torch.float32]
KINDS = {torch.float16: (2, 4), torch.bfloat16: (2, 4), torch.float32: (1, 2), torch.int8: (2, 4)}


def pruned(rows, columns, dtype, seed=0):
    """A weight in the pattern that cores take of the dtype."""
    n, m = KINDS[dtype]
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy(rng.standard_normal((rows, columns)) * 40).to(dtype)
    rank = torch.from_numpy(rng.random((rows, columns // m, m)).argsort(axis=2))
    return weight * (rank < n).reshape(rows, columns)


def semi_structured(dense):
    """What `to_sparse_semi_structured` makes on a GPU, made here."""
    packed, meta = sparse_semi_structured_from_dense_cutlass(dense)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is a prototype
        return SparseSemiStructuredTensorCUTLASS(dense.shape, packed, meta, None, None, None)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int8])
def test_a_file_of_packed_weights_gives_the_dense_weight_and_its_promise(dtype, tmp_path):
    dense, path = pruned(64, 256, dtype), tmp_path / "packed.safetensors"
    packed, meta = sparse_semi_structured_from_dense_cutlass(dense)
    plain = {"fc.bias": torch.ones(64), "out.weight": torch.ones(2, 64)}
    save_file(plain | {"fc.weight.packed": packed, "fc.weight.meta": meta}, path)
    fc, out = load_trace(path, act_density=0.5).layers
    n, m = KINDS[dtype]
    np.testing.assert_array_equal(fc.weight, dense.float().numpy())
    assert (fc.name, fc.op, fc.pattern) == ("fc", "linear", Pattern("n:m", n=n, m=m, axis=1))
    assert fc.bias is not None and out.pattern == Pattern()


def test_metadata_in_the_order_of_the_weight_is_read_as_such(tmp_path):
    nibbles = np.full((2, 8), 0b0100, np.uint16)
    nibbles[1, 5] = 0b1110
    words = sum(nibbles.reshape(2, 2, 4)[..., i] << (4 * i) for i in range(4)).astype(np.int16)
    values = np.arange(1, 33, dtype=np.float16).reshape(2, 16)
    np.savez(tmp_path / "layer.npz", **{"weight.packed": values, "weight.metadata": words})
    (layer,) = load_trace(tmp_path / "layer.npz", act_density=1.0).layers
    expected = np.zeros((2, 8, 4), np.float32)
    expected[..., :2] = values.reshape(2, 8, 2)
    expected[1, 5] = [0, 0, 27, 28]
    np.testing.assert_array_equal(layer.weight, expected.reshape(2, 32))
    assert layer.name == "layer"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"fc.weight.packed": np.zeros((32, 32), np.float16)},
            "tensor fc.weight.packed: packed 2:4 weights must come as values and metadata, and a cuSPARSELt blob is "
            "one array of no public layout; give the dense weight (to_dense() in PyTorch)",
        ),
        (
            {"fc.weight.packed": np.zeros((32, 32), np.float16), "fc.weight.meta": np.zeros((32, 4), np.int16)},
            "tensor fc.weight.packed: metadata of 2:4 must be one of 0100, 1000, 1001, 1100, 1101, 1110, and that of "
            "row 0, group 0 is 0000",
        ),
        (
            {
                "fc.weight.packed": np.zeros((32, 32), np.float16),
                "fc.weight.meta": np.zeros((32, 4), np.int16),
                "fc.weight": np.zeros((32, 64), np.float32),
            },
            "fc.weight.packed must come with metadata alone, in one order, and comes with fc.weight, fc.weight.meta; "
            "leave out all but one of these",
        ),
    ],
)
def test_packed_weights_that_cannot_be_read_are_refused(arrays, message, tmp_path):
    path = tmp_path / "packed.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError) as error:
        load_trace(path, act_density=1.0)
    assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_module_with_packed_weights_is_captured_on_a_cpu(dtype):
    dense = pruned(32, 64, dtype)
    network = nn.Sequential(nn.Linear(64, 32, bias=False, dtype=dtype), nn.ReLU())
    network[0].weight = nn.Parameter(semi_structured(dense), requires_grad=False)
    samples = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 64))).to(dtype)
    (layer,) = capture(network, samples)
    n, m = KINDS[dtype]
    np.testing.assert_array_equal(layer.weight, dense.float().numpy())
    assert layer.pattern == Pattern("n:m", n=n, m=m, axis=1)
    assert isinstance(network[0].weight, SparseSemiStructuredTensor)  # left as it was
    result = simulate(load_machine("a100-sparse", dtype="tf32" if n == 1 else "fp16"), Trace(name="t", layers=(layer,)))
    assert result.layers[0].macs == layer.nonzeros * 3 and result.layers[0].counts["repeated_groups"] == 0


def test_a_blob_of_cusparselt_is_refused_by_name():
    network = nn.Sequential(nn.Linear(64, 32, bias=False, dtype=torch.float16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        blob = torch.sparse.SparseSemiStructuredTensorCUSPARSELT(
            torch.Size((32, 64)), torch.zeros(1024, dtype=torch.float16), None, None, None, None
        )
    network[0].weight = nn.Parameter(blob, requires_grad=False)
    with pytest.raises(InputError) as error:
        capture(network, torch.zeros(1, 64, dtype=torch.float16))
    assert str(error.value) == (
        "parameter 0.weight: packed 2:4 weights must come as values and metadata, and a cuSPARSELt blob is one array "
        "of no public layout; give the dense weight (to_dense() in PyTorch)"
    )
