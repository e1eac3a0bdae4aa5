"""Traces to save, and files of them to change by hand."""

import json

import numpy as np

from gossamer.workloads.files.container import container_bytes, parse_container
from gossamer.workloads.files.trace_file import KEY
from gossamer.workloads.trace import ARRAYS, Layer, Trace


def sparse(rng, shape, density):
    return (rng.standard_normal(shape) * (rng.random(shape) < density)).astype(np.float32)


def assert_same(a, b):
    assert (a.name, a.provenance, len(a.layers)) == (b.name, b.provenance, len(b.layers))
    for one, other in zip(a.layers, b.layers, strict=True):
        assert (one.name, one.op, one.attributes, one.pattern) == (
            other.name,
            other.op,
            other.attributes,
            other.pattern,
        )
        for name in ARRAYS:
            mine, theirs = one.array(name), other.array(name)
            assert (mine is None) == (theirs is None)
            if mine is not None:
                np.testing.assert_array_equal(mine, theirs, strict=True)
    assert a.sha256 == b.sha256


def small_trace():
    """A trace with codes, a codebook, a mask and a bias."""
    rng = np.random.default_rng(5)
    book = sparse(rng, 16, 1) * (np.arange(16) > 0)
    codes = (rng.integers(1, 16, (6, 20)) * (rng.random((6, 20)) < 0.3)).astype(np.uint8)
    weight = sparse(rng, (4, 6), 0.5)
    return Trace(
        name="small",
        layers=[
            Layer(name="fc1", op="linear", codes=codes, codebook=book, inputs=sparse(rng, (2, 20), 0.5)),
            Layer(
                name="fc2",
                op="linear",
                weight=weight,
                mask=(weight != 0) | (rng.random((4, 6)) < 0.2),
                bias=sparse(rng, 4, 1),
                inputs=sparse(rng, (2, 6), 1),
            ),
        ],
        provenance={"seed": 5},
    )


def rewrite(path, change_header=None, change_tensors=None):
    """Write the file at ``path`` again with its header or tensors changed by hand."""
    container = parse_container(path.read_bytes(), path)
    header = json.loads(container.metadata[KEY])
    tensors = {name: array for name, (_, array) in container.tensors.items()}
    if change_header:
        change_header(header)
    if change_tensors:
        change_tensors(tensors)
    path.write_bytes(container_bytes(tensors, {KEY: json.dumps(header)}))


def put(*place):
    """Return a function that stores a value at a place in nested data."""

    def change(data):
        for step in place[:-2]:
            data = data[step]
        data[place[-2]] = place[-1]

    return change
