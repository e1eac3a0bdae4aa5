"""Sparse convolution: gather, product and scatter against the definition, a dense convolution and other libraries."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.workloads import InputError, Layer
from gossamer.workloads.points import downsample, kernel_map
from gossamer.workloads.points.sparse_conv import exact_convolution, layer_maps, sparse_convolution


def cloud(rng, count, side=8, low=0):
    cells = rng.choice(side**3, min(count, side**3), replace=False)
    return (np.stack(np.unravel_index(np.sort(cells), (side,) * 3), axis=1) + low).astype(np.int32)


def layer_of(coords, weight, inputs, *, outputs=None, bias=None, **attributes):
    size = round(weight.shape[2] ** (1 / 3))
    return Layer(
        name="conv", op="sparse_conv3d", coordinates=coords, output_coordinates=outputs, weight=weight, inputs=inputs,
        bias=bias, attributes={"kernel_size": size} | attributes,
    )  # fmt: skip


def drawn(seed, *, count=40, widths=(3, 5), kernel_size=3, stride=1, tensor_stride=1, transposed=False, low=0):
    """A layer on a drawn cloud, whose coordinates are multiples of the tensor stride."""
    rng = np.random.default_rng(seed)
    fine = cloud(rng, count, low=low) * np.int32(tensor_stride)
    coarse = fine if stride == 1 else downsample(fine, stride * tensor_stride)
    into, out = (coarse, fine) if transposed else (fine, coarse)
    return layer_of(
        into,
        rng.standard_normal((widths[1], widths[0], kernel_size**3), np.float32),
        rng.standard_normal((len(into), widths[0]), np.float32),
        outputs=None if stride == 1 else out,
        bias=rng.standard_normal(widths[1], np.float32),
        stride=stride,
        tensor_stride=tensor_stride,
        transposed=transposed,
    )


def by_definition(layer):
    """Every output meets the input at its place plus the offset; a transposed one at its place minus the offset."""
    size, step = layer.attributes["kernel_size"], layer.attributes["tensor_stride"]
    sign = -1 if layer.attributes["transposed"] else 1
    low = -(size // 2) if size % 2 else 0
    where = {tuple(at): row for row, at in enumerate(layer.coordinates.tolist())}
    outputs = layer.coordinates if layer.output_coordinates is None else layer.output_coordinates
    sums = np.zeros((len(outputs), layer.shape[0])) + layer.bias
    for place, offset in enumerate(itertools.product(range(low, low + size), repeat=3)):
        for row, at in enumerate(outputs.tolist()):
            met = where.get(tuple(a + sign * step * o for a, o in zip(at, offset, strict=True)))
            if met is not None:
                sums[row] += layer.weight[:, :, place].astype(float) @ layer.inputs[met].astype(float)
    return sums


def near(values, layer):
    exact, magnitude = exact_convolution(layer)
    steps = layer.shape[1] * layer.shape[2] + 1
    return bool((np.abs(values - exact) <= steps * np.finfo(np.float32).eps * magnitude).all())


KINDS = st.sampled_from([(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 2), (5, 1)])


@given(st.integers(0, 10**6), st.integers(1, 60), KINDS, st.sampled_from([1, 2, 4]), st.booleans())
@settings(max_examples=40)
def test_both_ways_to_convolve_are_the_definition(seed, count, kind, tensor_stride, transposed):
    layer = drawn(seed, count=count, kernel_size=kind[0], stride=kind[1], tensor_stride=tensor_stride,
                  transposed=transposed, low=-4)  # fmt: skip
    exact, magnitude = exact_convolution(layer)
    assert np.allclose(exact, by_definition(layer), rtol=0, atol=1e-12 * magnitude.max())
    values = sparse_convolution(layer)
    assert values.dtype == np.float32
    assert near(values, layer)
    assert np.array_equal(values, sparse_convolution(layer, layer_maps(layer)))


@given(st.integers(0, 10**6), KINDS)
@settings(max_examples=25)
def test_a_transposed_convolution_is_the_adjoint_of_its_downsampling(seed, kind):
    rng = np.random.default_rng(seed)
    fine = cloud(rng, 50)
    coarse = downsample(fine, kind[1])
    weight = rng.standard_normal((4, 2, kind[0] ** 3), np.float32)
    x, y = rng.standard_normal((len(fine), 2), np.float32), rng.standard_normal((len(coarse), 4), np.float32)
    down = exact_convolution(layer_of(fine, weight, x, outputs=coarse, stride=kind[1]))[0]
    turned = np.ascontiguousarray(weight.transpose(1, 0, 2))
    up = exact_convolution(layer_of(coarse, turned, y, outputs=fine, stride=kind[1], transposed=True))[0]
    assert np.isclose((down * y).sum(), (x * up).sum(), rtol=1e-9, atol=1e-9)


def test_a_full_grid_gives_what_a_dense_convolution_gives():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    grid = np.array(list(itertools.product(range(5), repeat=3)), np.int32)
    weight = rng.standard_normal((4, 2, 27), np.float32)
    inputs = rng.standard_normal((125, 2), np.float32)
    dense = torch.nn.functional.conv3d(
        torch.from_numpy(inputs.T.reshape(1, 2, 5, 5, 5).copy()).double(),
        torch.from_numpy(weight.reshape(4, 2, 3, 3, 3)).double(),
        padding=1,
    )
    layer = layer_of(grid, weight, inputs)
    assert np.allclose(exact_convolution(layer)[0], dense[0].reshape(4, 125).T.numpy(), atol=1e-12)
    assert near(sparse_convolution(layer), layer)


def test_two_voxels_and_a_third_by_hand():
    coords = np.array([[0, 0, 0], [0, 0, 1], [5, 5, 5]], np.int32)
    weight = np.zeros((1, 1, 27), np.float32)
    weight[0, 0, 13], weight[0, 0, 14] = 10, 1  # the centre, and the offset (0, 0, 1)
    layer = layer_of(coords, weight, np.array([[1], [2], [3]], np.float32), bias=np.array([100], np.float32))
    assert sparse_convolution(layer).tolist() == [[112], [120], [130]]


def test_the_order_of_the_points_does_not_matter():
    layer = drawn(7)
    order = np.random.default_rng(1).permutation(len(layer.coordinates))
    turned = layer_of(layer.coordinates[order], layer.weight, layer.inputs[order], bias=layer.bias)
    assert np.allclose(sparse_convolution(turned), sparse_convolution(layer)[order], atol=1e-5)


def test_a_transposed_layer_has_the_swapped_pairs_of_its_downsampling():
    layer = drawn(5, kernel_size=2, stride=2, tensor_stride=2, transposed=True)
    down = kernel_map(layer.output_coordinates, 2, 2, tensor_stride=2)
    assert sum(len(into) for into, _ in down) == len(layer.output_coordinates)
    for (into, out), (fine, coarse) in zip(layer_maps(layer), down, strict=True):
        assert np.array_equal(into, coarse)
        assert np.array_equal(out, fine)


def test_codes_are_looked_up_in_their_codebook():
    plain = drawn(2, widths=(2, 3))
    book = np.array([0, 0.5, -1, 2], np.float32)
    codes = np.random.default_rng(0).integers(0, 4, plain.shape, np.uint8)
    bias = np.array([1, 2, 3], np.uint8)
    coded = Layer(name="c", op="sparse_conv3d", coordinates=plain.coordinates, inputs=plain.inputs, codes=codes,
                  bias_codes=bias, codebook=book)  # fmt: skip
    same = layer_of(plain.coordinates, book[codes], plain.inputs, bias=book[bias])
    assert np.array_equal(sparse_convolution(coded), sparse_convolution(same))
    assert np.array_equal(exact_convolution(coded)[0], exact_convolution(same)[0])


def test_what_has_no_values_is_refused():
    bare = layer_of(np.zeros((1, 3), np.int32), np.ones((1, 1, 27), np.float32), None)
    for convolve in (sparse_convolution, exact_convolution):
        with pytest.raises(InputError) as met:
            convolve(bare)
        assert str(met.value) == (
            "layer conv: inputs are needed for values, and the layer has only its geometry; "
            "build the trace with features=True"
        )
    dense = Layer(name="fc", op="linear", weight=np.ones((1, 1), np.float32), inputs=np.ones((1, 1), np.float32))
    with pytest.raises(InputError) as met:
        sparse_convolution(dense)
    assert str(met.value) == "layer fc: op must be sparse_conv3d to be convolved, not linear"


@pytest.mark.filterwarnings("ignore")  # of that library and what it imports
@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (2, 2)])
def test_spconv_gives_the_same(kernel_size, stride):
    torch = pytest.importorskip("torch")
    spconv = pytest.importorskip("spconv.pytorch")
    from spconv.core import ConvAlgo

    layer = drawn(11, count=200, widths=(4, 6), kernel_size=kernel_size, stride=stride)
    kind = spconv.SubMConv3d if stride == 1 else spconv.SparseConv3d
    module = kind(4, 6, kernel_size, stride=stride, bias=True, algo=ConvAlgo.Native, indice_key="map")
    cube = (kernel_size,) * 3
    with torch.no_grad():
        weight = np.ascontiguousarray(layer.weight.transpose(0, 2, 1).reshape(6, *cube, 4))
        module.weight.copy_(torch.from_numpy(weight).reshape(module.weight.shape))
        module.bias.copy_(torch.from_numpy(np.array(layer.bias)))
        places = np.column_stack([np.zeros(len(layer.coordinates), np.int32), layer.coordinates])
        given = spconv.SparseConvTensor(torch.from_numpy(np.array(layer.inputs)), torch.from_numpy(places), [8] * 3, 1)
        made = module(given)
    order = np.lexsort(made.indices.numpy()[:, :0:-1].T)
    outputs = layer.coordinates if layer.output_coordinates is None else layer.output_coordinates
    assert np.array_equal(made.indices.numpy()[order, 1:] * stride, outputs)
    assert np.allclose(made.features.numpy()[order], sparse_convolution(layer), atol=1e-5)
