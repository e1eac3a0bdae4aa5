"""The one error a user of this package meets for bad input."""


class InputError(ValueError):
    """What the user gave breaks a rule: the message names the place, the rule, the value met and what would do.

    The command line prints the message alone and leaves with status 2; anything else that escapes is a defect.
    """
