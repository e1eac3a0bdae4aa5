"""Layer sparsities: which share of its weights each layer keeps, for machines that skip zeros one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ..errors import InputError
from ..patterns import SCOPES, Pattern
from ..pruning import Masks, Weights, balanced, magnitude
from .space import Space, own_layers, search_layers
from .trained import Trained

LEAST = 0.005  # the smallest share of a layer's weights that may be left
STEPS = 160  # densities a layer, each 3.4 % above the one before


class SparsitySpace(Space):
    """Densities of layers: choice i is the share of the weights of layer i that stay, those of largest magnitude."""

    kind: ClassVar[str] = "sparsity"

    def __init__(
        self,
        trained: Trained,
        *,
        steps: int = STEPS,
        least: float = LEAST,
        pe_count: int | None = None,
        scope: str = "pe",
    ) -> None:
        """Make the space of ``steps`` densities a layer from ``least`` to 1, each the same multiple of the one before.

        ``pe_count``: every processing element keeps the same share of its rows, as
        `gossamer.workloads.pruning.balanced` has it with ``scope``; one threshold a layer without.
        """
        if steps < 2:
            raise InputError(f"steps must be at least 2, not {steps}")
        if not 0 < least < 1:
            raise InputError(f"least must be a share above 0 and below 1, not {least}")
        if pe_count is not None and (pe_count < 1 or scope not in SCOPES):
            raise InputError(
                f"balanced layers need pe_count of at least 1 and scope {' or '.join(SCOPES)}, "
                f"not {pe_count} and {scope!r}"
            )
        self.trained, self.whole = trained, {}
        self.pe_count, self.scope = pe_count, scope
        choices = [*(least ** (1 - i / (steps - 1)) for i in range(steps - 1)), 1.0]
        self.layers = search_layers(trained, self.kind, list(trained.loop.full_masks()), lambda shape: choices)
        self.depends = own_layers(self.layers)

    def masks(self, choices: Sequence[float], ranks: Weights) -> Masks:
        """Return the masks of the largest ranks; at least one weight of a layer stays."""
        kept = {}
        for layer, choice in zip(self.layers, choices, strict=True):
            rank = ranks[layer.parameter]
            full = np.ones(rank.shape, bool)
            sparsity = min(1 - choice, 1 - 1 / rank.size)
            if self.pe_count is None:
                kept[layer.parameter] = magnitude(rank, full, sparsity)
            else:
                kept[layer.parameter] = balanced(rank, full, sparsity, self.pe_count, self.scope)
        return kept

    def pattern(self, parameter: str, mask: np.ndarray) -> Pattern:
        """Return the pattern of a mask of this space."""
        if mask.all():
            return Pattern(kind="dense")
        if self.pe_count is None:
            return Pattern(kind="unstructured")
        return Pattern(kind="balanced", pe_count=self.pe_count, scope=self.scope)
