import io
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from gossamer.workloads import load_trace
from gossamer.workloads.errors import InputError
from gossamer.workloads.files.drawn import Draw
from gossamer.workloads.files.numbers import bfloat16_to_float32, to_float32

W1 = np.array([[1, 0, 2], [0, 0, 3]], np.float32)
W2 = np.array([[0, 4]], np.float32)
KERNEL = np.ones((2, 3, 3, 3), np.float32)
X1 = np.array([[1, 0, 2], [0, 1, 0]], np.float32)
X2 = np.array([[1, 5], [2, 6]], np.float32)


def npz(tmp_path, name="net.npz", **arrays):
    path = tmp_path / name
    np.savez(path, **arrays)
    return path


def st(tmp_path, **arrays):
    path = tmp_path / "net.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    return path


@pytest.mark.parametrize("write", [npz, st])
def test_weights_biases_masks_and_inputs_find_their_layer(tmp_path, write):
    arrays = {
        "net.fc1.weight": W1,
        "net.fc1.bias": np.float32([1, 2]),
        "net.fc1.mask": np.array([[1, 1, 1], [0, 0, 1]], np.uint8),
        "net.fc1.inputs": X1,
        "fc2": W2,
        "fc2.activations": X2,
        "fc10.w": W2,
        "fc10.input": X2[0],
    }
    trace = load_trace(write(tmp_path, **arrays))
    order = ["net.fc1", "fc2", "fc10"] if write is npz else ["fc2", "fc10", "net.fc1"]
    assert (trace.name, [layer.name for layer in trace.layers]) == ("net", order)
    assert trace.provenance == {"source": f"masked weights in net.{'npz' if write is npz else 'safetensors'}"}
    fc1, fc2, fc10 = (trace.layers[order.index(name)] for name in ("net.fc1", "fc2", "fc10"))
    np.testing.assert_array_equal(fc1.weight, W1, strict=True)
    np.testing.assert_array_equal(fc1.bias, [1, 2])
    np.testing.assert_array_equal(fc1.mask, np.array([[1, 1, 1], [0, 0, 1]], bool), strict=True)
    np.testing.assert_array_equal(fc2.inputs, X2, strict=True)
    np.testing.assert_array_equal(fc10.inputs, X2[:1], strict=True)


@pytest.mark.parametrize("write", [npz, st])
def test_a_file_of_one_layer_may_leave_its_name_out(tmp_path, write):
    (layer,) = load_trace(write(tmp_path, weight=W1, inputs=X1, mask=W1 != 0)).layers
    assert layer.name == "net"
    np.testing.assert_array_equal(layer.mask, W1 != 0, strict=True)


def test_a_four_dimensional_weight_is_a_convolution(tmp_path):
    trace = load_trace(npz(tmp_path, conv=KERNEL, **{"conv.inputs": np.ones((2, 3, 5, 4))}))
    assert (trace.layers[0].op, trace.layers[0].attributes["groups"]) == ("conv2d", 1)
    one = load_trace(npz(tmp_path, conv=KERNEL, **{"conv.inputs": np.ones((6, 5, 4))})).layers[0]
    assert (one.inputs.shape, one.attributes["groups"]) == ((1, 6, 5, 4), 2)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.int64, np.uint16, ">f4", ">i2"])
def test_every_number_type_becomes_float32(tmp_path, dtype):
    trace = load_trace(npz(tmp_path, fc=W1.astype(dtype), **{"fc.inputs": X1.astype(dtype)}))
    np.testing.assert_array_equal(trace.layers[0].weight, W1, strict=True)
    np.testing.assert_array_equal(trace.layers[0].inputs, X1, strict=True)


