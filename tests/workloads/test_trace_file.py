import json
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.workloads.errors import InputError
from gossamer.workloads.files.container import container_bytes, parse_container
from gossamer.workloads.files.sparse import RUN, pack, unpack
from gossamer.workloads.files.trace_file import KEY, load_trace_file, save_trace
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.trace import ARRAYS, Layer, Trace

DENSITIES = st.sampled_from([0.0, 0.004, 0.05, 0.3, 1.0])


def sparse(rng, shape, density):
    return (rng.standard_normal(shape) * (rng.random(shape) < density)).astype(np.float32)


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
@given(size=st.integers(0, 2000), density=DENSITIES, seed=st.integers(0, 999), kind=st.sampled_from("fcnb"))
def test_every_form_holds_every_array_and_the_shortest_is_taken(size, density, seed, kind):
    rng = np.random.default_rng(seed)
    kept = rng.random(size) < density
    array = {
        "f": (rng.standard_normal(size) * kept).astype(np.float32),
        "c": (rng.integers(1, 256, size) * kept).astype(np.uint8),
        "n": (rng.integers(1, 16, size) * kept).astype(np.uint8),
        "b": kept,
    }[kind]
    form, parts = pack(array, nibbles=kind == "n")
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


@pytest.fixture
def small():
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


def load_bytes(path, data):
    path.write_bytes(data)
    return load_trace_file(path)


