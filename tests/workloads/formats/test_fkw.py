"""Filter-kernel-weight form: what is stored, in which order, and what a damaged one says."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.workloads.errors import InputError
from gossamer.workloads.formats import fkw
from gossamer.workloads.pruning.kernel_patterns import pattern_prune
from gossamer.workloads.synth.vgg import vgg_layer

A, B = [1, 1, 0, 0], [0, 0, 1, 1]


def small():
    """Return four filters over three channels of 2 x 2: patterns A and B, lengths 2, 1, 2 and 0."""
    kernels = [[A, None, B], [None, B, None], [B, A, None], [None, None, None]]
    weight = np.zeros((4, 3, 4), np.float32)
    value = 1
    for row, line in enumerate(kernels):
        for channel, pattern in enumerate(line):
            for place in range(4):
                if pattern and pattern[place]:
                    weight[row, channel, place] = value
                    value += 1
    return weight.reshape(4, 3, 2, 2)


def test_the_arrays_are_those_of_the_paper():
    found = fkw.encode(small())
    # B is kept by three kernels, A by two: B is pattern 0.
    assert found.patterns.astype(int).tolist() == [B, A]
    assert found.reorder.tolist() == [3, 1, 0, 2]
    assert found.offset.tolist() == [0, 0, 1, 3, 5]
    assert found.index.tolist() == [1, 2, 0, 0, 1]
    assert found.stride.tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 2], [0, 1, 2]]
    assert found.weight.tolist() == [5, 6, 3, 4, 1, 2, 7, 8, 9, 10]
    assert found.bits(16) == {
        "weight": 160, "index": 80, "stride": 12 * 16, "offset": 5 * 32, "reorder": 64,
    }  # fmt: skip


def test_filters_of_one_length_follow_the_one_they_are_most_like():
    pattern_of = np.array([[0, 0, -1], [1, 1, -1], [0, -1, 0], [1, -1, 1]], np.int32)
    assert fkw.filter_order(pattern_of).tolist() == [0, 2, 1, 3]


def test_channels_in_common_decide_where_patterns_do_not():
    pattern_of = np.array([[0, 0, -1, -1], [-1, -1, 0, 0], [0, -1, 0, -1]], np.int32)
    assert fkw.filter_order(pattern_of).tolist() == [0, 2, 1]


@st.composite
def convolutions(draw):
    shape = (
        draw(st.integers(1, 7)), draw(st.integers(1, 6)), draw(st.integers(1, 3)), draw(st.integers(1, 3)),
    )  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    weight = rng.standard_normal(shape).astype(draw(st.sampled_from([np.float32, np.float64])))
    weight[rng.random(shape) < draw(st.floats(0, 1))] = 0
    weight[rng.random(shape[:2]) < draw(st.floats(0, 1))] = 0
    return weight


@given(convolutions(), st.integers(1, 60))
def test_what_is_decoded_is_what_was_encoded(weight, limit):
    stored = fkw.encode(weight, limit=limit)
    found = fkw.decode(stored)
    assert found.dtype == weight.dtype
    assert np.array_equal(found, weight)
    assert len(stored.patterns) <= limit + 1


@given(convolutions(), st.integers(1, 60))
def test_filters_lie_by_length_and_kernels_by_pattern(weight, limit):
    stored = fkw.encode(weight, limit=limit)
    lengths = np.diff(stored.offset)
    assert (np.diff(lengths) >= 0).all()
    for row, (first, end) in enumerate(zip(stored.offset[:-1], stored.offset[1:], strict=True)):
        assert (np.diff(stored.pattern_of[first:end]) >= 0).all()
        kept = (weight[stored.reorder[row]] != 0).any(axis=(1, 2))
        assert sorted(stored.index[first:end]) == np.flatnonzero(kept).tolist()


@given(convolutions())
def test_a_kernel_of_no_pattern_is_covered_by_the_smallest_that_covers_it(weight):
    patterns, pattern_of = fkw.supports(weight, 2)
    kept = (weight != 0).reshape(*weight.shape[:2], -1)
    for place in np.argwhere(pattern_of >= 0):
        mine = kept[tuple(place)]
        chosen = patterns[pattern_of[tuple(place)]]
        assert not (mine & ~chosen).any()
        assert not any((mine <= other).all() and other.sum() < chosen.sum() for other in patterns)


def test_bits_are_those_of_the_arrays_and_fewer_than_as_rows():
    layer = vgg_layer("L6").layers[0]
    stored = fkw.encode(layer.weight)
    mine, rows = stored.bits(32), fkw.csr_bits(layer.weight, 32)
    kernels = round(256 * 256 / 3.6)
    assert mine["index"] == 16 * kernels
    assert mine["weight"] == rows["weight"] == 32 * 4 * kernels
    extra = [sum(bits for part, bits in parts.items() if part != "weight") for parts in (mine, rows)]
    assert extra == [16 * kernels + 256 * 9 * 16 + 257 * 32 + 256 * 16, 32 * 4 * kernels + 257 * 32]
    assert 1 - extra[0] / extra[1] == pytest.approx(0.854, abs=0.001)


def damaged():
    good = fkw.encode(small())
    yield {"offset": good.offset[:-1]}, "layer c: offset must be (5,), not (4,)"
    yield {"offset": good.offset[::-1].copy()}, "layer c: offset must rise from 0 to the 5 kernels, and does not"
    yield {"offset": good.offset.astype(float)}, "layer c: offset must be whole numbers, not float64"
    yield {"reorder": np.array([3, 1, 0, 0])}, ("layer c: reorder must name each of the 4 filters once, and does not")
    yield {"index": np.array([1, 2, 0, 0, 3])}, "layer c: index must be channels from 0 to 2, not 3"
    yield {"index": np.array([1, -2, 0, 0, 1])}, "layer c: index must be channels from 0 to 2, not -2"
    yield {"index": np.array([1, 2, 2, 0, 1])}, "layer c: index must name a channel once a filter, and one occurs twice"
    yield (
        {"stride": np.array([[0, 0, 0], [0, 1, 1], [0, 2, 1], [0, 1, 2]])},
        ("layer c: stride must rise from 0 to the kernels of its filter, and row 2 does not"),
    )
    yield {"stride": good.stride[:, :-1]}, "layer c: stride must be (4, 3), not (4, 2)"
    yield {"weight": good.weight[:-1]}, "layer c: weight must be (10,), one a place of each kernel, not (9,)"
    yield {"patterns": good.patterns[:, :3]}, "layer c: patterns must be (2, 4), not (2, 3)"
    yield {"shape": (4, 3, 4)}, "layer c: shape must be that of a convolution's weight, not (4, 3, 4)"


@pytest.mark.parametrize(("change", "message"), list(damaged()), ids=lambda value: next(iter(value), "")[:8])
def test_a_damaged_form_is_refused(change, message):
    with pytest.raises(InputError) as error:
        fkw.decode(replace(fkw.encode(small()), **change), "layer c")
    assert str(error.value) == message


def test_what_is_no_convolution_is_refused():
    for weight, message in (
        (np.ones((2, 2)), "c: kernels are those of convolutions, (out, in, height, width), not (2, 2)"),
        (np.ones((1, 1, 8, 8)), "c: a kernel must have at most 62 places, not 8 x 8"),
        (
            np.ones((1 << 16, 1, 1, 1), np.float32),
            "c: filters and channels must be below 65536, whose numbers take 16 bits, not 65536 and 1",
        ),
    ):
        with pytest.raises(InputError) as error:
            fkw.encode(weight, where="c")
        assert str(error.value) == message
    with pytest.raises(InputError) as error:
        fkw.encode(np.ones((1, 1, 1, 1)), limit=0, where="c")
    assert str(error.value) == "c: at least 1 pattern is needed, not 0"


def test_eight_patterns_of_four_take_no_ninth_code():
    weight = np.random.default_rng(3).standard_normal((12, 12, 3, 3)).astype(np.float32)
    mask = pattern_prune({"a": weight}, {"a": np.ones(weight.shape, bool)}, 0.9)["a"]
    stored = fkw.encode(np.where(mask, weight, 0))
    assert len(stored.patterns) <= 8
    assert set(stored.kept) == {4}
