"""Furniture of simple solids, standing on the ground at the origin; sizes in metres, drawn at random, assumed."""

from __future__ import annotations

import numpy as np

from .surfaces import Surface


def table(rng: np.random.Generator) -> list[Surface]:
    """Return a table: a top, round or not, and its legs."""
    long, wide, high, thick = rng.uniform(0.9, 2.0), rng.uniform(0.6, 1.0), rng.uniform(0.68, 0.8), 0.03
    if rng.random() < 0.3:
        return [
            Surface("cylinder", (wide / 2, thick), (0, 0, high)),
            Surface("cylinder", (0.04, high - thick), (0, 0, high / 2)),
            Surface("cylinder", (0.3 * wide, 0.03), (0, 0, 0.015)),
        ]
    return [Surface("box", (long, wide, thick), (0, 0, high)), *_legs(long, wide, high - thick / 2, 0.05)]


def chair(rng: np.random.Generator) -> list[Surface]:
    """Return a chair: seat, back, legs, perhaps arms."""
    wide, deep, high = rng.uniform(0.4, 0.55), rng.uniform(0.4, 0.5), rng.uniform(0.42, 0.5)
    back = rng.uniform(0.35, 0.55)
    parts = [
        Surface("box", (wide, deep, 0.04), (0, 0, high)),
        Surface("box", (wide, 0.03, back), (0, deep / 2, high + back / 2)),
        *_legs(wide, deep, high - 0.02, 0.035),
    ]
    if rng.random() < 0.4:
        parts += [Surface("box", (0.04, deep, 0.04), (side * wide / 2, 0, high + 0.22)) for side in (-1, 1)]
    return parts


def lamp(rng: np.random.Generator) -> list[Surface]:
    """Return a standard lamp: foot, pole and shade."""
    high, shade = rng.uniform(1.3, 1.7), rng.uniform(0.15, 0.28)
    return [
        Surface("cylinder", (0.15, 0.03), (0, 0, 0.015)),
        Surface("cylinder", (0.015, high), (0, 0, high / 2)),
        Surface("cone", (shade, 1.2 * shade), (0, 0, high)),
    ]


def shelf(rng: np.random.Generator) -> list[Surface]:
    """Return a shelf: two sides, a back, boards, and books on most of them."""
    wide, deep, high = rng.uniform(0.6, 1.2), rng.uniform(0.25, 0.4), rng.uniform(1.0, 2.1)
    parts = [Surface("box", (0.02, deep, high), (side * wide / 2, 0, high / 2)) for side in (-1, 1)]
    parts.append(Surface("box", (wide, 0.01, high), (0, deep / 2, high / 2)))
    for level in np.arange(0.05, high, 0.33).tolist():
        parts.append(Surface("box", (wide, deep, 0.02), (0, 0, level)))
        if rng.random() < 0.7 and level + 0.3 < high:
            books = rng.uniform(0.3, 0.9) * wide
            parts.append(Surface("box", (books, 0.7 * deep, 0.24), ((books - wide) / 2, 0.1 * deep, level + 0.13)))
    return parts


def cupboard(rng: np.random.Generator) -> list[Surface]:
    """Return a cupboard: a closed box with knobs."""
    wide, deep, high = rng.uniform(0.8, 1.6), rng.uniform(0.4, 0.6), rng.uniform(0.9, 2.0)
    knobs = [Surface("sphere", (0.02,), (side * 0.05, -deep / 2 - 0.02, high / 2)) for side in (-1, 1)]
    return [Surface("box", (wide, deep, high), (0, 0, high / 2)), *knobs]


def _legs(long: float, wide: float, high: float, thick: float) -> list[Surface]:
    return [
        Surface("box", (thick, thick, high), (x * (long - thick) / 2, y * (wide - thick) / 2, high / 2))
        for x in (-1, 1)
        for y in (-1, 1)
    ]
