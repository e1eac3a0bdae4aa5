"""Names of layers, traces and machines that fit a shell pattern."""

from __future__ import annotations

from fnmatch import fnmatchcase

from .errors import InputError, shown

LONGEST = 1000  # characters of a pattern; time to make ready for it grows with their square


def fits(name: str, pattern: str) -> bool:
    """Tell whether ``name`` fits the shell ``pattern``, as in conv*. Raises InputError as `check_pattern` does."""
    check_pattern(pattern)
    return fnmatchcase(name, pattern)


def check_pattern(pattern: str) -> None:
    """Raise InputError for a pattern of names that is longer than any name."""
    if len(pattern) > LONGEST:
        raise InputError(
            f"a pattern of names must have at most {LONGEST:,} characters, not {len(pattern):,} as "
            f"{shown(pattern[:40])}; shorten it with *"
        )
