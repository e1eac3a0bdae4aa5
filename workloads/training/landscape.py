"""The loss around solutions: along the line between two of them, and on the plane through three.

Masked weights stay 0 on a line and on a plane where all its solutions share the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .measure import State, borrowed, has_batch_norm, measure, settle

if TYPE_CHECKING:
    from torch import nn

    from .measure import Loader

STABLE = 0.02  # instability below which a network is stable to SGD noise: Frankle et al., ICML 2020, section 2


@dataclass(frozen=True, eq=False)
class Line:
    """Loss and accuracy at points of a straight line between two solutions.

    ``position``: (points,), 0 at the start and 1 at the end. ``loss``: (points,), mean cross-entropy in nats.
    ``accuracy``: (points,), fractions. ``start``, ``end``: what the solutions are called.
    """

    position: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    start: str = "start"
    end: str = "end"

    @property
    def instability(self) -> float:
        """Return the highest error on the line minus the mean error of its ends, a fraction of the samples.

        Below `STABLE` the ends are linearly connected. Source: Frankle et al., ICML 2020.
        """
        error = 1 - self.accuracy
        return float(error.max() - (error[0] + error[-1]) / 2)

    @property
    def barrier(self) -> float:
        """Return how far the loss rises above the straight line between the ends' losses, in nats; 0 at the least."""
        return float(np.max(self.loss - ((1 - self.position) * self.loss[0] + self.position * self.loss[-1])))


@dataclass(frozen=True, eq=False)
class Surface:
    """Loss and accuracy on the plane through three solutions a, b and c.

    Coordinates are distances in weight space (L2, over all parameters): a at (0, 0), b at (x, 0), c above them.
    ``x``, ``y``: (steps,). ``loss``, ``accuracy``: (steps, steps), indexed [y, x]; nats and fractions.
    ``corners``: (3, 2), the coordinates of a, b and c; ``names``: what they are called.
    """

    x: np.ndarray
    y: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    corners: np.ndarray
    names: tuple[str, str, str] = ("a", "b", "c")


def loss_along_line(
    module: nn.Module,
    start: State,
    end: State,
    loader: Loader,
    *,
    points: int = 30,
    recalibrate: Loader | None = None,
    names: tuple[str, str] = ("start", "end"),
) -> Line:
    """Return loss and accuracy on ``loader`` at ``points`` places of the straight line from ``start`` to ``end``.

    The places are evenly spaced, both ends included. Buffers are interpolated like weights; with ``recalibrate``, a
    loader of training samples, batch-norm statistics are recomputed at each place instead.
    Raises InputError for weights that are not the module's.
    """
    if points < 2:
        raise InputError(f"a line must have at least 2 points, not {points}")
    _check_alike(start, end)
    position = np.linspace(0, 1, points)
    found = []
    with borrowed(module):
        for t in position:
            settle(module, _mix((start, end), (1 - t, t)), recalibrate)
            found.append(measure(module, loader))
    loss, accuracy = np.array(found).T
    return Line(position, loss, accuracy, *names)


def lines_between(
    module: nn.Module,
    solutions: Sequence[State],
    loader: Loader,
    *,
    points: int = 30,
    recalibrate: Loader | None = None,
    names: Sequence[str] = (),
    every_pair: bool = False,
) -> tuple[Line, ...]:
    """Return the lines between each of ``solutions`` and the next, or between every pair of them.

    The first is for successive averages, the second for particles of one cycle. ``names`` default to 1, 2, ...
    """
    if len(solutions) < 2:
        raise InputError(f"lines need at least 2 solutions, not {len(solutions)}")
    called = list(names) or [str(i) for i in range(1, len(solutions) + 1)]
    places = range(len(solutions))
    pairs = combinations(places, 2) if every_pair else pairwise(places)
    return tuple(
        loss_along_line(
            module,
            solutions[i],
            solutions[j],
            loader,
            points=points,
            recalibrate=recalibrate,
            names=(called[i], called[j]),
        )
        for i, j in pairs
    )


