"""How many numbers an array may have: few bytes must not ask for all the memory there is."""

ELEMENTS_LIMIT = 2**31
ALWAYS, EACH = 2**26, 2**10  # numbers that any file may stand for, and that each number in it may besides
SIZE_LIMIT = 2.0**48  # of a float of a layer: sums of products of as many as there may be stay within float32


def room(numbers: int) -> int:
    """Return how many numbers, zeros included, may be made of ``numbers`` that are there."""
    return min(ELEMENTS_LIMIT, ALWAYS + EACH * numbers)
