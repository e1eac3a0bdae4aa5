"""A point cloud: what the readers and the generators return, and what the writers take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError


@dataclass(frozen=True, eq=False)
class Cloud:
    """``points``, float32 (n, 3), in metres where it is a scene; ``remission``, float32 (n,), where it was measured.

    Both are finite. Raises InputError.
    """

    points: np.ndarray
    name: str
    remission: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.points, np.ndarray):
            raise InputError(f"points must be a numpy array, not a {type(self.points).__name__}")
        if self.points.ndim != 2 or self.points.shape[1] != 3 or self.points.dtype != np.float32:
            raise InputError(f"points must be float32 of shape (n, 3), not {self.points.dtype} {self.points.shape}")
        _check_finite(self.points, "points")
        if self.remission is not None:
            if self.remission.shape != (len(self.points),) or self.remission.dtype != np.float32:
                raise InputError(
                    f"remission must be float32 of shape ({len(self.points)},), one a point, "
                    f"not {self.remission.dtype} {self.remission.shape}"
                )
            _check_finite(self.remission, "remission")


def _check_finite(array: np.ndarray, name: str) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        place = np.unravel_index(int(np.argmin(finite)), array.shape)
        raise InputError(f"{name} must be finite, and row {place[0]} holds {array[place]}; drop it")
