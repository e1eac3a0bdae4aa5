"""What is run: pruned networks with their activations, the files they come in, and the formats hardware keeps them in.

from gossamer.workloads import load_trace
"""

from .errors import InputError
from .files.trace_file import save_trace
from .load import load_trace
from .trace import Layer, Trace

__all__ = ["InputError", "Layer", "Trace", "load_trace", "save_trace"]
