import random

import numpy as np
import pytest

from gossamer.workloads.errors import InputError
from gossamer.workloads.files.container import container_bytes
from gossamer.workloads.files.sparse import pack, unpack
from gossamer.workloads.files.trace_file import KEY, load_trace_file, save_trace
from gossamer.workloads.trace import Trace

from .trace_files import assert_same, put, rewrite, small_trace, sparse


@pytest.fixture
def small():
    return small_trace()


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


def first_layer(*place):
    return put("layers", 0, *place)


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
