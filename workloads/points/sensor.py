"""A spinning LiDAR: beams of fixed elevations that turn about an upright axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .raycast import Body, Ground, cast

# Velodyne HDL-64E: 32 beams from +2 down by 1/3 degree, 32 more from -8.83 down by 1/2.
ELEVATIONS_DEG = (*(2 - beam / 3 for beam in range(32)), *(-8.83 - beam / 2 for beam in range(32)))


# Albedo that is seen up to the reach; a darker one is seen as much less far as the root of its share. The sensor's data
# sheet, from memory: 120 m for 0.8 (cars, foliage), 50 m for 0.1 (road).
BRIGHT = 0.8


@dataclass(frozen=True)
class Spinning:
    """``elevations_deg`` of the beams, and so many ``azimuths`` a turn. Lengths are metres.

    Height above ground, noise and lost returns are those of SemanticKITTI's scans; the reach is the sensor's.
    """

    elevations_deg: tuple[float, ...] = ELEVATIONS_DEG
    azimuths: int = 2083
    height: float = 1.73
    reach: float = 120.0
    range_noise: float = 0.015  # standard deviation
    drop_out: float = 0.06  # share of returns that are lost
    tilt_deg: float = 0.6  # standard deviation of pitch and roll, of a car on its springs; assumed


def scan(
    bodies: list[Body], ground: Ground, sensor: Spinning, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return one turn's points in the sensor's own frame, float32 (n, 3), and their remission, float32 (n,), 0 to 1.

    Points come in the order of the beams, and in each of the azimuths, as the scans of KITTI do.
    """
    turn = 2 * math.pi * np.arange(sensor.azimuths) / sensor.azimuths
    rise = np.radians(sensor.elevations_deg)
    own = np.empty((sensor.azimuths, len(rise), 3))
    own[..., 0] = np.cos(turn)[:, None] * np.cos(rise)
    own[..., 1] = np.sin(turn)[:, None] * np.cos(rise)
    own[..., 2] = np.sin(rise)
    tilt = turned(0.0, *np.radians(rng.normal(0, sensor.tilt_deg, 2)))
    origin = np.array([0.0, 0.0, sensor.height])
    seed = int(rng.integers(0, 2**63))
    distance, albedo, cosine = cast(bodies, ground, origin, own @ tilt.T, sensor.reach, seed)
    distance += rng.normal(0, sensor.range_noise, distance.shape)
    is_seen = (distance <= sensor.reach * np.sqrt(np.minimum(albedo / BRIGHT, 1))) & (
        rng.random(distance.shape) >= sensor.drop_out
    )
    remission = np.clip(albedo * cosine * rng.normal(1, 0.1, distance.shape), 0, 1)
    kept = is_seen.T
    points = own.transpose(1, 0, 2)[kept] * distance.T[kept][:, None]
    return points.astype(np.float32), remission.T[kept].astype(np.float32)


def turned(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the rotation, (3, 3), about x by ``roll``, then about y by ``pitch``, then about z by ``yaw``, radians."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    return np.asarray(about_z @ about_y @ about_x)
