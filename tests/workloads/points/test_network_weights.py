"""The weights of networks on point clouds: read, refused, and pruned one by one or by channel."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from gossamer.workloads import InputError
from gossamer.workloads.points.network import POINT_NETWORKS, build

from .clouds import by_name, scene


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
    given = {f"{w.name}.weight": np.full(w.shape, 1e14, np.float32) for w in POINT_NETWORKS[network].weighted}
    np.savez(tmp_path / "w.npz", **given)
    with pytest.raises(InputError, match=f"^layer {layer}: tensor inputs must be at most 2\\^48 in size, and holds "):
        build(network, 100 + scene(1024), features=True, weights=tmp_path / "w.npz")
