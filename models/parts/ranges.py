"""The rules that fields of a Config keep: each function raises ValueError, "FIELD must be RULE, not VALUE"."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec


def check_bounds(config: msgspec.Struct, bounds: Mapping[str, tuple[int, int]]) -> None:
    """Hold whole numbers to the least and the greatest value of ``bounds``, by field."""
    for name, (least, greatest) in bounds.items():
        value = getattr(config, name)
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
        if value > greatest:
            raise ValueError(f"{name} must be at most {greatest}, not {value}")


def check_positive(config: msgspec.Struct, *names: str) -> None:
    """Hold rates and frequencies above 0 and below infinity."""
    for name in names:
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0 and finite, not {value}")


def check_not_negative(config: msgspec.Struct, *names: str) -> None:
    """Hold times at 0 or above it, below infinity."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be at least 0 and finite, not {value}")


def check_shares(config: msgspec.Struct, *names: str) -> None:
    """Hold shares of a whole, such as efficiencies, above 0 and at most at 1."""
    for name in names:
        value = getattr(config, name)
        if not 0 < value <= 1:
            raise ValueError(f"{name} must be above 0 and at most 1, not {value}")


def check_either(config: msgspec.Struct, choices: Mapping[str, Sequence[str]]) -> None:
    """Hold words to those of ``choices``, few of them, by field."""
    for name, known in choices.items():
        if getattr(config, name) not in known:
            raise ValueError(f"{name} must be {' or '.join(known)}, not {getattr(config, name)!r}")


def check_one_of(config: msgspec.Struct, choices: Mapping[str, Sequence[str]]) -> None:
    """Hold words to those of ``choices``, a list of them, by field."""
    for name, known in choices.items():
        if getattr(config, name) not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(config, name)!r}")
