"""Networks on point clouds of every kind, with every option."""

import numpy as np
import pytest

from gossamer.workloads import InputError
from gossamer.workloads.points.cloud import Cloud
from gossamer.workloads.points.network import POINT_NETWORKS, build, build_from_file

from .clouds import scene


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
