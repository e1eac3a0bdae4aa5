"""Layers drawn from declared statistics, one file a kind: `eie` and any random layer, `gemm`, `ese`, `vgg`.

Clouds of points are drawn by `gossamer.workloads.points`.
"""

from .eie import EIE_LAYERS, eie_layer, random_layer
from .gemm import gemm_layer

__all__ = ["EIE_LAYERS", "eie_layer", "gemm_layer", "random_layer"]
