"""Rays against a scene of boxes, upright cylinders and ellipsoids on uneven ground, each solid or porous.

A porous body (the crown of a tree, a hedge) stops a ray after a distance that is exponential with its mean free path,
so that returns come from all of its depth. All lengths are metres; the origin of the scene is on the ground, below the
sensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

BOX, CYLINDER, ELLIPSOID = 0, 1, 2
FACADE_PITCH, WINDOW_WIDTH = 3.0, 1.3  # metres: of the windows of a facade; assumed
STOREY, SILL, LINTEL = 3.0, 0.9, 2.3
RECESS = 0.2
NEVER = 1e30


@dataclass(frozen=True)
class Body:
    """One body: ``kind``; ``centre`` and ``half`` extents (x, y, z) before it is turned by ``yaw`` about z.

    ``mean_free_path``: 0 for a solid. ``albedo``: share of the light that it sends back. ``has_windows``: recessed
    ones, all over its upright faces.
    """

    kind: int
    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    yaw: float = 0.0
    mean_free_path: float = 0.0
    albedo: float = 0.3
    has_windows: bool = False

    def row(self) -> tuple[float, ...]:
        """Return the body as the kernel takes it."""
        return (self.kind, *self.centre, *self.half, math.cos(self.yaw), math.sin(self.yaw), self.mean_free_path,
                self.albedo, self.has_windows)  # fmt: skip


@dataclass(frozen=True)
class Ground:
    """Uneven ground with a street along x and another one across it at ``crossing``; kerbs on both sides of them.

    ``waves``: (amplitude, x and y wave numbers in 1 / m, phase) of each of the swells that make it uneven. Beyond the
    pavement grows ``grass``, so high at most.
    """

    half_width: float
    crossing: float
    kerb: float
    pavement: float
    grass: float
    waves: tuple[tuple[float, float, float, float], ...]

    def row(self) -> np.ndarray:
        """Return all but the waves as the kernel takes it."""
        return np.array([self.half_width, self.crossing, self.kerb, self.pavement, self.grass])


def cast(
    bodies: list[Body], ground: Ground, origin: np.ndarray, directions: np.ndarray, reach: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distance, albedo and cosine of incidence of the first thing each ray meets; the distance is inf for none.

    ``directions`` are unit vectors, float64 (columns, beams, 3); those of a column point almost the same way seen from
    above, which spares most of the bodies. The results are (columns, beams). ``seed`` decides the depth of the returns
    from porous bodies and grass.
    """
    rows = np.array([body.row() for body in bodies], np.float64).reshape(-1, 12)
    away = np.hypot(rows[:, 1] - origin[0], rows[:, 2] - origin[1])
    around = np.hypot(rows[:, 4], rows[:, 5])
    order = np.argsort(away - around)  # nearest first: a ray that has met something need not look further
    shape = directions.shape[:2]
    distance, albedo, cosine = np.full(shape, np.inf), np.zeros(shape), np.zeros(shape)
    _cast(rows[order], (away - around)[order], around[order], ground.row(), np.array(ground.waves), origin, directions,
          reach, np.uint64(seed), np.empty(len(rows), np.int64), distance, albedo, cosine)  # fmt: skip
    return distance, albedo, cosine


@njit(cache=True)
def _uniform(seed, ray, body):  # type: ignore[no-untyped-def]
    """Return a number from (0, 1] that depends on the arguments alone: SplitMix64 (Steele et al., OOPSLA 2014)."""
    word = seed + np.uint64(0x9E3779B97F4A7C15) * (np.uint64(ray) * np.uint64(4099) + np.uint64(body) + np.uint64(1))
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    word ^= word >> np.uint64(31)
    return (np.float64(word >> np.uint64(11)) + 1.0) / 9007199254740992.0


@njit(cache=True)
def _height(x, y, street, waves, blade):  # type: ignore[no-untyped-def]
    """Return the height of the ground; ``blade``, 0 to 1, is how much of the grass stands at this ray."""
    half_width, crossing, kerb, pavement, grass = street
    height = 0.0
    for wave in waves:
        height += wave[0] * math.sin(wave[1] * x + wave[2] * y + wave[3])
    beside = min(abs(y), abs(x - crossing)) - half_width
    if beside > 0:
        height += kerb
        if beside > pavement:
            height += grass * blade
    return height


@njit(cache=True)
def _meet_ground(origin, ray, street, waves, blade, reach):  # type: ignore[no-untyped-def]
    """Return the distance to the ground: steps through the layer that it lies in, then halves the last one."""
    swell = 0.0
    for wave in waves:
        swell += abs(wave[0])
    top, bottom = swell + street[2] + street[4], -swell
    if ray[2] >= 0:
        return NEVER
    near = max(0.0, (origin[2] - top) / -ray[2])
    far = min(reach, (origin[2] - bottom) / -ray[2] + 0.01)
    if near >= far:
        return NEVER
    steps = min(64, 4 + int((far - near) / 0.5))
    before = near
    for step in range(1, steps + 1):
        at = near + (far - near) * step / steps
        if origin[2] + at * ray[2] < _height(origin[0] + at * ray[0], origin[1] + at * ray[1], street, waves, blade):
            for _ in range(12):
                middle = 0.5 * (before + at)
                x, y = origin[0] + middle * ray[0], origin[1] + middle * ray[1]
                if origin[2] + middle * ray[2] < _height(x, y, street, waves, blade):
                    at = middle
                else:
                    before = middle
            return at
        before = at
    return NEVER


