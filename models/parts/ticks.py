"""Whole ticks: a clock cycle cut so fine that rounding up to one costs nothing, and both engines round alike."""

from __future__ import annotations

import math
from fractions import Fraction

TICKS = 1024  # a clock cycle


def to_ticks(cycles: Fraction) -> int:
    """Return ``cycles`` in whole ticks, rounded up."""
    return math.ceil(cycles * TICKS)
