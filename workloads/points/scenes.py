"""Clouds drawn from a seed: a scan of a street, a room, a single object.

The same seed gives the same cloud.
"""

from __future__ import annotations

import math

import numpy as np

from ..checks import whole
from ..errors import InputError
from . import furniture
from .cloud import Cloud
from .off import SAMPLES_LIMIT
from .sensor import Spinning, scan, turned
from .street import street
from .surfaces import Surface, draw_points

SOLIDS = ("box", "sphere", "cylinder", "torus", "cone")
OBJECTS = {"table": furniture.table, "chair": furniture.chair, "lamp": furniture.lamp, "shelf": furniture.shelf}
SHAPES = (*SOLIDS, *OBJECTS)
ROOM_POINTS_PER_M2 = 4000  # 10 in a voxel's face of 0.05 m; assumed
ROOM_NOISE = 0.004  # metres, standard deviation, each axis; of an indoor scanner, assumed
ROOM_TILT_DEG = 1.0  # standard deviation of pitch and roll; assumed
SEED_LIMIT = 2**63 - 1


def lidar(seed: int = 0) -> Cloud:
    """Return a turn of a spinning LiDAR in a street, in metres and in the sensor's frame, with remission.

    64 beams, about 122,000 points; in voxels of 0.05 m it is about as sparse as a scan of SemanticKITTI.
    Raises InputError for a seed that is none.
    """
    rng = _rng(seed, 0)
    points, remission = scan(*street(rng), Spinning(), rng)
    return Cloud(points, f"lidar-{seed}", remission)


def room(seed: int = 0) -> Cloud:
    """Return a furnished room, in metres, all of its surfaces scanned densely; its lowest corner is near the origin.

    Raises InputError for a seed that is none.
    """
    rng = _rng(seed, 1)
    long, wide, high = rng.uniform(4.5, 7.5), rng.uniform(3.5, 5.5), rng.uniform(2.5, 3.0)
    surfaces = [Surface("box", (long, wide, high), (0, 0, high / 2))]
    for _ in range(rng.integers(2, 5)):
        x, y = rng.uniform(-0.3, 0.3) * long, rng.uniform(-0.3, 0.3) * wide
        yaw = rng.uniform(0, 2 * np.pi)
        surfaces += [part.moved((x, y, 0), yaw) for part in furniture.table(rng)]
        for _ in range(rng.integers(1, 4)):
            away, turn = rng.uniform(0.7, 1.0), rng.uniform(0, 2 * np.pi)
            place = x + away * np.cos(turn), y + away * np.sin(turn), 0.0
            surfaces += [part.moved(place, turn - np.pi / 2 + rng.normal(0, 0.2)) for part in furniture.chair(rng)]
    for make in (furniture.shelf, furniture.cupboard, furniture.shelf, furniture.lamp):
        side = rng.choice([-1, 1])
        place = rng.uniform(-0.4, 0.4) * long, side * (wide / 2 - 0.25), 0.0
        surfaces += [part.moved(place, 0.0 if side > 0 else np.pi) for part in make(rng)]
    count = round(ROOM_POINTS_PER_M2 * math.fsum(surface.area for surface in surfaces))
    points = draw_points(surfaces, count, rng)
    # A scanner does not stand along the walls, nor quite level; without that a floor may lie on a border of voxels.
    frame = turned(rng.uniform(0, 2 * np.pi), *np.radians(rng.normal(0, ROOM_TILT_DEG, 2)))
    points = points @ frame.T + rng.normal(0, ROOM_NOISE, points.shape)
    return Cloud((points - points.min(axis=0)).astype(np.float32), f"room-{seed}")


def cad(seed: int = 0, shape: str | None = None, *, points: int = 1024) -> Cloud:
    """Return ``points`` of the surface of one object, centred on their mean, the farthest at distance 1.

    ``shape`` is one of SHAPES, or None for one that ``seed`` chooses; proportions and direction are drawn.
    Raises InputError.
    """
    rng = _rng(seed, 2)
    count = whole(points, "points", 2, SAMPLES_LIMIT)
    chosen = SHAPES[int(rng.integers(len(SHAPES)))]
    if shape is not None:
        if shape not in SHAPES:
            raise InputError(f"shape must be one of {', '.join(SHAPES)}, not {shape!r}")
        chosen = shape
    parts = OBJECTS[chosen](rng) if chosen in OBJECTS else [Surface(chosen, _solid(chosen, rng))]
    turn = rng.uniform(0, 2 * np.pi)
    cloud = draw_points([part.moved((0, 0, 0), turn) for part in parts], count, rng)
    cloud -= cloud.mean(axis=0)
    cloud /= np.linalg.norm(cloud, axis=1).max()
    return Cloud(rng.permutation(cloud).astype(np.float32), f"{chosen}-{seed}")


def _solid(kind: str, rng: np.random.Generator) -> tuple[float, ...]:
    """Return the proportions of a solid."""
    a, b, c = rng.uniform(0.4, 1.0, 3).tolist()
    if kind == "torus":
        return 1.0, 0.5 * a
    return {"box": (a, b, c), "sphere": (1.0,)}.get(kind, (a, 2 * b))


def _rng(seed: int, kind: int) -> np.random.Generator:
    return np.random.default_rng([whole(seed, "seed", 0, SEED_LIMIT), 4, kind])
