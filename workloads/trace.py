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
from .patterns import Pattern
from .rules import ARRAYS, DEFAULTS, DTYPES, UNTRAINED, VERSION, check_layer, check_name, plain_json
from .streamed import StreamedLayers

__all__ = ["ARRAYS", "DTYPES", "VERSION", "Layer", "Trace", "check_layer", "check_name"]


NO_WEIGHT = np.zeros(0, np.float32)
NO_WEIGHT.flags.writeable = False


def _nothing() -> Any:
    return None


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One layer of a trace.

    ``weight`` is float32, zero where pruned. A layer may instead carry ``codes`` (uint8, same shape, 0 = pruned) with
    their ``codebook`` (float32, entry 0 is 0.0); its ``weight`` is then ``codebook[codes]``, made when first asked for.
    ``bias`` is (out,), or ``bias_codes`` into the same codebook. ``mask`` is True where a weight was kept; without one
    every nonzero weight was. ``inputs`` is float32, the activations this layer was fed, of at least one sample.
    By ``op``:

    - ``linear``: weight (out, in), inputs (batch, ..., in). Rows that were gathered from a table of points say from
      which row: ``gather``, int32, the shape of the inputs without the last axis. Attributes, for dense layers that
      follow one another on the same rows: ``chain``, the widths from the first input to the last output, and
      ``chain_index``, which of them this one is; and ``samples``, as of a convolution.
    - ``conv2d``: weight (out, in / groups, height, width), inputs (batch, in, height, width). Attributes: stride,
      padding, dilation (pairs) and groups; ``samples``, where it is not the batch: how many samples its inputs are
      parts of.
    - ``lstm``: weight (4C, features + R), the gates below one another in torch's order i, f, g, o, columns for the
      input first, then for the last hidden state; inputs (samples, steps, features), the first states being 0. R is C,
      or P with a ``projection`` (P, C), which makes the hidden state of what the cells give. ``peephole`` (3, C): what
      i, f and o see of the cells. Each gate's two matrices and the projection keep the pattern, each on its own.
    - ``matmul``: weight (products, out, in) and inputs (products, rows, in), both activations: product p is
      inputs[p] @ weight[p].T. Attribute ``samples``: how many samples the products belong to.
    - ``sparse_conv3d``: weight (out, in, kernel_size ** 3), the offsets of a kernel in order of x, then y, then z;
      ``coordinates`` (n, 3) int32 of the points, all different, with inputs (n, in), or none where only the geometry is
      known; ``output_coordinates`` (m, 3) where they differ. Attributes: kernel_size; stride; tensor_stride, the
      spacing of the finer side; transposed; builds_map, False where an earlier layer left the same map.
    - ``point_op``: no weight. Attribute ``kind``: ``quantise`` (voxel_size), ``fps`` (samples), ``knn`` (k) or
      ``ball_query`` (k, radius, order "nearest" or "index"), on inputs (n, dimensions), the points, and, for the
      neighbours of other points than these, ``queries`` (m, dimensions).

    Raises InputError, naming layer, tensor, rule and value, for anything that breaks the rules.
    """

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

    def __post_init__(self) -> None:
        check_layer(self)
        for name in ARRAYS:
            array = self.__dict__.get(name)
            if array is not None:
                # A copy where someone could still write: torch's arrays go on changing while it trains.
                array = np.array(array, order="C", copy=True if array.flags.writeable else None)
                array.flags.writeable = False
                object.__setattr__(self, name, array)
        attributes = DEFAULTS.get(self.op, {}) | dict(self.attributes)
        plain = {name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()}
        object.__setattr__(self, "attributes", plain)
        if self.op == "point_op":
            self.__dict__["weight"] = NO_WEIGHT
        elif self.__dict__["weight"] is None:
            del self.__dict__["weight"]

    def __getattr__(self, name: str) -> Any:
        if name != "weight":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        assert self.codes is not None and self.codebook is not None
        weight = self.codebook[self.codes]
        weight.flags.writeable = False
        self.__dict__["weight"] = weight
        return weight

    def array(self, name: str) -> np.ndarray | None:
        """Return the array called ``name`` that the layer was given, or None; a coded layer was given no weight."""
        if name == "weight" and (self.codes is not None or self.op == "point_op"):
            return None
        array: np.ndarray | None = self.__dict__.get(name)
        return array

    @property
    def kept(self) -> np.ndarray:
        """The array whose nonzeros are the weights that are left: the codes where there are any, else the weight."""
        return self.weight if self.codes is None else self.codes

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the weight."""
        return self.kept.shape

    @property
    def samples(self) -> int:
        """Count the samples behind the inputs; a cloud of points is one."""
        if self.op in ("sparse_conv3d", "point_op"):
            return 1
        return int(self.attributes.get("samples", len(self.inputs)))

    @property
    def has_bias(self) -> bool:
        """Tell whether the layer adds a bias."""
        return self.bias is not None or self.bias_codes is not None

    @property
    def size(self) -> int:
        """Count the weights, zeros included: those of the weight, and of a projection."""
        return self.kept.size + (0 if self.projection is None else self.projection.size)

    @cached_property
    def nonzeros(self) -> int:
        """Count the weights that are left."""
        projected = 0 if self.projection is None else np.count_nonzero(self.projection)
        return int(np.count_nonzero(self.kept) + projected)

    @property
    def sparsity(self) -> float:
        """Return the fraction of weights that are zero."""
        return 1 - self.nonzeros / self.size if self.size else 0.0


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
