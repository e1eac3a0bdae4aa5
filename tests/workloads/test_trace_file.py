from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.workloads.errors import InputError
from gossamer.workloads.files.container import parse_container
from gossamer.workloads.files.sparse import RUN, pack, unpack
from gossamer.workloads.files.trace_file import KEY, load_trace_file, save_trace
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.trace import Layer, Trace

from .trace_files import assert_same, small_trace, sparse

DENSITIES = st.sampled_from([0.0, 0.004, 0.05, 0.3, 1.0])


@st.composite
def others(draw, op, rng):
    """Draw what the layers of attention and of point clouds are made of."""
    density = draw(DENSITIES)
    if op == "matmul":
        weight, inputs = sparse(rng, (4, 3, 5), density), sparse(rng, (4, 2, 5), density)
        return {"weight": weight, "inputs": inputs, "attributes": {"samples": draw(st.sampled_from([1, 2, 4]))}}
    if op == "point_op":
        inputs, queries = sparse(rng, (7, 2), density), draw(st.sampled_from([None, sparse(rng, (3, 2), density)]))
        return {"inputs": inputs, "queries": queries, "attributes": {"kind": "knn", "k": draw(st.integers(1, 7))}}
    points = np.unique(np.random.default_rng(draw(st.integers(0, 1))).integers(-3, 3, (9, 3), np.int32), axis=0)
    transposed = draw(st.booleans())
    inputs = draw(st.sampled_from([None, sparse(rng, (len(points), 2), density)]))
    attributes = {"kernel_size": 2, "stride": 2, "transposed": transposed, "builds_map": draw(st.booleans())}
    return {
        "weight": sparse(rng, (3, 2, 8), density), "coordinates": points, "inputs": inputs,
        "output_coordinates": draw(st.sampled_from([points, points[:2]])), "attributes": attributes,
    }  # fmt: skip


@st.composite
def layers(draw, name):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    side = st.integers(1, 40)
    rows, cols = draw(side), draw(side)
    op = draw(st.sampled_from(["linear", "conv2d", "matmul", "sparse_conv3d", "point_op"]))
    if op not in ("linear", "conv2d"):
        return Layer(name=name, op=op, **draw(others(op, rng)))
    if op == "linear":
        shape, inputs = (rows, cols), draw(st.sampled_from([(1, cols), (3, cols), (2, 2, cols)]))
        attributes = {}
    else:
        groups = draw(st.sampled_from([1, 2]))
        shape, inputs = (rows * groups, cols, 3, draw(st.integers(1, 3))), (2, cols * groups, 5, 4)
        attributes = draw(st.sampled_from([{}, {"stride": (2, 1), "padding": [0, 1]}])) | {"groups": groups}
    given = {"name": name, "op": op, "inputs": sparse(rng, inputs, draw(DENSITIES)), "attributes": attributes}
    density = draw(DENSITIES)
    has_bias = draw(st.booleans())
    if draw(st.booleans()):
        size = draw(st.sampled_from([2, 3, 16, 17, 256]))
        codes = rng.integers(1, size, shape) * (rng.random(shape) < density)
        given |= {"codes": codes.astype(np.uint8), "codebook": sparse(rng, size, 0.9) * (np.arange(size) > 0)}
        if has_bias:
            given["bias_codes"] = rng.integers(0, size, shape[0]).astype(np.uint8)
    else:
        given["weight"] = sparse(rng, shape, density)
        if has_bias:
            given["bias"] = sparse(rng, shape[0], 0.5)
    kept = given.get("codes", given.get("weight")) != 0
    mask = draw(st.sampled_from(["none", "kept", "more", "all"]))
    if mask != "none":
        given["mask"] = {"kept": kept, "more": kept | (rng.random(shape) < 0.1), "all": np.ones(shape, bool)}[mask]
    patterns = [Pattern(), Pattern("dense"), Pattern("n:m", n=1, m=1, axis=0), Pattern("block", block=(1, 1))]
    return Layer(**given, pattern=draw(st.sampled_from(patterns)))


@st.composite
def traces(draw):
    names = draw(st.lists(st.sampled_from(["fc1", "fc1.weight", "fc 2", "层"]), min_size=1, max_size=3, unique=True))
    provenance = {"network": "n", "recipe": {"rate": 0.1, "steps": [1, 2.0, None, True]}, "seed": -3}
    return Trace(name="net", layers=[draw(layers(name)) for name in names], provenance=provenance)


@pytest.fixture
def small():
    return small_trace()


