"""Point clouds: packed keys, voxels, kernel maps, neighbours, the files clouds come in, and scenes drawn from a seed.

from gossamer.workloads.points import kernel_map, read_cloud, voxelise
"""

from .cloud import Cloud
from .files import read_cloud, write_cloud
from .kernel_map import kernel_map, maps_between, offsets, transposed
from .keys import downsample, pack, unpack, voxelise
from .neighbours import ball_query, fps, knn
from .scenes import cad, lidar, room

__all__ = [
    "Cloud",
    "ball_query",
    "cad",
    "downsample",
    "fps",
    "kernel_map",
    "knn",
    "lidar",
    "maps_between",
    "offsets",
    "pack",
    "read_cloud",
    "room",
    "transposed",
    "unpack",
    "voxelise",
    "write_cloud",
]
