"""Other people's models as traces: PyTorch modules, state dicts and ONNX files, with masks as pruning tools leave them.

from gossamer.workloads.importers import import_model
"""

from .door import import_model, notes_of

__all__ = ["import_model", "notes_of"]
