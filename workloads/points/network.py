"""Networks for point clouds by name, and the trace of one on a cloud.

from gossamer.workloads.points.network import build
trace = build("minkunet42", cloud)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..checks import positive, whole
from ..errors import InputError
from ..trace import Trace
from .cloud import Cloud
from .files import CLOUD_SUFFIXES, read_cloud
from .point_networks import EdgeConv, Join, Mlp, PointNetwork, Pool, SetAbstraction, Transform
from .voxel_networks import VoxelNetwork, res_unet
from .weights import draw, prune, read_weights

CLASSES = 40  # of ModelNet40, on which the networks on points were published

POINT_NETWORKS: dict[str, VoxelNetwork | PointNetwork] = {
    "minkunet42": VoxelNetwork(
        "SparseResUNet42 (MinkowskiUNet): 49 sparse convolutions, for scenes; Choy et al., CVPR 2019",
        res_unet(stem=(32, 32), encoders=(32, 64, 128, 256), decoders=(256, 128, 96, 96)),
    ),
    "minkunet-small": VoxelNetwork(
        "the same kind with two stages a way and a quarter of the widths: 26 sparse convolutions, for trying out",
        res_unet(stem=(8, 8), encoders=(16, 32), decoders=(32, 24)),
    ),
    "pointnet2-ssg": PointNetwork(
        "PointNet++ with single-scale grouping, 1024 points into 40 classes; Qi et al., NeurIPS 2017",
        (
            SetAbstraction("sa1", (64, 64, 128), samples=512, radius=0.2, k=32),
            SetAbstraction("sa2", (128, 128, 256), samples=128, radius=0.4, k=64),
            SetAbstraction("sa3", (256, 512, 1024)),
            Mlp("fc", (512, 256, CLASSES), is_last=True),
        ),
    ),
    "pointnet": PointNetwork(
        "PointNet with both transforms, 1024 points into 40 classes; Qi et al., CVPR 2017",
        (
            Transform("tnet1", (64, 128, 1024), (512, 256)),
            Mlp("mlp1", (64, 64)),
            Transform("tnet2", (64, 128, 1024), (512, 256)),
            Mlp("mlp2", (64, 128, 1024)),
            Pool(),
            Mlp("fc", (512, 256, CLASSES), is_last=True),
        ),
    ),
    "dgcnn": PointNetwork(
        "DGCNN, 20 neighbours in the space of features, 1024 points into 40 classes; Wang et al., TOG 2019",
        (
            EdgeConv("edge1", (64,)),
            EdgeConv("edge2", (64,)),
            EdgeConv("edge3", (128,)),
            EdgeConv("edge4", (256,)),
            Join(4),
            Mlp("mlp", (1024,)),
            Pool(has_mean=True),
            Mlp("fc", (512, 256, CLASSES), is_last=True),
        ),
        slope=0.2,
    ),
}


def build(
    network: str,
    cloud: Cloud | np.ndarray,
    *,
    voxel_size: float | None = None,
    seed: int = 0,
    sparsity: float = 0.0,
    channel_sparsity: float = 0.0,
    features: bool = False,
    samples: int | None = None,
    weights: str | Path | None = None,
) -> Trace:
    """Return the trace of ``network`` on ``cloud``: every layer with what it is fed when the cloud goes through.

    ``cloud``: a Cloud, or real numbers (n, 3), or (n, 4) with the remission. ``samples`` of its points are drawn; by
    default all of them go through a network of voxels, of side ``voxel_size`` (0.05), and 1024 through one of points.
    ``weights``: a file of them, as `read_weights` reads it; without one they are drawn from ``seed``. ``sparsity`` and
    ``channel_sparsity`` prune them as `prune` does. A network of voxels has no values unless ``features`` asks for
    them: its layers then carry only where they are. Raises InputError.
    """
    made = known_network(network)
    cloud = _as_cloud(cloud)
    seed = whole(seed, "seed", 0)
    for name, share in (("sparsity", sparsity), ("channel_sparsity", channel_sparsity)):
        if isinstance(share, bool) or not isinstance(share, int | float):
            raise InputError(f"{name} must be a fraction, not {share!r}")
    if voxel_size is not None and isinstance(made, PointNetwork):
        raise InputError(f"voxel_size is for networks of voxels, and {network} takes points; leave it out")
    if samples is None and isinstance(made, PointNetwork):
        samples = made.samples
        if 0 < len(cloud.points) < samples:
            raise InputError(f"{network} takes {samples} points, and the cloud has {len(cloud.points)}; give samples")
    points = _chosen(cloud, samples, seed)
    table = made.weighted
    parameters = draw(table, seed) if weights is None else read_weights(Path(weights), table)
    parameters = prune(table, parameters, sparsity=sparsity, channel_sparsity=channel_sparsity)
    provenance: dict[str, Any] = {
        "source": "a network on a point cloud",
        "network": network,
        "data": cloud.name,
        "points": len(points),
        "weights": "normal, He et al., ICCV 2015" if weights is None else f"weights in {Path(weights).name}",
        "seed": seed,
        "channel_sparsity": float(channel_sparsity),
    }
    with np.errstate(over="ignore", invalid="ignore"):  # the layer that is fed what is not finite says so
        if isinstance(made, VoxelNetwork):
            side = positive(made.voxel_size if voxel_size is None else voxel_size, "voxel_size")
            layers = made.run(points, parameters, voxel_size=side, features=features)
            coordinates = layers[1].coordinates
            provenance |= {"voxel_size": side, "voxels": 0 if coordinates is None else len(coordinates)}
        else:
            layers, outputs = made.run(points[:, :3], parameters)
            provenance["predictions"] = outputs.argmax(axis=1).tolist()
    trace = Trace(name=f"{network}-{cloud.name}", layers=tuple(layers), provenance=provenance)
    return Trace(name=trace.name, layers=trace.layers, provenance=provenance | {"sparsity": trace.sparsity})


def build_from_file(path: str | Path, network: str, *, samples: int | None = None, seed: int = 0, **how: Any) -> Trace:
    """Return the trace of ``network`` on the cloud in the file at ``path``; ``how``: the other options of `build`.

    Raises InputError.
    """
    known_network(network)
    if Path(path).suffix.lower() not in CLOUD_SUFFIXES:
        raise InputError(
            f"{path}: a network is for point clouds ({', '.join(CLOUD_SUFFIXES)}), and this is none; leave it out"
        )
    is_mesh = Path(path).suffix.lower() == ".off"
    cloud = read_cloud(path, samples=samples if is_mesh else None, seed=seed)
    try:
        return build(network, cloud, samples=samples, seed=seed, **how)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def known_network(name: str) -> VoxelNetwork | PointNetwork:
    """Return the network called ``name``. Raises InputError that lists the known ones."""
    if name not in POINT_NETWORKS:
        raise InputError(f"unknown network for point clouds {name!r}; known: {', '.join(POINT_NETWORKS)}")
    return POINT_NETWORKS[name]


def _as_cloud(cloud: Cloud | np.ndarray) -> Cloud:
    if isinstance(cloud, Cloud):
        return cloud
    table = np.asarray(cloud)
    if table.ndim != 2 or table.shape[1] not in (3, 4) or table.dtype.kind not in "iuf":
        raise InputError(f"a cloud must be real numbers of shape (n, 3) or (n, 4), not {table.dtype} {table.shape}")
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused as not finite
        table = table.astype(np.float32)
    return Cloud(table[:, :3], "cloud", table[:, 3] if table.shape[1] == 4 else None)


def _chosen(cloud: Cloud, samples: int | None, seed: int) -> np.ndarray:
    """Return the points and remissions (0 where there are none) of ``samples`` points, in their order, (samples, 4)."""
    count = len(cloud.points)
    if not count:
        raise InputError("a cloud must have at least one point, and this has none")
    remission = np.zeros(count, np.float32) if cloud.remission is None else cloud.remission
    table = np.column_stack([cloud.points, remission])
    if samples is None:
        return table
    if isinstance(samples, bool) or not isinstance(samples, int) or not 1 <= samples <= count:
        raise InputError(f"samples must be a whole number from 1 to the {count} points of the cloud, not {samples!r}")
    return table[np.sort(np.random.default_rng(seed).choice(count, samples, replace=False))]
