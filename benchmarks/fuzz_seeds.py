"""What `fuzz` damages: small traces of every op, and the files that the readers take."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gossamer.workloads.files.container import container_bytes
from gossamer.workloads.files.trace_file import save_trace
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.trace import Layer, Trace


def sparse(rng: np.random.Generator, *shape: int, density: float = 0.5) -> np.ndarray:
    """Return float32 numbers of ``shape``, of which the share ``density`` is not 0."""
    return (rng.standard_normal(shape) * (rng.random(shape) < density)).astype(np.float32)


@cache
def layers() -> dict[str, dict[str, Any]]:
    """Return the arguments of a small layer of each kind."""
    rng = np.random.default_rng(7)
    codes = (rng.integers(1, 16, (6, 20)) * (rng.random((6, 20)) < 0.4)).astype(np.uint8)
    groups = np.arange(32) % 4 < 2
    points = np.unique(rng.integers(-3, 4, (20, 3), np.int32), axis=0)
    patterned = np.zeros((8, 4, 3, 3), np.float32)
    patterned[:, ::2, :2, :2] = rng.standard_normal((8, 2, 2, 2))
    scores = np.exp(rng.normal(size=(2, 3, 8)))
    return {
        "linear": {
            "op": "linear", "weight": sparse(rng, 12, 16), "bias": sparse(rng, 12), "inputs": sparse(rng, 2, 16),
        },
        "coded": {
            "op": "linear", "codes": codes, "codebook": sparse(rng, 16, density=1) * (np.arange(16) > 0),
            "bias_codes": rng.integers(0, 16, 6).astype(np.uint8), "mask": codes > 0, "inputs": sparse(rng, 1, 20),
        },
        "n:m": {
            "op": "linear", "weight": sparse(rng, 32, 32, density=1) * groups, "inputs": sparse(rng, 4, 32),
            "pattern": Pattern("n:m", n=2, m=4, axis=1),
        },
        "conv2d": {
            "op": "conv2d", "weight": sparse(rng, 4, 3, 3, 3), "inputs": sparse(rng, 2, 3, 6, 6),
            "attributes": {"padding": (1, 1), "stride": (2, 1)},
        },
        "kernels": {
            "op": "conv2d", "weight": patterned, "inputs": sparse(rng, 1, 4, 6, 6), "attributes": {"padding": (1, 1)},
            "pattern": Pattern("kernel-pattern", n=4, m=1),
        },
        "grouped": {
            "op": "conv2d", "weight": sparse(rng, 4, 2, 3, 1), "inputs": sparse(rng, 1, 4, 5, 4),
            "attributes": {"groups": 2, "dilation": (1, 2)}, "pattern": Pattern("block", block=(1, 1)),
        },
        "lstm": {
            "op": "lstm", "weight": sparse(rng, 16, 6), "bias": sparse(rng, 16), "inputs": sparse(rng, 2, 3, 3),
            "projection": sparse(rng, 3, 4), "peephole": sparse(rng, 3, 4),
        },
        "matmul": {
            "op": "matmul", "weight": sparse(rng, 2, 4, 8), "attributes": {"samples": 1},
            "inputs": (scores / scores.sum(-1, keepdims=True)).astype(np.float32),
        },
        "sparse_conv3d": {
            "op": "sparse_conv3d", "weight": sparse(rng, 4, 3, 27), "inputs": sparse(rng, len(points), 3),
            "coordinates": points,
        },
        "downsampling": {
            "op": "sparse_conv3d", "weight": sparse(rng, 4, 3, 8), "coordinates": points,
            "output_coordinates": np.unique(points // 2 * 2, axis=0), "attributes": {"kernel_size": 2, "stride": 2},
        },
        "knn": {
            "op": "point_op", "inputs": sparse(rng, 12, 3, density=1), "queries": sparse(rng, 3, 3, density=1),
            "attributes": {"kind": "knn", "k": 4},
        },
        "ball_query": {
            "op": "point_op", "inputs": sparse(rng, 12, 3, density=1),
            "attributes": {"kind": "ball_query", "k": 4, "radius": 0.7, "order": "index"},
        },
        "quantise": {
            "op": "point_op", "inputs": sparse(rng, 12, 3, density=1), "attributes": {"kind": "quantise",
            "voxel_size": 0.2},
        },
        "fps": {
            "op": "point_op", "inputs": sparse(rng, 12, 3, density=1), "attributes": {"kind": "fps", "samples": 5},
        },
    }  # fmt: skip


@cache
def trace(*kinds: str) -> Trace:
    """Return a trace of layers of ``kinds``, all of them where none is named."""
    names = kinds or tuple(layers())
    made = [Layer(name=f"l{place}", **layers()[kind]) for place, kind in enumerate(names)]
    return Trace(name="seed", layers=made, provenance={"network": "n", "accuracy": 0.5, "recipe": {"rate": 0.1}})


@cache
def trace_files() -> tuple[bytes, ...]:
    """Return traces as files: one of all kinds of layers, and one of each."""
    with TemporaryDirectory() as folder:
        chosen = [(), *((kind,) for kind in layers()), ("sparse_conv3d", "sparse_conv3d")]
        return tuple(save_trace(trace(*kinds), Path(folder) / "t.safetensors").read_bytes() for kinds in chosen)


@cache
def masked_arrays() -> tuple[dict[str, np.ndarray], ...]:
    """Return what files of masked weights hold: with and without activations, one and several layers."""
    rng = np.random.default_rng(8)
    weight = sparse(rng, 6, 8)
    conv = {"c1.weight": sparse(rng, 4, 2, 3, 3), "c1.inputs": sparse(rng, 2, 4, 5, 5), "c1.bias": sparse(rng, 4)}
    half = weight.astype(np.float16)
    return (
        {"fc": weight},
        {"fc1.weight": weight, "fc1.bias": sparse(rng, 6), "fc1.mask": weight != 0, "fc1.inputs": sparse(rng, 8)},
        {"weight": weight.astype(np.float64), "inputs": sparse(rng, 3, 8), "mask": (weight != 0).astype(np.int8)},
        conv | {"fc2.w": half, "fc2.activations": sparse(rng, 1, 8), "fc10.weight": weight},
        {"q.weight": (weight * 50).astype(np.int8), "z": np.asfortranarray(sparse(rng, 3, 4))},
    )


@cache
def container_files() -> tuple[bytes, ...]:
    """Return files of masked weights as .safetensors, packed 2:4 ones among them."""
    rng = np.random.default_rng(9)
    plain = [container_bytes(arrays, {}) for arrays in masked_arrays()]
    words = np.full((32, 8), 0x4444, np.int16)  # positions 0 and 1 in every group
    packed = {"fc.weight.packed": sparse(rng, 32, 64).astype(np.float16), "fc.weight.metadata": words}
    reordered = {"fc.weight.packed": sparse(rng, 32, 64).astype(np.float16), "fc.weight.meta": words}
    return (*plain, container_bytes(packed, {}), container_bytes(reordered, {"format": "pt"}))


def npy(array: np.ndarray) -> bytes:
    """Return ``array`` as an .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return file.getvalue()


