"""Networks on point clouds: what goes through them, against the same networks written out; weights, pruning, errors."""

import itertools

import numpy as np
import pytest
from safetensors.numpy import save_file

from gossamer.workloads import InputError, load_trace, save_trace
from gossamer.workloads.points import downsample, voxelise
from gossamer.workloads.points.cloud import Cloud
from gossamer.workloads.points.network import POINT_NETWORKS, build, build_from_file
from gossamer.workloads.points.sparse_conv import exact_convolution, layer_maps


def scene(count=400, side=1.2, seed=0):
    """Points on the floor and two walls of a box, with remissions, (count, 4)."""
    rng = np.random.default_rng(seed)
    points = rng.random((count, 3), np.float32) * np.float32(side)
    points[np.arange(count), rng.integers(0, 3, count)] = 0.02
    return np.column_stack([points, rng.random(count, np.float32)])


def by_name(trace):
    return {layer.name: layer for layer in trace.layers}


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


# Weights.


def test_unstructured_pruning_leaves_every_layer_its_largest_weights():
    dense, pruned = (by_name(build("minkunet-small", scene(), sparsity=s)) for s in (0.0, 0.75))
    for name, layer in list(pruned.items())[1:]:
        kept = layer.weight != 0
        assert kept.sum() == round(0.25 * kept.size)
        assert np.array_equal(layer.weight[kept], dense[name].weight[kept])
        assert np.abs(dense[name].weight[~kept]).max() <= np.abs(layer.weight[kept]).min()


def groups_of(network, layers):
    """The layers whose outputs are added to one another, and the others one by one; not those of the output."""
    if network != "minkunet-small":
        kept_whole = {"fc.3", "mlp1.2", "tnet1.cloud.3", "tnet2.cloud.3"}
        return [[name] for name in layers if name not in kept_whole]
    groups = [[name] for name in layers if name.endswith((".conv1", ".up")) or name == "stem.conv2"]
    for stage in ("enc1", "enc2", "dec1"):
        groups += [[f"{stage}.block1.conv2", f"{stage}.block1.shortcut", f"{stage}.block2.conv2"]]
    return [*groups, ["enc1.down"], ["enc2.down"]]


