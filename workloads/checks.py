"""Numbers that a caller gave: each is returned as Python's own, or refused in one line that says what would do."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .errors import InputError, shown


def whole(value: Any, name: str, least: int, most: int | None = None) -> int:
    """Return ``value`` as an int. Raises InputError unless it is a whole number from ``least`` to ``most``, if any."""
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name} must be a whole number {bounds}, not {shown(value)}")
    return int(value)


def number(value: Any, name: str, least: float, most: float) -> float:
    """Return ``value`` as a float. Raises InputError unless it is a number from ``least`` to ``most``."""
    if not _is_number(value) or not least <= value <= most:
        raise InputError(f"{name} must be a number from {least:g} to {most:g}, not {shown(value)}")
    return float(value)


def positive(value: Any, name: str) -> float:
    """Return ``value`` as a float. Raises InputError unless it is a finite number above 0."""
    if not _is_number(value) or not 0 < value <= sys.float_info.max:  # a whole number may be beyond any float
        raise InputError(f"{name} must be a number above 0, not {shown(value)}")
    return float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
