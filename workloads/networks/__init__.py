"""Networks that a recipe names under ``network``: built on demand, so that listing them needs no torch."""

from .known import NETWORKS, build_network, mlp

__all__ = ["NETWORKS", "build_network", "mlp"]
