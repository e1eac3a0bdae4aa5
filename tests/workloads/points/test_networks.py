"""Networks on point clouds: what goes through them, against the same networks written out."""

import itertools

import numpy as np
import pytest

from gossamer.workloads import load_trace, save_trace
from gossamer.workloads.points import downsample, voxelise
from gossamer.workloads.points.network import POINT_NETWORKS, build
from gossamer.workloads.points.sparse_conv import exact_convolution, layer_maps

from .clouds import by_name, scene


@pytest.fixture(scope="module")
def unet():
    return build("minkunet-small", scene(), features=True)


# What goes through.


def test_the_u_net_gives_what_dense_convolutions_give_where_there_are_voxels(unet):
    torch = pytest.importorskip("torch")
    layers = by_name(unet)
    conv = torch.nn.functional
    points = scene()
    coords, inverse = voxelise(points[:, :3], 0.05)
    assert coords.min() >= 0
    cells = {1: coords, 2: downsample(coords, 2), 4: downsample(coords, 4)}
    side = 32
    places = {step: tuple((at // step).T) for step, at in cells.items()}
    masks = {}
    for step, place in places.items():
        masks[step] = torch.zeros((side // step,) * 3, dtype=torch.float64)
        masks[step][place] = 1

    def weight(name):
        layer = layers[name]
        cube = (layer.attributes["kernel_size"],) * 3
        return torch.from_numpy(layer.weight.astype(float)).reshape(*layer.shape[:2], *cube)

    def meets(name, value, step):
        """The layer was fed what the dense network has at its voxels."""
        met = value[0][:, *places[step]].T.numpy()
        assert np.array_equal(layers[name].coordinates, cells[step])
        assert np.allclose(layers[name].inputs, met, rtol=1e-4, atol=1e-5 * np.abs(met).max())

    def plain(name, value, step, *, relu=True):
        meets(name, value, step)
        made = conv.conv3d(value, weight(name), padding=weight(name).shape[-1] // 2) * masks[step]
        return made.relu() if relu else made

    def down(name, value, step):
        meets(name, value, step)
        return (conv.conv3d(value, weight(name), stride=2) * masks[2 * step]).relu()

    def up(name, value, step):
        meets(name, value, step)
        return (conv.conv_transpose3d(value, weight(name).transpose(0, 1), stride=2) * masks[step // 2]).relu()

    def blocks(stage, value, step):
        for block in (f"{stage}.block1", f"{stage}.block2"):
            inner = plain(f"{block}.conv1", value, step)
            inner = plain(f"{block}.conv2", inner, step, relu=False)
            shortcut = f"{block}.shortcut"
            value = (inner + (plain(shortcut, value, step, relu=False) if shortcut in layers else value)).relu()
        return value

    means = np.stack([np.bincount(inverse, points[:, c].astype(float)) for c in range(4)], 1)
    means /= np.bincount(inverse)[:, None]
    value = torch.zeros((1, 4, side, side, side), dtype=torch.float64)
    value[0][:, *places[1]] = torch.from_numpy(means.T)
    full = plain("stem.conv2", plain("stem.conv1", value, 1), 1)
    half = blocks("enc1", down("enc1.down", full, 1), 2)
    quarter = blocks("enc2", down("enc2.down", half, 2), 4)
    value = blocks("dec1", torch.cat([up("dec1.up", quarter, 4), half], 1), 2)
    blocks("dec2", torch.cat([up("dec2.up", value, 2), full], 1), 1)
    assert len(layers) == 27  # all of them were met above, and the quantisation


def farthest(points, count):
    chosen, nearest = [0], np.full(len(points), np.inf, np.float32)
    while len(chosen) < count:
        nearest = np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(axis=1))
        chosen.append(int(nearest.argmax()))
    return chosen


def relu(values, slope=0.0):
    return np.where(values > 0, values, slope * values)


def test_pointnet2_gives_what_its_definition_gives():
    trace = build("pointnet2-ssg", scene(1024))
    layers = by_name(trace)
    points, features = layers["sa1.fps"].inputs.astype(float), None
    assert np.isclose(np.linalg.norm(points, axis=1).max(), 1)
    assert np.abs(points.mean(axis=0)).max() < 1e-6
    for stage, samples, radius, k in (("sa1", 512, 0.2, 32), ("sa2", 128, 0.4, 64)):
        centres = points[farthest(points.astype(np.float32), samples)]
        assert np.allclose(layers[f"{stage}.group"].queries, centres)
        rows = np.empty((samples, k), int)
        for row, centre in enumerate(centres.astype(np.float32)):
            near = np.flatnonzero(np.square(points.astype(np.float32) - centre).sum(axis=1) < np.float32(radius) ** 2)
            rows[row] = np.append(near[:k], np.full(max(0, k - len(near)), near[0]))
        assert np.array_equal(layers[f"{stage}.1"].gather[0], rows)
        value = points[rows] - centres[:, None]
        value = value if features is None else np.concatenate([value, features[rows]], axis=2)
        for number in (1, 2, 3):
            layer = layers[f"{stage}.{number}"]
            assert np.allclose(layer.inputs[0], value, atol=1e-4)
            assert layer.attributes["chain_index"] == number - 1
            value = relu(value @ layer.weight.T.astype(float))
        points, features = centres, value.max(axis=1)
    value = np.concatenate([points, features], axis=1)
    for name in ("sa3.1", "sa3.2", "sa3.3"):
        assert np.allclose(layers[name].inputs[0], value, atol=1e-4)
        value = relu(value @ layers[name].weight.T.astype(float))
    value = value.max(axis=0)
    for name in ("fc.1", "fc.2", "fc.3"):
        assert np.allclose(layers[name].inputs.ravel(), value, rtol=1e-3, atol=1e-3)
        value = layers[name].weight.astype(float) @ value
        value = value if name == "fc.3" else relu(value)
    assert trace.provenance["predictions"] == [value.argmax()]


def test_dgcnn_looks_for_neighbours_among_its_features():
    trace = build("dgcnn", scene(200), samples=200)
    layers = by_name(trace)
    value, stages = layers["edge1.knn"].inputs.astype(float), []
    for number in (1, 2, 3, 4):
        own = layers[f"edge{number}.knn"].inputs
        assert np.allclose(own, value, atol=1e-4)
        gather = layers[f"edge{number}.1"].gather[0]
        distance = np.square(own[:, None].astype(float) - own[None]).sum(axis=2)
        found = np.take_along_axis(distance, gather, axis=1)
        assert np.allclose(found, np.sort(distance, axis=1)[:, :20], atol=1e-4)
        assert np.array_equal(gather[:, 0], np.arange(200))  # each is its own nearest
        value = np.concatenate([own[gather] - own[:, None], np.repeat(own[:, None], 20, axis=1)], axis=2)
        assert np.array_equal(layers[f"edge{number}.1"].inputs[0], value)
        value = relu(value @ layers[f"edge{number}.1"].weight.T.astype(float), 0.2).max(axis=1)
        stages.append(value)
    value = relu(np.concatenate(stages, axis=1) @ layers["mlp.1"].weight.T.astype(float), 0.2)
    value = np.concatenate([value.max(axis=0), value.mean(axis=0)])
    for name in ("fc.1", "fc.2", "fc.3"):
        assert np.allclose(layers[name].inputs.ravel(), value, rtol=1e-3, atol=1e-3)
        value = layers[name].weight.astype(float) @ value
        value = value if name == "fc.3" else relu(value, 0.2)
    assert trace.provenance["predictions"] == [value.argmax()]


def test_pointnet_turns_points_and_features_by_what_it_learnt():
    layers = by_name(build("pointnet", scene(1024)))
    for name, side, following in (("tnet1", 3, "mlp1.1"), ("tnet2", 64, "mlp2.1")):
        own = layers[f"{name}.points.1"].inputs[0].astype(float)
        value = own
        for number in (1, 2, 3):
            value = relu(value @ layers[f"{name}.points.{number}"].weight.T.astype(float))
        value = value.max(axis=0)
        for number in (1, 2, 3):
            value = layers[f"{name}.cloud.{number}"].weight.astype(float) @ value
            value = value if number == 3 else relu(value)
        matrix = value.reshape(side, side) + np.eye(side)
        product = layers[f"{name}.product"]
        assert np.allclose(product.weight[0], matrix.T, rtol=1e-3, atol=1e-3)
        assert np.allclose(product.inputs[0] @ product.weight[0].T, layers[following].inputs[0], rtol=1e-4, atol=1e-4)
        assert np.allclose(own @ matrix, layers[following].inputs[0], rtol=1e-2, atol=1e-2)


def test_every_layer_of_a_trace_gives_the_value_that_its_reference_gives(unet):
    for layer in unet.layers[1:]:
        assert np.isfinite(exact_convolution(layer)[0]).all()
        assert 0.01 < np.abs(layer.inputs).max() < 1e4  # weights keep features of a size


# Geometry.


def test_the_u_net_is_the_published_one():
    table = POINT_NETWORKS["minkunet42"].weighted
    assert len(table) == 49
    assert sum(int(np.prod(layer.shape)) for layer in table) == 21_709_184  # 21.7 M were published
    shapes = {layer.name: layer.shape for layer in table}
    assert shapes["stem.conv1"] == (32, 4, 27)
    assert shapes["enc4.down"] == (128, 128, 8)
    assert shapes["enc4.block1.shortcut"] == (256, 128, 1)
    assert shapes["dec1.block1.conv1"] == (256, 256 + 128, 27)
    assert shapes["dec4.up"] == (96, 96, 8)
    assert shapes["dec4.block1.shortcut"] == (96, 96 + 32, 1)
    assert shapes["dec4.block2.conv2"] == (96, 96, 27)


def test_geometry_alone_is_the_same_without_values(unet):
    bare = build("minkunet-small", scene())
    for mine, other in zip(bare.layers[1:], unet.layers[1:], strict=True):
        assert mine.inputs is None
        assert mine.attributes == other.attributes
        assert np.array_equal(mine.weight, other.weight)
        for name in ("coordinates", "output_coordinates"):
            assert np.array_equal(mine.array(name), other.array(name))


def test_a_map_is_built_once():
    trace = build("minkunet42", scene(3000, side=8))
    built = [layer.name for layer in trace.layers[1:] if layer.attributes["builds_map"]]
    stages = [f"enc{n}.{part}" for n in (1, 2, 3, 4) for part in ("down", "block1.conv1")]
    assert built == ["stem.conv1", *stages]
    ups = [layer for layer in trace.layers[1:] if layer.attributes["transposed"]]
    assert [layer.attributes["tensor_stride"] for layer in ups] == [8, 4, 2, 1]
    by = by_name(trace)
    for number, up in enumerate(ups, start=1):
        down = by[f"enc{5 - number}.down"]
        assert sum(len(into) for into, _ in layer_maps(down)) == len(down.coordinates)
        assert up.coordinates is down.output_coordinates
        assert up.output_coordinates is down.coordinates


def test_the_first_layer_quantises_the_points():
    first = build("minkunet-small", scene(), voxel_size=0.1).layers[0]
    assert (first.name, first.op) == ("quantise", "point_op")
    assert first.attributes == {"kind": "quantise", "voxel_size": 0.1}
    assert np.array_equal(first.inputs, scene()[:, :3])


def test_a_trace_survives_its_file(tmp_path, unet):
    for trace in (unet, build("minkunet-small", scene()), build("pointnet2-ssg", scene(1024))):
        path = save_trace(trace, tmp_path / "t.safetensors")
        assert load_trace(path).sha256 == trace.sha256


def test_the_same_seed_gives_the_same_trace():
    first, same, other = (build("minkunet-small", scene(), seed=seed).sha256 for seed in (1, 1, 2))
    assert first == same != other


def test_offsets_of_a_weight_are_in_the_order_of_the_maps(unet):
    layer = by_name(unet)["enc1.down"]
    for (into, out), offset in zip(layer_maps(layer), itertools.product(range(2), repeat=3), strict=True):
        assert np.array_equal(layer.coordinates[into], layer.output_coordinates[out] + np.array(offset))