def instability(
    module: nn.Module,
    first: State,
    second: State,
    loader: Loader,
    *,
    points: int = 30,
    recalibrate: Loader | None = None,
) -> float:
    """Return the highest error between two solutions minus the mean of their own errors, a fraction of the samples.

    Two trainings from the same weights that differ only in the order of the samples are stable to SGD noise where it
    is below `STABLE`. Source: Frankle et al., ICML 2020 (30 points).
    """
    return loss_along_line(module, first, second, loader, points=points, recalibrate=recalibrate).instability


def loss_surface(
    module: nn.Module,
    a: State,
    b: State,
    c: State,
    loader: Loader,
    *,
    steps: int = 15,
    margin: float = 0.2,
    recalibrate: Loader | None = None,
    names: tuple[str, str, str] = ("a", "b", "c"),
) -> Surface:
    """Return loss and accuracy on ``steps`` x ``steps`` places of the plane through ``a``, ``b`` and ``c``.

    The plane reaches past the three by ``margin``, a fraction of their extent on each side. Its axes are b - a and
    what c - a has at right angles to it (Gram-Schmidt, over all parameters).
    A module with batch norm needs ``recalibrate``, a loader of training samples: its statistics cannot be extrapolated.
    Raises InputError for three solutions on one line. Source: Garipov et al., NeurIPS 2018.
    """
    if steps < 2 or not margin >= 0:
        raise InputError(f"a surface must have steps >= 2 and a margin >= 0, not {steps} and {margin}")
    for other in (b, c):
        _check_alike(a, other)
    if recalibrate is None and has_batch_norm(module):
        raise InputError("a surface of a module with batch norm needs recalibrate, a loader of training samples")
    names_of_parameters = [name for name, _ in module.named_parameters()]
    to_b, to_c = (_difference(a, other, names_of_parameters) for other in (b, c))
    width = float(np.linalg.norm(to_b))
    along = float(to_c @ to_b) / width if width else 0.0
    height = float(np.linalg.norm(to_c - along / width * to_b)) if width else 0.0
    if height <= 1e-9 * float(np.linalg.norm(to_c)) or not height:
        raise InputError("a surface needs three solutions that are not on one line, and these are; give others")
    corners = np.array([(0.0, 0.0), (width, 0.0), (along, height)])
    low, high = corners.min(axis=0), corners.max(axis=0)
    reach = margin * (high - low)
    x, y = np.linspace(low - reach, high + reach, steps).T
    loss, accuracy = np.empty((steps, steps)), np.empty((steps, steps))
    with borrowed(module):
        for row, up in enumerate(y / height):
            for column, right in enumerate(x):
                toward_b = (right - up * along) / width
                settle(module, _mix((a, b, c), (1 - toward_b - up, toward_b, up)), recalibrate)
                loss[row, column], accuracy[row, column] = measure(module, loader)
    return Surface(x, y, loss, accuracy, corners, names)


def _check_alike(a: State, b: State) -> None:
    if a.keys() != b.keys():
        odd = ", ".join(sorted(a.keys() ^ b.keys()))
        raise InputError(f"solutions must have the same parameters and buffers, and one of them lacks {odd}")


def _mix(solutions: Sequence[State], shares: Sequence[float]) -> dict[str, np.ndarray]:
    """Return the sum of ``solutions`` weighted by ``shares``, exact where one share is 1; counters are the first's."""
    mixed = {}
    for name, value in solutions[0].items():
        if value.dtype.kind != "f":  # how many batches a statistic has seen
            mixed[name] = value
            continue
        parts = [share * s[name].astype(np.float64) for s, share in zip(solutions, shares, strict=True) if share]
        mixed[name] = np.sum(parts, axis=0).astype(value.dtype)
    return mixed


def _difference(a: State, b: State, names: Sequence[str]) -> np.ndarray:
    """Return b - a over the parameters called ``names``, as one vector."""
    return np.concatenate([(b[name].astype(np.float64) - a[name]).ravel() for name in names])
