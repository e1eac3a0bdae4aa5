"""Whether what a layer takes fits the kernels' whole numbers of 64 bits: asked once, before they count."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ...workloads.errors import InputError

MOST = 1 << 62  # two of them can still be added


def check_count(
    config: Any,
    taken: Mapping[str, int | Fraction],
    *,
    times: int | Fraction = 1,
    per_cycle: int = 1,
    what: str = "cycles",
) -> None:
    """Raise InputError, naming fields of ``config``, where all that is ``taken`` could leave 64 bits.

    ``taken``: the most that one thing and another could take, in ticks of which a cycle has ``per_cycle``, by the
    fields that it follows from, spaces between. ``times``: how often kernels add it up, or the largest number that
    they multiply it by. ``what``: is counted, where it is not cycles.
    """
    most, together = int(MOST / Fraction(max(times, 1))), int(sum(taken.values()))
    if together < most:
        return
    fields = max(taken, key=lambda name: taken[name]).split()
    met = ", ".join(f"{name} = {getattr(config, name):g}" for name in fields)
    raise InputError(
        f"a layer must come to fewer than {_short(most // per_cycle)} {what} to be counted in 64 bits, and could come "
        f"to {_short(together // per_cycle)} with {met}; choose nearer ones"
    )


def share_of(ticks: Any, part: int, whole: int) -> Any:
    """Return ``ticks`` x ``part`` // ``whole``, exactly; the product itself may be beyond 64 bits, whole x part not."""
    return ticks // whole * part + ticks % whole * part // whole


def _short(number: int) -> str:
    """Return ``number`` in a few digits: no float may hold it."""
    digits = str(max(number, 1))
    return digits if len(digits) < 5 else f"{digits[0]}.{digits[1]}e+{len(digits) - 1}"
