"""What a layer of a trace is given: the fields of `layer.Layer`, before the rules have seen them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .patterns import Pattern


def _nothing() -> Any:
    return None


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerFields:
    """The fields of a `Layer`, which says what each of them means; of these the `rules` judge."""

    name: str
    op: str
    inputs: np.ndarray = field(default_factory=_nothing)
    # default_factory, not default: a class attribute would hide __getattr__, which makes the weight of coded layers.
    weight: np.ndarray = field(default_factory=_nothing)
    bias: np.ndarray | None = None
    mask: np.ndarray | None = None
    codes: np.ndarray | None = None
    bias_codes: np.ndarray | None = None
    codebook: np.ndarray | None = None
    coordinates: np.ndarray | None = None
    output_coordinates: np.ndarray | None = None
    queries: np.ndarray | None = None
    gather: np.ndarray | None = None
    projection: np.ndarray | None = None
    peephole: np.ndarray | None = None
    pattern: Pattern = field(default_factory=Pattern)
    attributes: Mapping[str, Any] = field(default_factory=dict)
