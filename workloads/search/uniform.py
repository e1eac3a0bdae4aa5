"""The baseline of every search: the same share of every layer, as much of it as the cost allows."""

from __future__ import annotations

import math

from ..errors import InputError
from .found import Found
from .space import Candidate, Cost, Space

HALVINGS = 24
EQUAL = 0.01  # of the target: costs that differ by less are equal
ROUNDING = 1e-9  # costs that differ by less are one cost
REPAIRS = 8  # fine-tunings, each aimed by how those before changed the cost


def uniform(space: Space, cost: Cost, target: float, *, epochs: int = 0) -> Found:
    """Return the network that keeps the same share in every layer and costs as much as ``target``, at least.

    The share is found by bisection, each layer taking its nearest choice: the largest that costs the same to within
    1 %, else the cheapest that costs more. ``target`` is a cost, in the unit of ``cost``. ``epochs`` of fine-tuning
    follow; where they move the activations and so the cost, the share is sought again with that in mind, from the
    trained network, and what ends nearest to the target is returned. Raises InputError for a target of 0 or less.
    """
    if not target > 0:
        raise InputError(f"target must be a cost above 0, not {target}")
    known: dict[tuple[float, ...], tuple[float, Candidate]] = {}
    dense, _ = _at(space, cost, 1.0, known)
    ends: dict[tuple[float, ...], tuple[float, Candidate]] = {}
    aim, low, high = target, 0.0, math.inf  # costs before fine-tuning that ended too low, and too high
    for _ in range(REPAIRS):
        before, candidate = _largest(space, cost, aim, known)
        if candidate.choices not in ends:
            tuned = candidate.fine_tune(epochs)
            ends[candidate.choices] = float(cost(tuned.trace())), tuned
        after, _ = ends[candidate.choices]
        if abs(after - target) <= EQUAL * target or (aim == target and abs(after - before) <= EQUAL * before):
            break
        low, high = (max(low, aim), high) if after < target else (low, min(high, aim))
        aim = target * before / after
        if not low < aim < high:  # the same change once more leads back to where it was another one
            aim = (low + high) / 2
    found, candidate = min(ends.values(), key=lambda end: abs(end[0] - target))
    return Found("uniform", candidate, found, dense, target)


def _at(
    space: Space, cost: Cost, share: float, known: dict[tuple[float, ...], tuple[float, Candidate]]
) -> tuple[float, Candidate]:
    """Return cost and network of one share, simulated once."""
    choices = tuple(space.snap(layer.index, share) for layer in space.layers)
    if choices not in known:
        candidate = space.apply(choices)
        known[choices] = (float(cost(candidate.trace())), candidate)
    return known[choices]


def _largest(
    space: Space, cost: Cost, target: float, known: dict[tuple[float, ...], tuple[float, Candidate]]
) -> tuple[float, Candidate]:
    """Return cost and network of the largest share whose cost is ``target``, or the least cost above it."""
    low, high = 0.0, 1.0
    _at(space, cost, low, known)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _at(space, cost, middle, known)[0] > target * (1 + ROUNDING):
            high = middle
        else:
            low = middle
    fitting = [each for each in known.values() if abs(each[0] - target) <= EQUAL * target]
    if not fitting:  # never dealt a worse hand than what it is held against
        dearer = [found for found, _ in known.values() if found >= target] or [
            max(found for found, _ in known.values())
        ]
        least = min(dearer)
        fitting = [each for each in known.values() if abs(each[0] - least) <= ROUNDING * least]
    return max(fitting, key=lambda each: sum(each[1].choices))
