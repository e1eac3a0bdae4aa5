"""Ranges of values for a config field, as they are written on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from ..workloads.errors import InputError

MOST_VALUES = 1_000_000  # of a range of fractions, which are listed one by one
_FORM = "KEY=LOW:HIGH, KEY=LOW:HIGH:STEP or KEY=LOW:HIGH:log2"


def parse_range(text: str) -> tuple[str, Sequence[int] | Sequence[float]]:
    """Return the key and the values, in order, of KEY=LOW:HIGH, which are all whole numbers from LOW to HIGH.

    KEY=LOW:HIGH:STEP takes every STEP-th, and may have fractions; KEY=LOW:HIGH:log2 takes LOW, and doubles it as far
    as HIGH. Raises InputError.
    """
    key, _, span = text.partition("=")
    parts = [part.strip() for part in span.split(":")]
    if not key.strip() or len(parts) not in (2, 3) or not all(parts):
        raise InputError(f"a range must be {_FORM}, not {text!r}; as in pe_count=1:1024:log2")
    doubles = parts[2:] == ["log2"]
    numbers = [_number(part, text) for part in parts[: 2 if doubles else 3]]
    low, high, step = (*numbers, Decimal(1)) if len(numbers) == 2 else numbers
    if low > high:
        raise InputError(f"a range must go from its least value to its greatest, not {text!r}; turn them round")
    if doubles:
        return key.strip(), _doubled(low, high, text)
    if step <= 0:
        raise InputError(f"the step of a range must be above 0, not {parts[2]} in {text!r}")
    if all(_is_whole(part) for part in parts):
        return key.strip(), range(int(low), int(high) + 1, int(step))
    if len(parts) == 2:
        raise InputError(f"a range of fractions needs a step, and {text!r} has none; write KEY=LOW:HIGH:STEP")
    count = (high - low) / step + 1
    if count > MOST_VALUES:
        raise InputError(
            f"a range of fractions must have at most {MOST_VALUES:,} values, not those of {text!r}; widen the step"
        )
    return key.strip(), [float(low + i * step) for i in range(int(count))]


def _doubled(low: Decimal, high: Decimal, text: str) -> Sequence[int] | Sequence[float]:
    if low <= 0:
        raise InputError(f"what is doubled must be above 0, not {low} in {text!r}")
    values = [low]
    while values[-1] * 2 <= high:
        values.append(values[-1] * 2)
    whole = low == low.to_integral_value()
    return [int(value) for value in values] if whole else [float(value) for value in values]


def _number(part: str, text: str) -> Decimal:
    if re.fullmatch(r"[+-]?[0-9_]{1,18}(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?", part):
        try:
            return Decimal(part)
        except InvalidOperation:  # underscores alone
            pass
    raise InputError(f"the ends and the step of a range must be numbers, not {part!r} in {text!r}; write {_FORM}")


def _is_whole(part: str) -> bool:
    return part.lstrip("+-").replace("_", "").isdecimal()
