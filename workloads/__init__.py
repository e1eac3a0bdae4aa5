"""What is run: pruned networks with their activations, the files they come in, and the formats hardware keeps them in.

from gossamer.workloads import load_trace

A `trace` keeps its `rules` and the `patterns` of its weights. It comes in by `load`, out of `files`, by `importers` of
other people's models, from `training` (`recipes`, `data`, `networks`, `pruning`, `search`), from `synth` or from
`points`; `dynamic`, `lstm_unroll` make one of another. Machines are given its layers by `lowering` and `gemm`, in the
storage `formats` of their hardware.
"""

from .errors import InputError
from .files.trace_file import save_trace
from .load import load_trace
from .trace import Layer, Trace

__all__ = ["InputError", "Layer", "Trace", "load_trace", "save_trace"]
