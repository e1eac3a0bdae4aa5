"""N:M choices: how many of every M consecutive weights each layer keeps, for machines that skip in such groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ..errors import InputError
from ..patterns import Pattern
from ..pruning import Masks, Weights
from ..pruning.structured import n_of_m
from .space import Space, own_layers, search_layers
from .trained import Trained


class NmSpace(Space):
    """N of N:M a layer: choice i is n / m, the largest n of every m weights along the input channels staying."""

    kind: ClassVar[str] = "nm"

    def __init__(self, trained: Trained, *, m: int = 4, ns: Sequence[int] = (2,)) -> None:
        """Make the space of ``ns`` of every ``m``; m of m, a dense layer, is always a choice.

        Input channels that are no whole number of groups end in a short one, of which the same share is kept.
        """
        if m < 2 or not ns or not all(1 <= n <= m for n in ns):
            raise InputError(f"n of n:m must be between 1 and m, and m at least 2, not {list(ns)} of {m}")
        self.trained, self.whole, self.m = trained, {}, m
        choices = [n / m for n in sorted({*ns, m})]
        self.layers = search_layers(trained, self.kind, list(trained.loop.full_masks()), lambda shape: choices)
        self.depends = own_layers(self.layers)

    def n_of(self, choice: float) -> int:
        """Return the n of a choice."""
        return round(choice * self.m)

    def masks(self, choices: Sequence[float], ranks: Weights) -> Masks:
        """Return the masks of the largest ranks of each group."""
        kept = {}
        for layer, choice in zip(self.layers, choices, strict=True):
            rank = ranks[layer.parameter]
            kept[layer.parameter] = n_of_m(rank, np.ones(rank.shape, bool), self.n_of(choice), self.m, pad=True)
        return kept

    def pattern(self, parameter: str, mask: np.ndarray) -> Pattern:
        """Return n:m, n being the smallest of the space that the mask keeps; dense for a full mask."""
        if mask.all():
            return Pattern(kind="dense")
        lanes = np.moveaxis(mask, 1, -1)
        lanes = np.pad(lanes, [(0, 0)] * (lanes.ndim - 1) + [(0, -lanes.shape[-1] % self.m)])
        n = int(lanes.reshape(*lanes.shape[:-1], -1, self.m).sum(axis=-1).max())
        return Pattern(kind="n:m", n=n, m=self.m, axis=1)