def test_a_file_cut_anywhere_is_refused(small, tmp_path):
    data = save_trace(small, tmp_path / "t.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in range(len(data)):
        with pytest.raises(InputError) as error:
            load_bytes(cut, data[:length])
        message = str(error.value)
        assert message.startswith(f"{cut}: the file must be a whole .safetensors container, and is not (")
        assert message.endswith("; copy or write it again")
        assert "\n" not in message


@pytest.mark.parametrize("kind", ["bit", "byte", "header", "swap", "insert"])
def test_a_damaged_file_is_refused_or_still_the_same_trace(small, tmp_path, kind):
    data = save_trace(small, tmp_path / "t.safetensors").read_bytes()
    bad = tmp_path / "bad.safetensors"
    rng = random.Random(f"damage {kind}")
    refused = 0
    for _ in range(1500):
        damaged = bytearray(data)
        at = rng.randrange(len(data))
        if kind == "bit":
            damaged[at] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            damaged[at] = rng.randrange(256)
        elif kind == "header":  # digits and brackets of the JSON, which make other shapes and sizes
            at = rng.randrange(8, 8 + int.from_bytes(data[:8], "little"))
            damaged[at] = rng.choice(b'0123456789[]{}",-e.n')
        elif kind == "swap":
            other = rng.randrange(len(data))
            damaged[at], damaged[other] = damaged[other], damaged[at]
        else:
            damaged[at:at] = rng.randbytes(rng.randrange(1, 4))
        try:
            loaded = load_bytes(bad, bytes(damaged))
        except InputError as error:
            refused += 1
            message = str(error)
            assert message.startswith(f"{bad}: ")
            assert message.isprintable()
            assert len(message) < 600
        else:
            assert_same(loaded, small)
    assert refused > 1000


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


def first_layer(*place):
    return put("layers", 0, *place)


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


WRONG_HEADERS = [
    (put("version", 2), "version must be at most 1, not 2: the file is newer; upgrade gossamer"),
    (put("version", 0), "version must be at least 1, not 0; write the file again"),
    (
        put("version", "1"),
        "the metadata gossamer.trace must be the header of a trace, and is not "
        "(Expected `int`, got `str` - at `$.version`); write the file again",
    ),
    (
        put("colour", "red"),
        "the metadata gossamer.trace must be the header of a trace, and is not "
        "(Object contains unknown field `colour`); write the file again",
    ),
    (
        first_layer("colour", "red"),
        "the metadata gossamer.trace must be the header of a trace, and is not "
        "(Object contains unknown field `colour` - at `$.layers[0]`); write the file again",
    ),
    (put("name", ""), "trace name must be a nonempty string of printable characters, not ''"),
    (put("provenance", "seed", 6), "SHA"),
    (first_layer("name", "a\nb"), "layer name must be a nonempty string of printable characters, not 'a\\nb'"),
    (
        first_layer("name", "fc9"),
        "layer fc9: tensor codebook: part values must be there as F32, and is missing; "
        "the file is damaged, write it again",
    ),
    (
        first_layer("op", "lstn"),
        "layer fc1: op must be one of linear, conv2d, lstm, matmul, sparse_conv3d, point_op, not 'lstn'",
    ),
    (
        first_layer("attributes", {"stride": 1}),
        "layer fc1: linear knows the attributes chain, chain_index, samples, not 'stride'",
    ),
    (first_layer("pattern", {"kind": "n:m"}), "layer fc1: pattern n:m needs n, and has None"),
    (
        first_layer("arrays", "codes", "shape", [2**39, 20]),
        "layer fc1: tensor codes: shape must come to at most 2147483648 elements, not (549755813888, 20); "
        "the file is damaged, write it again",
    ),
    (
        first_layer("arrays", "codes", "shape", [6, 2**20]),
        "layer fc1: tensor codes: bitmap must have shape (786432,) for 6291456 elements, not (15,); "
        "the file is damaged, write it again",
    ),
    (
        first_layer("arrays", "codes", "shape", [0, 20]),
        "layer fc1: tensor codes: every side must be at least 1, not (0, 20); the file is damaged, write it again",
    ),
    (
        first_layer("arrays", "codes", "form", "gaps"),
        "layer fc1: tensor codes: part gaps must be there as U8, and is missing; the file is damaged, write it again",
    ),
    (
        first_layer("arrays", "coordinates", {"form": "shared", "shape": [3, 3], "of": "fc0.coordinates"}),
        "layer fc1: tensor coordinates: form shared must name coordinates of an earlier layer, of shape (3, 3), "
        "not 'fc0.coordinates'; write it again",
    ),
    (
        first_layer("arrays", "weights", {"form": "dense", "shape": [1]}),
        "layer fc1: arrays must be of weight, bias, mask, codes, bias_codes, codebook, inputs, coordinates, "
        "output_coordinates, queries, gather, projection, peephole, not 'weights'; remove it",
    ),
    (
        first_layer("arrays", "bias", {"form": "kept", "shape": [6]}),
        "layer fc1: tensor bias: form kept is for a mask of the weight's shape; write it again",
    ),
    (
        put("layers", 1, "arrays", "mask", "form", "dense"),
        "layer fc2: tensor mask: a mask must have form bitmap, gaps or kept, not dense; "
        "the file is damaged, write it again",
    ),
    (put("layers", []), "every tensor must be named in the header, and 'fc1.codebook.values' is not; remove it"),
    (
        lambda h: h["layers"][0]["arrays"].pop("inputs"),
        "layer fc1: inputs are needed, and the file has none; write it again",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG_HEADERS)
def test_a_header_that_breaks_a_rule_is_refused(small, tmp_path, change, message):
    path = save_trace(small, tmp_path / "t.safetensors")
    rewrite(path, change_header=change)
    with pytest.raises(InputError) as error:
        load_trace_file(path)
    if message == "SHA":
        sha256 = Trace(name="small", layers=small.layers, provenance={"seed": 6}).sha256
        message = (
            f"the content must have the sha256 in its header, {small.sha256[:12]!r}..., not {sha256[:12]}...: "
            "the file is damaged or was edited; copy it again"
        )
    assert str(error.value) == f"{path}: {message}"


def pruned_but_not_zero(tensors):
    tensors["fc2.mask.bitmap"] = np.zeros_like(tensors["fc2.mask.bitmap"])


WRONG_TENSORS = [
    (
        lambda t: t.pop("fc1.inputs.values"),
        "layer fc1: tensor inputs: part values must be there as F32, and is missing; "
        "the file is damaged, write it again",
    ),
    (
        lambda t: put("fc1.inputs.values", t["fc1.inputs.values"].astype(np.float64))(t),
        "layer fc1: tensor inputs: part values must be there as F32, and is F64; the file is damaged, write it again",
    ),
    (put("fc3.weight", np.zeros(3)), "every tensor must be named in the header, and 'fc3.weight' is not; remove it"),
    (
        lambda t: put("fc2.bias.values", np.float32([1, np.nan, 2, 3]))(t),
        "layer fc2: tensor bias must be finite, and holds nan at (1,); replace such values",
    ),
    (
        lambda t: put("fc2.bias.values", np.float32([1, 2, 3]))(t),
        "layer fc2: tensor bias: values must have shape (4,), not (3,); the file is damaged, write it again",
    ),
    (
        lambda t: put("fc1.codebook.values", t["fc1.codebook.values"] + 1)(t),
        "layer fc1: entry 0 of the codebook stands for pruned weights and must be 0.0, not 1.0",
    ),
    (
        lambda t: put("fc1.codes.bitmap", np.full_like(t["fc1.codes.bitmap"], 255))(t),
        "layer fc1: tensor codes: values must have shape (60,), as many as its bitmap has places, not (21,); "
        "the file is damaged, write it again",
    ),
    (
        pruned_but_not_zero,
        "layer fc2: weight must be 0 where the mask prunes it, and is {weight} at {place}; "
        "multiply the weight by the mask before saving",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG_TENSORS)
def test_tensors_that_break_a_rule_are_refused(small, tmp_path, change, message):
    path = save_trace(small, tmp_path / "t.safetensors")
    rewrite(path, change_tensors=change)
    with pytest.raises(InputError) as error:
        load_trace_file(path)
    weight = small.layers[1].weight
    place = tuple(int(i) for i in np.argwhere(weight)[0])
    assert str(error.value) == f"{path}: {message.format(weight=weight[place], place=place)}"


def test_gaps_must_reach_the_end_of_the_array():
    rng = np.random.default_rng(0)
    form, parts = pack(sparse(rng, 5000, 0.01))
    assert form == "gaps"
    for size in (10, 4000, 6000, 2**30):
        with pytest.raises(InputError, match=f"gaps must reach the end of its {size} elements, and reach "):
            unpack("gaps", (size,), parts, np.float32)


def test_a_container_without_a_trace_says_what_would_read_it(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(container_bytes({"w": np.zeros((2, 2), np.float32)}, {"format": "pt"}))
    with pytest.raises(InputError) as error:
        load_trace_file(path)
    assert str(error.value) == (
        f"{path}: a trace file must carry the metadata key gossamer.trace, and has none; "
        "give plain weights to load_trace"
    )


def test_endless_nesting_and_huge_headers_are_refused(small, tmp_path):
    path = save_trace(small, tmp_path / "t.safetensors")
    for text in ("[" * 100_000, '{"version":1,"provenance":' + '{"a":' * 100_000, '{"version":1' + "0" * 5000 + "}"):
        path.write_bytes(container_bytes({}, {KEY: text}))
        with pytest.raises(InputError, match=r"must be the header of a trace|version must be at most 1"):
            load_trace_file(path)
    path.write_bytes((2**63 + 5).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError, match=r"must be a whole \.safetensors container"):
        load_trace_file(path)


@pytest.mark.parametrize("missing", [True, False])
def test_what_is_no_file_is_refused(tmp_path, missing):
    path = tmp_path / "none.safetensors" if missing else tmp_path
    reason = "No such file or directory" if missing else "Is a directory"
    with pytest.raises(InputError) as error:
        load_trace_file(path)
    assert str(error.value) == f"{path}: a trace file must be a readable file, and {reason}; check the path"


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
