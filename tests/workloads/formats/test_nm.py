"""N:M weights: what is kept comes back, what PTX and PyTorch store is read, what breaks the pattern is named."""

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.workloads.formats import nm, nm_torch

from ..refusals import message

HAVE_TORCH = importlib.util.find_spec("torch") is not None


def prune(weight, n, m, axis=-1, width=1, seed=0):
    """Return ``weight`` with at most n of m along ``axis`` left, in runs of ``width``; which ones is random."""
    rng = np.random.default_rng(seed)
    lanes = np.moveaxis(weight, axis, -1)
    chosen = rng.random((*lanes.shape[:-1], lanes.shape[-1] // m, m // width)).argsort(axis=-1) < n // width
    mask = np.repeat(chosen, width, axis=-1).reshape(lanes.shape)
    return np.moveaxis(np.where(mask, lanes, 0).astype(weight.dtype), -1, axis)


def draw(shape, dtype, density=1.0, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.integers(-100, 100, shape).astype(dtype)
    return np.where(rng.random(shape) < density, values, 0).astype(dtype)


KINDS = [(2, 4, 1), (1, 2, 1), (4, 8, 2), (1, 4, 1), (2, 8, 1), (1, 32, 1), (3, 3, 1), (2, 6, 1), (6, 9, 3), (1, 1, 1)]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.uint8, np.int32, np.bool_]),
    other=st.lists(st.integers(0, 5), max_size=3),
    groups=st.integers(0, 4),
    place=st.integers(0, 3),
    density=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_what_is_encoded_comes_back_whatever_the_axis(kind, dtype, other, groups, place, density, seed):
    n, m, width = kind
    axis = min(place, len(other))
    shape = (*other[:axis], groups * m, *other[axis:])
    weight = prune(draw(shape, dtype, density, seed), n, m, axis, width, seed)
    encoded = nm.encode(weight, n, m, axis, width)
    back = nm.decode(encoded)
    assert back.dtype == weight.dtype
    np.testing.assert_array_equal(back, weight)
    assert encoded.values.shape[1:] == (groups, n)
    assert encoded.positions.shape[1:] == (groups, n // width)
    assert (np.diff(encoded.positions.astype(int), axis=2) > 0).all()
    lanes = np.moveaxis(weight, axis, -1).reshape(len(encoded.values), groups * m)
    row = np.arange(len(lanes))[:, None, None]
    np.testing.assert_array_equal(lanes[row, encoded.columns], encoded.values)


def test_a_group_by_hand():
    encoded = nm.encode(np.array([[0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 9, 0]], np.float16), 2, 4)
    assert encoded.values.tolist() == [[[5, 7], [0, 0], [0, 9]]]
    assert encoded.positions.tolist() == [[[1, 3], [0, 1], [0, 2]]]
    assert nm.nibbles(encoded).tolist() == [[0b1101, 0b0100, 0b1000]]
    assert encoded.columns.tolist() == [[[1, 3], [4, 5], [8, 10]]]


def test_a_convolution_is_grouped_along_its_input_channels():
    weight = np.zeros((1, 4, 1, 2), np.float32)
    weight[0, :, 0, 0] = [1, 0, 0, 2]
    weight[0, :, 0, 1] = [0, 3, 4, 0]
    encoded = nm.encode(weight, 2, 4, axis=1)
    assert encoded.values.tolist() == [[[1, 2]], [[3, 4]]]
    assert encoded.positions.tolist() == [[[0, 3]], [[1, 2]]]
    np.testing.assert_array_equal(nm.decode(encoded), weight)


def test_a_negative_zero_is_a_zero_and_a_nan_is_not():
    weight = np.array([[-0.0, np.nan, -0.0, 1.0]], np.float16)
    encoded = nm.encode(weight, 2, 4)
    assert encoded.positions.tolist() == [[[1, 3]]]
    np.testing.assert_array_equal(nm.decode(encoded), weight)


@pytest.mark.parametrize(
    ("n", "m", "dtype", "ratio"),
    [
        (2, 4, np.float16, 0.5625),
        (1, 4, np.float16, 0.2812),
        (2, 8, np.float16, 0.2969),
        (4, 8, np.float16, 0.5938),
        (1, 8, np.float16, 0.1484),
        (1, 16, np.float16, 0.0781),
        (1, 32, np.float16, 0.0410),
        (2, 4, np.int8, 0.625),
    ],
)
def test_storage_against_dense_is_what_the_arithmetic_says(n, m, dtype, ratio):
    weight = np.zeros((3, 64), dtype)
    bits = nm.encode(weight, n, m).bits()
    assert sum(bits.values()) / (8 * weight.nbytes) == pytest.approx(ratio, abs=5e-5)
    assert set(bits) == {"values", "positions"}


def test_pairs_share_a_position():
    weight = np.zeros((1, 8), np.int8)
    weight[0, [2, 7]] = 1, 2
    encoded = nm.encode(weight, 4, 8, width=2)
    assert encoded.values.tolist() == [[[1, 0, 0, 2]]]
    assert encoded.positions.tolist() == [[[1, 3]]]
    assert nm.nibbles(encoded).tolist() == [[0b1101]]
    assert encoded.bits(value_bits=4) == {"values": 16, "positions": 4}


@pytest.mark.parametrize(
    ("weight", "nibble"),
    [
        ([1, 2, 0, 0], 0b0100),
        ([1, 0, 2, 0], 0b1000),
        ([0, 1, 2, 0], 0b1001),
        ([1, 0, 0, 2], 0b1100),
        ([0, 1, 0, 2], 0b1101),
        ([0, 0, 1, 2], 0b1110),
    ],
)
def test_two_of_four_have_the_six_ordered_nibbles(weight, nibble):
    assert nm.nibbles(nm.encode(np.array([weight], np.float32), 2, 4)).tolist() == [[nibble]]


def test_one_of_two_has_the_two_nibbles_of_tf32():
    encoded = nm.encode(np.array([[1, 0, 0, 1, 0, 0]], np.float32), 1, 2)
    assert nm.nibbles(encoded).tolist() == [[0b0100, 0b1110, 0b0100]]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from([(2, 4, 1), (1, 2, 1), (4, 8, 2)]),
    density=st.sampled_from([0, 0.5, 1]),
    seed=st.integers(0, 99),
)
def test_values_and_nibbles_give_the_weight_back(kind, density, seed):
    n, m, width = kind
    weight = prune(draw((5, 6 * m), np.float16, density, seed), n, m, width=width, seed=seed)
    encoded = nm.encode(weight, n, m, width=width)
    metadata = nm.nibbles(encoded)
    assert set(np.unique(metadata)) <= set(nm.NIBBLES_1_2 if m == 2 else nm.NIBBLES_2_4)
    back = nm.from_nibbles(encoded.values.reshape(5, -1), metadata, n, m, width)
    np.testing.assert_array_equal(nm.decode(back), weight)


def test_a_broken_pattern_is_named_by_row_and_group():
    weight = np.zeros((6, 16), np.float32)
    weight[5, 8:11] = 1
    assert message(nm.encode, weight, 2, 4, where="fc1") == (
        "fc1: weight must keep 2:4 along axis 1, and group 2 of row 5 has 3 nonzeros; prune it again"
    )
    assert message(nm.encode, np.ones((2, 4, 1, 3), np.float16), 2, 4, axis=1) == (
        "weight: weight must keep 2:4 along axis 1, and group 0 of row (0, 0, 0) has 4 nonzeros; prune it again"
    )
    weight = np.array([[0, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 1, 0, 0]], np.int8)
    assert message(nm.encode, weight, 4, 8, width=2) == (
        "weight: weight must keep 4:8 in runs of 2 along axis 1, and group 0 of row 1 has nonzeros in 3 of its 4 "
        "runs of 2; prune it again"
    )


@pytest.mark.parametrize(
    ("shape", "arguments", "said"),
    [
        (
            (2, 6),
            {"n": 2, "m": 4},
            "fc: 2:4 groups must tile axis 1 of the weight, whose shape is (2, 6); "
            "pad it with zeros to a multiple of 4",
        ),
        ((2, 8), {"n": 5, "m": 4}, "fc: N:M needs 1 <= n <= m <= 256, not 5:4"),
        ((2, 8), {"n": 0, "m": 4}, "fc: N:M needs 1 <= n <= m <= 256, not 0:4"),
        ((2, 8), {"n": 1, "m": 4, "width": 2}, "fc: width must divide n and m of 1:4, not 2"),
        ((2, 8), {"n": 1, "m": 4, "axis": 2}, "fc: axis must be one of the weight's 2, not 2"),
    ],
)
def test_what_cannot_be_grouped_is_refused(shape, arguments, said):
    assert message(nm.encode, np.zeros(shape, np.float32), where="fc", **arguments) == said


def test_words_and_complex_numbers_are_no_weights():
    assert message(nm.encode, np.zeros((1, 4), np.complex64), 2, 4) == (
        "weight: N:M values must be real numbers, not complex64"
    )


def test_positions_that_leave_their_group_or_fall_are_refused():
    encoded = nm.encode(np.array([[1, 2, 0, 0], [0, 1, 0, 2]], np.float32), 2, 4)
    for broken in ([3, 1], [2, 2], [1, 4]):
        positions = encoded.positions.copy()
        positions[1, 0] = broken
        with pytest.raises(ValueError, match=r"positions must ascend and be below 4, and those of row 1, group 0 are"):
            nm.decode(nm.Nm(2, 4, 1, 1, (2, 4), encoded.values, positions))


def test_a_nibble_that_is_none_is_named_by_row_and_group():
    metadata = np.full((3, 2), 0b0100, np.uint8)
    metadata[2, 1] = 0b0101
    assert message(nm.from_nibbles, np.zeros((3, 4)), metadata, 2, 4) == (
        "weight: metadata of 2:4 must be one of 0100, 1000, 1001, 1100, 1101, 1110, and that of row 2, group 1 is 0101"
    )
    assert message(nm.from_nibbles, np.zeros((3, 2)), metadata + 4, 1, 2) == (
        "weight: metadata of 1:2 must be one of 0100, 1110, and that of row 0, group 0 is 1000"
    )
    assert message(nm.from_nibbles, np.zeros((3, 5)), metadata, 2, 4) == (
        "weight: 3 x 2 nibbles of 2:4 need values of shape (3, 4), not (3, 5)"
    )


def test_only_what_an_instruction_takes_has_metadata():
    assert message(nm.nibbles, nm.encode(np.zeros((1, 8), np.float32), 1, 8)) == (
        "PTX metadata must be that of 2:4, 1:2 or 4:8 in pairs, not of 1:8"
    )
    assert message(nm.from_nibbles, np.zeros((1, 1)), np.zeros((1, 1), np.uint8), 4, 8) == (
        "weight: PTX metadata must be that of 2:4, 1:2 or 4:8 in pairs, not of 4:8"
    )


# PyTorch's packed form.


def pack(weight, n, m):
    """Return ``weight`` packed in order: values, and metadata words of which the low bits come first."""
    encoded = nm.encode(weight, n, m)
    nibbles = nm.nibbles(encoded)
    word = np.int32 if weight.dtype == np.int8 else np.int16
    per_word = 2 * np.dtype(word).itemsize
    words = np.zeros((len(weight), nibbles.shape[1] // per_word), f"u{np.dtype(word).itemsize}")
    for row in range(words.shape[0]):
        for column in range(words.shape[1]):
            for place in range(per_word):
                words[row, column] |= words.dtype.type(int(nibbles[row, column * per_word + place]) << (4 * place))
    return encoded.values.reshape(len(weight), -1), words.view(word)


@pytest.mark.parametrize(
    ("dtype", "n", "m"), [(np.float16, 2, 4), (np.int16, 2, 4), (np.int8, 2, 4), (np.float32, 1, 2)]
)
def test_packed_words_are_read_low_bits_first(dtype, n, m):
    weight = prune(draw((6, 64), dtype, 0.9), n, m)
    values, metadata = pack(weight, n, m)
    np.testing.assert_array_equal(nm.decode(nm_torch.from_torch(values, metadata)), weight)


def test_a_packed_word_by_hand():
    values = np.array([[1, 2, 3, 4, 5, 6, 7, 8]], np.float16)
    metadata = np.array([[0xE9C4 - 0x10000]], np.int16)  # 1110 1001 1100 0100: groups 3, 2, 1, 0
    assert nm.decode(nm_torch.from_torch(values, metadata)).tolist() == [
        [1, 2, 0, 0, 3, 0, 0, 4, 0, 5, 6, 0, 0, 0, 7, 8]
    ]


@pytest.mark.skipif(not HAVE_TORCH, reason="PyTorch packs these, which the extra train installs")
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "int8", "float32"])
def test_what_pytorch_packs_is_read_in_its_order(kind):
    import torch
    from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

    n, m = (1, 2) if kind == "float32" else (2, 4)
    for rows, columns in ((32, 64), (96, 128), (64, 256)):
        weight = prune(draw((rows, columns), np.float32, 0.9, seed=rows), n, m)
        packed, metadata = sparse_semi_structured_from_dense_cutlass(torch.tensor(weight).to(getattr(torch, kind)))
        stored = packed.view(torch.int16) if kind == "bfloat16" else packed
        back = nm.decode(nm_torch.from_torch(stored.numpy(), metadata.numpy(), reordered=True))
        if kind == "bfloat16":
            back = torch.from_numpy(back).view(torch.bfloat16).float().numpy()
        np.testing.assert_array_equal(back, weight)


@pytest.mark.parametrize(
    ("values", "metadata", "named", "said"),
    [
        (
            np.zeros(36, np.float16),
            None,
            {},
            "fc: packed 2:4 weights must come as values and metadata, and a cuSPARSELt blob is one array of no public "
            "layout; give the dense weight (to_dense() in PyTorch)",
        ),
        (
            np.zeros((32, 8), np.float64),
            np.zeros((32, 1), np.int16),
            {},
            "fc: packed values must be 16-bit, int8 or float32, not float64",
        ),
        (
            np.zeros((32, 8), np.int8),
            np.zeros((32, 1), np.int16),
            {},
            "fc: metadata of int8 values must be int32, not int16",
        ),
        (
            np.zeros((32, 9), np.float16),
            np.zeros((32, 1), np.int16),
            {},
            "fc: 32 x 1 words of metadata need values of shape (32, 8), not (32, 9)",
        ),
        (
            np.zeros((32, 8), np.float16),
            np.zeros(32, np.int16),
            {},
            "fc: values and metadata must have 2 dimensions, not 2 and 1",
        ),
        (
            np.zeros((16, 16), np.float16),
            np.zeros((16, 2), np.int16),
            {"reordered": True},
            "fc: reordered metadata must have a multiple of 32 rows and of 2 words, not 16 x 2",
        ),
    ],
)
def test_what_is_no_packed_weight_is_refused(values, metadata, named, said):
    assert message(nm_torch.from_torch, values, metadata, where="fc", **named) == said
