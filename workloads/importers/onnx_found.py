"""What an ONNX graph is found to hold: layers before they have inputs, products, and operators that are neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Values = Mapping[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Found:
    """A layer before it has inputs.

    ``weight`` (out, in, ...) float32. ``node`` reads it as its input number ``slot``, laid out so that ``to_node``
    turns a mask of ``weight`` into one of that. ``zero``: what a pruned weight is there. ``inputs`` names the array
    that it is fed with, which ``fed`` turns, all values known, into a trace's inputs and attributes.
    """

    layer: str
    op: str
    node: int
    slot: int
    weight: np.ndarray
    bias: np.ndarray | None
    inputs: str
    fed: Callable[[np.ndarray, Values], tuple[np.ndarray, dict[str, Any]]]
    to_node: Callable[[np.ndarray], np.ndarray] = field(default=lambda mask: mask)
    zero: np.ndarray | None = None
    flat: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Product:
    """A product of two activations: of the arrays ``left`` and ``right``, transposed where it says so."""

    layer: str
    node: int
    left: str
    right: str
    transposed: tuple[bool, bool] = (False, False)


@dataclass(frozen=True, eq=False)
class Layers:
    """What a graph holds: layers and products in order, by operator why it is none, and how many operate on values."""

    found: list[Found | Product]
    left: dict[str, str]
    beside: dict[str, int]
