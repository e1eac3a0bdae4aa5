"""Dynamic sparsity: what an input lets a network skip. Traces go in, traces with less work come out."""

from .spatial import edit_layers
from .temporal import delta_layers, shift_layers
from .tokens import prune_tokens

__all__ = ["delta_layers", "edit_layers", "prune_tokens", "shift_layers"]
