"""A street drawn from a seed: houses, parked and driving cars, trees, hedges, poles, walkers, and a crossing.

Sizes are assumed: those of a wide European street in a residential quarter. What counts is that a scan of it has the
statistics of a real one; the widths and spacings were chosen so that it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .raycast import BOX, CYLINDER, ELLIPSOID, Body, Ground

LENGTH = 110.0  # metres of street, either way from the sensor


def street(rng: np.random.Generator) -> tuple[list[Body], Ground]:
    """Return the bodies and the ground of a street along x; the sensor stands at its origin, on the middle."""
    half_width = rng.uniform(6.8, 7.0)
    crossing = rng.choice([-1, 1]) * rng.uniform(30, 50)
    ground = Ground(
        half_width=half_width,
        crossing=crossing,
        kerb=rng.uniform(0.08, 0.14),
        pavement=rng.uniform(1.6, 2.4),
        grass=rng.uniform(0.1, 0.25),
        waves=tuple(_wave(rng, length) for length in (45.0, 23.0, 11.0)),
    )
    bodies = _closed_ends(rng, half_width, crossing)
    for side in (-1, 1):
        facade = half_width + ground.pavement + rng.uniform(8.0, 9.0)
        bodies += _houses(rng, ground, side, facade)
        bodies += _row_of(rng, ground, side * (half_width - 1.1), _car, spacing=(5.2, 6.4), taken=0.9)
        bodies += _row_of(rng, ground, side * (half_width + 0.7), _tree, spacing=(7.0, 9.0), taken=0.8)
        bodies += _row_of(rng, ground, side * (half_width + 0.4), _pole, spacing=(15.0, 30.0), taken=0.9)
        bodies += _row_of(rng, ground, side * (half_width + 1.2), _walker, spacing=(6.0, 25.0), taken=0.6)
        bodies += _row_of(rng, ground, side * (facade - 0.6), _bush, spacing=(1.8, 5.0), taken=0.7)
        bodies += _row_of(rng, ground, side * (facade + 12.0), _tree, spacing=(6.0, 12.0), taken=0.5)
    for way in (-1, 1):  # one that drives ahead, one that follows
        bodies += _car(rng, way * rng.uniform(9, 30), rng.normal(0, 0.3))
    # Nothing may stand where the sensor's own car does.
    return [body for body in bodies if math.hypot(*body.centre[:2]) > 2.2 + min(body.half[:2])], ground


def _wave(rng: np.random.Generator, length: float) -> tuple[float, float, float, float]:
    heading, phase = rng.uniform(0, 2 * math.pi, 2)
    number = 2 * math.pi / length
    return rng.uniform(0.0006, 0.0014) * length, number * math.cos(heading), number * math.sin(heading), phase


def _closed_ends(rng: np.random.Generator, half_width: float, crossing: float) -> list[Body]:
    """Return the houses and trees across the ends of both streets, where they bend."""
    bodies = []
    for x, y, is_across in (
        (-LENGTH, 0.0, False), (LENGTH, 0.0, False), (crossing, -LENGTH / 2, True), (crossing, LENGTH / 2, True),
    ):  # fmt: skip
        half = (14.0, 5.0, rng.uniform(2, 4))
        bodies.append(Body(BOX, (x, y, half[2]), half, 0.0 if is_across else math.pi / 2, 0.0, 0.4, True))
        for place in rng.uniform(-1.5, 1.5, 3) * half_width:
            bodies += _tree(rng, *((x + place, y * 0.85) if is_across else (x * 0.9, y + place)))
    return bodies


def _houses(rng: np.random.Generator, ground: Ground, side: int, facade: float) -> list[Body]:
    """Return the houses of one side, some with a porch, a wall or a hedge across the gap to the next one."""
    bodies = []
    x = -LENGTH
    while x < LENGTH:
        width, depth, height = rng.uniform(9, 22), rng.uniform(8, 12), rng.uniform(3, 9)
        gap = rng.uniform(3, 12) if rng.random() < 0.7 else 0.0
        middle = x + width / 2
        y = facade + rng.uniform(0, 1.2)
        if abs(middle - ground.crossing) > width / 2 + ground.half_width + ground.pavement:
            turn = rng.normal(0, 0.015)
            bodies.append(Body(BOX, (middle, side * (y + depth / 2), height / 2), (width / 2, depth / 2, height / 2),
                               turn, 0.0, rng.uniform(0.25, 0.6), True))  # fmt: skip
            if rng.random() < 0.5:
                bodies.append(Body(BOX, (middle + rng.uniform(-2, 2), side * (y - 0.5), 1.3), (1.0, 0.5, 1.3), turn))
            if gap:
                place, half = x + width + gap / 2, (gap / 2, 0.3, rng.uniform(0.7, 1.3))
                leafy = 0.2 if rng.random() < 0.6 else 0.0
                bodies.append(Body(BOX, (place, side * y, half[2]), half, 0.0, leafy, 0.3))
        x += width + gap
    return bodies


def _row_of(
    rng: np.random.Generator,
    ground: Ground,
    y: float,
    make: Callable[[np.random.Generator, float, float], list[Body]],
    spacing: tuple[float, float],
    taken: float,
) -> list[Body]:
    """Return what ``make`` makes along the line ``y``, at random distances, leaving out the crossing."""
    bodies: list[Body] = []
    x = -LENGTH + rng.uniform(0, spacing[1])
    while x < LENGTH:
        if rng.random() < taken and abs(x - ground.crossing) > ground.half_width + 3:
            bodies += make(rng, x, y + rng.normal(0, 0.12))
        x += rng.uniform(*spacing)
    return bodies


def _car(rng: np.random.Generator, x: float, y: float) -> list[Body]:
    """Return a car: body, cabin, bonnet and wheels."""
    length, width, height = rng.uniform(3.8, 4.8), rng.uniform(1.65, 1.85), rng.uniform(1.4, 1.75)
    yaw = rng.normal(0, 0.03) + math.pi * rng.integers(0, 2)
    paint = rng.uniform(0.05, 0.6)
    ahead = (math.cos(yaw), math.sin(yaw))

    def part(kind: int, along: float, across: float, z: float, half: tuple[float, float, float], shade: float) -> Body:
        place = x + along * ahead[0] - across * ahead[1], y + along * ahead[1] + across * ahead[0], z
        return Body(kind, place, half, yaw, 0.0, shade)

    parts = [
        part(BOX, 0.0, 0.0, 0.55, (length / 2, width / 2, 0.3), paint),
        part(ELLIPSOID, -0.1 * length, 0.0, 0.8, (0.36 * length, 0.49 * width, height - 0.8), 0.15),
        part(ELLIPSOID, 0.28 * length, 0.0, 0.8, (0.24 * length, 0.48 * width, 0.2), paint),
    ]
    for along in (-0.3, 0.3):
        for across in (-0.45, 0.45):
            parts.append(part(ELLIPSOID, along * length, across * width, 0.31, (0.31, 0.12, 0.31), 0.05))
    return parts


def _tree(rng: np.random.Generator, x: float, y: float) -> list[Body]:
    """Return a trunk and the lobes of a crown."""
    height, radius = rng.uniform(5, 10), rng.uniform(0.1, 0.25)
    bodies = [Body(CYLINDER, (x, y, height / 4), (radius, radius, height / 4), 0.0, 0.0, 0.2)]
    low = rng.uniform(1.4, 2.4)
    for _ in range(rng.integers(3, 6)):
        lobe = rng.uniform(0.8, 1.8)
        place = x + rng.normal(0, 0.8), y + rng.normal(0, 0.8), rng.uniform(low + lobe, max(low + lobe, height))
        bodies.append(Body(ELLIPSOID, place, (lobe, lobe, 0.9 * lobe), 0.0, rng.uniform(0.4, 1.0), 0.45))
    return bodies


def _bush(rng: np.random.Generator, x: float, y: float) -> list[Body]:
    half = rng.uniform(0.4, 1.3), rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.9)
    return [Body(ELLIPSOID, (x, y, half[2]), half, 0.0, rng.uniform(0.15, 0.4), 0.45)]


def _pole(rng: np.random.Generator, x: float, y: float) -> list[Body]:
    height, radius = rng.uniform(3, 8), rng.uniform(0.04, 0.1)
    bodies = [Body(CYLINDER, (x, y, height / 2), (radius, radius, height / 2), 0.0, 0.0, 0.5)]
    if rng.random() < 0.5:  # a sign
        bodies.append(Body(BOX, (x, y, 2.2), (0.02, 0.3, 0.3), rng.normal(0, 0.2), 0.0, 0.9))
    return bodies


def _walker(rng: np.random.Generator, x: float, y: float) -> list[Body]:
    """Return legs, trunk and head of somebody who walks along the street."""
    height, step = rng.uniform(1.55, 1.9), rng.uniform(0.05, 0.25)
    legs = [
        Body(ELLIPSOID, (x + along, y + across, 0.24 * height), (0.09, 0.09, 0.26 * height), 0.0, 0.0, 0.2)
        for along, across in ((-step, -0.09), (step, 0.09))
    ]
    trunk = Body(ELLIPSOID, (x, y, 0.65 * height), (0.15, 0.24, 0.22 * height), 0.0, 0.0, 0.3)
    return [*legs, trunk, Body(ELLIPSOID, (x, y, 0.93 * height), (0.1, 0.09, 0.12), 0.0, 0.0, 0.5)]
