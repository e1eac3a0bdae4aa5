import numpy as np
import pytest

from gossamer.workloads.errors import InputError
from gossamer.workloads.patterns import Pattern

from .some_layers import (
    BOOK,
    CODES,
    INPUTS,
    POINTS,
    WEIGHT,
    coded,
    conv,
    linear,
    matmul,
    point_op,
    sparse_conv,
    with_value,
)

WRONG_LAYERS = [
    (
        linear,
        {"coordinates": POINTS},
        "layer fc1: only sparse_conv3d takes coordinates, not linear; leave it out",
    ),
    (
        linear,
        {"gather": np.array([0, 1], np.int32)},
        "layer fc1: gather must be (1,) row numbers from 0, not (2,)",
    ),
    (
        linear,
        {"gather": np.array([-1], np.int32)},
        "layer fc1: gather must be (1,) row numbers from 0, not -1",
    ),
    (
        linear,
        {"attributes": {"chain": [3, 2], "chain_index": 1}},
        "layer fc1: chain must be the widths of layers and chain_index one of these, not [3, 2] and 1",
    ),
    (
        linear,
        {"attributes": {"chain": [3, 4], "chain_index": 0}},
        "layer fc1: chain must say 3, 2 at 0, as the weight does, not [3, 4]",
    ),
    (
        matmul,
        {"inputs": np.ones((4, 3, 5), np.float32)},
        "layer qk: inputs must be (4, rows, 2) to meet weight (4, 5, 2), not (4, 3, 5)",
    ),
    (
        linear,
        {"inputs": np.ones((4, 3), np.float32), "attributes": {"samples": 3}},
        "layer fc1: samples must be a whole number that divides the 4 inputs, not 3",
    ),
    (
        matmul,
        {"attributes": {"samples": 3}},
        "layer qk: samples must be a whole number that divides the 4 products, not 3",
    ),
    (
        matmul,
        {"bias": np.ones(5, np.float32)},
        "layer qk: matmul takes no bias, its operands are activations; leave it out",
    ),
    (sparse_conv, {"coordinates": None}, "layer sc: coordinates are needed, one row a point"),
    (
        sparse_conv,
        {"attributes": {"kernel_size": 2}},
        "layer sc: kernel_size 2 needs a weight of 8 offsets, not 27",
    ),
    (
        sparse_conv,
        {"attributes": {"stride": 2}},
        "layer sc: output_coordinates are needed where stride is 2, not 1",
    ),
    (
        sparse_conv,
        {"attributes": {"stride": 0}},
        "layer sc: stride must be a whole number from 1 to 64, not 0",
    ),
    (
        sparse_conv,
        {"attributes": {"transposed": 1}},
        "layer sc: transposed must be true or false, not 1",
    ),
    (
        sparse_conv,
        {"coordinates": POINTS[[0, 1, 0]]},
        "layer sc: coordinates must all differ, and [0, 0, 0] occurs twice",
    ),
    (
        sparse_conv,
        {"coordinates": POINTS * 2**19},
        "layer sc: coordinates must lie within +-983040, not -1048576 to 2097152; use larger voxels",
    ),
    (
        sparse_conv,
        {"inputs": np.ones((3, 3), np.float32)},
        "layer sc: inputs must be (3, 2), one row a point, not (3, 3)",
    ),
    (
        point_op,
        {"attributes": {"kind": "sort"}},
        "layer near: kind must be one of quantise, fps, knn, ball_query, not 'sort'",
    ),
    (point_op, {"attributes": {"k": 4}}, "layer near: k must be a whole number from 1 to the 3 points, not 4"),
    (
        point_op,
        {"attributes": {"radius": 1.0}},
        "layer near: point_op knows the attributes kind, k, not 'radius'",
    ),
    (point_op, {"weight": WEIGHT}, "layer near: point_op takes no weight; leave it out"),
    (
        point_op,
        {"queries": np.ones((3, 3), np.float32)},
        "layer near: queries must be (points, 2), of knn or ball_query, not (3, 3) of knn",
    ),
    (linear, {"name": ""}, "layer name must be a nonempty string of printable characters, not ''"),
    (linear, {"name": "a\nb"}, "layer name must be a nonempty string of printable characters, not 'a\\nb'"),
    (linear, {"name": 3}, "layer name must be a nonempty string of printable characters, not 3"),
    (
        linear,
        {"op": "lstn"},
        "layer fc1: op must be one of linear, conv2d, lstm, matmul, sparse_conv3d, point_op, not 'lstn'",
    ),
    (linear, {"weight": None}, "layer fc1: exactly one of weight and codes must be given, not neither"),
    (linear, {"codes": CODES}, "layer fc1: exactly one of weight and codes must be given, not both"),
    (
        linear,
        {"inputs": None},
        "layer fc1: inputs are needed; draw some where none were recorded, as load_trace does",
    ),
    (
        linear,
        {"weight": WEIGHT.astype(np.float64)},
        "layer fc1: tensor weight must be float32, not float64; convert it with astype('float32')",
    ),
    (
        linear,
        {"inputs": [[1.0, 2.0, 3.0]]},
        "layer fc1: tensor inputs must be float32, not list; convert it with astype('float32')",
    ),
    (
        linear,
        {"mask": np.ones((2, 3), np.uint8)},
        "layer fc1: tensor mask must be bool, not uint8; convert it with astype('bool')",
    ),
    (
        linear,
        {"weight": with_value(WEIGHT, (1, 2), np.nan)},
        "layer fc1: tensor weight must be finite, and holds nan at (1, 2); replace such values",
    ),
    (
        linear,
        {"inputs": with_value(INPUTS, (0, 1), np.inf)},
        "layer fc1: tensor inputs must be finite, and holds inf at (0, 1); replace such values",
    ),
    (
        linear,
        {"weight": np.ones((2, 3, 1, 1), np.float32)},
        "layer fc1: the weight of linear must have 2 dimensions, not (2, 3, 1, 1)",
    ),
    (
        linear,
        {"weight": np.ones((0, 3), np.float32)},
        "layer fc1: every side of the weight must be at least 1, not (0, 3)",
    ),
    (
        linear,
        {"attributes": {"stride": 2}},
        "layer fc1: linear knows the attributes chain, chain_index, samples, not 'stride'",
    ),
    (
        linear,
        {"inputs": np.ones((1, 4), np.float32)},
        "layer fc1: inputs must be (batch, ..., 3) to meet weight (2, 3), not (1, 4)",
    ),
    (
        linear,
        {"inputs": np.ones(3, np.float32)},
        "layer fc1: inputs must be (batch, ..., 3) to meet weight (2, 3), not (3,)",
    ),
    (
        linear,
        {"inputs": np.ones((0, 3), np.float32)},
        "layer fc1: inputs must hold at least one sample and no empty side, not (0, 3)",
    ),
    (linear, {"bias": np.ones(3, np.float32)}, "layer fc1: bias must be (2,), one an output, not (3,)"),
    (
        linear,
        {"mask": np.ones((3, 2), bool)},
        "layer fc1: mask must have the weight's shape (2, 3), not (3, 2)",
    ),
    (
        linear,
        {"mask": with_value(WEIGHT != 0, (0, 2), False)},
        "layer fc1: weight must be 0 where the mask prunes it, and is 2.0 at (0, 2); "
        "multiply the weight by the mask before saving",
    ),
    (linear, {"codebook": BOOK}, "layer fc1: codebook must come with codes, and there are none; leave it out"),
    (
        linear,
        {"bias_codes": CODES[:, 0]},
        "layer fc1: bias_codes must come with codes, and there are none; leave it out",
    ),
    (
        coded,
        {"bias": np.ones(2, np.float32)},
        "layer fc1: a layer with codes must give its bias as bias_codes, and gives it as bias",
    ),
    (
        coded,
        {"codebook": None},
        "layer fc1: codes need a codebook of 2 to 256 entries in one dimension, not None",
    ),
    (
        coded,
        {"codebook": np.zeros(257, np.float32)},
        "layer fc1: codes need a codebook of 2 to 256 entries in one dimension, not (257,)",
    ),
    (
        coded,
        {"codebook": BOOK + 1},
        "layer fc1: entry 0 of the codebook stands for pruned weights and must be 0.0, not 1.0",
    ),
    (
        coded,
        {"codes": with_value(CODES, (0, 0), 3)},
        "layer fc1: codes must be below the codebook's 3 entries, not 3",
    ),
    (
        coded,
        {"bias_codes": np.array([0, 7], np.uint8)},
        "layer fc1: bias_codes must be below the codebook's 3 entries, not 7",
    ),
    (
        conv,
        {"attributes": {"strides": (1, 1)}},
        "layer conv: conv2d knows the attributes stride, padding, dilation, groups, samples, not 'strides'",
    ),
    (
        conv,
        {"attributes": {"stride": (0, 1)}},
        "layer conv: stride must be two whole numbers from 1 to 65536, not (0, 1)",
    ),
    (
        conv,
        {"attributes": {"padding": (10**9, 0)}},
        "layer conv: padding must be two whole numbers from 0 to 65536, not (1000000000, 0)",
    ),
    (
        conv,
        {"attributes": {"dilation": 2}},
        "layer conv: dilation must be two whole numbers from 1 to 65536, not 2",
    ),
    (
        conv,
        {"attributes": {"groups": 3}},
        "layer conv: groups must be a whole number that divides the 4 outputs, not 3",
    ),
    (
        conv,
        {"inputs": np.ones((1, 3, 8, 8), np.float32)},
        "layer conv: inputs must be (batch, 2, height, width) to meet weight (4, 2, 3, 3), not (1, 3, 8, 8)",
    ),
    (
        conv,
        {"attributes": {"dilation": (1, 4)}},
        "layer conv: the kernel must fit the padded input, and needs 9 of 8 cells",
    ),
    (
        linear,
        {"pattern": Pattern("n:m", n=1, m=2, axis=2)},
        "layer fc1: 1:2 groups must lie along an axis of the weight, not 2: its shape is (2, 3)",
    ),
    (
        linear,
        {"pattern": Pattern("n:m", n=1, m=3, axis=1)},
        "layer fc1: weight must keep 1:3 along axis 1, and group 0 of row (0,) has 2 nonzeros; prune it again",
    ),
    (
        linear,
        {
            "weight": np.array([[1, 1, 1], [1, 1, 1], [0, 0, 0], [1, 1, 1]], np.float32),
            "pattern": Pattern("balanced", pe_count=2, scope="pe"),
        },
        "layer fc1: balanced over 2 PEs, each pe must keep a share of 0.75 to within one weight, "
        "and PE 0 keeps 3 of 6; prune it again",
    ),
    (
        linear,
        {
            "weight": np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]], np.float32),
            "pattern": Pattern("balanced", pe_count=2, scope="pe-column"),
        },
        "layer fc1: balanced over 2 PEs, each pe-column must keep a share of 0.5 to within one weight, "
        "and PE 0 in column 0 keeps 3 of 3; prune it again",
    ),
    (
        linear,
        {"pattern": Pattern("block", block=(2, 1))},
        "layer fc1: tiles of (2, 1) must be kept or pruned whole, and tile (0, 0) keeps 1 of 2 weights; "
        "give the mask, or prune it again",
    ),
]


@pytest.mark.parametrize(
    ("make", "changes", "message"), WRONG_LAYERS, ids=lambda v: None if callable(v) else str(v)[:60]
)
def test_a_layer_that_breaks_a_rule_is_refused(make, changes, message):
    with pytest.raises(InputError) as error:
        make(**changes)
    assert str(error.value) == message
