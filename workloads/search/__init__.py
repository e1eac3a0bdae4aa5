"""Searches for how much of each layer to keep, judged by what a machine simulates. Need the extra `train`.

A search is given a `Space`, all that may be taken out of one trained network, and a `Cost`, a function of a trace; it
knows of no machine. `Candidate` is a point of the space: a pruned network that can be traced, measured and trained on.
"""

from .space import Candidate, Cost, SearchLayer, Space
from .trained import Trained

__all__ = ["Candidate", "Cost", "SearchLayer", "Space", "Trained"]