@pytest.mark.parametrize("network", ["minkunet-small", "pointnet2-ssg", "pointnet", "dgcnn"])
def test_a_network_without_channels_is_the_one_whose_channels_are_zero(network, tmp_path):
    cloud = scene(1024)
    dense = {layer.name: layer.weight for layer in build(network, cloud, features=True).layers
             if layer.op in ("linear", "sparse_conv3d")}  # fmt: skip
    zeroed = {name: weight.copy() for name, weight in dense.items()}
    for group in groups_of(network, dense):
        norms = sum(np.square(dense[name].astype(float)).reshape(len(dense[name]), -1).sum(axis=1) for name in group)
        for name in group:
            zeroed[name][np.argsort(-norms)[len(norms) // 2 :]] = 0
    np.savez(tmp_path / "w.npz", **{f"{name}.weight": weight for name, weight in zeroed.items()})
    wide = by_name(build(network, cloud, features=True, weights=tmp_path / "w.npz"))
    narrow = by_name(build(network, cloud, features=True, channel_sparsity=0.5))
    assert list(wide) == list(narrow)
    for name in dense:
        rows = np.flatnonzero(zeroed[name].reshape(len(zeroed[name]), -1).any(axis=1))
        assert len(narrow[name].weight) == len(rows)
        inputs = wide[name].inputs.reshape(-1, wide[name].inputs.shape[-1])
        fewer = narrow[name].inputs.reshape(-1, narrow[name].inputs.shape[-1])
        filled = inputs.any(axis=0)
        tolerance = 1e-4 * np.abs(inputs).max()
        close = np.isclose(inputs[:, filled], fewer[:, fewer.any(axis=0)], rtol=1e-4, atol=tolerance)
        # Rounding decides which of two neighbours equally far in the space of features is the last.
        assert close.mean() > 0.999 if network == "dgcnn" else close.all()
    whole, left = (sum(w.size for w in weights) for weights in
                   (dense.values(), [narrow[name].weight for name in dense]))  # fmt: skip
    assert left < 0.5 * whole


def test_the_output_keeps_its_channels():
    assert build("minkunet42", scene(), channel_sparsity=0.9).layers[-1].shape == (96, 10, 27)
    assert len(build("dgcnn", scene(1024), channel_sparsity=0.99).layers[-1].weight) == 40


def test_weights_of_a_file_are_those_of_the_layers(tmp_path):
    rng = np.random.default_rng(4)
    given = {}
    for layer in POINT_NETWORKS["minkunet-small"].weighted:
        given[f"{layer.name}.weight"] = rng.standard_normal(layer.shape, np.float32)
        given[f"{layer.name}.bias"] = rng.standard_normal(layer.width, np.float32)
    save_file(given, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", **given)
    traces = [build("minkunet-small", scene(), weights=tmp_path / name) for name in ("w.safetensors", "w.npz")]
    for trace in traces:
        for layer in trace.layers[1:]:
            assert np.array_equal(layer.weight, given[f"{layer.name}.weight"])
            assert np.array_equal(layer.bias, given[f"{layer.name}.bias"])
    assert [trace.provenance["weights"] for trace in traces] == ["weights in w.safetensors", "weights in w.npz"]


def refused_weights(path, change):
    given = {
        f"{layer.name}.weight": np.zeros(layer.shape, np.float32) for layer in POINT_NETWORKS["pointnet2-ssg"].weighted
    }
    change(given)
    np.savez(path, **given)
    with pytest.raises(InputError) as met:
        build("pointnet2-ssg", scene(1024), weights=path)
    return str(met.value).removeprefix(f"{path}: ")


def test_a_file_of_weights_that_does_not_fit_says_where(tmp_path):
    path = tmp_path / "w.npz"
    shape = (64, 3)
    assert refused_weights(path, lambda given: given.pop("sa1.1.weight")) == (
        f"sa1.1.weight is missing; it must be (out, in) = {shape}"
    )
    assert refused_weights(path, lambda given: given.update({"sa1.1.weight": np.zeros((3, 64))})) == (
        f"sa1.1.weight must be (out, in) = {shape}, not (3, 64)"
    )
    assert refused_weights(path, lambda given: given.update({"sa1.1.bias": np.zeros(3)})) == (
        "sa1.1.bias must be (out,) = (64,), not (3,)"
    )
    assert refused_weights(path, lambda given: given.update({"sa1.9.weight": np.zeros(3)})).startswith(
        "every array must be NAME.weight or NAME.bias of a layer, and 'sa1.9.weight' is none; the layers: sa1.1, sa1.2,"
    )
    assert refused_weights(path, lambda given: given.update({"sa1.1.weight": np.full(shape, np.nan)})) == (
        "sa1.1.weight must be finite, and holds nan at (0, 0); replace such values"
    )
    with pytest.raises(InputError) as met:
        build("pointnet2-ssg", scene(1024), weights="weights.pt")
    assert str(met.value) == ("weights.pt: the name of a file of weights must end in .safetensors or .npz; convert it")


@pytest.mark.parametrize(("network", "layer"), [("minkunet-small", "stem.conv2"), ("pointnet2-ssg", "sa1.3")])
def test_weights_that_overflow_are_told_of_where_it_shows(tmp_path, network, layer):
    given = {f"{w.name}.weight": np.full(w.shape, 3e38, np.float32) for w in POINT_NETWORKS[network].weighted}
    np.savez(tmp_path / "w.npz", **given)
    with pytest.raises(InputError, match=f"^layer {layer}: tensor inputs must be finite, and holds (inf|nan) at"):
        build(network, 100 + scene(1024), features=True, weights=tmp_path / "w.npz")


# Clouds and options.


def test_a_cloud_may_be_of_any_kind(tmp_path):
    points = scene()
    cloud = Cloud(points[:, :3].copy(), "cloud", points[:, 3].copy())
    np.save(tmp_path / "cloud.npy", points)
    wanted = build("minkunet-small", points, features=True).sha256
    assert build("minkunet-small", cloud, features=True).sha256 == wanted
    assert build_from_file(tmp_path / "cloud.npy", "minkunet-small", features=True).sha256 == wanted
    bare = build("minkunet-small", points[:, :3], features=True)
    assert not bare.layers[1].inputs[:, 3].any()


def test_a_mesh_is_sampled(tmp_path):
    path = tmp_path / "corner.off"
    path.write_text("OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n")
    assert build_from_file(path, "pointnet2-ssg").provenance["points"] == 1024
    assert build_from_file(path, "minkunet-small", samples=2000).provenance["points"] == 2000


def test_points_are_drawn_where_a_network_takes_fewer():
    trace = build("pointnet2-ssg", scene(3000))
    assert trace.provenance["points"] == len(trace.layers[0].inputs) == 1024
    assert len(build("minkunet-small", scene(), samples=50).layers[0].inputs) == 50
    fewer = build("dgcnn", scene(30), samples=25).layers[0]
    assert np.isclose(np.linalg.norm(fewer.inputs, axis=1).max(), 1)


@pytest.mark.parametrize(
    ("network", "cloud", "options", "message"),
    [
        ("minkunet", scene(), {}, "unknown network for point clouds 'minkunet'; known: " + ", ".join(POINT_NETWORKS)),
        ("dgcnn", scene(), {}, "dgcnn takes 1024 points, and the cloud has 400; give samples"),
        ("dgcnn", scene(), {"samples": 401},
         "samples must be a whole number from 1 to the 400 points of the cloud, not 401"),
        ("dgcnn", scene(), {"samples": 19}, "edge1 needs at least 20 points, and there are 19; give more samples"),
        ("pointnet2-ssg", scene(), {"samples": 400},
         "sa1 needs at least 512 points, and there are 400; give more samples"),
        ("pointnet", np.zeros((0, 3)), {}, "a cloud must have at least one point, and this has none"),
        ("dgcnn", scene(), {"voxel_size": 0.1},
         "voxel_size is for networks of voxels, and dgcnn takes points; leave it out"),
        ("minkunet42", scene(), {"voxel_size": 0.0}, "voxel_size must be a number above 0, not 0.0"),
        ("minkunet42", scene(), {"sparsity": 1.5}, "sparsity must be a fraction between 0 and 1, not 1.5"),
        ("minkunet42", scene(), {"sparsity": "half"}, "sparsity must be a fraction, not 'half'"),
        ("minkunet42", scene(), {"channel_sparsity": 1.0},
         "channel_sparsity must be a fraction, at least 0 and below 1, not 1.0"),
        ("minkunet42", scene(), {"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ("minkunet42", np.zeros((4, 2)), {},
         "a cloud must be real numbers of shape (n, 3) or (n, 4), not float64 (4, 2)"),
        ("minkunet42", np.zeros((0, 3)), {}, "a cloud must have at least one point, and this has none"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(network, cloud, options, message):
    with pytest.raises(InputError) as met:
        build(network, cloud, **options)
    assert str(met.value) == message


def test_a_point_alone_goes_through():
    trace = build("minkunet42", np.zeros((1, 3)), features=True)
    assert {len(layer.coordinates) for layer in trace.layers[1:]} == {1}
    assert build("pointnet", np.zeros((1, 3)), samples=1).provenance["points"] == 1


def test_offsets_of_a_weight_are_in_the_order_of_the_maps(unet):
    layer = by_name(unet)["enc1.down"]
    for (into, out), offset in zip(layer_maps(layer), itertools.product(range(2), repeat=3), strict=True):
        assert np.array_equal(layer.coordinates[into], layer.output_coordinates[out] + np.array(offset))