@settings(max_examples=150, derandomize=True, deadline=None)
@given(trace=traces())
def test_a_trace_comes_back_as_it_was_saved(trace, tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "net.safetensors"
    assert save_trace(trace, path) == path
    loaded = load_trace_file(path)
    assert_same(loaded, trace)
    first = path.read_bytes()
    save_trace(loaded, path)
    assert path.read_bytes() == first


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    size=st.integers(0, 2000),
    density=DENSITIES,
    seed=st.integers(0, 999),
    kind=st.sampled_from("fcnb"),
    block=st.sampled_from([1, 3, 64, 2**16]),
)
def test_every_form_holds_every_array_and_the_shortest_is_taken(size, density, seed, kind, block):
    rng = np.random.default_rng(seed)
    kept = rng.random(size) < density
    array = {
        "f": (rng.standard_normal(size) * kept).astype(np.float32),
        "c": (rng.integers(1, 256, size) * kept).astype(np.uint8),
        "n": (rng.integers(1, 16, size) * kept).astype(np.uint8),
        "b": kept,
    }[kind]
    form, parts = pack(array, nibbles=kind == "n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gossamer.workloads.files.sparse.BLOCK", block)
        back = unpack(form, (size,), parts, array.dtype.type, nibbles=kind == "n")
    np.testing.assert_array_equal(back, array, strict=True)
    stored = sum(part.nbytes for part in parts.values())
    values = int(kept.sum()) * {"f": 4, "c": 1, "n": 0.5, "b": 0}[kind]
    assert stored <= np.ceil(size / 8) + values + 1
    assert stored <= (kept.sum() + size // RUN) + values + 1 or kept.sum() > size // 4
    if kind == "b":
        assert form != "dense"


def test_a_sparse_trace_takes_a_fraction_of_its_dense_bytes(tmp_path):
    rng = np.random.default_rng(1)
    shape = (300, 784)
    inputs = sparse(rng, (1, 784), 1.0)
    weight = sparse(rng, shape, 0.05)
    path = save_trace(
        Trace(name="t", layers=[Layer(name="a", op="linear", weight=weight, inputs=inputs)]), tmp_path / "t.safetensors"
    )
    assert path.stat().st_size < 0.07 * weight.nbytes + inputs.nbytes + 1000
    codes = (rng.integers(1, 16, shape) * (weight != 0)).astype(np.uint8)
    layer = Layer(name="a", op="linear", codes=codes, codebook=sparse(rng, 16, 1) * (np.arange(16) > 0), inputs=inputs)
    path = save_trace(Trace(name="t", layers=[layer]), tmp_path / "t.safetensors")
    assert path.stat().st_size < 0.02 * weight.nbytes + inputs.nbytes + 1000


def test_a_negative_zero_is_saved_as_zero(tmp_path):
    weight = np.array([[-0.0, 1], [2, 3]], np.float32)
    trace = Trace(name="t", layers=[Layer(name="a", op="linear", weight=weight, inputs=weight)])
    loaded = load_trace_file(save_trace(trace, tmp_path / "t.safetensors"))
    assert loaded.sha256 == trace.sha256
    assert not np.signbit(loaded.layers[0].weight).any()
    assert not np.signbit(loaded.layers[0].inputs).any()


def test_layers_on_the_same_points_store_them_once(tmp_path):
    points = np.unique(np.random.default_rng(0).integers(0, 9, (50, 3), np.int32), axis=0)
    given = {"op": "sparse_conv3d", "weight": np.ones((1, 1, 27), np.float32), "coordinates": points}
    trace = Trace(
        name="net", layers=(Layer(name="a", **given), Layer(name="b", **given, output_coordinates=points[:9]))
    )
    path = save_trace(trace, tmp_path / "t.safetensors")
    tensors = parse_container(path.read_bytes(), path).tensors
    assert sorted(name for name in tensors if "coordinates" in name) == [
        "a.coordinates.values",
        "b.output_coordinates.values",
    ]
    assert load_trace_file(path).sha256 == trace.sha256


def test_an_output_that_cannot_be_written_leaves_nothing_behind(small, tmp_path):
    with pytest.raises(InputError) as error:
        save_trace(small, tmp_path / "t.npz")
    assert str(error.value) == (
        f"{tmp_path / 't.npz'}: the name of a trace file must end in .safetensors, not '.npz'; rename it"
    )
    lost = tmp_path / "missing" / "t.safetensors"
    with pytest.raises(InputError) as error:
        save_trace(small, lost)
    assert str(error.value) == (
        f"{lost}: the output must be writable, and No such file or directory; choose a folder and a name that are"
    )
    folder = tmp_path / "d.safetensors"
    folder.mkdir()
    with pytest.raises(InputError, match="the output must be writable, and Is a directory"):
        save_trace(small, folder)
    assert sorted(tmp_path.iterdir()) == [folder]
    assert not any(folder.iterdir())


def test_an_interrupted_write_keeps_what_was_there(small, tmp_path, monkeypatch):
    path = save_trace(small, tmp_path / "t.safetensors")
    before = path.read_bytes()

    def interrupted(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_trace(Trace(name="other", layers=small.layers), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_header_is_typed_json_under_one_key(small, tmp_path):
    path = save_trace(small, tmp_path / "t.safetensors")
    container = parse_container(path.read_bytes(), path)
    assert list(container.metadata) == [KEY]
    header = msgspec.json.decode(container.metadata[KEY])
    assert (header["version"], header["name"], header["sha256"]) == (1, "small", small.sha256)
    assert [layer["name"] for layer in header["layers"]] == ["fc1", "fc2"]
