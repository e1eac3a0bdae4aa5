"""The one error a user of this package meets for bad input."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 8000  # characters of a message, which may name all the layers of a network


def shown(value: object) -> str:
    """Return ``value``, of whatever kind a file gave, as a message shows it: cut where it goes on and on."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # lists in lists in lists; a number of thousands of digits
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= 200 else text[:197] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean X?)" for up to three in ``known`` that begin with ``name``, else for the likest; or ""."""
    names = {each.casefold(): each for each in known}
    text = name.casefold()
    close = [each for each in names if text and each.startswith(text)]
    if not 1 <= len(close) <= 3:
        close = difflib.get_close_matches(text, list(names), 1, cutoff=0.65)
    words = " or ".join(names[each] for each in close).replace(" or ", ", ", len(close) - 2)
    return f" (did you mean {words}?)" if close else ""


class InputError(ValueError):
    """What the user gave breaks a rule: the message names the place, the rule, the value met and what would do.

    The command line prints the message alone and leaves with status 2; anything else that escapes is a defect.
    The message is one line, whatever a file has put into it: what cannot be printed stands there as Python writes it,
    and what goes on and on, a name of a file's perhaps, is cut in the middle.
    """

    def __str__(self) -> str:
        text = super().__str__()
        text = text if len(text) <= LONGEST else f"{text[: LONGEST - 1000]} ... {text[-900:]}"
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
