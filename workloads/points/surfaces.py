"""Surfaces of simple solids, put together to furniture and rooms, and points drawn from them, each place as likely."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Surface:
    """The surface of a solid about ``centre``, upright, turned by ``yaw`` about z.

    ``size``: of a box its three sides; of a sphere (radius,); of a cylinder or a cone (radius, height), bottom and top
    among the surface; of a torus, which lies flat, (radius of the ring, radius of the tube).
    """

    kind: str
    size: tuple[float, ...]
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0

    @property
    def area(self) -> float:
        """Return the area, in the square of the unit of the sizes."""
        return _AREAS[self.kind](*self.size)

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return ``count`` points, float64 (count, 3), uniform over the area."""
        x, y, z = _DRAWS[self.kind](count, rng, *self.size)
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return np.asarray(np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=1) + np.array(self.centre))

    def moved(self, centre: tuple[float, float, float], yaw: float) -> Surface:
        """Return the surface turned by ``yaw`` about the origin and then moved by ``centre``."""
        x, y, z = self.centre
        cos, sin = math.cos(yaw), math.sin(yaw)
        place = cos * x - sin * y + centre[0], sin * x + cos * y + centre[1], z + centre[2]
        return replace(self, centre=place, yaw=self.yaw + yaw)


def draw_points(surfaces: list[Surface], count: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``count`` points of ``surfaces``, float64 (count, 3), uniform over their area together."""
    areas = np.array([surface.area for surface in surfaces])
    shares = rng.multinomial(count, areas / areas.sum())
    return np.concatenate([surface.draw(int(n), rng) for surface, n in zip(surfaces, shares, strict=True)])


def _box_area(a: float, b: float, c: float) -> float:
    return 2 * (a * b + b * c + c * a)


def _draw_box(count: int, rng: np.random.Generator, *sides: float) -> np.ndarray:
    point = rng.random((3, count)) - 0.5
    a, b, c = sides
    axis = rng.choice(3, count, p=np.array([b * c, c * a, a * b]) / (a * b + b * c + c * a))
    point[axis, np.arange(count)] = rng.choice([-0.5, 0.5], count)
    return np.asarray(point * np.array(sides)[:, None])


def _sphere_area(radius: float) -> float:
    return 4 * math.pi * radius**2


def _draw_sphere(count: int, rng: np.random.Generator, radius: float) -> np.ndarray:
    height = rng.uniform(-1, 1, count)  # Archimedes: the area of a zone is proportional to its height
    turn = rng.uniform(0, 2 * math.pi, count)
    flat = np.sqrt(1 - height**2)
    return radius * np.stack([flat * np.cos(turn), flat * np.sin(turn), height])


def _cylinder_area(radius: float, height: float) -> float:
    return 2 * math.pi * radius * (height + radius)


def _draw_cylinder(count: int, rng: np.random.Generator, radius: float, height: float) -> np.ndarray:
    place = rng.uniform(0, height + radius, count)
    is_cap = place > height
    away = np.where(is_cap, radius * np.sqrt(rng.random(count)), radius)
    level = np.where(is_cap, rng.choice([0.0, height], count), place) - height / 2
    return _around(away, level, count, rng)


def _cone_area(radius: float, height: float) -> float:
    return math.pi * radius * (radius + math.hypot(radius, height))


def _draw_cone(count: int, rng: np.random.Generator, radius: float, height: float) -> np.ndarray:
    slant = math.hypot(radius, height)
    is_base = rng.random(count) < radius / (radius + slant)
    share = np.sqrt(rng.random(count))  # of the way from the tip, or from the middle of the base
    level = np.where(is_base, 0.0, height * (1 - share)) - height / 2
    return _around(radius * share, level, count, rng)


def _torus_area(ring: float, tube: float) -> float:
    return 4 * math.pi**2 * ring * tube


def _draw_torus(count: int, rng: np.random.Generator, ring: float, tube: float) -> np.ndarray:
    # The outer side of the tube is longer. By rejection from the even density, at most (ring + tube) / ring of it.
    turns = np.empty(0)
    while len(turns) < count:
        turn = rng.uniform(0, 2 * math.pi, 2 * count)
        turns = np.append(turns, turn[rng.random(2 * count) * (ring + tube) < ring + tube * np.cos(turn)])
    turn = turns[:count]
    return _around(ring + tube * np.cos(turn), tube * np.sin(turn), count, rng)


def _around(away: np.ndarray, level: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    turn = rng.uniform(0, 2 * math.pi, count)
    return np.stack([away * np.cos(turn), away * np.sin(turn), level])


_AREAS: dict[str, Callable[..., float]] = {
    "box": _box_area,
    "sphere": _sphere_area,
    "cylinder": _cylinder_area,
    "torus": _torus_area,
    "cone": _cone_area,
}
_DRAWS: dict[str, Callable[..., np.ndarray]] = {
    "box": _draw_box,
    "sphere": _draw_sphere,
    "cylinder": _draw_cylinder,
    "torus": _draw_torus,
    "cone": _draw_cone,
}