@njit(cache=True)
def _meet_body(body, origin, ray, normal):  # type: ignore[no-untyped-def]
    """Return where the ray enters and leaves the body, NEVER twice if it misses; ``normal`` is that of the entry."""
    cos, sin = body[7], body[8]
    ox, oy = origin[0] - body[1], origin[1] - body[2]
    # In the frame in which the body has a half extent of 1 each way.
    px, py, pz = (cos * ox + sin * oy) / body[4], (cos * oy - sin * ox) / body[5], (origin[2] - body[3]) / body[6]
    dx, dy, dz = (cos * ray[0] + sin * ray[1]) / body[4], (cos * ray[1] - sin * ray[0]) / body[5], ray[2] / body[6]
    enter, leave = -NEVER, NEVER
    axis = -1
    for side in range(3):
        p = px if side == 0 else (py if side == 1 else pz)
        d = dx if side == 0 else (dy if side == 1 else dz)
        if body[0] == ELLIPSOID or (body[0] == CYLINDER and side < 2):
            continue
        if abs(d) < 1e-12:
            if abs(p) > 1:
                return NEVER, NEVER
            continue
        low, high = (-1 - p) / d, (1 - p) / d
        if low > high:
            low, high = high, low
        if low > enter:
            enter, axis = low, side
        leave = min(leave, high)
    if body[0] != BOX:
        is_ball = body[0] == ELLIPSOID
        a = dx * dx + dy * dy + (dz * dz if is_ball else 0.0)
        b = px * dx + py * dy + (pz * dz if is_ball else 0.0)
        c = px * px + py * py + (pz * pz if is_ball else 0.0) - 1
        root = b * b - a * c
        if root <= 0 or a <= 0:
            return NEVER, NEVER
        root = math.sqrt(root)
        if (-b - root) / a > enter:
            enter, axis = (-b - root) / a, 3
        leave = min(leave, (-b + root) / a)
    if enter >= leave or leave <= 0:
        return NEVER, NEVER
    nx, ny, nz = 0.0, 0.0, 0.0
    if axis == 3:
        nx, ny = (px + enter * dx) / body[4], (py + enter * dy) / body[5]
        nz = (pz + enter * dz) / body[6] if body[0] == ELLIPSOID else 0.0
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        nx, ny, nz = nx / length, ny / length, nz / length
    else:
        nx, ny, nz = 1.0 * (axis == 0), 1.0 * (axis == 1), 1.0 * (axis == 2)
    normal[0], normal[1], normal[2] = cos * nx - sin * ny, sin * nx + cos * ny, nz
    return enter, leave


@njit(cache=True)
def _is_window(body, point):  # type: ignore[no-untyped-def]
    """Return whether ``point``, on an upright face of the body, lies in one of its windows."""
    dx, dy = point[0] - body[1], point[1] - body[2]
    # Along the face it is one of the two that counts; the other is constant there.
    along = body[7] * dx + body[8] * dy
    across = body[7] * dy - body[8] * dx
    place = along if abs(abs(across) - body[5]) < abs(abs(along) - body[4]) else across
    return place % FACADE_PITCH < WINDOW_WIDTH and SILL < point[2] % STOREY < LINTEL


@njit(cache=True)
def _cast(bodies, nearest, around, street, waves, origin, directions, reach, seed, close, distance, albedo, cosine):  # type: ignore[no-untyped-def]
    """Fill ``distance``, ``albedo`` and ``cosine``; ``close`` is room for the bodies that one column may meet."""
    normal, point = np.empty(3), np.empty(3)
    columns, beams = distance.shape
    for column in range(columns):
        east, north = directions[column, beams // 2, 0], directions[column, beams // 2, 1]
        length = math.hypot(east, north)
        east, north = east / length, north / length
        count = 0
        for body in range(len(bodies)):
            x, y = bodies[body, 1] - origin[0], bodies[body, 2] - origin[1]
            away = nearest[body] + around[body]
            # The rays of a tilted sensor's column do not lie quite in one upright plane.
            if abs(x * north - y * east) <= around[body] + 0.03 * away and x * east + y * north > -around[body]:
                close[count] = body
                count += 1
        for beam in range(beams):
            ray, number = directions[column, beam], column * beams + beam
            best = _meet_ground(origin, ray, street, waves, _uniform(seed, number, 4097), reach)
            shade, facing = 0.25, abs(ray[2])
            for body in close[:count]:
                if nearest[body] > best:
                    break
                enter, leave = _meet_body(bodies[body], origin, ray, normal)
                if enter == NEVER or leave <= 0:
                    continue
                facing_body = abs(normal[0] * ray[0] + normal[1] * ray[1] + normal[2] * ray[2])
                if bodies[body, 9] > 0:
                    enter = max(enter, 0.0) - bodies[body, 9] * math.log(_uniform(seed, number, body))
                    facing_body = 0.7
                    if enter >= leave:
                        continue
                elif bodies[body, 11] > 0 and abs(normal[2]) < 0.5:
                    for axis in range(3):
                        point[axis] = origin[axis] + enter * ray[axis]
                    if _is_window(bodies[body], point):
                        enter += RECESS / max(facing_body, 0.1)
                if 0 < enter < best:
                    best, shade, facing = enter, bodies[body, 10], facing_body
            if best <= reach:
                distance[column, beam], albedo[column, beam], cosine[column, beam] = best, shade, facing
