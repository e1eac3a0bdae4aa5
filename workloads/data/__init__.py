"""Data sets, split into training and test samples: what a recipe names under ``data``."""

from .known import DATA, load_data
from .samples import Data

__all__ = ["DATA", "Data", "load_data"]
