"""A trace: a pruned network, layer by layer, with the activations that real samples gave it.

Everything here is frozen and checked when it is made: a `Trace` that exists keeps every rule of `rules`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from .blocks import row_blocks
from .errors import InputError
from .layer import Layer
from .rules import ARRAYS, DTYPES, UNTRAINED, VERSION, check_layer, check_name, plain_json
from .streamed import StreamedLayers

__all__ = ["ARRAYS", "DTYPES", "VERSION", "Layer", "Trace", "check_layer", "check_name"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace:
    """A pruned network with its activations: layers in order, and where they come from.

    ``provenance`` is plain JSON data: network, data, recipe with its hyperparameters, seed, accuracy, sparsity, source.
    """

    name: str
    layers: Sequence[Layer]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("trace name", self.name)
        if not isinstance(self.layers, StreamedLayers):
            object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise InputError(f"trace {self.name}: at least one layer is needed, not 0")
        seen: set[str] = set()
        for name in self.names:
            if name in seen:
                raise InputError(f"trace {self.name}: layer names must differ, and {name!r} occurs twice; rename one")
            seen.add(name)
        try:
            plain = plain_json(self.provenance, "provenance")
            if not isinstance(plain, dict):
                raise InputError(f"provenance must be a dict, not {type(plain).__name__}")
        except RecursionError:
            raise InputError(f"trace {self.name}: provenance must not be nested without end; flatten it") from None
        except InputError as error:
            raise InputError(f"trace {self.name}: {error}") from None
        object.__setattr__(self, "provenance", plain)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the layers, in order."""
        layers = self.layers
        return layers.names if isinstance(layers, StreamedLayers) else tuple(layer.name for layer in layers)

    @property
    def sparsity(self) -> float:
        """Return the fraction of all trained weights that are zero."""
        return self._summary[1]

    @property
    def sha256(self) -> str:
        """Return the hash of everything in the trace, whichever file or program it came from (hexadecimal).

        Zero and negative zero count as the same number.
        """
        return self._summary[0]

    def each_layer(self) -> Iterator[Layer]:
        """Yield the layers in order, and learn the trace's hash and sparsity on the way.

        Layers that stay in their file are then read once for everything. Let go of each before asking for the next.
        """
        summary = None if "_summary" in self.__dict__ else _Summary(self.name, self.provenance)
        for index in range(len(self.layers)):
            layer = self.layers[index]
            if summary is not None:
                summary.add(layer)
            yield layer
            del layer
        if summary is not None:
            self.__dict__["_summary"] = summary.found()

    @cached_property
    def _summary(self) -> tuple[str, float]:
        summary = _Summary(self.name, self.provenance)
        for layer in self.layers:
            summary.add(layer)
            del layer  # or it would be in memory together with the next
        return summary.found()


class _Summary:
    """What is known of a trace once its layers were added: its hash, and the share of trained weights that are 0."""

    def __init__(self, name: str, provenance: Mapping[str, Any]) -> None:
        head = {"name": name, "provenance": provenance}
        self._digest = hashlib.sha256(msgspec.json.encode(head, order="deterministic"))
        self._size = self._kept = 0

    def add(self, layer: Layer) -> None:
        _digest(layer, self._digest)
        if layer.op not in UNTRAINED:
            self._size += layer.size
            self._kept += layer.nonzeros

    def found(self) -> tuple[str, float]:
        return self._digest.hexdigest(), 1 - self._kept / self._size if self._size else 0.0


def _digest(layer: Layer, digest: hashlib._Hash) -> None:
    pattern = {f.name: getattr(layer.pattern, f.name) for f in fields(layer.pattern)}
    about = [layer.name, layer.op, dict(layer.attributes), pattern]
    digest.update(msgspec.json.encode(about, order="deterministic"))
    for name in ARRAYS:
        array = layer.array(name)
        if array is None:
            continue
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        flat = np.ascontiguousarray(array).reshape(-1)
        for numbers in row_blocks(flat):
            part = flat[numbers]
            if part.dtype.kind == "f":
                part = part + part.dtype.type(0)  # -0.0 becomes 0.0
            digest.update(part.data)
