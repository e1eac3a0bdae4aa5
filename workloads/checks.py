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


def counted(text: str) -> int:
    """Return the whole number that ``text`` writes in up to 18 digits, spaces around them; -1 for any other text."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else -1


def number(value: Any, name: str, least: float, most: float) -> float:
    """Return ``value`` as a float. Raises InputError unless it is a number from ``least`` to ``most``."""
    value = value.item() if isinstance(value, np.generic) else value  # float32 has no room for every bound
    if not is_number(value) or not least <= value <= most:
        raise InputError(f"{name} must be a number from {least:g} to {most:g}, not {shown(value)}")
    return float(value)


def positive(value: Any, name: str) -> float:
    """Return ``value`` as a float. Raises InputError unless it is a finite number above 0."""
    value = value.item() if isinstance(value, np.generic) else value
    if not is_number(value) or not 0 < value <= sys.float_info.max:  # a whole number may be beyond any float
        raise InputError(f"{name} must be a number above 0, not {shown(value)}")
    return float(value)


def not_negative(value: Any, name: str) -> float:
    """Return ``value`` as a float. Raises InputError unless it is a finite number of at least 0."""
    value = value.item() if isinstance(value, np.generic) else value
    if not is_number(value) or not 0 <= value <= sys.float_info.max:
        raise InputError(f"{name} must be a number from 0, not {briefly(value)}")
    return float(value)


def is_number(value: object) -> bool:
    """Tell whether ``value`` is a number, Python's or numpy's, and no truth value."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def briefly(value: Any) -> str:
    """Return a number with six digits, and anything else as `shown` does."""
    return f"{value:g}" if is_number(value) and abs(value) <= sys.float_info.max else shown(value)
