"""How a trace is run: engines, results, energy, timelines, sweeps."""

from .result import Result, read_result
from .simulate import simulate

__all__ = ["Result", "read_result", "simulate"]