def npz(arrays: dict[str, np.ndarray], *, packed: bool = False) -> bytes:
    """Return ``arrays`` as an .npz file."""
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


MTX = (
    b"%%MatrixMarket matrix coordinate real general\n% a comment\n4 5 4\n1 1 0.5\n2 3 -1e3\n4 5 7\n3 1 2\n",
    b"%%MatrixMarket matrix coordinate pattern symmetric\n3 3 3\n1 1\n2 1\n3 2\n",
    b"%%MatrixMarket matrix array real general\n2 3\n1\n2\n3\n4\n5\n6\n",
    b"%%MatrixMarket matrix array integer skew-symmetric\n3 3\n1\n2\n3\n",
)
SMTX = (b"3, 4, 5\n0 2 3 5\n0 3 1 0 2\n", b"1, 1, 1\n0 1\n0\n", b"2, 6, 4\n0 4 4\n0 1 2 5\n")
PLY = (
    b"ply\nformat ascii 1.0\ncomment x\nelement vertex 3\nproperty float x\nproperty float y\nproperty double z\n"
    b"property uchar intensity\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
    b"0 0 0 1\n1 2 3 4\n5 6 7 8\n3 0 1 2\n",
    b"ply\nformat binary_big_endian 1.0\nelement thing 1\nproperty int a\nelement vertex 2\nproperty float x\n"
    b"property float y\nproperty float z\nend_header\n" + bytes(4 + 24),
    b"ply\nformat binary_little_endian 1.0\nelement vertex 2\nproperty short x\nproperty uint y\nproperty float z\n"
    b"end_header\n" + bytes(range(20)),
)
OFF = (
    b"OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0 # a corner\n0 0 1\n3 0 1 2\n4 0 1 2 3 255 0 0\n",
    b"OFF3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
)