def test_bfloat16_from_torch_becomes_float32(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    weight = torch.tensor([[1.5, 0.0, -3.0], [0.0, 1e14, 2.0**-120]], dtype=torch.bfloat16)
    save_torch(
        {"fc.weight": weight, "fc.inputs": torch.ones(1, 3), "fc.mask": weight != 0}, tmp_path / "net.safetensors"
    )
    (layer,) = load_trace(tmp_path / "net.safetensors").layers
    np.testing.assert_array_equal(layer.weight, weight.float().numpy(), strict=True)
    np.testing.assert_array_equal(layer.mask, (weight != 0).numpy(), strict=True)
    bits = np.arange(2**16, dtype=np.uint16)
    expected = torch.arange(2**16).to(torch.uint16).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(bfloat16_to_float32(bits), expected)


def test_numbers_that_float32_cannot_hold_are_refused():
    with pytest.raises(InputError) as error:
        to_float32(np.array([[1, 2], [-1e39, 4]]), "layer a: tensor weight")
    assert str(error.value) == (
        "layer a: tensor weight must fit float32, and holds -1e+39 at (1, 0); replace such values"
    )
    with pytest.raises(InputError, match="tensor weight must be finite, and holds inf at"):
        to_float32(np.array([np.inf]), "layer a: tensor weight")
    with pytest.raises(InputError, match="must be real numbers, not complex128; convert it"):
        to_float32(np.array([1j]), "layer a: tensor weight")
    assert to_float32(np.array([1e-60]), "tiny")[0] == 0


@pytest.mark.parametrize("write", [npz, st])
def test_absent_activations_are_drawn_with_the_declared_density_and_seed(tmp_path, write):
    rng = np.random.default_rng(0)
    arrays = {"a": rng.random((7, 50)), "b": rng.random((3, 3, 3, 3)), "c": W2, "c.inputs": X2}
    path = write(tmp_path, **arrays)
    given = {"act_density": 0.35, "samples": 4, "seed": 9, "input_size": (5, 6)}
    trace = load_trace(path, **given)
    a, b, c = trace.layers
    assert (a.inputs.shape, b.inputs.shape) == ((4, 50), (4, 3, 5, 6))
    for layer, count in ((a, round(0.35 * 50)), (b, round(0.35 * 90))):
        assert {np.count_nonzero(sample) for sample in layer.inputs} == {count}
        assert layer.inputs[layer.inputs != 0].min() > 0
        assert layer.inputs.max() <= 1
        assert not np.array_equal(layer.inputs[0], layer.inputs[1])
    np.testing.assert_array_equal(c.inputs, X2)
    assert trace.provenance["drawn_inputs"] == {
        "layers": ["a", "b"],
        "distribution": "uniform",
        "act_density": 0.35,
        "samples": 4,
        "seed": 9,
    }
    assert load_trace(path, **given).sha256 == trace.sha256
    assert load_trace(path, **given | {"seed": 10}).sha256 != trace.sha256


def test_extreme_densities_draw_nothing_and_everything():
    assert np.count_nonzero(Draw(act_density=0).activations(0, (100,))) == 0
    assert np.count_nonzero(Draw(act_density=1).activations(0, (100,))) == 100
    assert (Draw().values(100_000) != 0).all()


WRONG_DRAWS = [
    ({"act_density": 1.5}, "act_density must be a number from 0 to 1, not 1.5"),
    ({"act_density": float("nan")}, "act_density must be a number from 0 to 1, not nan"),
    ({"act_density": "0.5"}, "act_density must be a number from 0 to 1, not '0.5'"),
    ({"samples": 0}, "samples must be a whole number of at least 1, not 0"),
    ({"samples": 2.5}, "samples must be a whole number of at least 1, not 2.5"),
    ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
    ({"seed": 2**64}, "seed must be at most 9223372036854775807, not 18446744073709551616"),
    ({"input_size": (0, 3)}, "input_size must be two whole numbers of at least 1 (height, width), not (0, 3)"),
    ({"input_size": 28}, "input_size must be two whole numbers of at least 1 (height, width), not 28"),
]


@pytest.mark.parametrize(("options", "message"), WRONG_DRAWS)
def test_options_out_of_range_are_refused(tmp_path, options, message):
    with pytest.raises(InputError) as error:
        load_trace(npz(tmp_path, fc=W1), **options)
    assert str(error.value) == message


SPARE = (
    "every array must be a weight of 2 or 4 dimensions, or the bias, inputs or mask of one, and these are not: {}; "
    "remove or rename them, or give a model's file to gossamer export, which names what is no layer"
)
WRONG_FILES = [
    ({}, {}, "at least one weight of 2 or 4 dimensions is needed, and there is none"),
    ({"fc": W1, "bn": np.ones(3), "steps": np.arange(7)}, {"act_density": 1}, SPARE.format("bn (3,), steps (7,)")),
    (
        {"fc.weight": W1, "fd.bias": np.ones(2), "bn.weight": np.ones(3), "bn.bias": np.ones(3)},
        {"act_density": 1},
        SPARE.format("bn.bias (3,), bn.weight (3,), fd.bias (2,)"),
    ),
    ({"rnn": np.ones((2, 2, 2))}, {}, SPARE.format("rnn (2, 2, 2)")),
    (
        {"fc": W1, "fc.weight": W1, "fc.inputs": X1},
        {},
        "layer fc must have one weight, and 'fc.weight' is a second; remove one",
    ),
    (
        {"fc": W1, "fc.activations": X1, "fc.inputs": X1},
        {},
        "layer fc must have one inputs, and 'fc.inputs' is a second; remove one",
    ),
    (
        {"fc": W1},
        {},
        "layer fc: inputs are needed, and there are none; add them, or give act_density to draw some",
    ),
    (
        {"conv": KERNEL},
        {"act_density": 0.5},
        "layer conv: drawing the inputs of a conv2d needs input_size (height, width); give it",
    ),
    (
        {"fc": W1, "fc.inputs": X1},
        {"act_density": 0.5},
        "act_density is for layers without activations, and all have theirs; leave out 0.5",
    ),
    (
        {"fc": W1, "fc.inputs": X2},
        {},
        "layer fc: inputs must be (batch, ..., 3) to meet weight (2, 3), not (2, 2)",
    ),
    (
        {"fc": W1 * np.float64(1e39), "fc.inputs": X1},
        {},
        "layer fc: tensor weight must fit float32, and holds 1e+39 at (0, 0); replace such values",
    ),
    (
        {"fc": W1, "fc.inputs": X1 * np.nan},
        {},
        "layer fc: tensor inputs must be finite, and holds nan at (0, 0); replace such values",
    ),
    (
        {"fc": W1 != 0, "fc.inputs": X1},
        {},
        "layer fc: tensor weight must be real numbers, not bool; convert it with astype('float32')",
    ),
    (
        {"fc": W1, "fc.inputs": X1, "fc.mask": W1},
        {},
        "layer fc: tensor mask must hold only 0 and 1, and its dtype is float32; write it as bool",
    ),
    (
        {"fc": W1, "fc.inputs": X1, "fc.mask": W1 == 0},
        {},
        "layer fc: weight must be 0 where the mask prunes it, and is 1.0 at (0, 0); "
        "multiply the weight by the mask before saving",
    ),
    (
        {"fc": np.ones((0, 3)), "fc.inputs": X1},
        {},
        "layer fc: every side of the weight must be at least 1, not (0, 3)",
    ),
    (
        {"conv": np.ones((2, 0, 3, 3))},
        {"act_density": 0.5, "input_size": (4, 4)},
        "layer conv: every side of the weight must be at least 1, not (2, 0, 3, 3)",
    ),
]


@pytest.mark.parametrize("write", [npz, st])
@pytest.mark.parametrize(("arrays", "options", "message"), WRONG_FILES)
def test_weights_that_break_a_rule_are_refused(tmp_path, write, arrays, options, message):
    path = write(tmp_path, **arrays)
    with pytest.raises(InputError) as error:
        load_trace(path, **options)
    assert str(error.value) == f"{path}: {message}"


def test_pickles_are_not_opened(tmp_path):
    path = npz(tmp_path, fc=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError) as error:
        load_trace(path)
    assert str(error.value) == (
        f"{path}: the file must be a whole .npz archive of plain arrays, and is not "
        "(arrays must hold plain numbers, not object); write it again"
    )


def test_a_shape_beyond_the_bytes_is_refused_before_anything_is_made(tmp_path):
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**20)})
    path = tmp_path / "net.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fc.npy", member.getvalue() + bytes(64))
    with pytest.raises(
        InputError, match=r"shape \(1099511627776, 1048576\) of float32 must take the 64 bytes there are"
    ):
        load_trace(path)


def test_fortran_order_and_compression_change_nothing(tmp_path):
    path = tmp_path / "net.npz"
    np.savez_compressed(path, **{"fc": np.asfortranarray(W1), "fc.inputs": X1})
    np.testing.assert_array_equal(load_trace(path).layers[0].weight, W1, strict=True)


@pytest.mark.parametrize("write", [npz, st])
@pytest.mark.parametrize("stored", [True, False])
def test_a_damaged_file_is_refused_or_read_but_never_breaks(tmp_path, write, stored):
    arrays = {"fc.weight": W1, "fc.bias": np.ones(2), "fc.inputs": X1.astype(np.float16)}
    path = write(tmp_path, **arrays)
    if write is npz and not stored:
        np.savez_compressed(path, **arrays)
    data = path.read_bytes()
    rng = np.random.default_rng(4)
    refused = 0
    for _ in range(1000):
        damaged = bytearray(data)
        for at in rng.integers(len(data), size=rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged[: len(data) - (rng.random() < 0.3) * rng.integers(len(data))])
        try:
            load_trace(path)
        except InputError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
            assert str(error).isprintable()
    assert refused > 400
