"""What a point_op finds: voxels, or indices of points."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..trace import Layer
from .keys import voxelise
from .neighbours import ball_query, fps, knn


def point_op(layer: Layer) -> np.ndarray:
    """Return what a point_op ``layer`` finds, whole numbers, two-dimensional.

    ``quantise``: the voxels, (voxels, 3). ``fps``: the points chosen, (samples, 1). ``knn`` and ``ball_query``: the
    neighbours of each query, (queries, k). Raises InputError for a layer of another op.
    """
    if layer.op != "point_op":
        raise InputError(f"layer {layer.name}: op must be point_op to be looked up, not {layer.op}")
    about, points = layer.attributes, layer.inputs
    queries = points if layer.queries is None else layer.queries
    if about["kind"] == "quantise":
        return voxelise(points, about["voxel_size"])[0]
    if about["kind"] == "fps":
        return fps(points, about["samples"])[:, None]
    if about["kind"] == "knn":
        return knn(points, queries, about["k"])
    return ball_query(points, queries, about["radius"], about["k"], about["order"])[0]
