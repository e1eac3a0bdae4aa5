"""Clouds of points to draw from, for the tests of what maps them."""

import numpy as np
from hypothesis import strategies as st


def clouds(low, high, least=0, most=30):
    """Return a strategy of clouds: int32 (n, 3) with coordinates from ``low`` to ``high``, each cell once."""
    cells = st.integers(low, high)
    rows = st.lists(st.tuples(cells, cells, cells), min_size=least, max_size=most, unique=True)
    return rows.map(lambda drawn: np.array(drawn, np.int32).reshape(-1, 3))
