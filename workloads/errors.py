"""The one error a user of this package meets for bad input."""


def shown(value: object) -> str:
    """Return ``value``, of whatever kind a file gave, as a message shows it: cut where it goes on and on."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # lists in lists in lists; a number of thousands of digits
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= 200 else text[:197] + "..."


class InputError(ValueError):
    """What the user gave breaks a rule: the message names the place, the rule, the value met and what would do.

    The command line prints the message alone and leaves with status 2; anything else that escapes is a defect.
    The message is one line, whatever a file has put into it: what cannot be printed stands there as Python writes it.
    """

    def __str__(self) -> str:
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in super().__str__())
